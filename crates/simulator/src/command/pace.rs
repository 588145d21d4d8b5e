//! How a replay goes on: by itself, up to a condition, or line by line on somebody's word.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;

/// Where a replay stops.
#[derive(Args)]
pub(super) struct Pace {
    /// Stop at this time, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) until: Option<f64>,
    /// Stop at the first line that contains this text, as "leads" or "init-claimed".
    #[arg(long, value_name = "TEXT")]
    pub(super) break_on: Option<String>,
    /// Stop after every line, and go on as told on standard input: Enter is the next line, `b TEXT` goes to a line with
    /// that text, `c` goes on to the end, `s` shows the state, `q` ends.
    #[arg(long)]
    pub(super) step: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 && seconds.is_finite() => Ok(seconds),
        _ => Err("expected seconds, as 12.5".to_owned()),
    }
}

/// What comes after a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next line.
    Line,
    /// The state, and then the same question.
    Show,
    /// Nothing: the replay ends here.
    Stop,
}

impl Pace {
    /// The last microsecond that is replayed.
    pub(super) fn until_us(&self) -> u64 {
        self.until.map_or(u64::MAX, |seconds| (seconds * 1e6) as u64)
    }

    /// What follows `line`.
    pub(super) fn after(&mut self, line: &str) -> Next {
        let met = self.break_on.as_ref().is_some_and(|wanted| line.contains(wanted.as_str()));
        match (self.step, met) {
            (false, false) => Next::Line,
            (false, true) => Next::Stop,
            // On its way to a line: the question comes there.
            (true, false) if self.break_on.is_some() => Next::Line,
            (true, _) => {
                self.break_on = None;
                self.ask()
            }
        }
    }

    /// Asks on the terminal; the end of the input goes on to the end.
    pub(super) fn ask(&mut self) -> Next {
        if std::io::stdin().is_terminal() {
            eprint!("Enter, b TEXT, c, s, q> ");
            let _ = std::io::stderr().flush();
        }
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line).unwrap_or(0);
        match line.trim() {
            _ if read == 0 => self.step = false,
            "" | "n" => {}
            "c" => self.step = false,
            "s" => return Next::Show,
            "q" => return Next::Stop,
            other => match other.strip_prefix("b ") {
                Some(text) => self.break_on = Some(text.trim().to_owned()),
                None => {
                    eprintln!("{other:?} is not understood: Enter, b TEXT, c, s, q");
                    return self.ask();
                }
            },
        }
        Next::Line
    }
}

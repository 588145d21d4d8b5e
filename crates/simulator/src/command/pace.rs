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
    /// Whether a line with the text came.
    #[arg(skip)]
    pub(super) met: bool,
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
        self.met |= met;
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

    /// What is wrong if the text to stop at never came: who waits for a line that there is not should not take the end for it.
    pub(super) fn missed(&self) -> Option<String> {
        let wanted = self.break_on.as_ref().filter(|_| !self.met)?;
        let until = self.until.map_or("to the end".to_owned(), |until| format!("up to {until} s"));
        Some(format!("no line that was shown contains {wanted:?}, {until}: the replay never stopped there"))
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
                Some(text) => {
                    self.break_on = Some(text.trim().to_owned());
                    self.met = false;
                }
                None => {
                    eprintln!("{other:?} is not understood: Enter, b TEXT, c, s, q");
                    return self.ask();
                }
            },
        }
        Next::Line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(wanted: Option<&str>, until: Option<f64>) -> Pace {
        Pace { until, break_on: wanted.map(str::to_owned), step: false, met: false }
    }

    #[test]
    fn a_text_that_never_came_is_named_and_one_that_came_is_not() {
        let mut waits = pace(Some("leads"), Some(2.5));
        assert_eq!(waits.after("node-1 boots"), Next::Line);
        let why = waits.missed().expect("it did not come");
        assert!(why.contains("\"leads\"") && why.contains("up to 2.5 s"), "{why}");
        assert_eq!(waits.after("node-1 leads in term 1"), Next::Stop);
        assert_eq!(waits.missed(), None);
        assert_eq!(pace(None, None).missed(), None);
    }
}

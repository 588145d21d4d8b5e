//! What stands above the login prompt of this machine's consoles: who it is, and what it waits for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use muster_protocol::Status;
use tracing::debug;

use super::Shell;

/// Where agetty looks for pieces of what it prints before a login: issue(5) of util-linux 2.35.
const DIRECTORY: &str = "/run/issue.d";

/// How often it is looked whether something else is to stand there.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// Most sentences of why that are shown; the rest is `muster explain`'s.
const SENTENCES: usize = 4;

/// The consoles of a machine that has some.
#[derive(Debug)]
pub(super) struct Console {
    file: PathBuf,
    told: String,
}

impl Console {
    /// Those of this machine.
    pub(super) fn begin() -> Self {
        Self::at(Path::new(DIRECTORY))
    }

    fn at(directory: &Path) -> Self {
        Self { file: directory.join("50-muster.issue"), told: String::new() }
    }

    /// Shows what a machine says of itself, and does nothing if that stands there already.
    fn show(&mut self, status: &Status) {
        let text = text(status);
        if text == self.told {
            return;
        }
        match self.write(&text) {
            Ok(()) => {
                // Whoever types there is not interrupted for a second that has passed.
                if without_times(&text) != without_times(&self.told) {
                    reload();
                }
                self.told = text;
            }
            // A machine without /run has no login prompts either.
            Err(error) => debug!("{}: {error}", self.file.display()),
        }
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        if let Some(directory) = self.file.parent() {
            fs::create_dir_all(directory)?;
        }
        let part = self.file.with_extension("part");
        fs::write(&part, text)?;
        fs::rename(part, &self.file)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // What an agent said that is gone holds no more.
        let _ = fs::remove_file(&self.file);
    }
}

/// Has the prompts that wait print it anew. Where there are none, or another program's, nothing happens.
fn reload() {
    let mut agetty = tokio::process::Command::new("/sbin/agetty");
    agetty.arg("--reload").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(mut child) = agetty.spawn() {
        tokio::spawn(async move { child.wait().await });
    }
}

/// The text without numbers of seconds, as in "since 14 s".
fn without_times(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_unit = |word: &&str| word.trim_end_matches([',', ';', ')', ':']) == "s";
    let is_time =
        |at: usize| words[at].bytes().all(|byte| byte.is_ascii_digit()) && words.get(at + 1).is_some_and(is_unit);
    words.iter().enumerate().filter(|(at, _)| !is_time(*at)).map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
}

/// agetty puts the machine's addresses in place of `\4` and `\6`; any other backslash is doubled.
fn text(status: &Status) -> String {
    let plain = |text: &str| text.replace('\\', "\\\\");
    let (name, cluster) = (plain(&status.name), plain(&status.cluster));
    let mut text = format!("muster: {name} of cluster {cluster}, at \\4 \\6: {}\n", status.phase.word());
    for reason in status.waiting.iter().take(SENTENCES) {
        text += &format!("  {}\n", plain(&reason.text));
    }
    text + "\n"
}

impl Shell {
    /// Has this machine's consoles say what is so now, where it has some.
    pub(super) fn show_on_console(&mut self) {
        if let Some(mut console) = self.console.take() {
            console.show(&self.told());
            self.console = Some(console);
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::{Reason, Topic};

    use super::*;

    fn status(waiting: &[&str]) -> Status {
        let reason = |text: &&str| Reason { about: Topic::Founding, text: (*text).to_owned(), machines: Vec::new() };
        Status {
            name: "m1".into(),
            cluster: "site".into(),
            waiting: waiting.iter().map(reason).collect(),
            ..Status::default()
        }
    }

    #[test]
    fn a_console_says_who_and_why_and_no_word_of_it_is_agettys() {
        let text = text(&status(&["founding: 2 of 3 votes", "\\l"]));
        assert_eq!(text, "muster: m1 of cluster site, at \\4 \\6: Meeting\n  founding: 2 of 3 votes\n  \\\\l\n\n");
    }

    #[test]
    fn what_an_agent_said_goes_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let console = Console::at(&directory.path().join("issue.d"));
        console.write("one").expect("written");
        assert_eq!(fs::read_to_string(&console.file).expect("read"), "one");
        let file = console.file.clone();
        drop(console);
        assert!(!file.exists());
    }

    #[test]
    fn a_second_that_has_passed_is_no_news() {
        let shown = |seconds: u32, here: u32| {
            without_times(&format!(
                "{here} of 3 are here (m-1, last heard {seconds} s ago), since {seconds} s\nmDNS: {seconds} s ago"
            ))
        };
        assert_eq!(shown(3, 1), shown(140, 1));
        assert_ne!(shown(3, 1), shown(3, 2));
    }
}

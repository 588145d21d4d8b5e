//! What is wrong in a configuration, said with its place.

use std::fmt::Write as _;
use std::ops::Range;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nobody gave it.
    Default,
    /// These bytes of muster.toml.
    File(Range<usize>),
    /// This line, counted from 1, of a muster.toml beside the image's; 0 is all of it.
    Beside(Beside, usize),
    /// The kernel command line.
    Kernel,
    /// A flag of `muster run`.
    Flag,
}

impl Place {
    /// Whether two values were given in one place.
    pub(crate) fn is_beside(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Beside(one, _), Place::Beside(other, _)) => one == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// A muster.toml beside the image's, with what is one machine's own: the later overrides the earlier, and both the image's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
pub(crate) enum Beside {
    /// Of a volume; below the kernel command line.
    #[strum(to_string = "volume MUSTER")]
    Volume,
    /// Of the service manager, who has it of the firmware or the hypervisor; above the kernel command line.
    #[strum(to_string = "credential muster.toml")]
    Credential,
}

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Whether muster runs all the same.
    pub(crate) warning: bool,
    /// Where.
    pub(crate) place: Place,
    /// What, naming the key, with what is accepted or a suggestion.
    pub(crate) text: String,
}

impl Problem {
    /// Something that must be mended.
    pub(crate) fn error(place: Place, text: impl Into<String>) -> Self {
        Self { warning: false, place, text: text.into() }
    }

    /// Something that should be known.
    pub(crate) fn warning(place: Place, text: impl Into<String>) -> Self {
        Self { warning: true, place, text: text.into() }
    }
}

/// The text of muster.toml and its path, to show problems in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// The path as the user named it.
    pub(crate) path: &'a str,
    /// The file's text.
    pub(crate) text: &'a str,
}

impl Source<'_> {
    /// The line a byte lies in, counted from 1.
    pub(crate) fn line(&self, byte: usize) -> usize {
        line(self.text, byte)
    }

    /// One problem as people read it. A line that may hold a key is never shown.
    pub(crate) fn show(&self, problem: &Problem) -> String {
        let word = if problem.warning { "warning" } else { "error" };
        let mut shown = String::new();
        match &problem.place {
            Place::Default => _ = write!(shown, "{word}: {}: {}", self.path, problem.text),
            Place::Kernel => _ = write!(shown, "{word}: kernel command line: {}", problem.text),
            Place::Flag => _ = write!(shown, "{word}: command line: {}", problem.text),
            Place::Beside(beside, 0) => _ = write!(shown, "{word}: {beside}: {}", problem.text),
            Place::Beside(beside, line) => _ = write!(shown, "{word}: {beside}, line {line}: {}", problem.text),
            Place::File(span) => {
                let line = self.line(span.start);
                _ = write!(shown, "{word}: {}:{line}: {}", self.path, problem.text);
                let text = self.text.lines().nth(line - 1).unwrap_or_default();
                if !may_hold_key(text) && !text.trim().is_empty() && text.len() <= 160 {
                    let before = self.text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
                    let column = self.text[before..span.start].chars().count();
                    let width =
                        self.text.get(span.clone()).map_or(1, |part| part.lines().next().unwrap_or("").chars().count());
                    let indent = " ".repeat(line.to_string().len());
                    let marks = "^".repeat(width.max(1));
                    _ = write!(shown, "\n {line} | {text}\n {indent} | {}{marks}", " ".repeat(column));
                }
            }
        }
        shown
    }

    /// All problems, one after the other.
    pub(crate) fn show_all(&self, problems: &[Problem]) -> String {
        problems.iter().map(|problem| self.show(problem)).collect::<Vec<_>>().join("\n")
    }
}

/// The line of a text that a byte lies in, counted from 1.
pub(crate) fn line(text: &str, byte: usize) -> usize {
    text.as_bytes()[..byte.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Whether a line may hold a mesh key, whatever name a slip gave it.
pub(crate) fn may_hold_key(line: &str) -> bool {
    const SUSPICIOUS: usize = 24;
    line.contains("mesh_key") || line.split(|c: char| !c.is_ascii_hexdigit()).any(|run| run.len() >= SUSPICIOUS)
}

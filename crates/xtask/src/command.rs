//! Other programs: started without a shell, and an error that carries what they said.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Longest part of a program's error output that goes into our own error, in bytes.
const STDERR_BYTES_MAX: usize = 4000;

/// A command that gets no input and whose output is captured.
pub(crate) fn command<I>(program: impl AsRef<OsStr>, arguments: I) -> Command
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs a command to its end and returns its standard output; anything but success is an error with its last words.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start `{program}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", shown(command), output.status, tail(stderr.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `output` of a program and its arguments, for the many cases where nothing else is set.
pub(crate) fn run<I>(program: &str, arguments: I) -> Result<String>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    output(&mut command(program, arguments))
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(STDERR_BYTES_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_carries_what_the_program_said() {
        let error = run("sh", ["-c", "echo out; echo why >&2; exit 3"]).unwrap_err().to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
    }

    #[test]
    fn tail_never_cuts_a_character() {
        let text = "ä".repeat(STDERR_BYTES_MAX);
        assert!(tail(&text).len() <= STDERR_BYTES_MAX);
    }
}

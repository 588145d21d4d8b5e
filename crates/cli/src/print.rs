//! Printing that survives its reader: `muster status | head -1` closes the pipe, which is no mistake of anybody's.

use std::io::{self, ErrorKind, Write as _};

/// Prints text to standard output, and a line's end. Whether there is still somebody who reads.
///
/// # Errors
/// When it cannot be written for another reason, such as a full disk.
pub(crate) fn line(text: &str) -> anyhow::Result<bool> {
    raw(&format!("{text}\n"))
}

/// Prints text to standard output as it is. Whether there is still somebody who reads.
///
/// # Errors
/// As [`line()`].
pub(crate) fn raw(text: &str) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output")),
    }
}

/// Prints a line to standard error. Where that cannot be written, nobody could be told so either.
pub(crate) fn complaint(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

//! Printing that survives its reader: `muster status | head -1` closes the pipe, which is no mistake of anybody's.

use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;

use tokio::io::Interest;
use tokio::net::unix::pipe;

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

/// Ends when nobody reads standard output any more; never where that cannot be known, as of a file. Writing would tell, but a command
/// that waits for news may have nothing to write.
pub(crate) async fn unread() {
    let own = io::stdout().as_fd().try_clone_to_owned();
    // What is no pipe is as good; a file takes part in no polling.
    let Ok(out) = own.and_then(pipe::Sender::from_owned_fd_unchecked) else { return std::future::pending().await };
    if out.ready(Interest::ERROR).await.is_err() {
        std::future::pending().await
    }
}

/// Prints a line to standard error. Where that cannot be written, nobody could be told so either.
pub(crate) fn complaint(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

//! Printing that survives its reader: whoever closes the pipe has heard enough, and the work goes on.

use std::fmt::Arguments;
use std::io::{self, Write as _};

/// A line on standard output. Where it cannot be written nobody reads it.
pub(crate) fn line(text: Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// A line on standard error.
pub(crate) fn complaint(text: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Like `println!`, which panics when its reader is gone.
macro_rules! say {
    ($($words:tt)*) => { $crate::say::line(format_args!($($words)*)) };
}

/// Like `eprintln!`, which panics when its reader is gone.
macro_rules! complain {
    ($($words:tt)*) => { $crate::say::complaint(format_args!($($words)*)) };
}

pub(crate) use {complain, say};

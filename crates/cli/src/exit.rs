//! What the process's exit code says.

use std::process::ExitCode;

/// Every way in which a command ends. `muster --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what it should.
    Done,
    /// It did not, or not everything is Ready.
    Failed,
    /// The command line or the configuration is wrong.
    Wrong,
    /// No agent answers.
    NoAgent,
    /// Ctrl-C.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Wrong => 2,
            Exit::NoAgent => 3,
            Exit::Interrupted => 130,
        })
    }
}

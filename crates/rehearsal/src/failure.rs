//! Why a run ends badly, in kubeadm's words.

use std::fmt;

/// A failed run. kubeadm's exit code is 1 whatever failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure(String);

/// A failure with these words.
pub(crate) fn fail(words: impl Into<String>) -> Failure {
    Failure(words.into())
}

impl Failure {
    /// The failure as the phase that it happened in reports it.
    pub(crate) fn at(self, phase: &str) -> Self {
        Self(format!("error execution phase {phase}: {}", self.0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Adds what was being done to an error.
pub(crate) trait Doing<T> {
    /// `what` comes first, then the error.
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{what}: {error}")))
    }
}

//! Telling whoever waits how far a build is.

use std::time::{Duration, Instant};

use anyhow::Result;

/// A step of a build, for people and programs.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Step {
    /// What is done.
    pub name: String,
    /// About how long it takes on two idle cores, in seconds.
    pub about_s: u64,
}

/// Who is told. Called from one thread, in order.
pub trait Progress {
    /// A step begins.
    fn began(&self, step: &Step);
    /// It ended after `took`; `kept` if it was there from an earlier build.
    fn ended(&self, step: &Step, took: Duration, kept: bool);
}

/// Runs a step, and tells.
///
/// # Errors
/// Those of `act`, with the step's name.
pub(crate) fn step<T>(
    progress: &dyn Progress,
    name: &str,
    about_s: u64,
    act: impl FnOnce() -> Result<(T, bool)>,
) -> Result<T> {
    let step = Step { name: name.to_owned(), about_s };
    progress.began(&step);
    let begun = Instant::now();
    let (made, kept) = act().map_err(|error| error.context(step.name.clone()))?;
    progress.ended(&step, begun.elapsed(), kept);
    Ok(made)
}

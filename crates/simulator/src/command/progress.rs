//! Progress of what takes long, for people: nothing is shown where standard error is no terminal, or for programs.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::world::At;

/// How often a bar without news is drawn.
const TICK: Duration = Duration::from_millis(200);

fn bar(length: u64, template: &str, hidden: bool) -> ProgressBar {
    if hidden || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(length).with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}

/// Of many runs.
pub(super) fn runs(count: u64, hidden: bool) -> ProgressBar {
    bar(count, "{bar:30} {pos}/{len} runs  {per_sec}  {elapsed}, {eta} left", hidden)
}

/// Of one run, by its virtual time.
pub(super) struct OneRun(ProgressBar);

impl OneRun {
    pub(super) fn new(hidden: bool) -> Self {
        Self(bar(0, "{bar:30} {pos} of {len} virtual s  {elapsed}", hidden))
    }

    pub(super) fn tell(&self, now: At, end: At) {
        self.0.set_length(end / 1_000_000);
        self.0.set_position(now / 1_000_000);
    }
}

impl Drop for OneRun {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Of a search for fewer faults.
pub(super) struct Search(ProgressBar);

impl Search {
    pub(super) fn new(runs_max: u32, hidden: bool) -> Self {
        Self(bar(runs_max.into(), "{spinner} run {pos}, at most {len}: {msg}  {elapsed}", hidden))
    }

    pub(super) fn tell(&self, runs: u32, faults: usize) {
        self.0.set_position(runs.into());
        self.0.set_message(format!("{faults} faults still break it"));
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

//! Telling how far something long is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use muster_image::{Progress, Step};
use serde_json::json;

use crate::print;

/// Tells of steps: on a terminal with a clock that runs.
pub(super) struct Told {
    json: bool,
    bar: ProgressBar,
}

impl Told {
    pub(super) fn new(json: bool) -> Self {
        let style = ProgressStyle::with_template("{elapsed:>7}  {msg}");
        let bar = if json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self { json, bar }
    }
}

impl Progress for Told {
    fn began(&self, step: &Step) {
        if self.json {
            let _ = print::line(&json!({ "began": step.name, "about_s": step.about_s }).to_string());
            return;
        }
        self.bar.reset_elapsed();
        self.bar.set_message(format!("{} (about {} s)", step.name, step.about_s));
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn ended(&self, step: &Step, took: Duration, kept: bool) {
        if self.json {
            let told = json!({ "ended": step.name, "took_s": took.as_secs_f64(), "kept": kept });
            let _ = print::line(&told.to_string());
            return;
        }
        self.bar.disable_steady_tick();
        self.bar.suspend(|| {
            let kept = if kept { ", kept from before" } else { "" };
            print::complaint(&format!("{:6.1} s  {}{kept}", took.as_secs_f64(), step.name));
        });
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

//! JUnit's XML, as build servers read it: one case a seed, and one a seed that was run again.

use std::fmt::Write;

use crate::run::{Outcome, Verdict};
use crate::twice::Twice;

/// The results of a sweep.
pub fn text(title: &str, outcomes: &[Outcome], twice: &Twice) -> String {
    let failures = outcomes.iter().filter(|outcome| outcome.broken.is_some()).count() + twice.differ.len();
    let unknown = outcomes.iter().filter(|outcome| unjudged(outcome.verdict)).count();
    let seconds: f64 = outcomes.iter().map(|outcome| outcome.wall_us as f64 / 1e6).sum();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let title = escape(title);
    let _ = writeln!(
        text,
        "<testsuites>\n<testsuite name=\"{title}\" tests=\"{}\" failures=\"{failures}\" skipped=\"{unknown}\" time=\"{seconds:.3}\">",
        outcomes.len() + twice.seeds.len(),
    );
    for outcome in outcomes {
        let time = outcome.wall_us as f64 / 1e6;
        let _ = write!(text, "<testcase classname=\"{title}\" name=\"seed {}\" time=\"{time:.3}\">", outcome.name);
        if let Some(broken) = &outcome.broken {
            let _ = write!(text, "<failure type=\"{}\" message=\"{}\"/>", broken.promise, escape(&outcome.what()));
        } else if unjudged(outcome.verdict) {
            let _ = write!(text, "<skipped message=\"{}\"/>", escape(&outcome.what()));
        }
        text.push_str("</testcase>\n");
    }
    for seed in &twice.seeds {
        let _ = write!(text, "<testcase classname=\"{title}\" name=\"seed {seed} again\">");
        if let Some(differs) = twice.differ.iter().find(|differs| differs.seed == *seed) {
            let what = format!("hash {} in the sweep, {} in another process", differs.here, differs.there);
            let _ = write!(text, "<failure type=\"not deterministic\" message=\"{}\"/>", escape(&what));
        }
        text.push_str("</testcase>\n");
    }
    text.push_str("</testsuite>\n</testsuites>\n");
    text
}

/// Whether a verdict says nothing of the code.
fn unjudged(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::NotEnoughSeen | Verdict::AssumptionBroken | Verdict::NothingHappened)
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML 1.0 has no way to write these.
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

//! `muster-sim numbers`.

use std::io::IsTerminal;

use clap::Args;
use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, print_json};
use crate::cost;
use crate::numbers::{MEASUREMENTS, Number};
use crate::run::Verdict;

/// Measure how fast this simulator is, and how fast clusters form and heal in it.
///
/// Everything runs in one thread; times are those of its core, so other programs disturb little.
#[derive(Args)]
pub(super) struct Numbers {
    /// Measure less, to see that it works: fewer seeds, and 1,000 machines where 10,000 are meant.
    #[arg(long)]
    quick: bool,
    /// Only these measurements.
    #[arg(long, value_name = "NAME", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(MEASUREMENTS.map(|measurement| measurement.name)))]
    only: Vec<String>,
    /// Print one line of JSON a number.
    #[arg(long)]
    json: bool,
}

impl Numbers {
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        let progress = progress(self.json);
        let load = cost::load().map_or("unknown".to_owned(), |load| format!("{load:.1}"));
        if !self.json {
            println!("one thread; load of this computer at the start {load}\n");
        }
        let wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        for measurement in MEASUREMENTS.iter().filter(|measurement| wanted(measurement.name)) {
            let numbers = (measurement.measure)(self.quick, &|text| {
                progress.set_message(text);
                progress.tick();
            });
            for number in numbers {
                if self.json { print_json(&number)? } else { progress.suspend(|| print(&number)) }
            }
        }
        progress.finish_and_clear();
        Ok(Verdict::Held)
    }
}

/// A line that says what is being measured; nothing where nobody looks.
pub(super) fn progress(json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {elapsed}  {wide_msg}");
    ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn print(number: &Number) {
    let met = if number.met { "met" } else { "NOT met" };
    let value = number.value.map_or("not reached".to_owned(), |value| format!("{value:.1} {}", number.unit));
    println!("{}", number.what);
    println!("  {value}   (goal {} {}: {met}; measured for {:.1} s)", number.goal, number.unit, number.core_s);
    if !number.note.is_empty() {
        println!("  {}", number.note);
    }
    println!();
}

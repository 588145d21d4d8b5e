//! `muster-sim tables`.

use clap::Args;

use super::numbers::progress;
use super::{Failure, print_json};
use crate::run::Verdict;
use crate::tables::{ROWS, Row};

/// Print numbers from papers beside ours.
///
/// Rows are printed as they are made. ± is half of the 95 % confidence interval of the mean.
#[derive(Args)]
pub(super) struct Tables {
    /// Measurements a row, at most; rows that cost much take fewer.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// A tenth of the measurements, and only the rows that are made in seconds.
    #[arg(long)]
    quick: bool,
    /// Only the rows whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Print one line of JSON a row.
    #[arg(long)]
    json: bool,
}

impl Tables {
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        let progress = progress(self.json);
        let seeds = if self.quick { self.seeds.div_ceil(10) } else { self.seeds };
        for (name, long, make) in ROWS {
            if !name.contains(&self.only) || self.quick && long {
                continue;
            }
            progress.set_message(name);
            progress.tick();
            let row = make(seeds);
            if self.json { print_json(&row)? } else { progress.suspend(|| print(&row)) }
        }
        progress.finish_and_clear();
        Ok(Verdict::Held)
    }
}

fn print(row: &Row) {
    println!("{}", row.what);
    println!("  theirs  {}", row.theirs);
    match (row.mean, row.high) {
        (Some(mean), Some(high)) => {
            let margin = row.margin.map_or(String::new(), |margin| format!(" ± {margin:.2}"));
            let rank = if row.count < 1_000 { "worst" } else { "99.9th percentile" };
            println!("  ours    mean {mean:.2}{margin} {}, {rank} {high:.2}, {} measurements", row.unit, row.count);
        }
        _ => println!("  ours    none"),
    }
    println!("  {}\n", row.note);
}

//! `muster-sim tables`.

use clap::Args;

use super::{Failure, print_json};
use crate::run::Verdict;
use crate::tables::all;

/// Print numbers from papers beside ours.
#[derive(Args)]
pub(super) struct Tables {
    /// Measurements a row, at most.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// Print one line of JSON a row.
    #[arg(long)]
    json: bool,
}

impl Tables {
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        for row in all(self.seeds) {
            if self.json {
                print_json(&row)?;
                continue;
            }
            println!("{}", row.what);
            println!("  theirs  {}", row.theirs);
            println!(
                "  ours    mean {:.2} ± {:.2} {}, 99.9th percentile {:.2} ({} measurements)\n",
                row.mean, row.margin, row.unit, row.high, row.count
            );
        }
        Ok(Verdict::Held)
    }
}

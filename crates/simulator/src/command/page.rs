//! `muster-sim report`.

use std::path::PathBuf;

use clap::Args;

use super::one::print_outcome;
use super::{Failure, Which, print_json};
use crate::report::html;
use crate::run::{Verdict, run_traced};
use crate::trace::Trace;

/// Write one run as an HTML page.
#[derive(Args)]
pub(super) struct Report {
    #[command(flatten)]
    which: Which,
    /// The seed; the scenario's own unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// The file to write.
    #[arg(long, short, value_name = "FILE", default_value = "muster-sim.html")]
    out: PathBuf,
    /// Most frames that are kept: of a longer run an even sample, and all of its end.
    #[arg(long, default_value_t = 200_000)]
    frames_max: usize,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Report {
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        let scenario = self.which.read()?;
        let seed = self.seed.unwrap_or(scenario.seed);
        let (outcome, world) = run_traced(&scenario, seed, Trace::new(self.frames_max));
        let command = format!("muster-sim run {} --seed {seed}", self.which.path().display());
        std::fs::write(&self.out, html(&scenario, &outcome, &world, &command))
            .map_err(|error| Failure(format!("{}: {error}", self.out.display())))?;
        if self.json {
            print_json(&outcome)?;
        } else {
            print_outcome(&outcome);
            println!("\nwritten: {}\n{command}", self.out.display());
        }
        Ok(outcome.verdict)
    }
}

//! `muster-sim report`.

use std::path::PathBuf;

use clap::Args;

use super::one::print_outcome;
use super::progress::OneRun;
use super::promised::Promised;
use super::{Failure, Which, print_json};
use crate::name::Name;
use crate::report::html;
use crate::run::{Verdict, run_telling};
use crate::trace::Trace;

/// Write one run as an HTML page.
#[derive(Args)]
pub(super) struct Report {
    #[command(flatten)]
    which: Which,
    /// The seed, or a variation of one as `sweep` names it; the scenario's own unless given.
    #[arg(long, value_parser = super::name, value_name = "SEED")]
    seed: Option<Name>,
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
        let name = self.seed.clone().unwrap_or(scenario.seed.into());
        let file = Promised::new(&self.out)?;
        let progress = OneRun::new(self.json);
        let trace = Trace::new(self.frames_max);
        let (outcome, world) = run_telling(&scenario, &name, Some(trace), |now, end| progress.tell(now, end));
        drop(progress);
        let command = self.which.command("run", &format!("--seed {name}"));
        file.write(&html(&scenario, &outcome, &world, &command))?;
        if self.json {
            print_json(&outcome)?;
        } else {
            print_outcome(&outcome);
            println!("\nwritten: {}\n{command}", self.out.display());
        }
        Ok(outcome.verdict)
    }
}

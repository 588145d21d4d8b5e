//! `muster-sim shrink`.

use std::path::PathBuf;

use clap::Args;

use super::one::print_outcome;
use super::progress::Search;
use super::{Failure, Which, print_json};
use crate::name::Name;
use crate::run::{Verdict, run};
use crate::scenario::Scenario;
use crate::shrink::{Shrunk, shrink};

/// Find the smallest list of faults that still fails.
#[derive(Args)]
pub(super) struct Shrink {
    #[command(flatten)]
    which: Which,
    /// The failing seed, or a variation of one as `sweep` names it; the scenario's own unless given.
    #[arg(long, value_parser = super::name, value_name = "SEED")]
    seed: Option<Name>,
    /// Where to save it; a file in simulations/regressions/ unless given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Most runs that may be spent.
    #[arg(long, default_value_t = 400)]
    runs: u32,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl Shrink {
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        let scenario = self.which.read()?;
        let name = self.seed.clone().unwrap_or(scenario.seed.into());
        let progress = Search::new(self.runs, self.json);
        let found = shrink(&scenario, &name, self.runs, &mut |runs, faults| progress.tell(runs, faults));
        drop(progress);
        let Some(Shrunk { scenario: small, outcome, faults_before, runs }) = found else {
            return Err(Failure(format!("seed {name} breaks no promise, so there is nothing to make smaller")));
        };
        let stem = self.which.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let promise = outcome.broken.as_ref().map_or("unknown", |broken| broken.promise).to_lowercase();
        let path = match &self.out {
            Some(path) => path.clone(),
            None => PathBuf::from(format!("simulations/regressions/{promise}-{stem}-{name}.toml")),
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Failure(format!("{}: {error}", folder.display())))?;
        }
        std::fs::write(&path, small.to_toml()).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
        // What was written is what must fail.
        let text = std::fs::read_to_string(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
        let again = Scenario::parse(&text).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
        let again = run(&again, again.seed);
        if again.hash != outcome.hash {
            let (file, search) = (&again.hash, &outcome.hash);
            return Err(Failure(format!("{}: not the run that was found: {file}, not {search}", path.display())));
        }
        if self.json {
            print_json(&serde_json::json!({
                "file": path, "faults": small.faults, "faults_before": faults_before, "runs": runs, "outcome": again,
                "hash": again.hash,
            }))?;
        } else {
            println!("{} of {faults_before} faults are left after {runs} runs:", small.faults.len());
            for fault in &small.faults {
                println!("  at {} s for {} s: {} on {}", fault.at_s, fault.for_s, fault.kind.word(), fault.machines);
            }
            print_outcome(&again);
            println!("\nmuster-sim run {}", path.display());
        }
        Ok(again.verdict)
    }
}

//! `muster-sim run`.

use clap::Args;

use super::{Failure, Which, print_json, words};
use crate::run::{Outcome, Verdict, run, run_traced};
use crate::trace::{Line, Trace};

/// Run one seed.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    which: Which,
    /// The seed; the scenario's own unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Print everything that happened, not only what matters most.
    #[arg(long, short)]
    verbose: bool,
    /// Only what concerns this machine.
    #[arg(long)]
    machine: Option<u32>,
}

/// Kinds of lines that matter most: what a person follows a formation by.
const TOLD: [&str; 17] = [
    "fault",
    "heal",
    "boot",
    "stop",
    "refuses",
    "refuse",
    "charter",
    "leads",
    "init-claimed",
    "init-ready",
    "init-abandoned",
    "clone",
    "founding-halted",
    "founding-goes-on",
    "disk",
    "removed",
    "ready",
];

impl Run {
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        let scenario = self.which.read()?;
        let seed = self.seed.unwrap_or(scenario.seed);
        if self.json {
            let outcome = run(&scenario, seed);
            print_json(&outcome)?;
            return Ok(outcome.verdict);
        }
        let (outcome, world) = run_traced(&scenario, seed, Trace::new(0));
        println!("{} (seed {seed})\n", scenario.title);
        if let Some(trace) = &world.watch().trace {
            for line in trace.lines.iter().filter(|line| self.shows(line)) {
                println!("{}", told(line));
            }
        }
        print_outcome(&outcome);
        println!("\nmuster-sim run {} --seed {seed}", self.which.path().display());
        Ok(outcome.verdict)
    }

    fn shows(&self, line: &Line) -> bool {
        let here = self.machine.is_none() || line.slot.is_none() || line.slot == self.machine;
        here && (self.verbose || TOLD.contains(&line.kind) || line.kind == "phase" && line.text == "Ready")
    }
}

/// One line of a trace.
pub(super) fn told(line: &Line) -> String {
    let who = line.slot.map_or("world".to_owned(), |slot| format!("node-{slot}"));
    format!("{:>11.6} s  {who:<9} {:<16} {}", line.at_us as f64 / 1e6, line.kind, line.text)
}

/// The result as people read it.
pub(super) fn print_outcome(outcome: &Outcome) {
    println!("\n{}: {}", outcome.verdict.word(), words(outcome.verdict));
    if let Some(broken) = &outcome.broken {
        println!("  {} at {:.6} s: {}", broken.promise, broken.at_us as f64 / 1e6, broken.what);
    }
    for (promise, standing) in &outcome.liveness {
        println!("  {promise}: {standing}");
    }
    let seconds = |us: u64| us as f64 / 1e6;
    println!(
        "  {:.0} virtual s, {} events, {} frames ({} lost), {:.3} s of real time, hash {}",
        seconds(outcome.virtual_us),
        outcome.events,
        outcome.frames,
        outcome.lost.values().sum::<u64>(),
        seconds(outcome.wall_us),
        outcome.hash
    );
    let reached: Vec<&str> = outcome.sometimes.keys().copied().collect();
    println!("  sometimes: {}", if reached.is_empty() { "nothing".to_owned() } else { reached.join(", ") });
}

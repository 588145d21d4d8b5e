//! `muster-sim run`.

use clap::Args;

use super::progress::OneRun;
use super::{Failure, Which, print_json, slot, words};
use crate::name::Name;
use crate::run::{Outcome, Verdict, run_telling};
use crate::trace::{Line, Trace};

/// Run one seed.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    which: Which,
    /// The seed, or a variation of one as `sweep` names it; the scenario's own unless given.
    #[arg(long, value_parser = super::name, value_name = "SEED")]
    seed: Option<Name>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Print everything that happened, not only what matters most.
    #[arg(long, short)]
    verbose: bool,
    /// Only what concerns this machine.
    #[arg(long, value_name = "NUMBER")]
    machine: Option<String>,
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
        let name = self.seed.clone().unwrap_or(scenario.seed.into());
        let progress = OneRun::new(self.json);
        let trace = (!self.json).then(|| Trace::new(0));
        let (outcome, world) = run_telling(&scenario, &name, trace, |now, end| progress.tell(now, end));
        drop(progress);
        if self.json {
            print_json(&outcome)?;
            return Ok(outcome.verdict);
        }
        let machine = self.machine.as_deref().map(|text| slot(text, world.slots())).transpose()?;
        println!("{} (seed {name})\n", scenario.title);
        if let Some(trace) = &world.watch().trace {
            for line in trace.lines.iter().filter(|line| self.shows(line, machine)) {
                println!("{}", told(line));
            }
        }
        print_outcome(&outcome);
        println!("\n{}", self.which.command("run", &format!("--seed {name}")));
        Ok(outcome.verdict)
    }

    fn shows(&self, line: &Line, machine: Option<u32>) -> bool {
        let here = machine.is_none() || line.slot.is_none() || line.slot == machine;
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
    if let Some(unbound) = &outcome.unbound {
        println!("  {} at {:.6} s: {}", unbound.promise, unbound.at_us as f64 / 1e6, unbound.what);
    }
    for (promise, standing) in &outcome.liveness {
        println!("  {promise}: {standing}");
    }
    for (sort, reach) in outcome.faults.iter().filter(|(_, reach)| reach.took < reach.drawn) {
        println!("  of {} {}: {}", reach.drawn, sort.word(), reach.missed());
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

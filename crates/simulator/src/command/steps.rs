//! `muster-sim replay`.

use clap::Args;

use super::one::{print_outcome, told};
use super::{Failure, Which, print_json};
use crate::run::{Verdict, outcome_of};
use crate::trace::Trace;
use crate::watch::Watch;
use crate::world::World;

/// Step through a run.
#[derive(Args)]
pub(super) struct Replay {
    #[command(flatten)]
    which: Which,
    /// The seed; the scenario's own unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// Stop at this time, in seconds.
    #[arg(long, value_name = "SECONDS")]
    until: Option<f64>,
    /// Show this machine: everything it did, and its state when the replay stops.
    #[arg(long, value_name = "NUMBER")]
    machine: Option<u32>,
    /// Stop at the first line of the trace that contains this text, as "leads" or "init-claimed".
    #[arg(long, value_name = "TEXT")]
    break_on: Option<String>,
    /// Print the machine's state as JSON when the replay stops.
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        let scenario = self.which.read()?;
        let seed = self.seed.unwrap_or(scenario.seed);
        let mut world = World::new(&scenario, seed, Watch::traced(Trace::new(0)));
        if let Some(machine) = self.machine.filter(|machine| *machine >= world.slots()) {
            return Err(Failure(format!("there is no machine {machine}; the last is {}", world.slots() - 1)));
        }
        let until = self.until.map_or(u64::MAX, |seconds| (seconds * 1e6) as u64);
        let mut told_lines = 0;
        let mut stopped = None;
        while stopped.is_none() && world.now <= until && world.step() {
            let lines = world.watch().trace.as_ref().map(|trace| trace.lines.as_slice()).unwrap_or_default();
            for line in &lines[told_lines..] {
                let text = told(line);
                let here = self.machine.is_none() || line.slot.is_none() || line.slot == self.machine;
                if here && !self.json {
                    println!("{text}");
                }
                if here && self.break_on.as_ref().is_some_and(|wanted| text.contains(wanted)) {
                    stopped = Some(text);
                }
            }
            told_lines = lines.len();
        }
        self.show(&world)?;
        let outcome = outcome_of(&world, seed, 0);
        if !self.json && stopped.is_none() && self.until.is_none() {
            print_outcome(&outcome);
        }
        Ok(outcome.verdict_so_far())
    }

    fn show(&self, world: &World) -> Result<(), Failure> {
        let slots = self.machine.map_or(0..world.slots(), |machine| machine..machine + 1);
        for slot in slots {
            let status = world.status(slot);
            if self.json {
                print_json(&serde_json::json!({ "at_us": world.now, "machine": slot, "status": status }))?;
            } else if let Some(status) = status {
                let waiting: Vec<&str> = status.waiting.iter().map(|reason| reason.text.as_str()).collect();
                println!(
                    "\nnode-{slot} at {:.6} s: {} {}, revision {}, term {}, leader {}\n  waits for: {}",
                    world.now as f64 / 1e6,
                    status.short,
                    status.phase.word(),
                    status.revision,
                    status.term,
                    status.leader.as_deref().map_or("unknown", |leader| &leader[..8]),
                    if waiting.is_empty() { "nothing".to_owned() } else { waiting.join("; ") }
                );
                if self.machine.is_some() {
                    for peer in &status.peers {
                        println!("  {} {} alive: {}, connected: {}", peer.short, peer.name, peer.alive, peer.connected);
                    }
                }
            } else {
                println!("\nnode-{slot} does not run: {:?}", world.power(slot));
            }
        }
        Ok(())
    }
}

//! `muster-sim replay`.

use clap::Args;
use muster_protocol::Status;

use super::one::{print_outcome, told};
use super::pace::{Next, Pace};
use super::{Failure, Which, print_json, recorded, slot, unless_missed};
use crate::changes::changes;
use crate::name::Name;
use crate::run::{Verdict, outcome_of, world};
use crate::trace::Trace;
use crate::watch::Watch;
use crate::world::World;

const EXAMPLES: &str = "\
Examples:
  muster-sim replay swarm-5 --seed 17 --machine 2 --break-on init-abandoned
  muster-sim replay swarm-5 --seed 17 --until 12.5 --json
  muster lab --once --record /tmp/lab && muster-sim replay /tmp/lab
  muster-sim replay /tmp/lab --machine lab-3 --step

What a machine recorded is given to the same code again, and what that does is compared with what it did. Exit code 1 if it
does something else, 4 if the recording is damaged; what comes before the damage is replayed.";

/// Step through a run.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Replay {
    #[command(flatten)]
    which: Which,
    /// The seed of a scenario, or a variation of one as `sweep` names it; the scenario's own unless given.
    #[arg(long, value_parser = super::name, value_name = "SEED")]
    seed: Option<Name>,
    /// Show this machine alone: everything it did, what changed in it, and its state when the replay stops. Its number, or
    /// for recordings its name or the beginning of its identity.
    #[arg(long, value_name = "MACHINE")]
    machine: Option<String>,
    #[command(flatten)]
    pace: Pace,
    /// Of a recording, show every input and everything done.
    #[arg(long, short)]
    verbose: bool,
    /// Print states as JSON when the replay stops, and then the result.
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(super) fn execute(self) -> Result<Verdict, Failure> {
        let path = self.which.path();
        if !recorded::is_recording(&path) {
            return self.scenario();
        }
        if self.seed.is_some() {
            return Err(Failure(format!("{}: a recording has no seed: it is one run", path.display())));
        }
        recorded::Shown { machine: self.machine, pace: self.pace, verbose: self.verbose, json: self.json }.replay(&path)
    }

    fn scenario(mut self) -> Result<Verdict, Failure> {
        let scenario = self.which.read()?;
        let name = self.seed.clone().unwrap_or(scenario.seed.into());
        let mut world = world(&scenario, &name, Watch::traced(Trace::new(0)));
        let machine = self.machine.as_deref().map(|text| slot(text, world.slots())).transpose()?;
        let until = self.pace.until_us();
        let mut told_lines = 0;
        let mut stopped = None;
        let mut before = machine.and_then(|machine| world.status(machine));
        while stopped.is_none() && world.step_until(until) {
            let mut lines: Vec<String> = Vec::new();
            let trace = world.watch().trace.as_ref().map(|trace| trace.lines.as_slice()).unwrap_or_default();
            let here = |slot: Option<u32>| machine.is_none() || slot.is_none() || slot == machine;
            lines.extend(trace[told_lines..].iter().filter(|line| here(line.slot)).map(told));
            told_lines = trace.len();
            if let Some(machine) = machine {
                let after = world.status(machine);
                lines.extend(changed(&world, before.as_ref(), after.as_ref()));
                before = after;
            }
            for line in lines {
                if !self.json {
                    println!("{line}");
                }
                while stopped.is_none() {
                    match self.pace.after(&line) {
                        Next::Line => break,
                        Next::Show => self.show(&world, machine)?,
                        Next::Stop => stopped = Some(line.clone()),
                    }
                }
            }
        }
        self.show(&world, machine)?;
        let whole = stopped.is_none() && self.pace.until.is_none();
        if whole {
            world.judge_end();
        }
        let outcome = outcome_of(&world, &name, 0);
        if self.json {
            print_json(&outcome)?;
        } else if whole {
            print_outcome(&outcome);
        } else {
            println!("\nstopped at {:.6} s, hash so far {}", world.now as f64 / 1e6, outcome.hash);
        }
        // What is not known half-way is not missing; at the end it is, as `run` says.
        let verdict = if whole { outcome.verdict } else { outcome.verdict_so_far() };
        unless_missed(verdict, self.pace.missed(), self.json)
    }

    fn show(&self, world: &World, machine: Option<u32>) -> Result<(), Failure> {
        let slots = machine.map_or(0..world.slots(), |machine| machine..machine + 1);
        for slot in slots {
            let status = world.status(slot);
            if self.json {
                print_json(&serde_json::json!({ "at_us": world.now, "machine": slot, "status": status }))?;
            } else if let Some(status) = status {
                println!("\nnode-{slot} at {:.6} s: {}", world.now as f64 / 1e6, state(&status, machine.is_some()));
            } else {
                println!("\nnode-{slot} does not run: {:?}", world.power(slot));
            }
        }
        Ok(())
    }
}

fn changed(world: &World, before: Option<&Status>, after: Option<&Status>) -> Vec<String> {
    let said = match (before, after) {
        (Some(before), Some(after)) => changes(before, after),
        _ => Vec::new(),
    };
    said.iter().map(|change| format!("{:>11.6} s  {:<9} {change}", world.now as f64 / 1e6, "")).collect()
}

/// A machine's state as people read it, in the words of `muster explain`.
pub(super) fn state(status: &Status, peers: bool) -> String {
    let waiting: Vec<&str> = status.waiting.iter().map(|reason| reason.text.as_str()).collect();
    let mut text = format!(
        "{} {}, revision {}, term {}, leader {}\n  waits for: {}",
        status.short,
        status.phase.word(),
        status.revision,
        status.term,
        status.leader.as_deref().map_or("unknown".to_owned(), |leader| format!("m-{}", &leader[..8])),
        if waiting.is_empty() { "nothing".to_owned() } else { waiting.join("; ") }
    );
    for peer in status.peers.iter().filter(|_| peers) {
        let alive = if peer.alive { "alive" } else { "dead" };
        let connected = if peer.connected { "connected" } else { "not connected" };
        let joined = if peer.joined { ", joined" } else { "" };
        text.push_str(&format!("\n  {} {}: {alive}, {connected}{joined}", peer.short, peer.name));
    }
    text
}

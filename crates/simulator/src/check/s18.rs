//! S18: nothing that works leaves the cluster but because the ledger says so, emptied first, and etcd keeps a majority that works.
//!
//! Whoever is taken out of etcd, or whose Node is deleted, by another machine was wiped, was wished away, or was not heard for as long as the
//! image says. Counted by what was delivered and what the API server saw, not by anybody's failure detector.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::{Fate, Input, Machine, Step};
use muster_wire::{MachineId, Wish};

use super::Verdict;
use crate::scenario::{Scenario, Sort};
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::{At, Slot};

/// When a failure detector holds a machine for dead it was heard a moment before.
const SLACK: At = 10_000_000;

/// Between more machines than this nothing is counted.
const MACHINES_MAX: u32 = 16;

/// When machines were heard, which Nodes are empty, and who works as what.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    replace_after: Option<At>,
    /// By whom, from whom.
    heard: BTreeMap<(MachineId, MachineId), At>,
    /// Whose clocks or time were disturbed.
    disturbed: BTreeSet<Slot>,
    /// Machines whose Nodes held nothing that could be moved, since they were last wished away or promoted.
    drained: BTreeSet<MachineId>,
    /// Machines whose Nodes are gone: there is nothing left to be drained.
    taken: BTreeSet<MachineId>,
    /// Who was asked to have come back whom it had wished away.
    rejoins: BTreeSet<MachineId>,
    /// Whose strikes against whom began when they might.
    struck: BTreeSet<(Slot, MachineId)>,
    /// Workers that have joined.
    workers: BTreeSet<MachineId>,
}

impl Leaving {
    pub(super) fn begin(&mut self, scenario: &Scenario) {
        self.replace_after = scenario.image.replace_after_s.map(|seconds| (seconds * 1e6) as At);
    }

    pub(super) fn before(&mut self, now: At, machine: &Machine, input: &Input, truth: &Truth) {
        if let Input::Received { from, .. } = input
            && truth.image_machines <= MACHINES_MAX
        {
            self.heard.insert((machine.id(), *from), now);
        }
    }

    pub(super) fn see(&mut self, now: At, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            Seen::FaultBegins { fault, targets, .. }
                if matches!(fault.kind, Sort::ClockJump | Sort::ClockDrift | Sort::Pause | Sort::Slow) =>
            {
                self.disturbed.extend(targets.iter().copied());
            }
            Seen::Applied { .. } => {
                let planes = &truth.control_planes;
                self.taken.retain(|machine| truth.book.etcd_member(*machine) || truth.joined.contains(machine));
                self.workers.extend(truth.joined.iter().filter(|machine| !planes.contains(*machine)).copied());
                self.workers.retain(|machine| !truth.removed.contains(machine) && !truth.book.is_promoted(*machine));
            }
            Seen::Drained { node, .. } => self.drained.extend(truth.book.named(node)),
            Seen::NodeTaken { slot, node } => {
                let Some(machine) = truth.book.named(node) else { return Ok(()) };
                if !self.struck.contains(&(*slot, machine)) {
                    self.may_go(now, *slot, machine, truth)?;
                    self.may_lose_its_node(now, *slot, machine, truth)?;
                }
                self.taken.insert(machine);
            }
            Seen::EtcdLeft { slot, gone, stands } if slot != gone => {
                if let Some(machine) = truth.left_etcd.filter(|machine| !self.struck.contains(&(*slot, *machine))) {
                    self.may_go(now, *slot, machine, truth)?;
                }
                if !stands {
                    return Err(format!(
                        "machine {slot} has the member of machine {gone} struck off, and etcd has no majority any more"
                    ));
                }
            }
            Seen::StepBegan { slot, step: Step::Reset { .. }, apart: false, .. } => {
                let works = |machine: &MachineId| self.workers.contains(machine) && !truth.excused.contains(machine);
                if let Some(machine) = truth.identity.get(slot).filter(|machine| works(machine))
                    && !truth.damaged.contains(slot)
                {
                    return Err(format!("{machine} is reset, which works, and was neither removed nor promoted"));
                }
            }
            Seen::Answered {
                wish: Wish::RemoveMachine { machine, returns: true }, fate: Fate::Done { .. }, ..
            } => {
                self.rejoins.insert(*machine);
            }
            // A machine that is here again: nothing is taken from it that was not begun.
            Seen::StepBegan { slot, step: Step::Strike { node, back: true, .. }, .. } => {
                if let Some(machine) = truth.book.named(node)
                    && !self.struck.iter().any(|(_, struck)| *struck == machine)
                {
                    return Err(format!("machine {slot} finishes what nobody has begun, to take {machine} out"));
                }
            }
            // Something may come to it again.
            Seen::StepBegan { step: Step::Open { node }, .. } => {
                let opened = truth.book.named(node);
                self.drained.retain(|drained| Some(*drained) != opened);
            }
            // What a strike may do is decided when it begins: it is over in a moment, or nobody can tell how far it came.
            Seen::StepBegan { slot, step: Step::Strike { node, .. }, .. } => {
                if let Some(machine) = truth.book.named(node) {
                    self.may_go(now, *slot, machine, truth)?;
                    self.may_lose_its_node(now, *slot, machine, truth)?;
                    self.struck.insert((*slot, machine));
                }
            }
            Seen::Renewed { slot } => {
                let Some(machine) = truth.identity.get(slot) else { return Ok(()) };
                let stays_out = truth.book.is_dismissed(*machine) && !self.rejoins.contains(machine);
                if !truth.removed.contains(machine) || stays_out {
                    return Err(format!(
                        "{machine} starts again as another machine, and was not removed, or is to stay out"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether nobody misses what runs on a machine.
    fn may_lose_its_node(&self, now: At, slot: Slot, machine: MachineId, truth: &Truth) -> Verdict {
        let by = truth.identity.get(&slot).copied().unwrap_or_default();
        let heard = self.heard.get(&(by, machine)).is_some_and(|heard| now < heard + SLACK);
        // Whoever never joined has nothing that anybody could miss.
        let works = truth.joined.contains(&machine) && truth.runs(machine);
        let empty = self.drained.contains(&machine) || self.taken.contains(&machine);
        if heard && works && !truth.is_wiped(machine) && !empty {
            return Err(format!("the Node of {machine} is deleted, which runs, and nobody has drained it"));
        }
        Ok(())
    }

    /// Whether a machine may be taken out by another one.
    fn may_go(&self, now: At, slot: Slot, machine: MachineId, truth: &Truth) -> Verdict {
        let by = truth.identity.get(&slot).copied().unwrap_or_default();
        let wished = truth.book.leaving().is_some_and(|(leaving, _)| leaving == machine);
        if by == machine
            || wished
            || truth.is_wiped(machine)
            || truth.removed.contains(&machine)
            || self.disturbed.contains(&slot)
            || truth.left_behind(slot, machine)
        {
            return Ok(());
        }
        let Some(after) = self.replace_after else {
            return Err(format!("machine {slot} takes {machine} out, which was neither wiped nor wished away"));
        };
        if truth.image_machines > MACHINES_MAX {
            return Ok(());
        }
        match self.heard.get(&(by, machine)) {
            Some(heard) if now < heard + after.saturating_sub(SLACK) => {
                let ago = (now - heard) / 1_000_000;
                Err(format!("machine {slot} takes {machine} out, which it heard {ago} s ago"))
            }
            _ => Ok(()),
        }
    }
}

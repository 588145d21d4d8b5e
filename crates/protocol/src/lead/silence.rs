//! Since when machines are silent on whom something waits.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_wire::{MachineId, TurnKind};

use super::Context;
use crate::Time;
use crate::planted::planted;
use crate::words::waits::Wait;

/// What asks since when a machine is silent: each has its own patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// It holds the claim.
    Claim,
    /// It holds a turn.
    Turn(TurnKind),
    /// It is to be removed.
    Leaving,
    /// It is a control plane.
    Repair,
    /// A seat is free; the machine is whoever looks.
    Vacancy,
    /// It never joined, and has a successor.
    Replaced,
    /// It had joined, and has a successor.
    Wiped,
    /// It is the successor.
    Successor,
}

/// Since when a machine is thought dead, for each that asks.
#[derive(Debug, Default)]
pub(super) struct Silence(BTreeMap<(Why, MachineId), Time>);

impl Silence {
    /// Whether a machine has been silent for as long as `patience`, since `what` first asked; until then `wait` says what is waited
    /// for.
    pub(super) fn dead_for(
        &mut self,
        context: &mut Context<'_>,
        what: Why,
        machine: MachineId,
        patience: Duration,
        wait: impl FnOnce(Time) -> Option<Wait>,
    ) -> bool {
        if context.roster.is_alive(machine) {
            if !planted("silences-added-up") {
                self.0.remove(&(what, machine));
            }
            return false;
        }
        let since = self.since(context, what, machine);
        // A control plane that answers probes too late, and is heard all the same, works (promise S18).
        let heard = context.roster.known().get(&machine).and_then(|known| known.heard);
        let until = since.max(heard.filter(|_| what == Why::Repair).unwrap_or(since)) + patience;
        if context.now >= until {
            return true;
        }
        context.wake_at(until, "a machine that is silent");
        context.waits.extend(wait(until));
        false
    }

    /// What `what` noted of the machine is over.
    pub(super) fn forget(&mut self, what: Why, machine: MachineId) {
        self.0.remove(&(what, machine));
    }

    /// When `what` first asked for the machine, which is now if it did not yet.
    pub(super) fn since(&mut self, context: &Context<'_>, what: Why, machine: MachineId) -> Time {
        *self.0.entry((what, machine)).or_insert(context.now)
    }
}

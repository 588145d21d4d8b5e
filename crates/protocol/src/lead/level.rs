//! The ledger rises to the next level when every voter knows it.

use muster_wire::{Entry, MachineId, Role};

use super::Context;
use crate::planted::planted;
use crate::words::waits::Wait;

/// This duty's notes.
#[derive(Debug, Default)]
pub(super) struct Level {
    /// The level to which the ledger was to rise: the entry may be on its way.
    wanted: u32,
}

impl Level {
    /// The level that a newcomer has to know.
    pub(super) fn to_know(&self, context: &Context<'_>) -> u32 {
        self.wanted.max(context.ledger.level())
    }

    /// Wants the next level, see [`raise`]. Returns whether it rises.
    pub(super) fn raise(&mut self, context: &mut Context<'_>) -> bool {
        let rises = raise(context);
        if rises && !planted("level-raised-at-once") {
            self.wanted = context.ledger.level() + 1;
        }
        rises
    }
}

/// Wants the next level when the card of every voter, of whoever becomes one, and of whoever is just being admitted as one, says that its machine
/// knows it. A voter that has no card here was not heard of since this machine started, and may know anything.
fn raise(context: &mut Context<'_>) -> bool {
    let level = context.ledger.level() + 1;
    let me = context.me();
    let knows = |machine: &MachineId| match *machine == me {
        true => context.mine.card().level >= level,
        false => context.roster.card(*machine).is_some_and(|card| card.level >= level),
    };
    if !knows(&me) {
        // As long as nobody knows it either, there is nothing to rise to. And who has no vote holds nobody up.
        let voters = context.ledger.raft_callers(context.charter);
        let behind = voters.contains(&me) && voters.iter().any(knows);
        context.waits.extend(behind.then_some(Wait::Voter(me)));
        return false;
    }
    let unasked = usize::from(planted("level-raised-early"));
    let comes = |entry: &Entry| match entry {
        Entry::Admitted(admitted) if admitted.role == Role::ControlPlane => Some(admitted.machine),
        Entry::Promoted { machine } => Some(*machine),
        _ => None,
    };
    let coming = context.wants.entries().filter_map(comes).filter(|_| !planted("level-raised-at-once"));
    let mut voters = context.ledger.raft_callers(context.charter);
    voters.extend(coming);
    let ignorant: Vec<MachineId> = voters.into_iter().filter(|voter| !knows(voter)).collect();
    let rises = ignorant.len() <= unasked;
    if rises {
        context.wants.want(Entry::LevelRaised { level });
    }
    context.waits.extend(ignorant.into_iter().map(Wait::Voter));
    rises
}

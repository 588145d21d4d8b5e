//! The ledger rises to the next level when every voter knows it.

use muster_wire::{Entry, MachineId};

use super::Context;
use crate::follow::{About, Subject};
use crate::planted::planted;
use crate::words::waits::Wait;

/// Wants the next level when the card of every voter, and of whoever becomes one, says that its machine knows it. A voter that
/// has no card here was not heard of since this machine started, and may know anything. Returns whether it rises.
pub(super) fn raise(context: &mut Context<'_>) -> bool {
    let level = context.ledger.level() + 1;
    let me = context.me();
    let knows = |machine: &MachineId| match *machine == me {
        true => context.mine.card().level >= level,
        false => context.roster.card(*machine).is_some_and(|card| card.level >= level),
    };
    if !knows(&me) {
        // As long as nobody knows it either, there is nothing to rise to.
        let behind = context.ledger.raft_callers(context.charter).iter().any(knows);
        context.waits.extend(behind.then_some(Wait::Voter(me)));
        return false;
    }
    let unasked = usize::from(planted("level-raised-early"));
    let ignorant: Vec<MachineId> =
        context.ledger.raft_callers(context.charter).into_iter().filter(|voter| !knows(voter)).collect();
    let rises = ignorant.len() <= unasked;
    if rises {
        context.wants.insert(Subject(About::Level, me, level), Entry::LevelRaised { level });
    }
    context.waits.extend(ignorant.into_iter().map(Wait::Voter));
    rises
}

//! Turns are taken from holders that died in them.

use muster_wire::{Entry, Turn, TurnChange, TurnKind};

use super::Context;
use super::silence::{Silence, Why};
use crate::planted::planted;
use crate::words::waits::{self, Wait};

/// Ends the turns of machines that died in them. A holder ends its own work after `etcd_turn_max`; twice that is waited here, so
/// that a machine that is merely cut off cannot still be at it (promise S8).
pub(super) fn watch(context: &mut Context<'_>, silence: &mut Silence) {
    let patience = if planted("turn-patience-halved") { 1 } else { 2 };
    for kind in TurnKind::ALL {
        if let Some((number, holder)) = context.ledger.turn(kind)
            && (silence.dead_for(context, Why::Turn(kind), holder, context.tuning.etcd_turn_max * patience, |until| {
                Some(Wait::Turn(waits::Turn::Silent { kind, machine: holder, until }))
            }) || planted("etcd-turn-cut") && !context.roster.is_alive(holder))
        {
            let turn = Turn { kind, number, holder, change: TurnChange::GaveUp };
            context.wants.want(Entry::Turn(turn));
        }
    }
}

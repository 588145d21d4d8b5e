//! Turns are taken from holders that died in them.

use muster_wire::{Entry, EtcdTurn};

use super::Context;
use super::silence::Silence;
use crate::follow::Subject;
use crate::planted::planted;

/// Ends the etcd turn of a machine that died in it. The holder kills its own work after `etcd_turn_max`; twice that
/// is waited here, so that a machine that is merely cut off cannot still be adding its member (promise S8).
pub(super) fn watch_etcd_turn(context: &mut Context<'_>, silence: &mut Silence) {
    let patience = if planted("turn-patience-halved") { 1 } else { 2 };
    if let Some((number, machine)) = context.ledger.etcd_turn()
        && (silence.dead_for(context, "etcd", machine, context.tuning.etcd_turn_max * patience)
            || planted("etcd-turn-cut") && !context.roster.is_alive(machine))
    {
        let entry = Entry::EtcdJoin { machine, turn: EtcdTurn::GaveUp, number };
        context.wants.insert(Subject("etcd", machine, number), entry);
    }
}

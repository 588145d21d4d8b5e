//! S8: at most one machine of the cluster has a turn of a kind, and at most one etcd member is being added at a time. Who has which
//! turn by the committed entries is counted in `book.rs`, for each kind by itself.

use std::collections::VecDeque;

use muster_protocol::{Effect, Machine, Step};
use muster_wire::{Entry, Frame, MachineId, Role, TurnChange, TurnKind};

use super::Verdict;
use crate::truth::Truth;
use crate::watch::{Seen, decode};
use crate::world::At;

/// Nobody ends another machine's turn sooner: so long it may work at it, and it ends that work itself.
const ENDED_FOR_ANOTHER: At = 180_000_000;

/// Looks at kubeadm's processes, not at what the ledger says of them.
#[derive(Debug, Default)]
pub(super) struct EtcdTurns;

impl EtcdTurns {
    pub(super) fn see(&mut self, now: At, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            Seen::EtcdAdding { slot, others } if *others > 0 => {
                Err(format!("machine {slot} adds its etcd member while {others} other is being added"))
            }
            // To etcd, too, a copied disk is the machine that it was copied from.
            Seen::EtcdLeft { slot, gone, .. } if truth.identity.get(slot) != truth.identity.get(gone) => {
                // The holder of a turn to disrupt; whose member may be taken, S18 says. And who is to be added, if it was left behind.
                let holds = truth.book.turn(TurnKind::Disrupt).map(|(_, holder)| holder);
                let may = holds.is_some() && holds == truth.identity.get(slot).copied();
                match truth.left_etcd.filter(|left| may || truth.left_behind(*slot, *left)) {
                    Some(_) => Ok(()),
                    None => Err(format!("machine {slot} has etcd strike off the member of machine {gone}")),
                }
            }
            Seen::EtcdAdded { slot, in_turn: false, .. } => {
                Err(format!("kubeadm adds the etcd member of machine {slot} in another step than that of its turn"))
            }
            // What its own ledger says may be old, but a turn that it has was committed.
            Seen::StepBegan { slot, step: Step::JoinEtcd { .. }, apart: false, .. } => match truth.identity.get(slot) {
                Some(machine) if !truth.turns.contains(machine) => {
                    Err(format!("machine {slot} adds its etcd member and never was given a turn"))
                }
                _ => Ok(()),
            },
            Seen::StepBegan { slot, step: Step::JoinFinish { role: Role::ControlPlane, .. }, apart: false, .. } => {
                match truth.identity.get(slot) {
                    Some(machine) if !truth.turns_done.contains(machine) => {
                        Err(format!("machine {slot} goes on behind its turn at etcd, which is not over"))
                    }
                    _ => Ok(()),
                }
            }
            Seen::Sent { machine, frame: Frame::Proposal { entry, .. }, .. } => match decode(entry) {
                Some(entry) => gives_up(*machine, &entry, truth),
                None => Ok(()),
            },
            Seen::Applied { .. } if truth.etcd_lost.is_some() => {
                let gone = truth.etcd_lost.unwrap_or_default();
                Err(format!("{gone} is removed, which is a member of etcd"))
            }
            Seen::Applied { .. } => match truth.turn_ended {
                Some((machine, TurnChange::Done)) if !truth.added.contains(&machine) => {
                    Err(format!("the turn of {machine} at etcd is ended as done, and etcd never had a member of it"))
                }
                // One that nobody hears may leave its member behind, and takes it away when it learns of that.
                Some((machine, TurnChange::GaveUp))
                    if truth.in_etcd.contains(&machine)
                        && truth.runs(machine)
                        && now < truth.turn_since + ENDED_FOR_ANOTHER =>
                {
                    Err(format!("the turn of {machine} at etcd is given up while etcd has a member of it"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// What a leader proposes for itself goes over no wire.
    pub(super) fn after(&self, machine: &Machine, effects: &VecDeque<Effect>, truth: &Truth) -> Verdict {
        effects.iter().try_for_each(|effect| match effect {
            Effect::Propose { entry, .. } => gives_up(machine.id(), entry, truth),
            _ => Ok(()),
        })
    }
}

/// Whoever gives its own turn up has had its member taken away first.
fn gives_up(machine: MachineId, entry: &Entry, truth: &Truth) -> Verdict {
    match entry {
        Entry::Turn(turn)
            if (turn.kind, turn.change, turn.holder) == (TurnKind::Etcd, TurnChange::GaveUp, machine)
                && truth.book.turn(TurnKind::Etcd) == Some((turn.number, machine))
                && truth.in_etcd.contains(&machine) =>
        {
            Err(format!("{machine} gives its turn at etcd up while etcd has a member of it"))
        }
        _ => Ok(()),
    }
}

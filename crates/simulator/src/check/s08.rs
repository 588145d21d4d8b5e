//! S8: at most one etcd member is being added at a time.

use super::{Facts, Verdict};
use muster_protocol::Step;
use muster_wire::{EtcdTurn, Role};

use crate::watch::Seen;

/// Looks at kubeadm's processes, not at what the ledger says of them.
#[derive(Debug, Default)]
pub(super) struct EtcdTurns;

impl EtcdTurns {
    pub(super) fn see(&mut self, seen: &Seen<'_>, facts: &Facts) -> Verdict {
        match seen {
            Seen::EtcdAdding { slot, others } if *others > 0 => {
                Err(format!("machine {slot} adds its etcd member while {others} other is being added"))
            }
            // To etcd, too, a copied disk is the machine that it was copied from.
            Seen::EtcdLeft { slot, gone } if facts.identity.get(slot) != facts.identity.get(gone) => {
                Err(format!("machine {slot} has etcd strike off the member of machine {gone}"))
            }
            Seen::EtcdAdded { slot, in_turn: false, .. } => {
                Err(format!("kubeadm adds the etcd member of machine {slot} in another step than that of its turn"))
            }
            // What its own ledger says may be old, but a turn that it has was committed.
            Seen::StepBegan { slot, step: Step::JoinEtcd { .. }, apart: false, .. } => match facts.identity.get(slot) {
                Some(machine) if !facts.turns.contains(machine) => {
                    Err(format!("machine {slot} adds its etcd member and never was given a turn"))
                }
                _ => Ok(()),
            },
            Seen::StepBegan { slot, step: Step::JoinFinish { role: Role::ControlPlane, .. }, apart: false, .. } => {
                match facts.identity.get(slot) {
                    Some(machine) if !facts.turns_done.contains(machine) => {
                        Err(format!("machine {slot} goes on behind its turn at etcd, which is not over"))
                    }
                    _ => Ok(()),
                }
            }
            // Taking an etcd member away is a change to the cluster that a person must want.
            Seen::Applied { .. } if facts.etcd_lost.is_some() => {
                let gone = facts.etcd_lost.unwrap_or_default();
                Err(format!("{gone} is removed, which is a member of etcd"))
            }
            Seen::Applied { .. } => match facts.turn_ended {
                Some((machine, EtcdTurn::Done)) if !facts.added.contains(&machine) => {
                    Err(format!("the turn of {machine} at etcd is ended as done, and etcd never had a member of it"))
                }
                // One that nobody hears may leave its member behind; one that runs takes it away first.
                Some((machine, EtcdTurn::GaveUp)) if facts.in_etcd.contains(&machine) && facts.runs(machine) => {
                    Err(format!("{machine} gives its turn at etcd up while etcd has a member of it"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

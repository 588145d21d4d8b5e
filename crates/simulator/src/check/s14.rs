//! S14: what works is not taken down because something else failed.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::Step;
use muster_wire::{Attempt, MachineId, TurnChange};

use super::Verdict;
use crate::truth::Truth;
use crate::watch::Seen;

/// Remembers who stands in etcd by a turn whose end was committed, and looks at who is reset.
#[derive(Debug, Default)]
pub(super) struct Standing {
    stands: BTreeSet<MachineId>,
    /// Founders whose members run, of which attempt's etcd.
    met: BTreeMap<MachineId, Attempt>,
}

impl Standing {
    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        let founded = |machine: &MachineId| truth.ready.is_some() && self.met.get(machine).copied() == truth.ready;
        match seen {
            Seen::Applied { .. } => {
                if let Some((machine, TurnChange::Done)) = truth.turn_ended
                    && truth.in_etcd.contains(&machine)
                {
                    self.stands.insert(machine);
                }
            }
            // A founder stands as soon as its cluster is the cluster.
            Seen::EtcdMet { slot, of, .. } => {
                if let Some(machine) = truth.identity.get(slot) {
                    self.met.insert(*machine, *of);
                }
            }
            Seen::EtcdLeft { gone, .. } => {
                if let Some(machine) = truth.identity.get(gone) {
                    self.stands.remove(machine);
                    self.met.remove(machine);
                }
            }
            // A disk that went back to an older copy knows of nothing that works on it.
            Seen::StepBegan { slot, step: Step::Reset { .. }, apart: false, .. } => {
                if let Some(machine) = truth.identity.get(slot)
                    && (self.stands.contains(machine) || founded(machine))
                    && !truth.excused.contains(machine)
                    && !truth.damaged.contains(slot)
                {
                    return Err(format!("{machine} is reset, whose etcd member votes and whose turn is done"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

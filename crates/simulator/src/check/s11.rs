//! S11: what the image asks for holds: never more control planes than it says, whoever leads, whoever proposes.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::Step;
use muster_wire::{MachineId, Role};

use super::Verdict;
use crate::scenario::Scenario;
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::Slot;

/// Counts the machines on which kubeadm works as a control plane's, and what etcd itself lists; not what any ledger says.
#[derive(Debug, Default)]
pub(super) struct Seats {
    wanted: usize,
    planes: BTreeMap<Slot, MachineId>,
}

impl Seats {
    pub(super) fn begin(&mut self, scenario: &Scenario) {
        self.wanted = scenario.image.control_planes as usize;
    }

    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            Seen::StepBegan { slot, step, apart: false, .. } if of_a_control_plane(step) => {
                self.planes.extend(truth.identity.get(slot).map(|machine| (*slot, *machine)));
                self.count("machines are control planes", self.planes.keys(), truth)
            }
            Seen::StepEnded { slot, step: Step::Reset { .. }, result: Ok(_) } | Seen::Wiped { slot } => {
                self.planes.remove(slot);
                Ok(())
            }
            Seen::EtcdAdded { members, .. } => {
                self.count("machines have a member in etcd's list", members.iter(), truth)
            }
            _ => Ok(()),
        }
    }

    /// A machine that was removed is none any more; what it left behind in etcd is a person's to take away.
    fn count<'a>(&self, what: &str, slots: impl Iterator<Item = &'a Slot>, truth: &Truth) -> Verdict {
        let machines = slots.filter_map(|slot| truth.identity.get(slot));
        let machines: BTreeSet<MachineId> = machines
            .copied()
            .filter(|machine| !truth.removed.contains(machine) && !truth.excused.contains(machine))
            .collect();
        if machines.len() > self.wanted && !truth.baseline {
            let list = crate::watch::list(&machines);
            return Err(format!("{} {what}, the image asks for {}: {list}", machines.len(), self.wanted));
        }
        Ok(())
    }
}

fn of_a_control_plane(step: &Step) -> bool {
    match step {
        Step::InitCluster { .. } | Step::Found { .. } | Step::FoundFinish { .. } | Step::JoinEtcd { .. } => true,
        Step::Join { role, .. } | Step::JoinFinish { role, .. } => *role == Role::ControlPlane,
        _ => false,
    }
}

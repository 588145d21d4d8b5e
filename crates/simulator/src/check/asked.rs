//! S11 and L1, the other way round: the image gets what it asks for. In a site that nothing was taken from there are as many
//! control planes in the end as the image wants, Raft's voters are those, or an odd number of them, and each machine is what the
//! committed entries made it.

use std::collections::BTreeSet;

use muster_protocol::Step;
use muster_wire::{MachineId, Role};

use super::Verdict;
use crate::truth::Truth;
use crate::watch::{Seen, list};
use crate::world::{At, Host, Power, World};

/// From when everybody was Ready until Raft's voters are the control planes.
const SETTLE: At = 40_000_000;

/// Looks at what kubeadm does, and counts at the end.
#[derive(Debug, Default)]
pub(super) struct Asked;

impl Asked {
    /// kubeadm makes of a machine what it was admitted as, which never changes.
    pub(super) fn see(&self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        let Seen::StepBegan { slot, step, apart: false, .. } = seen else { return Ok(()) };
        let role = match step {
            Step::InitCluster { .. } | Step::Found { .. } | Step::FoundFinish { .. } | Step::JoinEtcd { .. } => {
                Role::ControlPlane
            }
            Step::Prepare { role } | Step::Join { role, .. } | Step::JoinFinish { role, .. } => *role,
            _ => return Ok(()),
        };
        let Some(machine) = truth.identity.get(slot).filter(|machine| truth.admitted.contains(*machine)) else {
            return Err(format!("machine {slot} begins {} and was not admitted", step.name()));
        };
        let plane = truth.control_planes.contains(machine);
        if truth.removed.contains(machine) || plane == (role == Role::ControlPlane) {
            return Ok(());
        }
        let admitted = if plane { "a control plane" } else { "a worker" };
        Err(format!("{machine} was admitted as {admitted}, and begins {} as {role}", step.name()))
    }

    /// At the end, if everybody was Ready; Raft's voters if that was a while ago.
    pub(super) fn end(&self, world: &World, truth: &Truth, ready_at: Option<At>) -> Verdict {
        let Some(wanted) = wanted(world, truth, ready_at) else { return Ok(()) };
        let serves = |host: &&Host| host.kube.etcd && host.kube.serves && host.kube.cluster.is_some();
        let planes: BTreeSet<MachineId> = world.expected().filter(serves).map(|host| host.me).collect();
        if planes.len() != wanted {
            return Err(format!(
                "{} machines are control planes, the image asks for {wanted}: {}",
                planes.len(),
                list(&planes)
            ));
        }
        let settled = ready_at.is_some_and(|ready| world.now >= ready.max(world.healed.unwrap_or(At::MAX)) + SETTLE);
        let leader = truth.leader.filter(|_| settled).and_then(|leader| world.slot_of(leader));
        let Some(voters) = leader.and_then(|leader| world.raft_voting(leader)) else { return Ok(()) };
        if let Some(other) = voters.iter().find(|voter| !planes.contains(voter)) {
            return Err(format!("{other} votes in Raft, and is no control plane"));
        }
        let asked = truth.control_planes_wanted;
        let all = planes.len() == asked || planes.len() % 2 == 1;
        let even = voters.len() % 2 == 0 && voters.len() != asked && truth.removed.is_empty();
        if all && voters != planes || even {
            return Err(format!(
                "of {} control planes {} vote in Raft, where the image asks for {asked}: {}",
                planes.len(),
                voters.len(),
                list(&voters)
            ));
        }
        Ok(())
    }
}

/// How many control planes there must be; nothing where a machine was lost that may have been one and has no successor yet, or not
/// everybody came to be Ready.
fn wanted(world: &World, truth: &Truth, ready_at: Option<At>) -> Option<usize> {
    // Whoever was wiped is replaced when its former identity was removed, and nobody else was.
    let whole = truth.excused.is_empty() && truth.damaged.is_empty() && truth.removed == truth.wiped_members();
    let judged = whole && !truth.baseline && !truth.two_charters && !truth.history_lost;
    let exist = world.image_slots().count();
    let all_run = world.image_slots().all(|slot| *world.power(slot) == Power::On);
    (judged && ready_at.is_some() && all_run).then(|| truth.control_planes_wanted.min(exist))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANE: MachineId = MachineId([1; 32]);
    const WORKER: MachineId = MachineId([2; 32]);

    #[test]
    fn a_machine_is_made_what_it_was_admitted_as() {
        let mut truth = Truth::default();
        truth.identity.extend([(0, PLANE), (1, WORKER), (2, MachineId([3; 32]))]);
        truth.admitted.extend([PLANE, WORKER]);
        truth.control_planes.insert(PLANE);
        let begins = |slot, role| {
            let step = Step::Prepare { role };
            Asked.see(&Seen::StepBegan { slot, step: &step, clean: true, apart: false }, &truth).is_ok()
        };
        assert!(begins(0, Role::ControlPlane) && begins(1, Role::Worker));
        assert!(!begins(0, Role::Worker) && !begins(1, Role::ControlPlane));
        assert!(!begins(2, Role::Worker), "it was not admitted");
    }
}

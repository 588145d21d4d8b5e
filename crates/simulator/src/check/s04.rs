//! S4: at most one attempt's init is ever made the cluster; nobody joins an abandoned one.

use muster_protocol::{Before, Machine, Step};
use muster_wire::Attempt;

use super::Verdict;
use crate::truth::Truth;
use crate::watch::Seen;

/// Compares ledgers and kubeadm's deeds with the claims as they were committed.
#[derive(Debug, Default)]
pub(super) struct OneInit {
    made: Option<Attempt>,
}

impl OneInit {
    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        if let Seen::StepBegan {
            slot,
            step: step @ (Step::InitCluster { .. } | Step::Found { before: Before::Nothing, .. } | Step::Join { .. }),
            clean: false,
            ..
        } = seen
        {
            let name = step.name();
            // A disk that forgot has forgotten that kubeadm ran, too.
            if truth.identity.get(slot).is_some_and(|machine| truth.excused.contains(machine)) {
                return Ok(());
            }
            return Err(format!("machine {slot} begins {name} on what an earlier one left, without a reset"));
        }
        if let Seen::StepBegan { slot, step: Step::InitCluster { attempt, .. }, apart: false, .. } = seen {
            let me = truth.identity.get(slot);
            // What its own ledger says may be old, but never ahead of what was committed.
            if truth.claims.get(attempt).is_none_or(|holder| Some(holder) != me) {
                return Err(format!("machine {slot} runs init as attempt {attempt}, which is not its own"));
            }
        }
        if let Seen::StepBegan { slot, step: Step::InitFinish { attempt }, apart: false, .. } = seen
            && truth.ready != Some(*attempt)
        {
            return Err(format!("machine {slot} goes on with attempt {attempt}, which has not made the cluster"));
        }
        if let Seen::Offered { slot, machine, servers } = seen
            && !servers.is_empty()
            && truth.ready.is_none()
            && !truth.claims.values().any(|holder| holder == machine)
        {
            return Err(format!("machine {slot} leads to API servers before any init made the cluster"));
        }
        // Where two machines are one, what the first of them left may stand at the address that the ledger has of both; the
        // machine itself does nothing any more, and people are told (S9).
        if let Seen::JoinedKube { slot, cluster } = seen
            && truth.ready != Some(cluster.attempt)
            && !truth.excused.contains(&cluster.machine)
        {
            return Err(format!(
                "machine {slot} joined what attempt {} made, but the cluster is that of {:?}",
                cluster.attempt, truth.ready
            ));
        }
        Ok(())
    }

    pub(super) fn after(&mut self, machine: &Machine, truth: &Truth) -> Verdict {
        let Some(ready) = machine.ledger().ready() else { return Ok(()) };
        // Another cluster on the same network has an init of its own.
        if machine.charter().is_some_and(|certificate| Some(certificate.charter().id) != truth.charter) {
            return Ok(());
        }
        if self.made == Some(ready.attempt) {
            return Ok(());
        }
        if let Some(made) = self.made {
            return Err(format!("{} holds attempt {} for the cluster, others {made}", machine.id(), ready.attempt));
        }
        if truth.ready != Some(ready.attempt) {
            return Err(format!(
                "{} holds attempt {} for the cluster; live {:?}, made {:?}, abandoned {:?}",
                machine.id(),
                ready.attempt,
                truth.claim,
                truth.ready,
                truth.abandoned.keys().collect::<Vec<_>>()
            ));
        }
        self.made = Some(ready.attempt);
        Ok(())
    }
}

//! Who has the right to run `kubeadm init`, and the attempt that made the cluster.

use std::collections::BTreeSet;

use muster_wire::{Attempt, MachineId};

use super::Refusal;
use crate::planted::planted;

/// Most abandoned attempts whose reasons are kept; older ones are only counted.
const ABANDONED_KEPT: usize = 16;

/// The attempt that made the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The attempt.
    pub attempt: Attempt,
    /// Who ran it.
    pub machine: MachineId,
    /// `host:port` of the first API server.
    pub endpoints: Vec<String>,
    /// Whose tokens init registered.
    pub tokens: BTreeSet<MachineId>,
}

/// This part of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Init {
    /// The last attempt.
    pub(super) attempt: Attempt,
    pub(super) claim: Option<(Attempt, MachineId)>,
    pub(super) ready: Option<Ready>,
    /// The last abandoned attempts, oldest first: number, machine, reason.
    pub(super) abandoned: Vec<(Attempt, MachineId, String)>,
    /// Who begins etcd together in the attempt that made the cluster or is trying to; none if one machine does alone.
    pub(super) founders: BTreeSet<MachineId>,
    /// Names and addresses of all that the claim named, those that have left since among them: etcd's members know each other by
    /// numbers that follow from this list, so it is the same for the first of them and the last (promise S13).
    pub(super) etcd_list: Vec<(String, String)>,
    /// Those of them on which etcd may have been started.
    pub(super) begun: BTreeSet<MachineId>,
}

impl Init {
    /// Whether the right may be given as this attempt.
    ///
    /// # Errors
    /// The cluster is made, another attempt is live, or the number is not the next one.
    pub(super) fn may_claim(&self, attempt: Attempt) -> Result<(), Refusal> {
        if let Some(ready) = self.ready.as_ref().filter(|_| !planted("claim-after-ready")) {
            return Err(Refusal::AlreadyReady(ready.attempt));
        }
        if let Some((live, _)) = self.claim.filter(|_| !planted("claim-while-live")) {
            return Err(Refusal::NotLive { named: attempt, live: Some(live) });
        }
        if attempt != self.attempt.next() && !planted("claim-repeated") {
            return Err(Refusal::WrongAttempt { named: attempt, next: self.attempt.next() });
        }
        Ok(())
    }

    /// Gives the right to `machine`, after [`Init::may_claim`].
    pub(super) fn claim(
        &mut self,
        attempt: Attempt,
        machine: MachineId,
        founders: BTreeSet<MachineId>,
        etcd_list: Vec<(String, String)>,
    ) {
        self.etcd_list = etcd_list;
        self.attempt = attempt;
        self.claim = Some((attempt, machine));
        self.founders = founders;
        self.begun.clear();
    }

    /// A founder is about to start etcd.
    ///
    /// # Errors
    /// The attempt is not the one that made the cluster or is trying to, or the machine is none of its founders, or it has begun before.
    pub(super) fn begin(&mut self, attempt: Attempt, machine: MachineId) -> Result<(), Refusal> {
        let live = self.cluster_attempt();
        if live != Some(attempt) {
            return Err(Refusal::NotLive { named: attempt, live });
        }
        if !self.founders.contains(&machine) {
            return Err(Refusal::NoFounder(machine));
        }
        if self.begun.insert(machine) { Ok(()) } else { Err(Refusal::HasBegun(machine)) }
    }

    /// From here on the machine is no founder: it is gone, or comes to etcd like one that was never among them.
    pub(super) fn leave(&mut self, machine: MachineId) {
        self.founders.remove(&machine);
        self.begun.remove(&machine);
    }

    /// Whose attempt it is that may say that it made the cluster.
    pub(super) fn maker(&self, attempt: Attempt) -> Result<MachineId, Refusal> {
        if let Some(ready) = &self.ready {
            return Err(Refusal::AlreadyReady(ready.attempt));
        }
        let abandoned = self.abandoned.iter().find(|(gone, ..)| *gone == attempt && planted("ready-of-abandoned"));
        let claim = self.claim.filter(|(live, _)| *live == attempt);
        let maker = claim.map(|(_, machine)| machine).or(abandoned.map(|(_, machine, _)| *machine));
        maker.ok_or(Refusal::NotLive { named: attempt, live: self.live() })
    }

    pub(super) fn made(&mut self, ready: Ready) {
        self.claim = None;
        self.ready = Some(ready);
    }

    /// Whether the attempt is the live one.
    pub(super) fn is_live(&self, attempt: Attempt) -> Result<(), Refusal> {
        let live = self.live();
        if live == Some(attempt) { Ok(()) } else { Err(Refusal::NotLive { named: attempt, live }) }
    }

    /// Ends the live attempt, if there is one.
    pub(super) fn abandon(&mut self, why: &str) {
        if let Some((attempt, machine)) = self.claim.take() {
            self.founders.clear();
            self.etcd_list.clear();
            self.begun.clear();
            self.abandoned.push((attempt, machine, why.to_owned()));
            if !planted("abandoned-unbounded") && self.abandoned.len() > ABANDONED_KEPT {
                self.abandoned.remove(0);
            }
        }
    }

    fn live(&self) -> Option<Attempt> {
        self.claim.map(|(live, _)| live)
    }

    /// The attempt that made the cluster or is trying to.
    pub(super) fn cluster_attempt(&self) -> Option<Attempt> {
        self.ready.as_ref().map(|ready| ready.attempt).or(self.live())
    }
}

//! What one pass of the leader's may read, and what it may want.

use muster_wire::{Able, Charter, MachineId, SignedCard};

use crate::RaftMembers;
use crate::follow::Wants;
use crate::roster::Roster;
use crate::tuning::Tuning;
use crate::words::waits::Wait;
use crate::{Effects, Ledger, Renewal, Time};

/// What leading needs to know and may change.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) mine: &'a SignedCard,
    pub(crate) charter: &'a Charter,
    pub(crate) control_planes: u32,
    pub(crate) tuning: &'a Tuning,
    pub(crate) roster: &'a Roster,
    pub(crate) ledger: &'a Ledger,
    /// The level that whoever is admitted or promoted has to know: the ledger's, or that to which it is just rising.
    pub(crate) level: u32,
    /// Who takes part in Raft, as this machine's own has it; none if it has not said.
    pub(crate) raft_members: &'a RaftMembers,
    /// How this machine's certificates stand.
    pub(crate) renewal: Renewal,
    pub(crate) runs: &'a mut u64,
    pub(crate) wants: &'a mut Wants,
    /// What the duties wait for.
    pub(crate) waits: &'a mut Vec<Wait>,
    pub(crate) due: &'a mut Option<(Time, &'static str)>,
    pub(crate) effects: &'a mut Effects,
}

impl Context<'_> {
    pub(super) fn me(&self) -> MachineId {
        self.mine.card().machine
    }

    pub(super) fn wake_at(&mut self, due: Time, why: &'static str) {
        // What is past has been acted upon in this very pass; to be woken for it again would never end.
        if due > self.now {
            let due = (due, why);
            *self.due = Some(self.due.map_or(due, |other| other.min(due)));
        }
    }

    /// Whether a machine can run kubeadm, by its card.
    pub(super) fn able(&self, machine: MachineId) -> bool {
        if machine == self.me() {
            return self.mine.card().able == Able::Yes;
        }
        self.roster.card(machine).is_some_and(|card| card.able == Able::Yes)
    }
}

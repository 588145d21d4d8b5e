//! Join material, sealed to one machine each, for the cluster of one attempt.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use muster_wire::{Attempt, MachineId};

/// This part of the ledger: the attempt and the ciphertext of each machine's ticket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tickets(pub(super) BTreeMap<MachineId, (Attempt, Bytes)>);

impl Tickets {
    pub(super) fn issue(&mut self, machine: MachineId, attempt: Attempt, ciphertext: &Bytes) {
        self.0.insert(machine, (attempt, ciphertext.clone()));
    }

    /// A ticket whose token init did not register opens nothing; another one is issued.
    pub(super) fn keep(&mut self, tokens: &BTreeSet<MachineId>) {
        self.0.retain(|machine, _| tokens.contains(machine));
    }

    pub(super) fn remove(&mut self, machine: MachineId) {
        self.0.remove(&machine);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

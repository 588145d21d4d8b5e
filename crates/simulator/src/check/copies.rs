//! Every machine's copy of the ledger, against the entries as they were committed.

use std::collections::BTreeMap;

use muster_protocol::Machine;

use crate::truth::Truth;
use crate::world::Slot;

/// With more machines only the voters' copies are compared at every entry; the others' are compared with theirs later.
const MACHINES_MAX: u32 = 16;

/// Where each machine's copy was looked at last.
#[derive(Debug, Default)]
pub(super) struct Copies {
    looked_at: BTreeMap<Slot, u64>,
}

impl Copies {
    /// Compares the copy of a machine that has just taken an input, once for every revision.
    pub(super) fn after(&mut self, slot: Slot, machine: &Machine, truth: &Truth) -> Result<(), (&'static str, String)> {
        let ledger = machine.ledger();
        // Blank entries of Raft's own count in a ledger that was loaded whole, and are not told.
        if truth.history_lost
            || ledger.revision() < truth.book.revision()
            || self.looked_at.get(&slot) == Some(&ledger.revision())
        {
            return Ok(());
        }
        let Some(certificate) = machine.charter().filter(|certificate| Some(certificate.charter().id) == truth.charter)
        else {
            return Ok(());
        };
        if truth.image_machines > MACHINES_MAX && !certificate.charter().voters.contains(&machine.id()) {
            return Ok(());
        }
        self.looked_at.insert(slot, ledger.revision());
        let told = truth.book.compare(ledger);
        told.map_err(|(promise, what)| (promise, format!("machine {slot}: {what}")))
    }
}

//! Every machine's copy of the ledger, against the entries as they were committed.

use std::collections::BTreeMap;

use muster_protocol::Machine;
use muster_protocol::ledger::Ledger;
use muster_wire::Revision;

use crate::truth::Truth;
use crate::truth::book::Book;
use crate::watch::Seen;
use crate::world::Slot;

/// With more machines only the voters' copies are compared at every entry; the others' are compared with theirs later.
const MACHINES_MAX: u32 = 16;

/// What is wrong with a copy: the promise that this breaks, and how.
type Told = Result<(), (&'static str, String)>;

/// Where each machine's copy was looked at last.
#[derive(Debug, Default)]
pub(super) struct Copies {
    looked_at: BTreeMap<Slot, Revision>,
    /// Copies with which a machine started, and which are not what the entries told so far make: the last of those entries may
    /// have been told by nobody yet, since whoever applied them died first. They are looked at again when later ones are told.
    ahead: BTreeMap<Slot, Ledger>,
}

impl Copies {
    /// Looks at what was ahead, once the entries have come to it.
    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Told {
        if self.ahead.is_empty() || !matches!(seen, Seen::Applied { .. }) {
            return Ok(());
        }
        let told = truth.book.revision();
        let later = std::mem::take(&mut self.ahead);
        let (reached, later) = later.into_iter().partition(|(_, ledger)| ledger.revision() <= told);
        self.ahead = later;
        for (slot, ledger) in BTreeMap::into_iter(reached) {
            // Between two entries that are told stand only blank ones of Raft's own.
            let book = if ledger.revision() == told { &truth.book } else { &truth.book_before };
            compare(slot, book, &ledger)?;
        }
        Ok(())
    }

    /// Compares the copy of a machine that has just taken an input, once for every revision.
    pub(super) fn after(&mut self, slot: Slot, machine: &Machine, truth: &Truth) -> Told {
        let ledger = machine.ledger();
        let told = truth.book.revision();
        if truth.history_lost || ledger.revision() < told || self.looked_at.get(&slot) == Some(&ledger.revision()) {
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
        match compare(slot, &truth.book, ledger) {
            // Blank entries of Raft's own count in a ledger that was loaded whole, and are not told.
            Err(_) if ledger.revision() > told => {
                self.ahead.insert(slot, ledger.clone());
                Ok(())
            }
            told => told,
        }
    }
}

fn compare(slot: Slot, book: &Book, ledger: &Ledger) -> Told {
    book.compare(ledger).map_err(|(promise, what)| (promise, format!("machine {slot}: {what}")))
}

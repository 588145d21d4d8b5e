//! S9: an identity is never used again after its disk was wiped, nor after it was removed.

use std::collections::BTreeMap;

use muster_protocol::Machine;
use muster_wire::MachineId;

use super::{Facts, Verdict};
use crate::watch::Seen;
use crate::world::Slot;

/// Where each identity was first seen.
#[derive(Debug, Default)]
pub(super) struct Identities {
    homes: BTreeMap<MachineId, (Slot, u64)>,
}

impl Identities {
    pub(super) fn see(&mut self, seen: &Seen<'_>, facts: &Facts) -> Verdict {
        let Seen::Booting { slot, machine, generation, .. } = seen else { return Ok(()) };
        let home = *self.homes.entry(*machine).or_insert((*slot, *generation));
        if home != (*slot, *generation) && !facts.excused.contains(machine) {
            return Err(format!(
                "{machine} of machine {} and disk {} runs on machine {slot} and disk {generation}",
                home.0, home.1
            ));
        }
        Ok(())
    }

    pub(super) fn after(&self, machine: &Machine, facts: &Facts) -> Verdict {
        if facts.removed.is_empty() {
            return Ok(());
        }
        let ledger = machine.ledger();
        let back =
            facts.removed.iter().find(|removed| ledger.was_removed(**removed) && ledger.member(**removed).is_some());
        match back {
            Some(back) => Err(format!("{back} was removed and is a member again")),
            None => Ok(()),
        }
    }
}

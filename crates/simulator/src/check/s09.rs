//! S9: an identity is never used again after its disk was wiped, nor after it was removed.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::Machine;
use muster_wire::{Frame, MachineId};

use super::{Facts, Verdict};
use crate::watch::Seen;
use crate::world::Slot;

/// Where each identity was first seen.
#[derive(Debug, Default)]
pub(super) struct Identities {
    homes: BTreeMap<MachineId, (Slot, u64)>,
    /// Machines that have said that their identity runs elsewhere too.
    named: BTreeSet<(Slot, MachineId)>,
}

impl Identities {
    pub(super) fn see(&mut self, seen: &Seen<'_>, facts: &Facts) -> Verdict {
        match seen {
            Seen::Notice { slot, notice } if notice.kind == "clone" && notice.text.contains("votes no more") => {
                self.named.extend(facts.identity.get(slot).map(|machine| (*slot, *machine)));
            }
            Seen::Said { slot, machine, frame } if self.named.contains(&(*slot, *machine)) => {
                if matches!(frame, Frame::Promise(_) | Frame::Accepted { .. } | Frame::Prepare(_)) {
                    return Err(format!("{machine} knows that it runs twice, and sends a {}", frame.kind()));
                }
            }
            Seen::Stopped { slot } => self.named.retain(|(known, _)| known != slot),
            _ => {}
        }
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

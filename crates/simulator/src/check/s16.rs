//! S16: no machine applies, or keeps in a snapshot, what is of a higher level than it knows; and the ledger rises only to a level that
//! every voter knows. That two ledgers of one revision are the same is S3's.

use std::collections::BTreeMap;

use muster_protocol::Machine;
use muster_wire::{Entry, Revision};

use super::Verdict;
use crate::sometimes::Sometimes;
use crate::truth::Truth;
use crate::truth::book::needs;
use crate::watch::{Seen, decode};
use crate::world::Slot;

/// Remembers which levels each machine's images knew, and where the log went beyond each level.
#[derive(Debug, Default)]
pub(super) struct Levels {
    known: BTreeMap<Slot, u32>,
    /// The highest that an image of the machine ever knew: what that one wrote stays on the disk.
    ever: BTreeMap<Slot, u32>,
    /// For each level above the first, the revision of the first entry that needs it.
    begins: BTreeMap<u32, Revision>,
}

impl Levels {
    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth, sometimes: &mut Sometimes) -> Verdict {
        match seen {
            Seen::Booting { slot, level, .. } => {
                self.known.insert(*slot, *level);
                let ever = self.ever.entry(*slot).or_default();
                *ever = (*ever).max(*level);
                Ok(())
            }
            Seen::Restored { slot, revision, .. } => {
                let ever = self.ever.get(slot).copied().unwrap_or_default();
                self.read(ever, *revision).map_err(|why| format!("the Raft of machine {slot} keeps a ledger {why}"))
            }
            Seen::Applied { revision, entry, .. } => {
                let Some(entry) = decode(entry) else { return Ok(()) };
                let needs = needs(&entry);
                // What came too early took no effect: a ledger behind it is of the lower level, and may be read as a whole.
                if needs > 1 && *revision == truth.book.revision() && needs <= truth.book.level() {
                    let begins = self.begins.entry(needs).or_insert(*revision);
                    *begins = (*begins).min(*revision);
                }
                match entry {
                    // Once: whoever starts again applies it again, and other voters may be there by then.
                    Entry::LevelRaised { level }
                        if *revision == truth.book.revision() && level == truth.book.level() =>
                    {
                        self.risen(level, truth)
                    }
                    _ => Ok(()),
                }
            }
            Seen::Notice { notice, .. } if notice.kind == muster_protocol::NoticeKind::Outgrown => {
                sometimes.reached("stopped-beyond");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn risen(&self, level: u32, truth: &Truth) -> Verdict {
        let knows = |slot: &Slot| self.ever.get(slot).is_some_and(|known| *known >= level);
        let old = truth
            .book
            .voting()
            .into_iter()
            .find(|voter| truth.identity.iter().any(|(slot, machine)| machine == voter && !knows(slot)));
        match old {
            Some(voter) => Err(format!("the ledger rises to level {level}, which its voter {voter} does not know")),
            None => Ok(()),
        }
    }

    pub(super) fn after(&self, slot: Slot, machine: &Machine) -> Verdict {
        let known = self.known.get(&slot).copied().unwrap_or_default();
        let read = self.read(known, machine.ledger().revision());
        read.map_err(|why| format!("machine {slot} has a ledger {why}"))
    }

    /// Who knows the levels up to `known` stands before what is above.
    fn read(&self, known: u32, revision: Revision) -> Verdict {
        match self.begins.range(known + 1..).find(|(_, begins)| revision >= **begins) {
            Some((level, begins)) => Err(format!(
                "of revision {revision}, which from {begins} on needs level {level}, and knows level {known}"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_knows_less_stands_before_what_is_above() {
        let levels = Levels { begins: BTreeMap::from([(2, Revision(10)), (3, Revision(20))]), ..Levels::default() };
        assert!(levels.read(1, Revision(9)).is_ok() && levels.read(1, Revision(10)).is_err());
        assert!(levels.read(2, Revision(19)).is_ok() && levels.read(2, Revision(20)).is_err());
        assert!(levels.read(3, Revision(99)).is_ok());
    }
}

//! S5: join secrets are readable by their recipient alone, and nowhere in the clear.

use std::collections::BTreeMap;

use memchr::memmem::Finder;
use muster_wire::entry::Sealed;
use muster_wire::{Entry, MachineId, Revision};
use xxhash_rust::xxh3::xxh3_64;

use super::Verdict;
use crate::truth::{Truth, legible};
use crate::watch::{Seen, decode};
use crate::world::SealedTo;

/// What every set of keys and every ticket holds in its plain form, and nothing else that machines tell each other: PEM.
const MARK: &[u8] = b"-----BEGIN ";

/// Knows for whom every ciphertext was made, and looks for the mark of every secret.
pub(super) struct Secrets {
    sealed: BTreeMap<u64, SealedTo>,
    mark: Finder<'static>,
    looked_at: Revision,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { sealed: BTreeMap::new(), mark: Finder::new(MARK), looked_at: Revision::NONE }
    }
}

impl Secrets {
    fn holds_mark(&self, bytes: &[u8]) -> bool {
        self.mark.find(bytes).is_some()
    }

    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            Seen::Sealed { hash, to } => {
                self.sealed.insert(*hash, *to);
                match truth.sealing_keys.get(&to.machine) {
                    Some(key) if *key == to.key => Ok(()),
                    _ => Err(format!("a secret for {} was sealed with a key that is not its own", to.machine)),
                }
            }
            Seen::Sent { machine, to, bytes, frame, .. } if self.holds_mark(bytes) => {
                Err(format!("{machine} sent a secret in the clear to {to} in a {}", frame.kind()))
            }
            Seen::Exposed { slot, place } => Err(format!("machine {slot} shows a secret in {place}")),
            Seen::Notice { slot, notice }
                if self.holds_mark(notice.text.as_bytes()) || legible::secret(notice.text.as_bytes()) =>
            {
                Err(format!("machine {slot} told people a secret"))
            }
            Seen::Persisted { machine, durable, .. } if self.holds_mark(&durable.encode()) => {
                Err(format!("{machine} wrote a secret of the cluster in the clear"))
            }
            Seen::Applied { revision, entry, .. } if *revision > self.looked_at => {
                self.looked_at = *revision;
                if self.holds_mark(entry) || legible::secret(entry) {
                    return Err(format!("entry {revision} holds a secret in the clear"));
                }
                self.entry(*revision, decode(entry))
            }
            _ => Ok(()),
        }
    }

    fn entry(&self, revision: Revision, entry: Option<Entry>) -> Verdict {
        match entry {
            Some(Entry::Ticket { machine, ciphertext, .. }) => self.belongs(revision, machine, &ciphertext),
            Some(Entry::PkiSealed { sealed, .. }) => sealed
                .iter()
                .try_for_each(|Sealed { machine, ciphertext }| self.belongs(revision, *machine, ciphertext)),
            _ => Ok(()),
        }
    }

    fn belongs(&self, revision: Revision, machine: MachineId, ciphertext: &[u8]) -> Verdict {
        match self.sealed.get(&xxh3_64(ciphertext)) {
            Some(to) if to.machine == machine => Ok(()),
            Some(to) => Err(format!("entry {revision} gives {machine} what was sealed to {}", to.machine)),
            None => Err(format!("entry {revision} gives {machine} something that nobody sealed")),
        }
    }
}

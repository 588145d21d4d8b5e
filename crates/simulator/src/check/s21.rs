//! S21: what the ledger counts as a copy of a backup was on that machine's disk, and nothing is taken down on purpose before a backup was taken, or
//! tried in vain.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::Step;
use muster_wire::{Digest, Entry, MachineId, Revision};

use super::Verdict;
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::{At, Slot};

/// How old a backup, or a try, may be when something is taken down, and how much later that may be seen.
const FRESH: At = 600_000_000 + 120_000_000;

/// For so long what was tried for one thing counts for it: docs/protocol.md, "Backups".
const SAME: At = 24 * 3_600_000_000;

/// The level from which on backups are taken.
const LEVEL: u32 = 6;

#[derive(Debug, Default)]
pub(super) struct Backups {
    /// What has been on a machine's disk, whole.
    written: BTreeSet<(MachineId, Digest)>,
    /// And on which disk it may be still.
    on_disk: BTreeSet<(Slot, Digest)>,
    /// The digests of backups, by number.
    digests: BTreeMap<u32, Digest>,
    /// When the last was taken, or tried.
    last: Option<At>,
    /// What was begun after one was, by step and by whom it is about.
    begun: BTreeMap<String, At>,
    /// The last revision that was looked at.
    looked_at: Revision,
}

/// Whether a step takes something down that may still work.
fn takes_down(step: &Step) -> bool {
    matches!(step, Step::Drain { .. } | Step::Strike { back: false, .. } | Step::Renew { overdue: false, .. })
}

/// What is taken down: draining a machine and taking it out is one thing.
fn about(step: &Step) -> &str {
    match step {
        Step::Drain { node } | Step::Strike { node, .. } => node,
        step => step.name(),
    }
}

impl Backups {
    pub(super) fn see(&mut self, now: At, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            Seen::BackupWritten { slot, machine, digest } => {
                self.written.insert((*machine, *digest));
                self.on_disk.insert((*slot, *digest));
                Ok(())
            }
            // Who comes back as another machine, on a disk that was not wiped, has what was there.
            Seen::Booting { slot, machine, .. } => {
                let there = self.on_disk.iter().filter(|(on, _)| on == slot).map(|(_, digest)| (*machine, *digest));
                self.written.extend(there.collect::<Vec<_>>());
                Ok(())
            }
            Seen::Wiped { slot } => {
                self.on_disk.retain(|(on, _)| on != slot);
                Ok(())
            }
            Seen::StepEnded { step: Step::BackUp { .. }, .. } => {
                self.last = Some(now);
                Ok(())
            }
            Seen::StepBegan { slot, step, apart: false, .. } if takes_down(step) => {
                let fresh = self.last.is_some_and(|last| now <= last + FRESH);
                let about = format!("{slot} {}", about(step));
                if fresh {
                    self.begun.insert(about.clone(), now);
                }
                let same = self.begun.get(&about).is_some_and(|begun| now <= begun + SAME);
                match fresh || same || truth.book.level() < LEVEL {
                    true => Ok(()),
                    false => Err(format!("machine {slot} begins {}, and no backup was tried before", step.name())),
                }
            }
            Seen::Applied { .. } => match &truth.newest {
                Some((revision, entry)) if *revision > self.looked_at => {
                    self.looked_at = *revision;
                    self.applied(now, entry)
                }
                _ => Ok(()),
            },
            // What was said before and after is of two pasts.
            Seen::Rebuilt { revision, .. } => {
                self.looked_at = (*revision).min(self.looked_at);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn applied(&mut self, now: At, entry: &Entry) -> Verdict {
        match entry {
            Entry::BackedUp(backup) => {
                self.digests.insert(backup.number, backup.digest);
                self.last = Some(now);
                self.has(backup.machine, backup.number)
            }
            Entry::BackupKept { number, machine } => self.has(*machine, *number),
            _ => Ok(()),
        }
    }

    fn has(&self, machine: MachineId, number: u32) -> Verdict {
        match self.digests.get(&number).is_some_and(|digest| self.written.contains(&(machine, *digest))) {
            true => Ok(()),
            false => Err(format!("{machine} says that it keeps backup {number}, and never had it")),
        }
    }
}

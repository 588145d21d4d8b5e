//! S13: etcd starts on an empty directory only where the ledger told this machine, for this attempt, to found or to join; and what was
//! once begun is not begun again.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::{Founding, Step};
use muster_wire::{Attempt, MachineId};

use super::Verdict;
use crate::truth::Truth;
use crate::watch::Seen;

/// Looks at what etcd does on the founders' disks, and remembers who has begun.
#[derive(Debug, Default)]
pub(super) struct Founders {
    begun: BTreeSet<(Attempt, MachineId)>,
    /// With whom etcd of an attempt begins, as the first of them was told.
    lists: BTreeMap<Attempt, Founding>,
}

impl Founders {
    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        if let Seen::StepBegan {
            slot,
            step: Step::Found { attempt, founding, .. } | Step::InitCluster { attempt, founding: Some(founding), .. },
            apart: false,
            ..
        } = seen
        {
            let first = self.lists.entry(*attempt).or_insert_with(|| founding.clone());
            if first != founding {
                return Err(format!(
                    "machine {slot} is told to begin etcd of attempt {attempt} as {founding:?}, and another one was as {first:?}"
                ));
            }
        }
        match seen {
            // What its own ledger says may be old, but never ahead of what was committed.
            Seen::StepBegan { slot, step: Step::Found { attempt, .. }, apart: false, .. }
            | Seen::StepBegan {
                slot, step: Step::InitCluster { attempt, founding: Some(_), .. }, apart: false, ..
            } => match truth.identity.get(slot) {
                Some(machine) if !truth.begins.contains(&(*attempt, *machine)) => Err(format!(
                    "machine {slot} is about to begin etcd of attempt {attempt}, and the ledger was not told"
                )),
                _ => Ok(()),
            },
            Seen::EtcdBegun { slot, attempt } => {
                let Some(machine) = truth.identity.get(slot).copied() else { return Ok(()) };
                if !truth.founders_of.get(attempt).is_some_and(|founders| founders.contains(&machine)) {
                    return Err(format!("etcd begins on machine {slot}, which is no founder of attempt {attempt}"));
                }
                if !truth.begins.contains(&(*attempt, machine)) {
                    return Err(format!(
                        "etcd of attempt {attempt} begins on machine {slot}, and the ledger was not told"
                    ));
                }
                // Nobody knows what a disk held that forgot.
                if !self.begun.insert((*attempt, machine)) && !truth.excused.contains(&machine) {
                    return Err(format!("etcd of attempt {attempt} begins on machine {slot} once more, with nothing"));
                }
                Ok(())
            }
            Seen::EtcdFormed { attempt, before: true, .. } => {
                Err(format!("a second etcd of attempt {attempt} begins: what the first one held is lost"))
            }
            Seen::EtcdMet { slot, own, of } if own != of => {
                Err(format!("machine {slot} founds in attempt {own}, and comes to the etcd of attempt {of}"))
            }
            Seen::EtcdListUploaded { slot } => {
                Err(format!("machine {slot} tells every later member with whom etcd began"))
            }
            _ => Ok(()),
        }
    }
}

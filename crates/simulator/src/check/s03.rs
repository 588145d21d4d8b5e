//! S3: Raft's own promises, as they show: one entry an index for good, in order, and one ledger a revision.
//!
//! openraft orders leaders by term and then by identity, so a term may see one leader give way to another; what a quorum took
//! from either is kept all the same, and that is what is checked.

use std::collections::BTreeMap;

use muster_consensus::{Broke, OpenError, SeatError};
use muster_protocol::Ledger;
use muster_wire::{Frame, MachineId, Revision, proto};
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

use super::Verdict;
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::{At, Slot, World};

/// Longer than any write takes.
const SPEAKS_AFTER: At = 1_000_000;

/// Entries by index.
#[derive(Debug, Default)]
pub(super) struct Raft {
    entries: BTreeMap<Revision, u64>,
    applied: BTreeMap<Slot, Revision>,
    /// By charter, epoch and revision: who was seen with it first, and the ledger.
    ledgers: BTreeMap<([u8; 16], u32, Revision), (Slot, Ledger)>,
    looked_at: BTreeMap<Slot, ([u8; 16], u32, Revision)>,
    /// Where the next look begins.
    next: Slot,
    /// The term that each identity has spoken in.
    terms: BTreeMap<MachineId, u64>,
    /// The highest vote that each identity has answered with in earlier lives, and in the present one.
    votes: BTreeMap<MachineId, (u64, MachineId)>,
    votes_said: BTreeMap<MachineId, (u64, MachineId)>,
    /// The term that each identity's Raft says it is in, and since when.
    told: BTreeMap<MachineId, (u64, At)>,
}

/// Most machines whose ledgers are compared in one look: in a large site every machine gets its turn some looks later.
const LOOKED_AT_MAX: Slot = 128;

impl Raft {
    pub(super) fn see(&mut self, now: At, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            // On a disk that lost what it had promised to keep, openraft may find its own state impossible.
            Seen::RefusedStart {
                slot,
                raft:
                    Some(
                        SeatError::Lost(_)
                        | SeatError::Stopped(Broke::Panicked | Broke::Damaged(_))
                        | SeatError::NotOpened(OpenError::Raft(Broke::Panicked | Broke::Damaged(_))),
                    ),
                why,
            } if truth.excused.is_empty() && !truth.damaged.contains(slot) => {
                Err(format!("Raft on machine {slot}: {why}"))
            }
            Seen::Term { machine, term, .. } if !truth.excused.contains(machine) => {
                let highest = self.terms.get(machine).copied().unwrap_or(0);
                if *term < highest {
                    return Err(format!("{machine} is at term {term} after {highest}: it can vote a second time"));
                }
                self.told.insert(*machine, (*term, now));
                Ok(())
            }
            Seen::Sent { machine, to, frame: Frame::RaftAnswer { body, .. }, .. }
                if !truth.excused.contains(machine) && voted(body, *to).is_some() =>
            {
                self.votes(now, *machine, voted(body, *to).unwrap_or_default())
            }
            // A term counts once the machine speaks in it: until then its vote may still be on its way to disk.
            Seen::Sent { machine, frame: Frame::RaftCall { .. } | Frame::RaftAnswer { .. }, .. } => {
                self.speaks(now, *machine);
                Ok(())
            }
            Seen::Stopped { slot } => {
                if let Some(machine) = truth.identity.get(slot) {
                    self.told.remove(machine);
                    let kept = self.votes.get(machine).copied().max(self.votes_said.remove(machine));
                    self.votes.extend(kept.map(|vote| (*machine, vote)));
                }
                Ok(())
            }
            Seen::Booting { slot, .. } => {
                self.applied.remove(slot);
                Ok(())
            }
            // What only the lost ones had is lost, and nothing else: whoever could be asked was.
            Seen::Rebuilt { slot, revision, known } => {
                self.entries.split_off(revision);
                match known >= revision {
                    true => Err(format!(
                        "machine {slot} rebuilds the cluster up to revision {}, and a machine that is here knows {known}",
                        revision.0 - 1
                    )),
                    false => Ok(()),
                }
            }
            Seen::Restored { slot, revision, .. } => {
                self.applied.insert(*slot, *revision);
                Ok(())
            }
            Seen::Applied { slot, machine, revision, entry } => self.applies(*slot, *machine, *revision, entry),
            _ => Ok(()),
        }
    }

    fn votes(&mut self, now: At, machine: MachineId, vote: (u64, MachineId)) -> Verdict {
        if let Some(highest) = self.votes.get(&machine).filter(|highest| vote < **highest) {
            return Err(format!(
                "{machine} answers with its vote for {} in term {}, after one for {} in term {}",
                vote.1, vote.0, highest.1, highest.0
            ));
        }
        // Answers to two candidates may overtake each other, but not a restart.
        let said = self.votes_said.entry(machine).or_insert(vote);
        *said = vote.max(*said);
        self.speaks(now, machine);
        Ok(())
    }

    fn applies(&mut self, slot: Slot, machine: MachineId, revision: Revision, entry: &[u8]) -> Verdict {
        let last = self.applied.insert(slot, revision).unwrap_or_default();
        if revision <= last {
            return Err(format!("{machine} applied {revision} after {last}"));
        }
        let hash = xxh3_64(entry);
        if *self.entries.entry(revision).or_insert(hash) != hash {
            return Err(format!("{machine} applied another entry at {revision} than its peers"));
        }
        Ok(())
    }

    fn speaks(&mut self, now: At, machine: MachineId) {
        if let Some((term, _)) = self.told.get(&machine).filter(|(_, at)| now >= at + SPEAKS_AFTER) {
            self.terms.insert(machine, *term);
        }
    }

    /// Ledgers of one revision are the same. Each is looked at once for every revision it stands at.
    pub(super) fn look(&mut self, world: &World, truth: &Truth) -> Verdict {
        let (from, slots) = (self.next, world.slots());
        self.next = (from + LOOKED_AT_MAX.min(slots)) % slots.max(1);
        for slot in (from..from + LOOKED_AT_MAX.min(slots)).map(|slot| slot % slots) {
            let Some(machine) = world.machine(slot).filter(|_| !world.is_apart(slot, truth)) else { continue };
            let Some(certificate) = machine.charter() else { continue };
            let ledger = machine.ledger();
            let standing = (certificate.charter().id, ledger.epoch().number, ledger.revision());
            if self.looked_at.insert(slot, standing) == Some(standing) {
                continue;
            }
            let (other, same) = self.ledgers.entry(standing).or_insert_with(|| (slot, ledger.clone()));
            if same != ledger {
                return Err(format!(
                    "machines {other} and {slot} hold different ledgers of revision {}",
                    ledger.revision()
                ));
            }
        }
        Ok(())
    }
}

/// The vote that an answer to a candidate tells: its term and whose it is. A machine that is not named is the candidate.
fn voted(answer: &[u8], candidate: MachineId) -> Option<(u64, MachineId)> {
    let answer = proto::RaftResponse::decode(answer).ok()?.answer?;
    let proto::raft_response::Answer::Granted(proto::RaftGranted { vote: Some(vote), .. }) = answer else {
        return None;
    };
    let machine =
        if vote.machine.is_empty() { candidate } else { MachineId::from_slice(&vote.machine, "vote").ok()? };
    Some((vote.term, machine))
}

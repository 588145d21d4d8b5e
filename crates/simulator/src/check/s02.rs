//! S2: a vote given while founding is never contradicted later, a restart included; and it is on disk before it is spoken.

use std::collections::BTreeMap;

use muster_wire::charter::charter_hash;
use muster_wire::{Ballot, Digest, Durable, Frame, MachineId};

use super::{Facts, Verdict};
use crate::watch::Seen;
use crate::world::Slot;

/// What an identity has said and what its disk holds.
#[derive(Debug, Default)]
pub(super) struct VotesKept {
    spoken: BTreeMap<MachineId, Spoken>,
    disks: BTreeMap<Slot, OnDisk>,
}

#[derive(Debug, Default)]
struct Spoken {
    promised: Option<Ballot>,
    voted: Option<(Ballot, Digest)>,
    /// Every vote, since two in one ballot contradict each other whenever they were given.
    votes: BTreeMap<Ballot, Digest>,
}

#[derive(Debug, Default)]
struct OnDisk {
    promised: Option<Ballot>,
    accepted: Option<(Ballot, Digest)>,
}

impl VotesKept {
    pub(super) fn see(&mut self, seen: &Seen<'_>, facts: &Facts) -> Verdict {
        match seen {
            Seen::Booting { slot, durable, .. } | Seen::Persisted { slot, durable, .. } => {
                self.disks.insert(*slot, on_disk(durable));
                Ok(())
            }
            Seen::Sent { machine, slot, frame, .. } if !facts.excused.contains(machine) => match frame {
                Frame::Promise(promise) => {
                    self.promises(*slot, *machine, promise.ballot, promise.accepted.as_ref().map(|(ballot, _)| *ballot))
                }
                Frame::Accepted { vote, .. } if vote.machine == *machine => {
                    self.votes(*slot, *machine, vote.ballot, vote.charter_hash)
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn promises(&mut self, slot: Slot, machine: MachineId, ballot: Ballot, told: Option<Ballot>) -> Verdict {
        let disk = self.disks.entry(slot).or_default();
        if disk.promised.is_none_or(|promised| promised < ballot) {
            return Err(format!("{machine} promised {ballot:?} before its disk had it"));
        }
        let spoken = self.spoken.entry(machine).or_default();
        if spoken.promised.is_some_and(|promised| promised > ballot) {
            return Err(format!("{machine} promised {ballot:?} after {:?}", spoken.promised));
        }
        spoken.promised = Some(ballot);
        let voted = spoken.voted.map(|(ballot, _)| ballot).filter(|voted| *voted < ballot);
        if voted > told {
            return Err(format!("{machine} promised {ballot:?} and told of {told:?}, but had voted in {voted:?}"));
        }
        Ok(())
    }

    fn votes(&mut self, slot: Slot, machine: MachineId, ballot: Ballot, hash: Digest) -> Verdict {
        let disk = self.disks.entry(slot).or_default();
        if disk.accepted != Some((ballot, hash)) {
            return Err(format!("{machine} voted in {ballot:?}, but its disk holds {:?}", disk.accepted));
        }
        let spoken = self.spoken.entry(machine).or_default();
        if spoken.promised.is_some_and(|promised| promised > ballot) {
            return Err(format!("{machine} voted in {ballot:?} after it had promised {:?}", spoken.promised));
        }
        if let Some(other) = spoken.votes.insert(ballot, hash)
            && other != hash
        {
            return Err(format!("{machine} voted for two charters in {ballot:?}: {other} and {hash}"));
        }
        spoken.promised = spoken.promised.max(Some(ballot));
        spoken.voted = spoken.voted.max(Some((ballot, hash)));
        Ok(())
    }
}

fn on_disk(durable: &Durable) -> OnDisk {
    OnDisk {
        promised: durable.promised,
        accepted: durable.accepted.as_ref().map(|(ballot, charter)| (*ballot, charter_hash(charter))),
    }
}

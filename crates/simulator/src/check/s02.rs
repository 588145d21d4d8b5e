//! S2: a vote given while founding is never contradicted later, a restart included; and it is on disk before it is spoken.

use std::collections::{BTreeMap, BTreeSet};

use muster_wire::charter::charter_hash;
use muster_wire::{Ballot, BootCount, Digest, Durable, Frame, MachineId};

use super::Verdict;
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::Slot;

/// What an identity has said and what its disk holds.
#[derive(Debug, Default)]
pub(super) struct VotesKept {
    spoken: BTreeMap<MachineId, Spoken>,
    disks: BTreeMap<Slot, OnDisk>,
    /// Ballots that each machine began, and those of its present life.
    begun: BTreeMap<MachineId, BTreeSet<Ballot>>,
    of_this_life: BTreeMap<Slot, BTreeSet<Ballot>>,
    /// What was last written to each disk, and whose it is.
    written: BTreeMap<Slot, (MachineId, Durable)>,
    /// The charter that a proposer asked votes for.
    asked: BTreeMap<Ballot, Digest>,
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
    boot: BootCount,
    booting: bool,
    promised: Option<Ballot>,
    accepted: Option<(Ballot, Digest)>,
    charter: bool,
}

impl VotesKept {
    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            Seen::Booting { slot, machine, durable, .. } => {
                if let Some((whose, written)) = self.written.get(slot)
                    && whose == machine
                    && written != *durable
                    && !truth.excused.contains(machine)
                {
                    return Err(format!("{machine} wrote {written:?} and starts again with {durable:?}"));
                }
                self.of_this_life.remove(slot);
                self.disks.insert(*slot, OnDisk { booting: true, ..on_disk(durable) });
                Ok(())
            }
            Seen::Persisted { slot, machine, durable } => {
                self.written.insert(*slot, (*machine, (*durable).clone()));
                let before = self.disks.insert(*slot, on_disk(durable));
                match before.filter(|_| !truth.excused.contains(machine)) {
                    Some(before) => self.disks[slot].keeps(&before, *machine),
                    None => Ok(()),
                }
            }
            Seen::Said { slot, frame, machine } if !truth.answers_two_ways(*slot) => {
                self.is_on_disk(*slot, *machine, frame)?;
                if truth.excused.contains(machine) { Ok(()) } else { self.said(*slot, *machine, frame) }
            }
            _ => Ok(()),
        }
    }

    /// What is spoken is what the disk holds at this moment, whatever that disk forgot before: nobody is excused from that but who
    /// answers two ways.
    fn is_on_disk(&self, slot: Slot, machine: MachineId, frame: &Frame) -> Verdict {
        let Some(disk) = self.disks.get(&slot) else { return Ok(()) };
        match frame {
            Frame::Promise(promise) => {
                let told = promise.accepted.as_ref().map(|(ballot, charter)| (*ballot, charter_hash(charter)));
                if (disk.promised, disk.accepted) != (Some(promise.ballot), told) {
                    return Err(format!(
                        "{machine} promised {:?} and told of {told:?}, but its disk holds {:?} and {:?}",
                        promise.ballot, disk.promised, disk.accepted
                    ));
                }
                Ok(())
            }
            Frame::Accepted { vote, .. } if vote.machine == machine => {
                let said = (vote.ballot, vote.charter_hash);
                if disk.accepted != Some(said) {
                    return Err(format!(
                        "{machine} voted in {:?}, but its disk holds {:?}",
                        vote.ballot, disk.accepted
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn said(&mut self, slot: Slot, machine: MachineId, frame: &Frame) -> Verdict {
        match frame {
            Frame::Promise(promise) => {
                self.promises(machine, promise.ballot, promise.accepted.as_ref().map(|(ballot, _)| *ballot))
            }
            Frame::Accepted { vote, .. } if vote.machine == machine => {
                self.votes(machine, vote.ballot, vote.charter_hash)
            }
            Frame::Prepare(ballot) if ballot.machine == machine => self.begins(slot, machine, *ballot),
            Frame::Accept { ballot, charter } if ballot.machine == machine => {
                let hash = charter_hash(charter);
                let first = *self.asked.entry(*ballot).or_insert(hash);
                if first != hash {
                    return Err(format!("{machine} asks for votes for two charters in {ballot:?}: {first} and {hash}"));
                }
                if self.disks.get(&slot).and_then(|disk| disk.accepted) != Some((*ballot, hash)) {
                    return Err(format!("{machine} asks for votes in {ballot:?} before its own is on disk"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A ballot is begun once: after a restart a proposer takes a higher one than all that it promised.
    fn begins(&mut self, slot: Slot, machine: MachineId, ballot: Ballot) -> Verdict {
        if !self.of_this_life.entry(slot).or_default().insert(ballot) {
            return Ok(());
        }
        if !self.begun.entry(machine).or_default().insert(ballot) {
            return Err(format!("{machine} begins {ballot:?} a second time"));
        }
        let spoken = self.spoken.entry(machine).or_default();
        if spoken.promised.is_some_and(|promised| promised >= ballot) {
            return Err(format!("{machine} begins {ballot:?} after it promised {:?}", spoken.promised));
        }
        if self.disks.get(&slot).is_some_and(|disk| disk.promised < Some(ballot)) {
            return Err(format!("{machine} begins {ballot:?} before its own promise is on disk"));
        }
        spoken.promised = Some(ballot);
        Ok(())
    }

    fn promises(&mut self, machine: MachineId, ballot: Ballot, told: Option<Ballot>) -> Verdict {
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

    fn votes(&mut self, machine: MachineId, ballot: Ballot, hash: Digest) -> Verdict {
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

impl OnDisk {
    /// What was written keeps every promise of what was there.
    fn keeps(&self, before: &OnDisk, machine: MachineId) -> Verdict {
        if self.boot < before.boot || before.booting && self.boot == before.boot {
            return Err(format!("{machine} counts boot {} after {}", self.boot, before.boot));
        }
        if before.charter && !self.charter {
            return Err(format!("{machine} forgot its charter"));
        }
        // With a charter, founding is over for this machine, and its votes in it bind nobody any more.
        if self.charter {
            return Ok(());
        }
        if self.promised < before.promised {
            return Err(format!("{machine} wrote promise {:?} over {:?}", self.promised, before.promised));
        }
        match (&before.accepted, &self.accepted) {
            (Some((ballot, hash)), Some((later, other))) if later > ballot || (later, other) == (ballot, hash) => {
                Ok(())
            }
            (Some(vote), other) => Err(format!("{machine} wrote vote {other:?} over {vote:?}")),
            (None, _) => Ok(()),
        }
    }
}

fn on_disk(durable: &Durable) -> OnDisk {
    OnDisk {
        boot: durable.boot,
        booting: false,
        charter: durable.charter.is_some(),
        promised: durable.promised,
        accepted: durable.accepted.as_ref().map(|(ballot, charter)| (*ballot, charter_hash(charter))),
    }
}

/// A change on the way that no signature stopped: anyone could speak for anyone.
pub(super) fn forged(seen: &Seen<'_>) -> Verdict {
    match seen {
        Seen::Forged { slot, what } => Err(format!("machine {slot} takes a {what} that was changed on its way")),
        _ => Ok(()),
    }
}

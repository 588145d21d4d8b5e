//! S1: a cluster name and mesh key never get two charters.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use muster_wire::charter::charter_hash;
use muster_wire::{Ballot, Certificate, Charter, Digest, Durable, Frame, MachineId};

use super::Verdict;
use crate::truth::Truth;
use crate::watch::{Seen, list};
use crate::world::Slot;

/// What a machine had voted for when it promised: the ballot and the charter.
type Told = Option<(Ballot, Digest)>;

/// Counts the votes as they are written, so that a second charter shows before anyone has noticed it, and looks at every
/// question for votes: whether nothing else can have been chosen before (Lamport, "Paxos Made Simple", P2c).
#[derive(Debug, Default)]
pub(super) struct OneCharter {
    votes: BTreeMap<(String, Ballot, Digest), BTreeSet<MachineId>>,
    /// Those of the votes that are quorums, in the order in which they became that.
    chosen: Vec<(String, Ballot, Digest)>,
    /// By cluster name: the charter that is followed.
    followed: BTreeMap<String, (Digest, MachineId)>,
    /// What each machine's disk holds as its vote.
    disks: BTreeMap<Slot, Told>,
    promises: BTreeMap<Ballot, BTreeMap<MachineId, Told>>,
    /// The charter of every ballot in which votes were asked for.
    asked: BTreeMap<Ballot, Digest>,
    /// A second charter that no protocol could have kept away.
    unbound: Option<String>,
}

impl OneCharter {
    /// What was seen of a second charter that is outside of what S1 assumes, once.
    pub(super) fn take_unbound(&mut self) -> Option<String> {
        self.unbound.take()
    }

    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            Seen::Booting { slot, durable, .. } => {
                self.disks.insert(*slot, told(durable.accepted.as_ref()));
                Ok(())
            }
            Seen::Persisted { slot, machine, durable } => {
                self.disks.insert(*slot, told(durable.accepted.as_ref()));
                self.count(*machine, durable, truth)?;
                match &durable.charter {
                    Some(certificate) => self.follow(*machine, &durable.cluster, certificate, truth),
                    None => Ok(()),
                }
            }
            Seen::Said { slot, machine, frame } => self.sent(*slot, *machine, frame, truth),
            _ => Ok(()),
        }
    }

    fn follow(&mut self, machine: MachineId, cluster: &str, certificate: &Certificate, truth: &Truth) -> Verdict {
        let hash = charter_hash(certificate.charter_bytes());
        let (first, by) = self.followed.entry(cluster.to_owned()).or_insert((hash, machine));
        if *first != hash {
            // Two that were chosen were judged when they were.
            let chosen = |hash: &Digest| self.chosen.iter().any(|(of, _, what)| of == cluster && what == hash);
            if !chosen(first) || !chosen(&hash) {
                return Err(format!("{machine} follows charter {hash}, {by} follows {first}"));
            }
        }
        let voted = |voter: &MachineId| {
            self.votes.iter().any(|((of, _, what), votes)| of == cluster && *what == hash && votes.contains(voter))
        };
        let unproven = certificate.voters_of_founding().find(|voter| !voted(voter));
        if let Some(unproven) = unproven {
            return Err(format!("{machine} follows charter {hash} on a vote of {unproven}, which never gave it"));
        }
        let charter = certificate.charter();
        let count = certificate.voters_of_founding().count();
        if charter.machines == truth.image_machines && count < truth.quorum {
            return Err(format!("{machine} follows charter {hash} on {count} votes, which needs {}", truth.quorum));
        }
        Ok(())
    }

    fn count(&mut self, machine: MachineId, durable: &Durable, truth: &Truth) -> Verdict {
        let Some((ballot, bytes)) = &durable.accepted else { return Ok(()) };
        // The quorum that the charter itself names is what its followers will check; ours is what it must be.
        let needed = Charter::decode(bytes).map_or(truth.quorum, |charter| charter.quorum as usize);
        self.voted(machine, (durable.cluster.clone(), *ballot, charter_hash(bytes)), needed, truth)
    }

    fn voted(&mut self, machine: MachineId, key: (String, Ballot, Digest), needed: usize, truth: &Truth) -> Verdict {
        if self.votes.get(&key).is_some_and(|votes| votes.contains(&machine)) {
            return Ok(());
        }
        let votes = self.votes.entry(key.clone()).or_default();
        votes.insert(machine);
        if votes.len() < needed {
            return Ok(());
        }
        if !self.chosen.contains(&key) {
            self.chosen.push(key.clone());
        }
        let (cluster, _, hash) = &key;
        let at = self.chosen.iter().position(|chosen| *chosen == key);
        for (other_at, other) in self.chosen.iter().enumerate() {
            let (of, ballot, what) = other;
            if of != cluster || what == hash {
                continue;
            }
            // The votes of the lower ballot should have bound the higher one; and whoever had promised the higher one should
            // not have voted in a lower one any more, unless the disks forgot it.
            let lower = if *ballot < key.1 { other } else { &key };
            let earlier = if Some(other_at) < at { other } else { &key };
            let cannot_bind = |key| self.votes.get(key).is_some_and(|voters| truth.cannot_bind(voters));
            let by = |key| self.votes.get(key).map(list).unwrap_or_default();
            let two = format!("two charters have a quorum: {what} by {}; {hash} by {}", by(other), by(&key));
            if !cannot_bind(lower) && !cannot_bind(earlier) {
                return Err(two);
            }
            let forgot = list(&truth.forgetful());
            self.unbound = Some(format!(
                "{two}. That votes survive was assumed, and did not hold: a disk was copied, came back older or wiped, or \
                 lost what it had synced, on {forgot}"
            ));
        }
        Ok(())
    }

    fn sent(&mut self, slot: Slot, machine: MachineId, frame: &Frame, truth: &Truth) -> Verdict {
        match frame {
            Frame::Prepare(ballot) if ballot.machine == machine => {
                let own = self.disks.get(&slot).copied().flatten().filter(|(voted, _)| voted < ballot);
                self.promises.entry(*ballot).or_default().entry(machine).or_insert(own);
                Ok(())
            }
            Frame::Promise(promise) => {
                let promises = self.promises.entry(promise.ballot).or_default();
                promises.insert(machine, told(promise.accepted.as_ref()));
                Ok(())
            }
            // Whoever answers two ways votes without writing it down.
            Frame::Accepted { cluster, vote } if truth.excused.contains(&machine) => {
                self.voted(machine, (cluster.clone(), vote.ballot, vote.charter_hash), truth.quorum, truth)
            }
            // Of another image the quorum is another one.
            Frame::Accept { ballot, .. } if ballot.machine == machine && truth.others.contains(&slot) => Ok(()),
            Frame::Accept { ballot, charter } if ballot.machine == machine => {
                let hash = charter_hash(charter);
                if self.asked.insert(*ballot, hash) == Some(hash) || truth.excused.contains(&machine) {
                    return Ok(());
                }
                self.safe(*ballot, hash, truth)
            }
            _ => Ok(()),
        }
    }

    /// Whether some quorum promised the ballot, and told of nothing that binds it to another charter.
    fn safe(&self, ballot: Ballot, hash: Digest, truth: &Truth) -> Verdict {
        let promises = self.promises.get(&ballot).map(BTreeMap::values).into_iter().flatten();
        let told: Vec<Told> = promises.copied().collect();
        if truth.quorum == 1 {
            return Ok(());
        }
        if told.len() < truth.quorum {
            let few = told.len();
            return Err(format!("votes are asked for in {ballot:?} on {few} promises, which needs {}", truth.quorum));
        }
        // A quorum whose highest vote is `bound`, for every vote that could be it.
        let free = told.iter().filter(|told| told.is_none()).count() >= truth.quorum;
        let bound = told.iter().flatten().any(|(bound, what)| {
            let below = told.iter().filter(|told| told.is_none_or(|(voted, _)| voted <= *bound)).count();
            *what == hash && below >= truth.quorum
        });
        if free || bound {
            return Ok(());
        }
        Err(format!("votes are asked for in {ballot:?} for {hash}, but its promises tell of another charter"))
    }
}

fn told(vote: Option<&(Ballot, Bytes)>) -> Told {
    vote.map(|(ballot, charter)| (*ballot, charter_hash(charter)))
}

//! S1: a cluster name and mesh key never get two charters.

use std::collections::{BTreeMap, BTreeSet};

use muster_wire::charter::charter_hash;
use muster_wire::{Ballot, Charter, Digest, Durable, MachineId};

use super::{Facts, Verdict};
use crate::watch::{Seen, list};

/// Counts the votes as they are written, so that a second charter shows before anyone has noticed it.
#[derive(Debug, Default)]
pub(super) struct OneCharter {
    votes: BTreeMap<(String, Ballot, Digest), BTreeSet<MachineId>>,
    /// By cluster name: the charter that a quorum voted for, and with whom.
    chosen: BTreeMap<String, (Digest, BTreeSet<MachineId>)>,
    /// By cluster name: the charter that is followed.
    followed: BTreeMap<String, (Digest, MachineId)>,
}

impl OneCharter {
    pub(super) fn see(&mut self, seen: &Seen<'_>, facts: &Facts) -> Verdict {
        let Seen::Persisted { machine, durable, .. } = seen else { return Ok(()) };
        self.count(*machine, durable, facts)?;
        let Some(certificate) = &durable.charter else { return Ok(()) };
        let hash = charter_hash(certificate.charter_bytes());
        let (first, by) = self.followed.entry(durable.cluster.clone()).or_insert((hash, *machine));
        if *first != hash {
            let excused = self.chosen.get(&durable.cluster).is_some_and(|(_, voters)| {
                certificate.voters_of_founding().any(|voter| voters.contains(&voter) && facts.excused.contains(&voter))
            });
            if !excused {
                return Err(format!("{machine} follows charter {hash}, {by} follows {first}"));
            }
        }
        Ok(())
    }

    fn count(&mut self, machine: MachineId, durable: &Durable, facts: &Facts) -> Verdict {
        let Some((ballot, bytes)) = &durable.accepted else { return Ok(()) };
        let hash = charter_hash(bytes);
        let key = (durable.cluster.clone(), *ballot, hash);
        if self.votes.get(&key).is_some_and(|votes| votes.contains(&machine)) {
            return Ok(());
        }
        let votes = self.votes.entry(key).or_default();
        votes.insert(machine);
        // The quorum that the charter itself names is what its followers will check; ours is what it must be.
        let needed = Charter::decode(bytes).map_or(facts.quorum, |charter| charter.quorum as usize);
        if votes.len() < needed {
            return Ok(());
        }
        let votes = votes.clone();
        match self.chosen.get(&durable.cluster) {
            Some((first, voters)) if *first != hash => {
                let both: BTreeSet<MachineId> = voters.intersection(&votes).copied().collect();
                if both.iter().any(|machine| facts.excused.contains(machine)) {
                    return Ok(());
                }
                Err(format!("two charters have a quorum: {first} by {}; {hash} by {}", list(voters), list(&votes)))
            }
            _ => {
                self.chosen.insert(durable.cluster.clone(), (hash, votes));
                Ok(())
            }
        }
    }
}

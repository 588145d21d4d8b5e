//! Which copies of backups go from a machine's disk, which one is fetched next, and when. Run beside the machine, by the agent and the simulator
//! alike; what a machine is to keep it says itself ([`crate::Effect::KeepBackups`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_wire::{Digest, MachineId};

use crate::{Time, WantedBackup};

/// How long a file stays that the ledger does not want here: what this machine knows of the ledger may be old.
pub const GRACE: Duration = Duration::from_secs(60);

/// Pause after a try that failed with everybody who has it; doubled with each.
const PAUSE: Duration = Duration::from_secs(15);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How often a pause is doubled.
const DOUBLED_MAX: u32 = 6;

/// What is to be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The number of the last backup that the ledger counts.
    pub last: u32,
    /// What the machine says.
    pub all: Vec<WantedBackup>,
    /// What a person asked for, beside those: it is fetched first.
    pub asked: Vec<WantedBackup>,
}

/// Tries that were in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The backup's number.
    pub number: u32,
    /// How many there were in a row.
    pub times: u32,
    /// Why the last one failed, for people.
    pub why: String,
    /// When the next one is due, unless other machines have it by then.
    pub until: Time,
    from: Vec<MachineId>,
}

/// What a machine does about its copies.
#[derive(Debug, Clone)]
pub struct Copies {
    grace: Duration,
    wanted: Option<Wanted>,
    /// Since when those are not wanted that are not.
    unwanted: BTreeMap<Digest, Time>,
    tried: BTreeMap<Digest, Tried>,
}

impl Default for Copies {
    fn default() -> Self {
        Self::with_grace(GRACE)
    }
}

impl Copies {
    /// With another time than [`GRACE`]: for tests.
    pub fn with_grace(grace: Duration) -> Self {
        Self { grace, wanted: None, unwanted: BTreeMap::new(), tried: BTreeMap::new() }
    }

    /// What is to be kept from now on. Before anything was said nothing is unwanted.
    pub fn want(&mut self, wanted: Option<Wanted>) {
        self.wanted = wanted;
    }

    /// Whether a backup is to be kept, or nothing was said yet.
    pub fn wants(&self, digest: Digest) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| all(wanted).any(|backup| backup.digest == digest))
    }

    /// Which of the copies on the disk, with their numbers, go: those that the ledger counts and that were not wanted for [`GRACE`]. What was
    /// taken since the last that it counts may come into it yet.
    pub fn that_go(&mut self, now: Time, here: &BTreeMap<Digest, u32>) -> BTreeSet<Digest> {
        let Some(wanted) = &self.wanted else { return BTreeSet::new() };
        let counted = here.iter().filter(|(_, number)| **number <= wanted.last).map(|(digest, _)| *digest);
        let unwanted: BTreeSet<Digest> = counted.filter(|digest| !self.wants(*digest)).collect();
        self.unwanted.retain(|digest, _| unwanted.contains(digest));
        let is_over = |digest: &Digest| now.since(*self.unwanted.entry(*digest).or_insert(now)) >= self.grace;
        let go: BTreeSet<Digest> = unwanted.into_iter().filter(is_over).collect();
        self.unwanted.retain(|digest, _| !go.contains(digest));
        go
    }

    /// Which one is fetched now, of those that are not on the disk.
    ///
    /// # Errors
    /// When there is one to fetch again; none if nothing is missing.
    pub fn fetches(&mut self, now: Time, here: &BTreeSet<Digest>) -> Result<WantedBackup, Option<Time>> {
        let wanted = self.wanted.clone().unwrap_or_default();
        let missing = || all(&wanted).filter(|backup| !here.contains(&backup.digest));
        self.tried.retain(|digest, _| missing().any(|backup| backup.digest == *digest));
        let mut again: Option<Time> = None;
        for backup in missing() {
            // Who else has it by now may give it.
            match self.tried.get(&backup.digest).filter(|tried| tried.from == backup.from && now < tried.until) {
                Some(tried) => again = Some(again.map_or(tried.until, |again| again.min(tried.until))),
                None => return Ok(backup.clone()),
            }
        }
        Err(again)
    }

    /// A try failed with everybody who has it. Returns how long it is until the next.
    pub fn failed(&mut self, now: Time, backup: &WantedBackup, why: String) -> Duration {
        let times = self.tried.get(&backup.digest).map_or(0, |tried| tried.times);
        let pause = (PAUSE * (1 << times.min(DOUBLED_MAX))).min(PAUSE_MAX);
        let (number, from) = (backup.number, backup.from.clone());
        self.tried.insert(backup.digest, Tried { number, times: times + 1, why, until: now + pause, from });
        pause
    }

    /// What could not be had, and why.
    pub fn tried(&self) -> &BTreeMap<Digest, Tried> {
        &self.tried
    }
}

fn all(wanted: &Wanted) -> impl Iterator<Item = &WantedBackup> {
    wanted.asked.iter().chain(&wanted.all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time(seconds * 1_000_000)
    }

    fn backup(number: u32, from: &[u8]) -> WantedBackup {
        let from = from.iter().map(|by| MachineId([*by; 32])).collect();
        WantedBackup { number, digest: Digest([number as u8; 32]), bytes: 9, from }
    }

    #[test]
    fn what_is_not_wanted_for_a_minute_goes_unless_the_ledger_does_not_count_it_yet() {
        let [one, three] = [1, 3].map(|number| backup(number, &[]));
        let here: BTreeMap<Digest, u32> = [(one.digest, 1), (three.digest, 3)].into();
        let mut copies = Copies::default();
        assert!(copies.that_go(at(0), &here).is_empty() && copies.wants(one.digest), "nothing was said yet");
        let none = || Some(Wanted { last: 2, ..Wanted::default() });
        copies.want(none());
        assert!(copies.that_go(at(100), &here).is_empty(), "its ledger may be an old one");
        copies.want(Some(Wanted { last: 2, all: vec![one.clone()], asked: Vec::new() }));
        assert!(copies.that_go(at(160), &here).is_empty());
        copies.want(none());
        assert!(copies.that_go(at(220), &here).is_empty(), "it was wanted since");
        assert!(copies.that_go(at(279), &here).is_empty());
        assert_eq!(copies.that_go(at(280), &here), [one.digest].into());
    }

    #[test]
    fn what_cannot_be_had_is_tried_at_growing_pauses_and_at_once_where_another_machine_has_it() {
        let mut copies = Copies::default();
        let (one, two) = (backup(1, &[7]), backup(2, &[7]));
        copies.want(Some(Wanted { last: 2, all: vec![one.clone()], asked: vec![two.clone()] }));
        assert_eq!(copies.fetches(at(0), &[].into()), Ok(two.clone()), "somebody waits for it");
        assert_eq!(copies.failed(at(0), &two, "no answer".to_owned()), Duration::from_secs(15));
        assert_eq!(copies.fetches(at(0), &[].into()), Ok(one.clone()), "the other one is not held up");
        copies.failed(at(2), &one, "no answer".to_owned());
        assert_eq!(copies.fetches(at(3), &[].into()), Err(Some(at(15))));
        assert_eq!(copies.fetches(at(15), &[].into()), Ok(two.clone()));
        assert_eq!(copies.failed(at(15), &two, "no answer".to_owned()), Duration::from_secs(30));
        copies.want(Some(Wanted { last: 2, all: vec![backup(1, &[7, 8])], asked: Vec::new() }));
        assert_eq!(copies.fetches(at(16), &[].into()), Ok(backup(1, &[7, 8])));
        assert_eq!(copies.tried().len(), 1, "nobody wants the other one any more");
        assert_eq!(copies.fetches(at(16), &[one.digest].into()), Err(None));
        for _ in 0..20 {
            copies.failed(at(20), &one, "no answer".to_owned());
        }
        assert_eq!(copies.tried()[&one.digest].until, at(620));
    }
}

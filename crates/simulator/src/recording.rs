//! Replaying what a machine recorded: the same code gets the same inputs, and what it does is compared with what it did.

use muster_protocol::record::{Doing, RecordError, Recording};
use muster_protocol::{Effects, Input, Machine, StartRefusal, Status, Time};
use xxhash_rust::xxh3::Xxh3;

/// Why a recording is not replayed, or no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The file.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The core does not start.
    #[error("the machine refuses to start: {0}")]
    Start(StartRefusal),
}

/// One step of a replay: what the machine was given, and what it does.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// Counts inputs from 1; the start is 0.
    pub number: u64,
    /// The byte of the recording.
    pub at: usize,
    /// When, by the machine's clock.
    pub now: Time,
    /// What it was given.
    pub input: String,
    /// What it does with that.
    pub does: Vec<Doing>,
    /// How that differs from what it did, if it does.
    pub differs: Option<String>,
    /// The recording ends with this input: the machine did not live to do anything.
    pub last_words: bool,
}

/// A machine that lives through its recording again.
pub struct Player<'a> {
    recording: Recording<'a>,
    machine: Machine,
    effects: Effects,
    number: u64,
    hash: Xxh3,
    /// When the last input came.
    pub now: Time,
}

impl<'a> Player<'a> {
    /// Starts the machine, and tells what it does then.
    ///
    /// # Errors
    /// When the recording cannot be read that far.
    pub fn start(bytes: &'a [u8]) -> Result<(Self, Replayed), ReplayError> {
        let recording = Recording::open(bytes)?;
        let now = recording.started();
        let mut effects = Effects::default();
        let machine = Machine::new(recording.boot()?, now, &mut effects).map_err(ReplayError::Start)?;
        let mut player = Self { recording, machine, effects, number: 0, hash: Xxh3::new(), now };
        let did = player.recording.began().map(<[Doing]>::to_vec);
        let input = format!("{} starts", player.recording.machine());
        let first = player.compare(0, input, did);
        Ok((player, first))
    }

    /// Gives the machine its next input.
    ///
    /// # Errors
    /// When the recording is damaged there. What came before was replayed.
    pub fn step(&mut self) -> Result<Option<Replayed>, ReplayError> {
        let Some(turn) = self.recording.next().transpose()? else { return Ok(None) };
        self.number += 1;
        self.now = turn.now;
        let input = text(&turn.input);
        self.machine.handle(turn.now, turn.input, &mut self.effects);
        Ok(Some(self.compare(turn.at, input, turn.done)))
    }

    fn compare(&mut self, at: usize, input: String, did: Option<Vec<Doing>>) -> Replayed {
        let does: Vec<Doing> = self.effects.drain().map(|effect| Doing::from(&effect)).collect();
        self.hash.update(&self.now.0.to_be_bytes());
        does.iter().for_each(|doing| self.hash.update(&doing.digest));
        let differs = did.as_ref().and_then(|did| difference(did, &does));
        Replayed { number: self.number, at, now: self.now, input, differs, last_words: did.is_none(), does }
    }

    /// The machine's name for people.
    pub fn name(&self) -> String {
        format!("{} ({})", self.recording.hostname(), self.recording.machine())
    }

    /// What the machine says of itself now.
    pub fn status(&self) -> Status {
        self.machine.status(self.now)
    }

    /// The byte at which the recording breaks off within a part, once all of it was replayed.
    pub fn cut(&self) -> Option<usize> {
        self.recording.cut()
    }

    /// Digest of everything the machine has done.
    pub fn hash(&self) -> String {
        format!("{:016x}", self.hash.digest())
    }
}

/// The first thing that is done otherwise.
fn difference(did: &[Doing], does: &[Doing]) -> Option<String> {
    let first = (0..did.len().max(does.len())).find(|place| did.get(*place) != does.get(*place))?;
    let place = first + 1;
    Some(match (did.get(first), does.get(first)) {
        (Some(then), Some(now)) if then.what == now.what => {
            format!("effect {place}, \"{now}\", has other contents than recorded")
        }
        (Some(then), Some(now)) => format!("effect {place} was \"{then}\", now it is \"{now}\""),
        (Some(then), None) => format!("effect {place}, \"{then}\", is missing now"),
        (None, now) => format!("effect {place} is new: \"{}\"", now.map_or("", |now| &now.what)),
    })
}

fn text(input: &Input) -> String {
    match input {
        Input::Wake => "wakes".to_owned(),
        Input::Connected(machine) => format!("is connected to {machine}"),
        Input::Disconnected(machine) => format!("is no longer connected to {machine}"),
        Input::Received { from, frame } => format!("gets {} from {from}", frame.kind()),
        Input::TurnedAway { whom, why } => format!("turned {whom} away: {why}"),
        Input::Reached { machine, address } => format!("has {machine} at {address}"),
        Input::HostsFile { troubles } => format!("hears of the hosts file: {}", troubles.join("; ")),
        Input::Addresses(addresses) => format!("is reached at {}", addresses.join(", ")),
        Input::Applied { revision, entry } => {
            let kind =
                muster_wire::Entry::decode(entry.clone()).map_or("an entry that does not decode", |entry| entry.kind());
            format!("revision {revision} is {kind}")
        }
        Input::Restored { .. } => "gets the ledger as a whole".to_owned(),
        Input::Leading { term, leader: Some(leader) } => format!("hears that {leader} leads in term {term}"),
        Input::Members(members) => format!("hears that {} take part in Raft", members.all.len()),
        Input::Leading { term, leader: None } => format!("hears that nobody leads in term {term}"),
        Input::Proposed { call, outcome } => format!("proposal {call}: {outcome:?}"),
        Input::Recover { dry_run: false, .. } => "is asked to rebuild the cluster".to_owned(),
        Input::Recover { dry_run: true, .. } => "is asked whether it would rebuild the cluster".to_owned(),
        Input::Wish { wish, dry_run: false, .. } => format!("is asked to {wish}"),
        Input::Wish { wish, dry_run: true, .. } => format!("is asked what it would change to {wish}"),
        Input::Former { troubles } => format!("hears of former addresses: {}", troubles.join("; ")),
        Input::Backups(has) => format!("is told that {} backups are on its disk", has.len()),
        Input::Observed { .. } => "is told what runs on it".to_owned(),
        Input::Progress { phase, .. } => format!("kubeadm is at {phase}"),
        Input::Finished { run, result: Ok(_) } => format!("run {} is done", run.0),
        Input::Finished { run, result: Err(failure) } => format!("run {} fails: {failure}", run.0),
    }
}

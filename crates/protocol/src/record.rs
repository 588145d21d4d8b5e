//! Recordings: how a machine was started, every input it got since with its time, and what it did then. The core depends on
//! nothing but start and inputs, so the same code given the same recording does the same things again.
//!
//! A recording holds no secret: inputs carry ciphertext only, and in place of the identity's key stand the signatures that
//! it made, which are public. So whoever has a recording can replay it. It is for the version that made it: another one may
//! decide otherwise, and the replay then names the first thing that it does differently.
//!
//! ```text
//! "muster-recording" | version, 4 bytes | part | part | ...
//! part = length, 4 bytes | checksum, 4 bytes | bincode, at most PART_BYTES_MAX
//! ```
//!
//! The first part is the start. Each input is followed by what the machine did, unless it died of it. Numbers of 4 bytes are
//! big-endian. A recording may end within a part: the machine lost its power.

use std::time::Duration;

use muster_wire::sign::Made;
use muster_wire::{Digest, Durable, Identity, MachineId, Settings};
use serde::{Deserialize, Serialize};

use crate::{BackupPlan, Boot, Effects, Input, Time, Tuning};

mod doing;
mod kept;

pub use doing::Doing;
use kept::Kept;

/// How every recording begins.
pub const MAGIC: &[u8; 16] = b"muster-recording";
const VERSION: u32 = 9;
const HEADER_BYTES: usize = MAGIC.len() + 4;
/// Before the body of a part: its length and its checksum.
const FRAME_BYTES: usize = 8;

/// Longest part in bytes: a snapshot of the ledger, which is the longest input, and room.
pub const PART_BYTES_MAX: usize = 32 << 20;

/// Why a recording cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is none.
    #[error("this is not a recording of muster")]
    NoRecording,
    /// Another version of the format.
    #[error("this recording has format {0}, this muster reads {VERSION}")]
    Version(u32),
    /// A part is not what was written.
    #[error("the part at byte {at} is damaged: {why}")]
    Damaged {
        /// Where it begins.
        at: usize,
        /// How that shows.
        why: String,
    },
}

/// The beginning of a recording of a machine that starts with `boot` at `now`.
pub fn start(boot: &Boot, now: Time) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &VERSION.to_be_bytes()].concat();
    let start = Start {
        now,
        machine: boot.identity.machine(),
        sealing_key: boot.sealing_key,
        durable: boot.durable.encode(),
        cluster: boot.cluster.clone(),
        settings: boot.settings.clone(),
        hostname: boot.hostname.clone(),
        addresses: boot.addresses.clone(),
        api_port: boot.api_port,
        fingerprint: boot.fingerprint,
        seed: boot.seed,
        manifests: boot.manifests,
        level: boot.level,
        raft_begun: boot.raft_begun,
        tuning: intervals(&boot.tuning),
        backup_copies: boot.tuning.backups.copies,
        backups_kept: boot.tuning.backups.keep,
    };
    append(&mut bytes, &start);
    bytes
}

/// The part of one input that the machine is given at `now`.
pub fn input(now: Time, input: &Input) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, &Part::Input(now, Kept::from(input)));
    bytes
}

/// The part of what the machine did then, with the signatures that it made.
pub fn done(effects: &Effects, made: impl IntoIterator<Item = Made>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let signatures = made.into_iter().map(|made| (made.statement, made.signature.to_vec())).collect();
    append(&mut bytes, &Part::Done { signatures, effects: effects.iter().map(Doing::from).collect() });
    bytes
}

/// One input of a recording, and what came of it.
#[derive(Debug, Clone)]
pub struct Turn {
    /// The byte at which it stands.
    pub at: usize,
    /// When.
    pub now: Time,
    /// The input.
    pub input: Input,
    /// What the machine did; none if the recording ends with the input.
    pub done: Option<Vec<Doing>>,
}

/// A recording being read.
#[derive(Debug)]
pub struct Recording<'a> {
    start: Start,
    began: Option<Vec<Doing>>,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Recording<'a> {
    /// Reads how the machine was started.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn open(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let header = bytes.get(..HEADER_BYTES).ok_or(RecordError::NoRecording)?;
        let (magic, version) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(RecordError::NoRecording);
        }
        let version = number(version).ok_or(RecordError::NoRecording)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let mut at = HEADER_BYTES;
        let Some(start) = part(bytes, &mut at)? else {
            return Err(RecordError::Damaged { at, why: "it ends before it tells of the start".to_owned() });
        };
        let mut recording = Self { start, began: None, bytes, at };
        recording.began = recording.take_done();
        Ok(recording)
    }

    /// Whose it is.
    pub fn machine(&self) -> MachineId {
        self.start.machine
    }

    /// When it was started, by its own clock.
    pub fn started(&self) -> Time {
        self.start.now
    }

    /// Its host name.
    pub fn hostname(&self) -> &str {
        &self.start.hostname
    }

    /// What the machine did when it was started; none if the recording ends there.
    pub fn began(&self) -> Option<&[Doing]> {
        self.began.as_deref()
    }

    /// The byte at which the recording breaks off within a part, once all that is whole was read.
    pub fn cut(&self) -> Option<usize> {
        (self.at < self.bytes.len()).then_some(self.at)
    }

    /// What the machine was started with. Its identity knows the signatures that the machine made, and no
    /// key.
    ///
    /// # Errors
    /// Damage.
    pub fn boot(&self) -> Result<Boot, RecordError> {
        let start = self.start.clone();
        let durable = Durable::decode(&start.durable);
        let durable = durable.map_err(|why| RecordError::Damaged { at: HEADER_BYTES, why: why.to_string() })?;
        Ok(Boot {
            identity: Identity::from_signatures(start.machine, self.signatures()),
            sealing_key: start.sealing_key,
            durable,
            cluster: start.cluster,
            settings: start.settings,
            hostname: start.hostname,
            addresses: start.addresses,
            api_port: start.api_port,
            fingerprint: start.fingerprint,
            seed: start.seed,
            manifests: start.manifests,
            level: start.level,
            raft_begun: start.raft_begun,
            tuning: tuning(start.tuning, start.backup_copies, start.backups_kept),
        })
    }

    /// All signatures up to the end, or to what is damaged.
    fn signatures(&self) -> Vec<Made> {
        let mut at = HEADER_BYTES;
        let mut all = Vec::new();
        let start: Result<Option<Start>, _> = part(self.bytes, &mut at);
        if start.is_err() {
            return all;
        }
        while let Ok(Some(part)) = part(self.bytes, &mut at) {
            if let Part::Done { signatures, .. } = part {
                let whole = signatures.into_iter().filter_map(|(statement, signature)| {
                    Some(Made { statement, signature: signature.try_into().ok()? })
                });
                all.extend(whole);
            }
        }
        all
    }

    /// What was done, if that is what comes next. Damage is for whoever reads on.
    fn take_done(&mut self) -> Option<Vec<Doing>> {
        let mut at = self.at;
        match part(self.bytes, &mut at) {
            Ok(Some(Part::Done { effects, .. })) => {
                self.at = at;
                Some(effects)
            }
            _ => None,
        }
    }

    fn turn(&mut self) -> Result<Option<Turn>, RecordError> {
        let at = self.at;
        let damaged = |why: String| RecordError::Damaged { at, why };
        let (now, kept) = match part(self.bytes, &mut self.at)? {
            Some(Part::Input(now, kept)) => (now, kept),
            Some(Part::Done { .. }) => return Err(damaged("it tells what was done without an input".to_owned())),
            None => return Ok(None),
        };
        let input = Input::try_from(kept).map_err(|why| damaged(why.to_string()))?;
        Ok(Some(Turn { at, now, input, done: self.take_done() }))
    }
}

impl Iterator for Recording<'_> {
    type Item = Result<Turn, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.turn();
        if read.is_err() {
            // Behind a damaged part nothing can be told apart.
            self.at = self.bytes.len();
        }
        read.transpose()
    }
}

fn codec() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<PART_BYTES_MAX>()
}

fn append(bytes: &mut Vec<u8>, part: &impl Serialize) {
    // Writing to memory fails for nothing that these types can hold.
    let part = bincode::serde::encode_to_vec(part, codec()).unwrap_or_default();
    bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&checksum(&part));
    bytes.extend_from_slice(&part);
}

fn checksum(body: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = Digest::of("part of a recording", &[body]).0;
    [a, b, c, d]
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// The part at `at`, which moves behind it; none if the recording ends before the part does.
fn part<T: serde::de::DeserializeOwned>(bytes: &[u8], at: &mut usize) -> Result<Option<T>, RecordError> {
    let begin = *at;
    let damaged = |why: String| RecordError::Damaged { at: begin, why };
    let rest = bytes.get(begin..).unwrap_or_default();
    let Some(length) = number(rest).map(|length| length as usize) else { return Ok(None) };
    if length > PART_BYTES_MAX {
        return Err(damaged(format!("{length} bytes are over the bound of {PART_BYTES_MAX}")));
    }
    let Some(body) = rest.get(FRAME_BYTES..FRAME_BYTES + length) else { return Ok(None) };
    if rest[4..FRAME_BYTES] != checksum(body) {
        return Err(damaged("its checksum does not hold".to_owned()));
    }
    let (part, read) = bincode::serde::decode_from_slice(body, codec()).map_err(|why| damaged(why.to_string()))?;
    if read != length {
        return Err(damaged(format!("{} bytes too many", length - read)));
    }
    *at = begin + FRAME_BYTES + length;
    Ok(Some(part))
}

/// A part behind the start.
#[derive(Debug, Serialize, Deserialize)]
enum Part {
    Input(Time, Kept),
    Done { signatures: Vec<(Digest, Vec<u8>)>, effects: Vec<Doing> },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Start {
    now: Time,
    machine: MachineId,
    sealing_key: [u8; 32],
    durable: Vec<u8>,
    cluster: String,
    settings: Settings,
    hostname: String,
    addresses: Vec<String>,
    api_port: u16,
    fingerprint: Digest,
    seed: [u8; 32],
    manifests: u32,
    level: u32,
    raft_begun: bool,
    tuning: [Duration; 12],
    backup_copies: u32,
    backups_kept: u32,
}

fn intervals(tuning: &Tuning) -> [Duration; 12] {
    let Tuning { settle, step_in_max, resend, swim_forming, swim_idle, quiet_after, .. } = *tuning;
    let Tuning { initialiser_patience, init_max, etcd_turn_max, poll_hold, replace_after, .. } = *tuning;
    [
        settle,
        step_in_max,
        resend,
        swim_forming,
        swim_idle,
        quiet_after,
        initialiser_patience,
        init_max,
        etcd_turn_max,
        poll_hold,
        // Never.
        replace_after.unwrap_or(Duration::MAX),
        tuning.backups.every.unwrap_or(Duration::MAX),
    ]
}

fn tuning(intervals: [Duration; 12], copies: u32, keep: u32) -> Tuning {
    let [
        settle,
        step_in_max,
        resend,
        swim_forming,
        swim_idle,
        quiet_after,
        initialiser_patience,
        init_max,
        etcd_turn_max,
        poll_hold,
        replace_after,
        backup_every,
    ] = intervals;
    let unless_never = |after: Duration| Some(after).filter(|after| *after != Duration::MAX);
    Tuning {
        settle,
        step_in_max,
        resend,
        swim_forming,
        swim_idle,
        quiet_after,
        initialiser_patience,
        init_max,
        etcd_turn_max,
        poll_hold,
        replace_after: unless_never(replace_after),
        backups: BackupPlan { every: unless_never(backup_every), copies, keep },
    }
}

#[cfg(test)]
mod tests;

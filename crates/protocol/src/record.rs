//! Recordings: how a machine was started, and every input it got since with its time. The core depends on nothing else, so
//! the same code given the same recording does the same things again.
//!
//! A recording holds no secret: inputs carry ciphertext only, and the identity's seed is left out, so whoever replays one
//! brings the [`Identity`] (from the machine's state file). It is for the version that made it: another one may decide
//! otherwise.
//!
//! ```text
//! "muster-recording" | version, 4 bytes | part | part | ...
//! part = length, 4 bytes | bincode, at most PART_BYTES_MAX      the first part is the start, the others are inputs
//! ```
//!
//! Numbers of 4 bytes are big-endian. A recording may end within a part: the machine lost its power.

use std::time::Duration;

use bytes::Bytes;
use muster_wire::entry::Sealed;
use muster_wire::frame::ProposalOutcome;
use muster_wire::{Digest, Durable, Frame, Identity, MachineId, Settings, WireError};
use serde::{Deserialize, Serialize};

use crate::{Boot, Input, RunId, StepFailure, StepOutput, Time, Tuning};

const MAGIC: &[u8; 16] = b"muster-recording";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 4;

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
    /// The identity is another machine's.
    #[error("this is a recording of {0}, the identity is that of {1}")]
    OtherMachine(MachineId, MachineId),
}

/// The beginning of a recording of a machine that starts with `boot`.
pub fn start(boot: &Boot) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &VERSION.to_be_bytes()].concat();
    let start = Start {
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
        tuning: intervals(&boot.tuning),
    };
    append(&mut bytes, &start);
    bytes
}

/// The part of one input that the machine is given at `now`.
pub fn input(now: Time, input: &Input) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, &(now, Kept::from(input)));
    bytes
}

/// A recording being read.
#[derive(Debug)]
pub struct Recording<'a> {
    start: Start,
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
        match part(bytes, &mut at)? {
            Some(start) => Ok(Self { start, bytes, at }),
            None => Err(RecordError::Damaged { at, why: "it ends before it tells of the start".to_owned() }),
        }
    }

    /// Whose it is.
    pub fn machine(&self) -> MachineId {
        self.start.machine
    }

    /// What the machine was started with, at [`Time`] zero.
    ///
    /// # Errors
    /// [`RecordError::OtherMachine`] if the identity is not the recorded machine's; damage.
    pub fn boot(&self, identity: Identity) -> Result<Boot, RecordError> {
        let start = self.start.clone();
        if identity.machine() != start.machine {
            return Err(RecordError::OtherMachine(start.machine, identity.machine()));
        }
        let durable = Durable::decode(&start.durable);
        let durable = durable.map_err(|why| RecordError::Damaged { at: HEADER_BYTES, why: why.to_string() })?;
        Ok(Boot {
            identity,
            sealing_key: start.sealing_key,
            durable,
            cluster: start.cluster,
            settings: start.settings,
            hostname: start.hostname,
            addresses: start.addresses,
            api_port: start.api_port,
            fingerprint: start.fingerprint,
            seed: start.seed,
            tuning: tuning(start.tuning),
        })
    }
}

impl Iterator for Recording<'_> {
    type Item = Result<(Time, Input), RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let kept: Result<Option<(Time, Kept)>, RecordError> = part(self.bytes, &mut self.at);
        let read = kept.and_then(|kept| {
            let Some((now, kept)) = kept else { return Ok(None) };
            let input = Input::try_from(kept).map_err(|why| RecordError::Damaged { at, why: why.to_string() })?;
            Ok(Some((now, input)))
        });
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
    bytes.extend_from_slice(&part);
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
    let Some(body) = rest.get(4..4 + length) else { return Ok(None) };
    let (part, read) = bincode::serde::decode_from_slice(body, codec()).map_err(|why| damaged(why.to_string()))?;
    if read != length {
        return Err(damaged(format!("{} bytes too many", length - read)));
    }
    *at = begin + 4 + length;
    Ok(Some(part))
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Start {
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
    tuning: [Duration; 9],
}

fn intervals(tuning: &Tuning) -> [Duration; 9] {
    let Tuning { settle, step_in_max, resend, swim_forming, swim_idle, .. } = *tuning;
    let Tuning { initialiser_patience, init_max, etcd_turn_max, poll_hold, .. } = *tuning;
    [settle, step_in_max, resend, swim_forming, swim_idle, initialiser_patience, init_max, etcd_turn_max, poll_hold]
}

fn tuning(intervals: [Duration; 9]) -> Tuning {
    let [
        settle,
        step_in_max,
        resend,
        swim_forming,
        swim_idle,
        initialiser_patience,
        init_max,
        etcd_turn_max,
        poll_hold,
    ] = intervals;
    Tuning {
        settle,
        step_in_max,
        resend,
        swim_forming,
        swim_idle,
        initialiser_patience,
        init_max,
        etcd_turn_max,
        poll_hold,
    }
}

/// [`Input`] as it is written. Frames, entries and ledgers stand in their own encodings.
#[derive(Debug, Serialize, Deserialize)]
enum Kept {
    Wake,
    Connected(MachineId),
    Disconnected(MachineId),
    Received { from: MachineId, frame: Vec<u8> },
    TurnedAway { whom: String, why: String },
    Addresses(Vec<String>),
    Applied { revision: u64, entry: Vec<u8> },
    Restored { ledger: Vec<u8> },
    Leading { term: u64, leader: Option<MachineId> },
    Proposed { call: u64, outcome: Outcome },
    Progress { run: u64, phase: String },
    Finished { run: u64, result: Result<Output, Failure> },
}

#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Applied(u64),
    Refused(String),
    NotLeading(Option<MachineId>),
}

#[derive(Debug, Serialize, Deserialize)]
enum Output {
    Done,
    Checked(String),
    PkiMade { ca_hash: Digest, sealed: Vec<(MachineId, Vec<u8>)> },
    Ticket(Vec<u8>),
    Initialised { ca_hash: Digest, endpoints: Vec<String> },
}

#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    step: String,
    phase: Option<String>,
    why: String,
    hopeless: bool,
}

impl From<&Input> for Kept {
    fn from(input: &Input) -> Self {
        match input.clone() {
            Input::Wake => Kept::Wake,
            Input::Connected(machine) => Kept::Connected(machine),
            Input::Disconnected(machine) => Kept::Disconnected(machine),
            Input::Received { from, frame } => Kept::Received { from, frame: frame.encode() },
            Input::TurnedAway { whom, why } => Kept::TurnedAway { whom, why },
            Input::Addresses(addresses) => Kept::Addresses(addresses),
            Input::Applied { revision, entry } => Kept::Applied { revision, entry: entry.into() },
            Input::Restored { ledger } => Kept::Restored { ledger: ledger.into() },
            Input::Leading { term, leader } => Kept::Leading { term, leader },
            Input::Proposed { call, outcome } => Kept::Proposed {
                call,
                outcome: match outcome {
                    ProposalOutcome::Applied(revision) => Outcome::Applied(revision),
                    ProposalOutcome::Refused(why) => Outcome::Refused(why),
                    ProposalOutcome::NotLeading(leader) => Outcome::NotLeading(leader),
                },
            },
            Input::Progress { run, phase } => Kept::Progress { run: run.0, phase },
            Input::Finished { run, result } => {
                Kept::Finished { run: run.0, result: result.map(Output::from).map_err(Failure::from) }
            }
        }
    }
}

impl TryFrom<Kept> for Input {
    type Error = WireError;

    fn try_from(kept: Kept) -> Result<Self, WireError> {
        Ok(match kept {
            Kept::Wake => Input::Wake,
            Kept::Connected(machine) => Input::Connected(machine),
            Kept::Disconnected(machine) => Input::Disconnected(machine),
            Kept::Received { from, frame } => Input::Received { from, frame: Frame::decode(frame.into())? },
            Kept::TurnedAway { whom, why } => Input::TurnedAway { whom, why },
            Kept::Addresses(addresses) => Input::Addresses(addresses),
            Kept::Applied { revision, entry } => Input::Applied { revision, entry: entry.into() },
            Kept::Restored { ledger } => Input::Restored { ledger: ledger.into() },
            Kept::Leading { term, leader } => Input::Leading { term, leader },
            Kept::Proposed { call, outcome } => Input::Proposed {
                call,
                outcome: match outcome {
                    Outcome::Applied(revision) => ProposalOutcome::Applied(revision),
                    Outcome::Refused(why) => ProposalOutcome::Refused(why),
                    Outcome::NotLeading(leader) => ProposalOutcome::NotLeading(leader),
                },
            },
            Kept::Progress { run, phase } => Input::Progress { run: RunId(run), phase },
            Kept::Finished { run, result } => {
                Input::Finished { run: RunId(run), result: result.map(StepOutput::from).map_err(StepFailure::from) }
            }
        })
    }
}

impl From<StepOutput> for Output {
    fn from(output: StepOutput) -> Self {
        match output {
            StepOutput::Done => Output::Done,
            StepOutput::Checked { version } => Output::Checked(version),
            StepOutput::PkiMade { ca_hash, sealed } => {
                let sealed = sealed.into_iter().map(|sealed| (sealed.machine, sealed.ciphertext.into()));
                Output::PkiMade { ca_hash, sealed: sealed.collect() }
            }
            StepOutput::Ticket { ciphertext } => Output::Ticket(ciphertext.into()),
            StepOutput::Initialised { ca_hash, endpoints } => Output::Initialised { ca_hash, endpoints },
        }
    }
}

impl From<Output> for StepOutput {
    fn from(output: Output) -> Self {
        match output {
            Output::Done => StepOutput::Done,
            Output::Checked(version) => StepOutput::Checked { version },
            Output::PkiMade { ca_hash, sealed } => {
                let sealed = sealed.into_iter();
                let sealed =
                    sealed.map(|(machine, ciphertext)| Sealed { machine, ciphertext: Bytes::from(ciphertext) });
                StepOutput::PkiMade { ca_hash, sealed: sealed.collect() }
            }
            Output::Ticket(ciphertext) => StepOutput::Ticket { ciphertext: ciphertext.into() },
            Output::Initialised { ca_hash, endpoints } => StepOutput::Initialised { ca_hash, endpoints },
        }
    }
}

impl From<StepFailure> for Failure {
    fn from(StepFailure { step, phase, why, hopeless }: StepFailure) -> Self {
        Failure { step: step.to_owned(), phase, why, hopeless }
    }
}

impl From<Failure> for StepFailure {
    fn from(Failure { step, phase, why, hopeless }: Failure) -> Self {
        StepFailure { step: step_name(&step), phase, why, hopeless }
    }
}

/// Steps by name, as [`crate::Step::name`] has them; a name of another version stays a step.
fn step_name(name: &str) -> &'static str {
    const NAMES: [&str; 13] = [
        "check",
        "prepare",
        "make-pki",
        "seal-pki",
        "issue-ticket",
        "init",
        "init-finish",
        "join",
        "join-etcd",
        "join-finish",
        "await-ready",
        "delete-token",
        "reset",
    ];
    NAMES.into_iter().find(|known| *known == name).unwrap_or("step")
}

#[cfg(test)]
mod tests;

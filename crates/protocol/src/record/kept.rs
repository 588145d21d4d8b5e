//! Inputs as a recording keeps them.

use bytes::Bytes;
use muster_wire::entry::Sealed;
use muster_wire::frame::ProposalOutcome;
use muster_wire::{CallNumber, Digest, Frame, MachineId, Revision, WireError, Wish};
use serde::{Deserialize, Serialize};
use strum::VariantNames as _;

use crate::input::{RaftMembers, Renewal};
use crate::lead::manifests::ManifestResult;
use crate::{AwayCause, Input, RunId, StepFailure, StepOutput};

/// [`Input`] as it is written. Frames, entries and ledgers stand in their own encodings.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Kept {
    Wake,
    Connected(MachineId),
    Disconnected(MachineId),
    Received {
        from: MachineId,
        frame: Vec<u8>,
    },
    TurnedAway {
        whom: String,
        why: AwayCause,
    },
    Addresses(Vec<String>),
    HostsFile(Vec<String>),
    Reached {
        machine: MachineId,
        address: std::net::IpAddr,
    },
    Applied {
        revision: Revision,
        entry: Vec<u8>,
    },
    Restored {
        ledger: Vec<u8>,
    },
    Members(RaftMembers),
    Leading {
        term: u64,
        leader: Option<MachineId>,
    },
    Proposed {
        call: CallNumber,
        outcome: Outcome,
    },
    Wish {
        call: CallNumber,
        wish: Wish,
        dry_run: bool,
    },
    Observed {
        kubelet: Option<Digest>,
        certificates_end_s: u64,
        #[serde(default)]
        renewal: Renewal,
        #[serde(default)]
        ca_ends_s: u64,
        #[serde(default)]
        sync_us: u32,
        #[serde(default)]
        etcd_gone: bool,
    },
    Progress {
        run: u64,
        phase: String,
        #[serde(default)]
        held: Option<String>,
    },
    Finished {
        run: u64,
        result: Result<Output, Failure>,
    },
    Recover {
        call: CallNumber,
        dry_run: bool,
        backup: Option<Digest>,
        works: Option<String>,
    },
    Backups(Vec<Digest>),
    Former(Vec<String>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Applied(Revision),
    Refused(String),
    NotLeading(Option<MachineId>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Output {
    Done,
    Checked { version: String, worker_only: Option<String> },
    PkiMade { ca_hash: Digest, sealed: Vec<(MachineId, Vec<u8>)> },
    Ticket(Vec<u8>),
    Initialised { ca_hash: Digest, endpoints: Vec<String> },
    Manifests(Vec<ManifestResult>),
    Noted(String),
    BackedUp { taken_s: u64, revision: u64, bytes: u64, digest: Digest },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
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
            Input::Reached { machine, address } => Kept::Reached { machine, address },
            Input::HostsFile { troubles } => Kept::HostsFile(troubles),
            Input::Applied { revision, entry } => Kept::Applied { revision, entry: entry.into() },
            Input::Restored { ledger } => Kept::Restored { ledger: ledger.into() },
            Input::Members(members) => Kept::Members(members),
            Input::Leading { term, leader } => Kept::Leading { term, leader },
            Input::Proposed { call, outcome } => Kept::Proposed {
                call,
                outcome: match outcome {
                    ProposalOutcome::Applied(revision) => Outcome::Applied(revision),
                    ProposalOutcome::Refused(why) => Outcome::Refused(why),
                    ProposalOutcome::NotLeading(leader) => Outcome::NotLeading(leader),
                },
            },
            Input::Recover { call, dry_run, backup, works } => Kept::Recover { call, dry_run, backup, works },
            Input::Former { troubles } => Kept::Former(troubles),
            Input::Backups(has) => Kept::Backups(has.into_iter().collect()),
            Input::Wish { call, wish, dry_run } => Kept::Wish { call, wish, dry_run },
            Input::Observed { kubelet, certificates_end_s, renewal, ca_ends_s, sync_us, etcd_gone } => {
                Kept::Observed { kubelet, certificates_end_s, renewal, ca_ends_s, sync_us, etcd_gone }
            }
            Input::Progress { run, phase, held } => Kept::Progress { run: run.0, phase, held },
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
            Kept::Reached { machine, address } => Input::Reached { machine, address },
            Kept::HostsFile(troubles) => Input::HostsFile { troubles },
            Kept::Applied { revision, entry } => Input::Applied { revision, entry: entry.into() },
            Kept::Restored { ledger } => Input::Restored { ledger: ledger.into() },
            Kept::Members(members) => Input::Members(members),
            Kept::Leading { term, leader } => Input::Leading { term, leader },
            Kept::Proposed { call, outcome } => Input::Proposed {
                call,
                outcome: match outcome {
                    Outcome::Applied(revision) => ProposalOutcome::Applied(revision),
                    Outcome::Refused(why) => ProposalOutcome::Refused(why),
                    Outcome::NotLeading(leader) => ProposalOutcome::NotLeading(leader),
                },
            },
            Kept::Recover { call, dry_run, backup, works } => Input::Recover { call, dry_run, backup, works },
            Kept::Former(troubles) => Input::Former { troubles },
            Kept::Backups(has) => Input::Backups(has.into_iter().collect()),
            Kept::Wish { call, wish, dry_run } => Input::Wish { call, wish, dry_run },
            Kept::Observed { kubelet, certificates_end_s, renewal, ca_ends_s, sync_us, etcd_gone } => {
                Input::Observed { kubelet, certificates_end_s, renewal, ca_ends_s, sync_us, etcd_gone }
            }
            Kept::Progress { run, phase, held } => Input::Progress { run: RunId(run), phase, held },
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
            StepOutput::Checked { version, worker_only } => Output::Checked { version, worker_only },
            StepOutput::PkiMade { ca_hash, sealed } => {
                let sealed = sealed.into_iter().map(|sealed| (sealed.machine, sealed.ciphertext.into()));
                Output::PkiMade { ca_hash, sealed: sealed.collect() }
            }
            StepOutput::Ticket { ciphertext } => Output::Ticket(ciphertext.into()),
            StepOutput::Initialised { ca_hash, endpoints } => Output::Initialised { ca_hash, endpoints },
            StepOutput::Manifests(results) => Output::Manifests(results),
            StepOutput::Noted(text) => Output::Noted(text),
            StepOutput::BackedUp { taken_s, revision, bytes, digest } => {
                Output::BackedUp { taken_s, revision, bytes, digest }
            }
        }
    }
}

impl From<Output> for StepOutput {
    fn from(output: Output) -> Self {
        match output {
            Output::Done => StepOutput::Done,
            Output::Checked { version, worker_only } => StepOutput::Checked { version, worker_only },
            Output::PkiMade { ca_hash, sealed } => {
                let sealed = sealed.into_iter();
                let sealed =
                    sealed.map(|(machine, ciphertext)| Sealed { machine, ciphertext: Bytes::from(ciphertext) });
                StepOutput::PkiMade { ca_hash, sealed: sealed.collect() }
            }
            Output::Ticket(ciphertext) => StepOutput::Ticket { ciphertext: ciphertext.into() },
            Output::Initialised { ca_hash, endpoints } => StepOutput::Initialised { ca_hash, endpoints },
            Output::Manifests(results) => StepOutput::Manifests(results),
            Output::Noted(text) => StepOutput::Noted(text),
            Output::BackedUp { taken_s, revision, bytes, digest } => {
                StepOutput::BackedUp { taken_s, revision, bytes, digest }
            }
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
pub(super) fn step_name(name: &str) -> &'static str {
    crate::Step::VARIANTS.iter().find(|known| **known == name).unwrap_or(&"step")
}

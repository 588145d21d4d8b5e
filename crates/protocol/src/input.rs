//! Everything that can happen to a machine.

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_wire::frame::ProposalOutcome;
use muster_wire::{CallNumber, Digest, Frame, MachineId, Revision, Wish};
use serde::{Deserialize, Serialize};

use crate::AwayCause;
use crate::effect::{RunId, StepFailure, StepOutput};

/// Who takes part in Raft, as this machine's own has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftMembers {
    /// Whoever has a vote or may be given one; while that changes, by what was before as well.
    pub all: BTreeSet<MachineId>,
    /// Whoever has a vote; while that changes, both by what was before and by what is to be.
    pub votes: BTreeSet<MachineId>,
}

/// One thing that happened. What answers an effect repeats that effect's number.
#[derive(Debug, Clone)]
pub enum Input {
    /// The time asked for with [`crate::Machine::next_wakeup`] has come.
    Wake,
    /// A connection to this machine stands, authenticated by its key. Frames can be sent now.
    Connected(MachineId),
    /// The last connection to this machine is gone.
    Disconnected(MachineId),
    /// A frame came, already decoded and checked.
    Received {
        /// Who sent it, as its connection proves.
        from: MachineId,
        /// The frame.
        frame: Frame,
    },
    /// Someone was turned away before a frame could come of it: another mesh key, another protocol version, bytes that
    /// are no frame. For `muster explain`, bounded.
    TurnedAway {
        /// Who, as far as it is known: an address or a machine.
        whom: String,
        /// Why.
        why: AwayCause,
    },
    /// A connection shows the address of a machine, dialled or heard. Comes before its [`Input::Connected`], and again when it
    /// is reached at another one.
    Reached {
        /// Whom.
        machine: MachineId,
        /// Where.
        address: std::net::IpAddr,
    },
    /// The addresses under which this machine can be reached changed (`ip:port`, most useful first).
    Addresses(Vec<String>),
    /// What stands in the way of [`crate::Effect::Endpoint`], for people; empty when nothing does any more.
    HostsFile {
        /// Each names its file, and the line where it is one.
        troubles: Vec<String>,
    },
    /// What stands in the way of [`crate::Effect::Former`], for people; empty when nothing does any more.
    Former {
        /// Each names an address.
        troubles: Vec<String>,
    },
    /// Raft committed an entry at this log index. Indexes only grow; some carry no entry of ours and do not come here.
    Applied {
        /// Index in the Raft log.
        revision: Revision,
        /// The encoded entry.
        entry: Bytes,
    },
    /// The whole ledger, as loaded at start or installed by a Raft snapshot.
    Restored {
        /// The encoded ledger.
        ledger: Bytes,
    },
    /// What this machine's Raft says about leadership. A hint.
    Leading {
        /// The Raft term.
        term: u64,
        /// Who leads, if it is known.
        leader: Option<MachineId>,
    },
    /// Who takes part in Raft, and so has a vote or may be given one, as this machine's Raft has it.
    Members(RaftMembers),
    /// Raft answers an [`crate::Effect::Propose`].
    Proposed {
        /// The proposal's number.
        call: CallNumber,
        /// What came of it.
        outcome: ProposalOutcome,
    },
    /// A person has this machine rebuild the cluster from what it has, since the other control planes are gone for good. Answered with
    /// [`Effect::Answer`](crate::Effect::Answer).
    Recover {
        /// Number that the answer repeats.
        call: CallNumber,
        /// Whether to say what it would do, and do nothing.
        dry_run: bool,
        /// The backup with which etcd is to begin; none: what this machine has. It is on this machine's disk, and opens.
        backup: Option<Digest>,
        /// The API server that says that its etcd has a majority, if one says so: then nothing is lost, whoever of the machines answers.
        works: Option<String>,
    },
    /// Which backups are on this machine's disk, whole; whenever that changes.
    Backups(BTreeSet<Digest>),
    /// A person asks something of this machine. Answered with [`crate::Effect::Answer`].
    Wish {
        /// Number that the answer repeats.
        call: CallNumber,
        /// What.
        wish: Wish,
        /// Only what it would change is asked.
        dry_run: bool,
    },
    /// What the device found on this machine, each time it looks.
    Observed {
        /// Digest of the kubelet's configuration, if there is one.
        kubelet: Option<Digest>,
        /// When the first of its certificates ends, in seconds since 1970; 0 if it has none.
        certificates_end_s: u64,
        /// Whether kubeadm's certificates here are to be renewed, or the kubelet's own can no longer be used.
        renewal: Renewal,
        /// Whether a CA's certificate here ends within a year, and when, in seconds since 1970; 0 if none does.
        ca_ends_s: u64,
        /// The median of some syncs of its disk, in microseconds; 0 if none was measured.
        sync_us: u32,
        /// Whether its kubelet must not start, since etcd has run here and its data is gone.
        etcd_gone: bool,
    },
    /// A step reached a phase, for people.
    Progress {
        /// The run's number.
        run: RunId,
        /// The phase, in kubeadm's words.
        phase: String,
        /// What holds the step up there, if something does.
        held: Option<String>,
    },
    /// A step ended.
    Finished {
        /// The run's number.
        run: RunId,
        /// What came of it.
        result: Result<StepOutput, StepFailure>,
    },
}

/// How kubeadm's certificates on a machine stand, the CAs' apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Renewal {
    /// Nothing is to be done.
    #[default]
    NotYet,
    /// Of one of them more than two thirds of its life are over. All of them still serve.
    Due,
    /// One of them, or the kubelet's own, is good no more, or not yet.
    Overdue,
}

//! What a machine says of itself to people: `muster status` and `muster explain`.

use muster_wire::{MachineId, Role};
use serde::{Deserialize, Serialize};

/// Where a machine stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Something is wrong that a person must mend; `explain` says what.
    Halted,
    /// Looking for the others.
    Meeting,
    /// Agreeing on the charter.
    Founding,
    /// Follows a charter; is not admitted yet.
    Waiting,
    /// Admitted; preparing for init or join, or waiting for its turn.
    Preparing,
    /// Running `kubeadm init`.
    Initialising,
    /// Running `kubeadm join`.
    Joining,
    /// kubeadm is done; the Node is not Ready yet.
    Settling,
    /// The Node was Ready and the ledger says Joined.
    Ready,
}

impl Phase {
    /// The word people see.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Halted => "Halted",
            Phase::Meeting => "Meeting",
            Phase::Founding => "Founding",
            Phase::Waiting => "Waiting",
            Phase::Preparing => "Preparing",
            Phase::Initialising => "Initialising",
            Phase::Joining => "Joining",
            Phase::Settling => "Settling",
            Phase::Ready => "Ready",
        }
    }
}

/// One reason why a machine waits, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What it is about: `founding`, `admission`, `init`, `ticket`, `etcd`, `clone`, ...
    pub about: String,
    /// The sentence people read.
    pub text: String,
    /// The machines waited for, in full hexadecimal.
    pub machines: Vec<String>,
}

/// Another machine, as this one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its identity, in full hexadecimal.
    pub machine: String,
    /// Its identity as people see it.
    pub short: String,
    /// Its name in the ledger, or its host name.
    pub name: String,
    /// Its role, once admitted.
    pub role: Option<Role>,
    /// SWIM's opinion.
    pub alive: bool,
    /// Whether a connection stands.
    pub connected: bool,
    /// Milliseconds since anything came from it; none if nothing ever did.
    pub heard_ms_ago: Option<u64>,
    /// Whether its Node has been Ready.
    pub joined: bool,
    /// Where it listens.
    pub addresses: Vec<String>,
}

/// How far this machine has come with the image's manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestsStatus {
    /// How many objects there are.
    pub total: u32,
    /// How many of them are applied.
    pub applied: u32,
    /// What the others wait for, the first few of them.
    pub waiting: Vec<String>,
    /// What the API server refuses, the first few.
    pub refused: Vec<String>,
}

/// What `muster status` shows of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its identity, in full hexadecimal.
    pub machine: String,
    /// Its identity as people see it.
    pub short: String,
    /// Its name in the ledger, or its host name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// Where it stands.
    pub phase: Phase,
    /// Its role, once admitted.
    pub role: Option<Role>,
    /// The charter's cluster id in hexadecimal, once there is one.
    pub charter: Option<String>,
    /// The charter's voters.
    pub voters: Vec<String>,
    /// The Raft leader as this machine knows it.
    pub leader: Option<String>,
    /// The Raft term as this machine knows it.
    pub term: u64,
    /// The ledger's revision here.
    pub revision: u64,
    /// The live or successful init attempt.
    pub attempt: Option<u32>,
    /// The kubeadm phase under way, if one is.
    pub doing: Option<String>,
    /// How often this machine's kubeadm work was reset since the agent started.
    #[serde(default)]
    pub resets: u32,
    /// What is waited for.
    pub waiting: Vec<Reason>,
    /// The image's manifests, on a machine that applies them.
    #[serde(default)]
    pub manifests: Option<ManifestsStatus>,
    /// The others.
    pub peers: Vec<Peer>,
    /// How many machines the image says there are.
    pub machines: u32,
    /// How many control planes it says there are.
    pub control_planes: u32,
    /// Frames and senders that were dropped, by reason.
    pub dropped: std::collections::BTreeMap<String, u64>,
}

/// Machines in a sentence: all of a few, the first few of many.
pub(crate) fn list(machines: &[MachineId]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = machines.iter().take(SHOWN).map(MachineId::to_string).collect();
    match machines.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

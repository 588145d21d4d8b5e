//! What a machine says of itself to people: `muster status` and `muster explain`.

use muster_wire::{Attempt, MachineId, Revision, Role};
use serde::{Deserialize, Serialize};

use crate::words::reasons::{Reason, Topic};

/// Where a machine stands in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Something is wrong that a person must mend; `explain` says what.
    Halted,
    /// Looking for the others.
    #[default]
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

/// Another machine, as this one sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// A machine that this one met and that is not of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stranger {
    /// Its identity, in full hexadecimal.
    pub machine: String,
    /// Its identity as people see it.
    pub short: String,
    /// Its host name.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Milliseconds since anything came from it; none if nothing ever did.
    pub heard_ms_ago: Option<u64>,
    /// Why it is none of ours.
    pub why: String,
}

/// A place where others may be, and what came of looking there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// As the image writes it: an address, a name and a port, or `mDNS`.
    pub hint: String,
    /// What came of it last; none if nothing has yet.
    pub outcome: Option<String>,
    /// The machine that is there, in full hexadecimal, if one is.
    pub machine: Option<String>,
    /// Milliseconds since that outcome.
    pub ms_ago: Option<u64>,
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

/// What has become of a machine that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Departure {
    /// What Kubernetes has there is being taken away.
    Undoing,
    /// Nothing of it is left, and it starts again as another machine.
    Returns,
    /// Nothing of it is left, and it stays out.
    Out,
}

/// A machine that is to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Its identity, in full hexadecimal.
    pub machine: String,
    /// Its name in the ledger.
    pub name: String,
    /// Who is at it, as people see it.
    pub by: Option<String>,
    /// What held it up last.
    pub held: Option<String>,
}

/// What `muster status` shows of one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    pub revision: Revision,
    /// The live or successful init attempt.
    pub attempt: Option<Attempt>,
    /// The kubeadm phase under way, if one is.
    pub doing: Option<String>,
    /// How often this machine's kubeadm work was reset since the agent started.
    #[serde(default)]
    pub resets: u32,
    /// What has become of this machine if it was removed.
    #[serde(default)]
    pub removed: Option<Departure>,
    /// Whose removal is under way.
    #[serde(default)]
    pub leaving: Option<Leaving>,
    /// What is waited for.
    pub waiting: Vec<Reason>,
    /// The image's manifests, on a machine that applies them.
    #[serde(default)]
    pub manifests: Option<ManifestsStatus>,
    /// The others.
    pub peers: Vec<Peer>,
    /// Machines that were met and are not of this cluster: they have another image's settings, or follow another charter.
    #[serde(default)]
    pub strangers: Vec<Stranger>,
    /// Where others are looked for, and what came of it. The core knows nothing of it: whoever owns the mesh fills it in.
    #[serde(default)]
    pub hints: Vec<Hint>,
    /// How many machines the image says there are.
    pub machines: u32,
    /// How many control planes it says there are.
    pub control_planes: u32,
    /// Frames and senders that were dropped, by reason.
    pub dropped: std::collections::BTreeMap<String, u64>,
}

/// Most hints that are told of in a sentence each.
const HINTS_TOLD: usize = 12;

impl Status {
    /// Whether a machine that should be here is not, or this one is not Ready: then what hints came to is worth telling.
    pub fn misses_somebody(&self) -> bool {
        let here = 1 + self.peers.iter().filter(|peer| peer.alive).count();
        self.removed.is_none() && (self.phase != Phase::Ready || here < self.machines as usize)
    }

    /// What hints came to, as reasons; those first that found nobody.
    pub fn hint_reasons(&self) -> Vec<Reason> {
        let mut hints: Vec<&Hint> = self.hints.iter().collect();
        hints.sort_by_key(|hint| hint.machine.is_some());
        let reason = |text: String| Reason { about: Topic::Hint, text, machines: Vec::new() };
        let told = hints.iter().take(HINTS_TOLD).map(|hint| {
            let ago = hint.ms_ago.map_or(String::new(), |ms| format!(", {} s ago", ms / 1_000));
            let outcome = hint.outcome.as_deref().unwrap_or("not tried yet");
            let name = hint.machine.as_ref().map(|machine| self.name_of(machine));
            let outcome = name.map_or(outcome.to_owned(), |name| format!("{outcome} {name}"));
            reason(format!("{}: {outcome}{ago}", hint.hint))
        });
        let more = hints.len().saturating_sub(HINTS_TOLD);
        let more = (more > 0).then(|| reason(format!("{more} more hints are in `muster status --json`")));
        told.chain(more).collect()
    }

    /// That large packets are lost on the way to a machine, as so many connections in a row say.
    pub fn hole_reason(&self, machine: MachineId, connections: u32) -> Reason {
        let machine = machine.to_hex();
        let text = format!(
            "small packets reach {} and large ones do not: {connections} connections in a row stood, and nothing that was sent on \
             them after the handshake was acknowledged. Something between drops packets without a word: look at the MTU of \
             cards, bridges and tunnels (`ping -M do -s 1472`), and at what drops ICMP",
            self.name_of(&machine)
        );
        Reason { about: Topic::Mtu, text, machines: vec![machine] }
    }

    fn name_of(&self, machine: &str) -> String {
        let peers = self.peers.iter().map(|peer| (&peer.machine, &peer.name, &peer.short));
        let strangers = self.strangers.iter().map(|one| (&one.machine, &one.name, &one.short));
        match peers.chain(strangers).find(|(id, ..)| *id == machine) {
            Some((_, name, short)) => format!("{name} ({short})"),
            None => format!("m-{}", machine.chars().take(8).collect::<String>()),
        }
    }
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

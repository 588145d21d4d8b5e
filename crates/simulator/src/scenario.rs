//! Scenarios: what the world is like, what goes wrong in it, and what must hold in spite of that.
//!
//! A scenario is a TOML file. Durations carry their unit in their name; a pair `[least, most]` is drawn from evenly.

mod fault;
mod parse;
mod plan;
mod rules;

pub use fault::{Fault, Pick, Sort};
pub use parse::ScenarioError;
pub(crate) use plan::Drawn;
pub use plan::plan;

use serde::{Deserialize, Serialize};

/// A range `[least, most]`.
pub type Range = [f64; 2];

/// One scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One line for people.
    pub title: String,
    /// How many machines exist.
    pub machines: u32,
    /// The seed that `run` takes when none is given; a regression keeps its own.
    #[serde(default)]
    pub seed: u64,
    /// What the image says.
    #[serde(default)]
    pub image: Image,
    /// Machines that carry another image, counted from the last one.
    #[serde(default, rename = "other", skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Other>,
    /// What the network is like when nothing is wrong.
    #[serde(default)]
    pub network: Network,
    /// How machines hear of each other.
    #[serde(default)]
    pub discovery: Discovery,
    /// When machines boot.
    #[serde(default)]
    pub boots: Boots,
    /// Machines that are switched on later than the others.
    #[serde(default, rename = "late", skip_serializing_if = "Vec::is_empty")]
    pub lates: Vec<Late>,
    /// How long a synced write takes.
    #[serde(default)]
    pub disk: Disk,
    /// Raft's times.
    #[serde(default)]
    pub raft: Raft,
    /// How long kubeadm takes.
    #[serde(default)]
    pub kubeadm: Kubeadm,
    /// How long the run lasts.
    #[serde(default)]
    pub phases: Phases,
    /// Within which bounds liveness must hold, from the moment of healing.
    #[serde(default)]
    pub bounds: Bounds,
    /// Faults at fixed times.
    #[serde(default, rename = "fault", skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// What people ask machines for.
    #[serde(default, rename = "wish", skip_serializing_if = "Vec::is_empty")]
    pub wishes: Vec<Wished>,
    /// Faults drawn anew for every seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swarm: Option<Swarm>,
    /// What a run or a sweep must have seen.
    #[serde(default)]
    pub expect: Expect,
}

/// How the founding quorum is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// muster's: a majority of the machines that the image names.
    #[default]
    Majority,
    /// The classic `expect N`: whoever sees `expect` machines founds with those it sees. For comparison only.
    Threshold,
}

/// The image, the same on every machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Image {
    /// `machines` in its settings; as many as exist unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machines: Option<u32>,
    /// Control planes, all together.
    pub control_planes: u32,
    /// Whether state survives a restart.
    pub durable: bool,
    /// So many machines, the first ones, show one hardware: their cards have one address and their boards no product UUID.
    pub alike: u32,
    /// The highest level of the ledger that it knows; all that there are unless given.
    pub level: u32,
    /// How long a control plane may be dead before a worker takes its seat, in seconds; for ever unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_after_s: Option<f64>,
    /// How often etcd is backed up, in seconds; as an image does that says nothing unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_every_s: Option<f64>,
    /// How many objects its manifests have. Every second one waits for something at first, as a custom resource does.
    pub manifests: u32,
    /// How the founding quorum is chosen.
    pub policy: Policy,
    /// For the threshold policy: how many machines must be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<u32>,
}

/// Of control planes: three, or one where there are fewer machines, as of a real image that does not say.
const UNSAID: u32 = u32::MAX;

impl Default for Image {
    fn default() -> Self {
        Self {
            machines: None,
            control_planes: UNSAID,
            durable: true,
            alike: 0,
            level: muster_wire::level::KNOWN,
            replace_after_s: None,
            backup_every_s: None,
            manifests: 0,
            policy: Policy::Majority,
            expect: None,
        }
    }
}

/// Machines with another image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Other {
    /// How many.
    pub count: u32,
    /// What differs.
    pub differs: Differs,
    /// For `differs = "machines"`: what their image says; one less than the image unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machines: Option<u32>,
    /// How many control planes their image asks for; as many as the image unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_planes: Option<u32>,
    /// They boot so many seconds after the others.
    #[serde(default)]
    pub boots_at_s: f64,
}

/// What differs in another image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Differs {
    /// The digest of the settings.
    Settings,
    /// `machines` is another number.
    Machines,
    /// The cluster's name.
    Cluster,
    /// The mesh key: they cannot talk at all.
    MeshKey,
}

/// Somebody asks machines for something: one of `accept_other`, `remove`, `withdraw` and `recover`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wished {
    /// When, from the start of the run.
    pub at_s: f64,
    /// Whom.
    pub machines: Pick,
    /// To accept the image of the machines of this `[[other]]`, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_other: Option<u32>,
    /// To remove who this is then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Pick>,
    /// That whoever is removed comes back at once, as another machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returns: bool,
    /// To remove after all not who this is then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdraw: Option<Pick>,
    /// To rebuild the cluster from what it has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recover: bool,
    /// Of a recovery: whether it begins with the last backup that is on the machine's disk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_backup: bool,
}

/// The network when nothing is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// One way, drawn once for every pair of machines.
    pub latency_ms: Range,
    /// Added to every frame, drawn anew.
    pub jitter_ms: f64,
    /// Share of frames lost, 0 to 1.
    pub loss: f64,
    /// Bits that a machine can send in a second, in kilobits; 0 means no limit.
    pub bandwidth_kbit: f64,
    /// Most connections that a machine keeps; the agent's own limit unless given. Founding needs one to a quorum.
    pub connections_max: u32,
}

impl Default for Network {
    fn default() -> Self {
        Self { latency_ms: [0.1, 0.5], jitter_ms: 0.2, loss: 0.0, bandwidth_kbit: 0.0, connections_max: 512 }
    }
}

/// How machines hear of each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discovery {
    /// Whether everyone on the segment is heard of (mDNS).
    pub segment: bool,
    /// Machines that everybody has in its peer list, by number.
    pub seeds: Vec<u32>,
    /// From a machine's boot to the first hint.
    pub delay_ms: Range,
    /// Between one round of hints and the next.
    pub repeat_s: Range,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { segment: true, seeds: Vec::new(), delay_ms: [20.0, 300.0], repeat_s: [5.0, 10.0] }
    }
}

/// When machines boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Boots {
    /// All boot within this time.
    pub spread_s: f64,
    /// How long a restart takes.
    pub restart_s: Range,
}

impl Default for Boots {
    fn default() -> Self {
        Self { spread_s: 1.0, restart_s: [0.5, 3.0] }
    }
}

/// Machines that are switched on late: a rack of its own, or one that comes after a repair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Late {
    /// Which, by number.
    pub machines: Vec<u32>,
    /// They boot so many seconds after the others, and not before, whatever befalls them.
    pub boots_at_s: f64,
}

/// The disk when nothing is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// A synced write.
    pub sync_ms: Range,
}

impl Default for Disk {
    fn default() -> Self {
        Self { sync_ms: [0.2, 4.0] }
    }
}

/// Raft's times, as the agent has them unless given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raft {
    /// Between heartbeats.
    pub heartbeat_ms: u64,
    /// Shortest and longest time to an election after the lease.
    pub election_ms: [u64; 2],
    /// A snapshot is made after so many records; the agent's number is for months of a cluster's life.
    pub snapshot_after: u64,
    /// So many records stay in the log behind a snapshot.
    pub keep: u64,
}

impl Default for Raft {
    fn default() -> Self {
        Self { heartbeat_ms: 500, election_ms: [1_500, 3_000], snapshot_after: 500, keep: 200 }
    }
}

/// How long kubeadm's parts take when nothing is wrong, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kubeadm {
    /// Pulling images and the like.
    pub prepare_s: Range,
    /// init up to and including bootstrap-token.
    pub init_s: Range,
    /// The rest of init.
    pub init_finish_s: Range,
    /// A join without etcd.
    pub join_s: Range,
    /// Adding an etcd member.
    pub etcd_s: Range,
    /// From joined to Node Ready.
    pub ready_s: Range,
    /// After this long a step is ended by the device.
    pub step_max_s: f64,
}

impl Default for Kubeadm {
    fn default() -> Self {
        Self {
            prepare_s: [0.5, 3.0],
            init_s: [3.0, 8.0],
            init_finish_s: [0.5, 2.0],
            join_s: [1.0, 4.0],
            etcd_s: [0.5, 2.0],
            ready_s: [0.5, 3.0],
            step_max_s: 300.0,
        }
    }
}

/// How long the run lasts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Phases {
    /// Faults may happen in this time.
    pub faults_s: f64,
    /// Then all of them end, and this is how long the run goes on.
    pub heal_s: f64,
    /// Whether the run ends as soon as every liveness promise holds.
    pub stop_when_held: bool,
}

impl Default for Phases {
    fn default() -> Self {
        Self { faults_s: 0.0, heal_s: 120.0, stop_when_held: false }
    }
}

/// Bounds for liveness, in seconds from the moment of healing unless said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// L1: one charter everywhere.
    pub charter_s: f64,
    /// L1: every machine joined.
    pub joined_s: f64,
    /// L2: a leader that a majority of voters agrees on.
    pub leader_s: f64,
    /// L3: equal rosters.
    pub rosters_s: f64,
    /// L4: a dead initialiser is replaced, from its death.
    pub replaced_s: f64,
    /// L5: messages per machine and second once idle; voters have their Raft beside that.
    pub idle_messages_per_s: f64,
    /// L5: dials a second, and frames, that each machine of another image, cluster or mesh key costs an idle machine, whoever began.
    pub stranger_dials_per_s: f64,
    /// See `stranger_dials_per_s`.
    pub stranger_frames_per_s: f64,
    /// How many machines must reach all this; all of them unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machines: Option<u32>,
    /// Which liveness promises are checked.
    pub check: Vec<Liveness>,
}

/// A liveness promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Liveness {
    /// One cluster, everyone joined.
    L1,
    /// A new leader.
    L2,
    /// Equal rosters.
    L3,
    /// A dead initialiser is replaced.
    L4,
    /// An idle cluster is quiet.
    L5,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            charter_s: 30.0,
            joined_s: 110.0,
            leader_s: 30.0,
            rosters_s: 90.0,
            replaced_s: 90.0,
            idle_messages_per_s: 1.5,
            stranger_dials_per_s: 0.4,
            stranger_frames_per_s: 0.1,
            machines: None,
            check: vec![Liveness::L1, Liveness::L2, Liveness::L3, Liveness::L4, Liveness::L5],
        }
    }
}

/// Faults drawn anew for every seed: which sorts are on, when, how strong, whom they hit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swarm {
    /// How many faults are drawn, `[least, most]`.
    pub faults: [u32; 2],
    /// The sorts they are drawn from; all of them unless given.
    #[serde(default = "Sort::all")]
    pub sorts: Vec<Sort>,
    /// Highest share of frames lost.
    #[serde(default = "half")]
    pub loss_max: f64,
}

fn half() -> f64 {
    0.5
}

/// What must have been seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// States that a sweep must have reached at least once; never reached means the scenario shows nothing.
    pub sometimes: Vec<String>,
    /// The run is meant to break this promise: a baseline that shows what the checkers see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaks: Option<String>,
    /// The scenario breaks what this promise assumes, and that it does not hold then is as meant. Where the assumption still held
    /// it is judged as ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unbound: Option<String>,
}

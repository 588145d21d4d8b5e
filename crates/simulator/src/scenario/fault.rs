//! Faults: what can go wrong, when, to whom, how badly.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The sorts of faults. The first paragraph beside each is what people are told that it does, in `muster-sim list` and in
/// `docs/simulation.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    /// Frames are lost at `rate`.
    Loss,
    /// Frames take up to `ms` longer, each differently, so that they overtake each other.
    Delay,
    /// Frames come twice at `rate`, the second one up to `ms` later.
    Duplicate,
    /// Bytes are flipped in frames at `rate`.
    Corrupt,
    /// Machines can send `kbit` a second.
    Bandwidth,
    /// Links swallow frames of more than `bytes`.
    Swallow,
    /// The machines named are cut off from the others.
    Split,
    /// The others no longer hear the machines named, which hear them.
    OneWay,
    /// Every machine reaches only its two neighbours by number.
    Ring,
    /// Two halves, those in `half` and the others, or the lower and the higher numbers, both reach the first machine named, and
    /// not each other.
    Bridge,
    /// A split that comes and goes every `period_s`.
    Flap,
    /// The process dies and is started again when the fault ends.
    Crash,
    /// The process dies every `period_s`.
    CrashLoop,
    /// The process stands still.
    Pause,
    /// Every input takes `ms` to handle.
    Slow,
    /// The machine loses power: what was not synced is gone, and its peers notice only by silence.
    PowerLoss,
    /// The process is ended and started again when the fault ends, which muster cannot tell from `crash`.
    Restart,
    /// The process is ended, and started when the fault ends from an image that knows the ledger's levels up to `level`.
    Image,
    /// The next write of the state file, or one of Raft's soon, kills the process, before or after the disk has it.
    CrashOnWrite,
    /// The next write of the state file, or one of Raft's soon, is torn: the machine stops, and finds a broken file when it starts.
    TornWrite,
    /// The next write of the state file lands in the file of Raft instead.
    Misdirected,
    /// Syncs lie: what was written meanwhile is lost if the machine loses power.
    LyingSync,
    /// Writes fail because the disk is full, and the process ends at the first.
    Full,
    /// Writes fail, and the process ends at the first.
    IoError,
    /// A bit of the state file, or of Raft's, turns while the process is down.
    BitRot,
    /// Raft's file is gone when the machine comes back.
    LogLost,
    /// The machine loses power, and etcd's directory is empty when it comes back.
    EtcdEmptied,
    /// The disk is empty when the machine comes back.
    Wipe,
    /// The disk is an older copy of itself when the machine comes back, any one of those that are kept unless `copy` says which.
    ///
    /// As it was after the write numbered `copy`, from 0, the first, on, or counted back from -1, the last but the present one; of
    /// those that are kept the nearest.
    OldCopy,
    /// The first machine named gets a copy of the second one's disk.
    Clone,
    /// The machine's clock runs `ppm` too fast, or too slow if negative.
    ClockDrift,
    /// The machine's clock jumps ahead by `ms`, as after a suspend.
    ClockJump,
    /// The machine's wall clock shows 1970 until the fault ends, and the check before kubeadm finds that.
    ClockUnset,
    /// Identities appear that no image made, `count` of them, with valid signatures of their own.
    Sybil,
    /// The machine promises and votes for whatever it is asked, to every peer, and tells of no earlier vote.
    ///
    /// It breaks an assumption: see `docs/simulation.md`.
    TwoFaced,
    /// What the machine proposes to its Raft is proposed once more, up to `ms` later.
    LateProposals,
    /// Every `period_s` Raft is handed an entry that the ledger's rules must refuse: one that was committed before, as it was or
    /// with a number, a machine or a CA that is wrong now.
    StrayProposals,
    /// Every `period_s` Raft is handed a turn to disrupt for some control plane, and the end of the one that is under way.
    DisruptTurns,
    /// kubeadm hangs at `step`.
    KubeadmHang,
    /// kubeadm fails at `step`.
    KubeadmFail,
    /// kubeadm does `step`, and its answer is lost.
    KubeadmLostAnswer,
    /// kubeadm takes long for `step`, and goes on with it although it was told to stop.
    KubeadmLate,
    /// The API server refuses to take the Nodes of the machines back when they are reset.
    NodeStays,
    /// A Pod on the machine is held there by a budget: the machine cannot be drained.
    Budget,
    /// Two thirds of the life of what kubeadm has signed on the machine are over.
    CertificatesDue,
    /// The machine's certificates are good no more: nobody believes its kubelet or its API server.
    CertificatesOver,
}

impl Sort {
    /// All sorts that a swarm draws from unless it names its own: those under which every promise must hold.
    pub fn all() -> Vec<Sort> {
        use Sort::*;
        vec![
            Loss,
            Delay,
            Duplicate,
            Corrupt,
            Bandwidth,
            Swallow,
            Split,
            OneWay,
            Ring,
            Bridge,
            Flap,
            Crash,
            CrashLoop,
            Pause,
            Slow,
            PowerLoss,
            Restart,
            CrashOnWrite,
            Full,
            IoError,
            ClockDrift,
            ClockJump,
            LateProposals,
            KubeadmHang,
            KubeadmFail,
            KubeadmLostAnswer,
            KubeadmLate,
        ]
    }

    /// Every sort there is.
    pub fn every() -> &'static [Sort] {
        Self::value_variants()
    }

    /// The parameters that this sort takes, beside `at_s`, `for_s` and `machines`.
    pub fn takes(self) -> &'static [&'static str] {
        use Sort::*;
        match self {
            Loss | Corrupt => &["rate"],
            Duplicate => &["rate", "ms"],
            Delay | Slow | ClockJump | LateProposals => &["ms"],
            Bandwidth => &["kbit"],
            Swallow => &["bytes"],
            Flap | CrashLoop | StrayProposals | DisruptTurns => &["period_s"],
            ClockDrift => &["ppm"],
            Image => &["level"],
            Sybil => &["count"],
            OldCopy => &["copy"],
            Bridge => &["half"],
            KubeadmHang | KubeadmFail | KubeadmLostAnswer | KubeadmLate => &["step"],
            _ => &[],
        }
    }

    /// What it does, in one plain sentence.
    pub fn does(self) -> String {
        self.to_possible_value().and_then(|value| Some(format!("{}.", value.get_help()?))).unwrap_or_default()
    }

    /// The word in scenario files.
    pub fn word(self) -> String {
        serde_json::to_value(self).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// Whom a fault hits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PickText", into = "PickText")]
pub enum Pick {
    /// Everyone.
    All,
    /// These, by number.
    These(Vec<u32>),
    /// So many, drawn by the seed.
    Random(u32),
    /// Half of them, drawn by the seed.
    Half,
    /// Who leads when the fault begins.
    Leader,
    /// Who runs init when the fault begins.
    Initialiser,
    /// Who made the cluster, if it is made when the fault begins.
    Maker,
    /// Who has the turn at etcd when the fault begins.
    TurnHolder,
    /// The control planes when the fault begins.
    ControlPlanes,
    /// The control planes when the fault begins, but for one.
    PlanesButOne,
    /// That one.
    PlaneLeft,
    /// Who proposes a charter when the fault begins: the lowest identity alive.
    Proposer,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum PickText {
    These(Vec<u32>),
    Word(String),
}

const PICKS: &str = "a list of machine numbers, \"all\", \"half\", \"random:N\", \"leader\", \"initialiser\", \
                     \"maker\", \"turn-holder\", \"control-planes\", \"planes-but-one\", \"plane-left\" or \"proposer\"";

impl TryFrom<PickText> for Pick {
    type Error = String;

    fn try_from(text: PickText) -> Result<Self, String> {
        let word = match text {
            PickText::These(machines) => return Ok(Pick::These(machines)),
            PickText::Word(word) => word,
        };
        Ok(match word.as_str() {
            "all" => Pick::All,
            "half" => Pick::Half,
            "leader" => Pick::Leader,
            "initialiser" => Pick::Initialiser,
            "maker" => Pick::Maker,
            "turn-holder" => Pick::TurnHolder,
            "control-planes" => Pick::ControlPlanes,
            "planes-but-one" => Pick::PlanesButOne,
            "plane-left" => Pick::PlaneLeft,
            "proposer" => Pick::Proposer,
            other => match other.strip_prefix("random:").and_then(|count| count.parse().ok()) {
                Some(count) => Pick::Random(count),
                None => return Err(format!("machines = {other:?} is not understood; expected {PICKS}")),
            },
        })
    }
}

impl From<Pick> for PickText {
    fn from(pick: Pick) -> Self {
        PickText::Word(match pick {
            Pick::These(machines) => return PickText::These(machines),
            Pick::All => "all".into(),
            Pick::Half => "half".into(),
            Pick::Random(count) => format!("random:{count}"),
            Pick::Leader => "leader".into(),
            Pick::Initialiser => "initialiser".into(),
            Pick::Maker => "maker".into(),
            Pick::TurnHolder => "turn-holder".into(),
            Pick::ControlPlanes => "control-planes".into(),
            Pick::PlanesButOne => "planes-but-one".into(),
            Pick::PlaneLeft => "plane-left".into(),
            Pick::Proposer => "proposer".into(),
        })
    }
}

impl std::fmt::Display for Pick {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match PickText::from(self.clone()) {
            PickText::Word(word) => f.write_str(&word),
            PickText::These(machines) => write!(f, "{machines:?}"),
        }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Sort,
    /// When it begins, from the start of the run.
    pub at_s: f64,
    /// How long it lasts.
    #[serde(default)]
    pub for_s: f64,
    /// Whom it hits.
    #[serde(default = "one")]
    pub machines: Pick,
    /// A share, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
    /// Kilobits a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kbit: Option<f64>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
    /// Seconds between one turn and the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_s: Option<f64>,
    /// Parts in a million.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppm: Option<f64>,
    /// How many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// The highest level of the ledger that the other image knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u32>,
    /// Which old copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<i32>,
    /// One of the halves that are kept apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half: Option<Vec<u32>>,
    /// A step of the kubeadm device, by its name in traces; any step unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

fn one() -> Pick {
    Pick::Random(1)
}

impl Fault {
    /// A fault with nothing but its sort and its times.
    pub fn new(kind: Sort, at_s: f64, for_s: f64, machines: Pick) -> Self {
        Self {
            kind,
            at_s,
            for_s,
            machines,
            rate: None,
            ms: None,
            kbit: None,
            bytes: None,
            period_s: None,
            ppm: None,
            count: None,
            level: None,
            copy: None,
            half: None,
            step: None,
        }
    }

    /// The parameters that are given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        [
            ("rate", self.rate.is_some()),
            ("ms", self.ms.is_some()),
            ("kbit", self.kbit.is_some()),
            ("bytes", self.bytes.is_some()),
            ("period_s", self.period_s.is_some()),
            ("ppm", self.ppm.is_some()),
            ("count", self.count.is_some()),
            ("level", self.level.is_some()),
            ("copy", self.copy.is_some()),
            ("half", self.half.is_some()),
            ("step", self.step.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}

//! What each step of muster runs of kubeadm's phases, and how. Which phases there are says [`crate::versions`].
//!
//! init's phases are run one by one, `kubeadm init phase X`. A join is cut only where another machine must be waited
//! for: every `kubeadm join phase X` would discover the cluster anew, so the phases between two cuts run in one process,
//! `kubeadm join` with all others skipped. That form also reaches the phases kubeadm hides from `join phase`.

use std::time::Duration;

use muster_wire::Role;

use crate::version::Version;
use crate::versions::{self, Shown, Workflow};

/// One run of kubeadm within a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) reads: Reads,
    pub(crate) form: Form,
    pub(crate) limit: Duration,
    /// See [`crate::Command::tries`].
    pub(crate) tries: u32,
    /// Whether it adds an etcd member.
    pub(crate) adds_member: bool,
    /// Whether the kubelet's kubeconfig is there before it: see [`kubelet_kubeconfig`].
    pub(crate) made_before: bool,
    /// Whether an etcd member will run here.
    pub(crate) hosts_etcd: bool,
}

impl Run {
    fn new(reads: Reads, form: Form, limit: Duration) -> Self {
        Self { reads, form, limit, tries: 1, adds_member: false, made_before: false, hosts_etcd: false }
    }
}

/// Which of the documents a run reads; each belongs to one of kubeadm's workflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// init's, with the tokens.
    Init,
    /// init's without them: it stays on disk, for a machine that stops before its init is finished.
    Finish,
    /// What a joining control plane's kubelet gets its kubeconfig by.
    Kubelet,
    /// A join's that looks for the cluster by file.
    Join,
    /// A join's that looks for the cluster by token.
    JoinLater,
}

impl Reads {
    pub(crate) fn workflow(self) -> &'static str {
        match self {
            Reads::Init | Reads::Finish | Reads::Kubelet => "init",
            Reads::Join | Reads::JoinLater => "join",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// `kubeadm W phase A B`.
    Phase(Vec<&'static str>),
    /// `kubeadm W --skip-phases=...`: the phases that run, for people, and those that do not.
    Skipping { runs: String, skip: Vec<String> },
}

/// A bound on the time of each phase of init: kubeadm's own bounds and some air.
const LIMITS: [(&str, u64); 10] = [
    ("preflight", 600),
    ("certs", 120),
    ("kubeconfig", 60),
    ("kubelet-start", 120),
    ("control-plane", 60),
    ("etcd", 60),
    ("bootstrap-token", 120),
    ("upload-config", 240),
    ("mark-control-plane", 240),
    ("addon", 120),
];

/// Parts of `certs` that muster has made.
const MADE: [&str; 4] = ["ca", "front-proxy-ca", "etcd-ca", "sa"];

/// How long an API server may take to serve once its manifest is written: kubeadm's four minutes and some air.
pub(crate) const CONTROL_PLANE_LIMIT: Duration = Duration::from_secs(5 * 60);
/// How long a Node may take to be Ready: a network add-on may have to be pulled first.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(15 * 60);
/// `config images pull`.
pub(crate) const PULL_LIMIT: Duration = Duration::from_secs(10 * 60);
/// How long the system may take to start the kubelet anew: muster's own guard runs first.
pub(crate) const RESTART_LIMIT: Duration = Duration::from_secs(120);
/// `muster salvage`: it copies etcd's data, and has etcd read all of it.
pub(crate) const SALVAGE_LIMIT: Duration = Duration::from_secs(1800);
/// `certs renew`.
pub(crate) const RENEW_LIMIT: Duration = Duration::from_secs(120);
/// `token create`, `token delete`.
pub(crate) const TOKEN_LIMIT: Duration = Duration::from_secs(60);
/// `reset`: it waits for etcd to give the member up, and for containers to stop.
pub(crate) const RESET_LIMIT: Duration = Duration::from_secs(3 * 60);

/// How often a phase may be run that only writes to the API.
pub(crate) const TRIES: u32 = 3;

/// The phases of init that only write to the API, and find written what they wrote before: kubeadm's "create or update".
const WRITES_TO_API: [&str; 4] = ["bootstrap-token", "upload-config", "mark-control-plane", "addon"];

/// Everything the other machines wait for comes first. The order differs from kubeadm's own in two points: waiting for
/// the API server is muster's (`init phase wait-control-plane` is hidden before 1.30 and polls slowly), and the tokens
/// come before the uploads, so that the controller manager signs them meanwhile.
pub(crate) fn before_serving(version: &Version, skip: &[String]) -> Vec<Run> {
    let phases: Vec<_> =
        Workflow::Init.phases(version.minor).take_while(|name| *name != "wait-control-plane").collect();
    runs(Reads::Init, version.minor, &phases, skip)
}

pub(crate) fn once_serving(version: &Version, skip: &[String]) -> Vec<Run> {
    let mut once = runs(Reads::Init, version.minor, &["bootstrap-token"], skip);
    // What later members take from there must not say with whom etcd began.
    let reads = if muster_wire::planted::planted("etcd-list-uploaded") { Reads::Init } else { Reads::Finish };
    once.extend(runs(reads, version.minor, &["upload-config"], skip));
    once
}

/// What no other machine waits for. `mark-control-plane` is among it: it waits for the Node to register.
pub(crate) fn init_finish(version: &Version, skip: &[String]) -> Vec<Run> {
    runs(Reads::Finish, version.minor, &["mark-control-plane", "kubelet-finalize", "addon"], skip)
}

/// What a founder that does not hold the claim does when the cluster is made: what concerns it alone.
pub(crate) fn found_finish(version: &Version, skip: &[String]) -> Vec<Run> {
    runs(Reads::Finish, version.minor, &["mark-control-plane", "kubelet-finalize"], skip)
}

fn runs(reads: Reads, minor: u32, phases: &[&'static str], skip: &[String]) -> Vec<Run> {
    let skipped = |name: &str| skip.iter().any(|skipped| skipped == name);
    let run = |words: Vec<&'static str>| {
        let tries = if WRITES_TO_API.contains(&words[0]) { TRIES } else { 1 };
        let hosts_etcd = words[0] == "preflight";
        let seconds = LIMITS.iter().find(|(phase, _)| *phase == words[0]).map_or(300, |(_, seconds)| *seconds);
        Run { tries, hosts_etcd, ..Run::new(reads, Form::Phase(words), Duration::from_secs(seconds)) }
    };
    let mut runs = Vec::new();
    for phase in phases.iter().filter(|phase| !skipped(phase)) {
        let parts: Vec<_> =
            Workflow::Init.parts(phase, minor).filter(|part| *phase != "certs" || !MADE.contains(part)).collect();
        let wanted: Vec<_> = parts.iter().copied().filter(|part| !skipped(&format!("{phase}/{part}"))).collect();
        let all = wanted.len() == parts.len() && Workflow::Init.is_command(&format!("{phase}/all"), minor);
        match (parts.is_empty(), all) {
            (true, _) => runs.push(run(vec![phase])),
            (false, true) => runs.push(run(vec![phase, "all"])),
            (false, false) => runs.extend(wanted.into_iter().map(|part| run(vec![phase, part]))),
        }
    }
    runs
}

/// A worker's whole join, or a control plane's up to etcd. `check-etcd` is left out: etcd itself refuses a member that
/// would endanger its quorum, and while others join the check fails for no good reason. A worker's `kubelet-wait-bootstrap` is not
/// run by itself: alone it wants a control plane's `admin.conf` (kubeadm 1.35 to 1.37).
pub(crate) fn join(version: &Version, role: Role) -> Run {
    const WORKERS: [&str; 3] = ["preflight", "kubelet-start", WAIT];
    const PREPARE: [&str; 3] = ["preflight", "control-plane-prepare", "kubelet-start"];
    let (names, skip, minutes) = match role {
        Role::Worker => (&WORKERS, Vec::new(), 13),
        Role::ControlPlane => {
            let mut skip = all_but(version.minor, &PREPARE);
            if muster_wire::planted::planted("etcd-outside-turn") {
                skip.retain(|name| name != "etcd-join");
            }
            (&PREPARE, skip, 20)
        }
    };
    let runs: Vec<_> = Workflow::Join.phases(version.minor).filter(|name| names.contains(name)).collect();
    Run { reads: Reads::Join, hosts_etcd: role == Role::ControlPlane, ..skipping(&runs.join("+"), skip, minutes * 60) }
}

/// Waits for the kubelet's own certificate.
const WAIT: &str = "kubelet-wait-bootstrap";

/// The kubelet's kubeconfig, made from the CA on this machine: see [`crate::kubelet`].
pub(crate) fn kubelet_kubeconfig() -> Run {
    Run::new(Reads::Kubelet, Form::Phase(vec!["kubeconfig", "kubelet"]), Duration::from_secs(60))
}

/// The kubelet is given its configuration, and started anew.
pub(crate) fn kubelet_start(version: &Version) -> Vec<Run> {
    runs(Reads::Kubelet, version.minor, &["kubelet-start"], &[])
}

/// The one part of a join that is taken in turn. Where the cluster's feature gates decide which of two phases adds the member, the
/// other does nothing: both are left in.
pub(crate) fn join_etcd(version: &Version) -> Run {
    let run = match *versions::adds_member(version.minor) {
        [only] => join_phase(only.split('/').collect(), 300),
        ref either => skipping("etcd-join", all_but(version.minor, either), 300),
    };
    Run { adds_member: true, ..run }
}

/// What `--skip-phases` has to name so that no phase or part but these runs.
fn all_but(minor: u32, kept: &[&str]) -> Vec<String> {
    let mut skip = Vec::new();
    for phase in Workflow::Join.phases(minor).filter(|phase| !kept.contains(phase)) {
        let parts: Vec<_> = Workflow::Join.parts(phase, minor).map(|part| format!("{phase}/{part}")).collect();
        if parts.iter().any(|part| kept.contains(&part.as_str())) {
            skip.extend(parts.into_iter().filter(|part| !kept.contains(&part.as_str())));
        } else {
            skip.push(phase.to_owned());
        }
    }
    skip
}

/// What is left of a control plane's join. Each of it waits, or writes what may be there already, so that it may be run again.
/// Before 1.22 each control plane is also written into the ClusterStatus.
pub(crate) fn join_finish(version: &Version) -> Vec<Run> {
    const MARK: &str = "control-plane-join/mark-control-plane";
    let minor = version.minor;
    let writes = |phase: &'static str, seconds| Run { tries: TRIES, ..join_phase(phase.split('/').collect(), seconds) };
    match Workflow::Join.row(WAIT, minor) {
        None if minor < 22 => vec![writes("control-plane-join/update-status", 120), writes(MARK, 240)],
        None => vec![writes(MARK, 240)],
        Some(_) if Workflow::Join.is_command(WAIT, minor) => vec![writes(WAIT, 360), writes(MARK, 240)],
        Some(_) => {
            let run = skipping("kubelet-wait-bootstrap+mark-control-plane", all_but(minor, &[WAIT, MARK]), 12 * 60);
            vec![Run { tries: TRIES, ..run }]
        }
    }
}

fn join_phase(words: Vec<&'static str>, seconds: u64) -> Run {
    Run::new(Reads::JoinLater, Form::Phase(words), Duration::from_secs(seconds))
}

fn skipping(runs: &str, skip: Vec<String>, seconds: u64) -> Run {
    Run::new(Reads::JoinLater, Form::Skipping { runs: runs.to_owned(), skip }, Duration::from_secs(seconds))
}

/// Whether muster can do without this phase. The others make what it reads, or what other machines wait for.
///
/// # Errors
/// Why not.
pub(crate) fn may_skip(name: &str) -> Result<(), &'static str> {
    const FREE: [&str; 9] = [
        "preflight",
        "upload-certs",
        "mark-control-plane",
        "kubelet-finalize",
        "addon",
        "show-join-command",
        "check-etcd",
        "wait-control-plane",
        "control-plane-join/mark-control-plane",
    ];
    // Of these phases single parts, in whichever version they are.
    const PARTS: [&str; 4] = ["certs", "kubeconfig", "addon", "kubelet-finalize"];
    const NEEDED: [&str; 12] = [
        "certs",
        "kubeconfig",
        "kubelet-start",
        "control-plane",
        "etcd",
        "upload-config",
        "bootstrap-token",
        "control-plane-prepare",
        "etcd-join",
        "kubelet-wait-bootstrap",
        "control-plane-join",
        "control-plane-join/etcd",
    ];
    let part = || {
        name.split_once('/')
            .is_some_and(|(parent, part)| PARTS.contains(&parent) && !(parent == "certs" && MADE.contains(&part)))
            && versions::INIT.iter().any(|row| row.name == name && row.shown != Shown::All)
    };
    match name {
        _ if FREE.contains(&name) || part() => Ok(()),
        _ if NEEDED.contains(&name) => Err("without this phase no cluster comes about"),
        _ => Err("kubeadm has no such phase, or muster cannot do without it"),
    }
}

/// Which of the phases to skip a join knows by name: kubeadm refuses the others.
pub(crate) fn of_join(name: &str) -> bool {
    matches!(name, "preflight" | "control-plane-join/mark-control-plane")
}

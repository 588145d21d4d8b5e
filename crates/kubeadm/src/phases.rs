//! kubeadm's phases, by version: what each step of muster runs, and how.
//!
//! init's phases are run one by one, `kubeadm init phase X`. A join is cut only where another machine must be waited
//! for: every `kubeadm join phase X` would discover the cluster anew, so the phases between two cuts run in one process,
//! `kubeadm join` with all others skipped. That form also reaches the phases kubeadm hides from `join phase`.

use std::time::Duration;

use muster_wire::Role;

use crate::version::Version;

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
}

impl Run {
    fn new(reads: Reads, form: Form, limit: Duration) -> Self {
        Self { reads, form, limit, tries: 1, adds_member: false }
    }
}

/// Which of the documents a run reads; each belongs to one of kubeadm's workflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// init's, with the tokens.
    Init,
    /// init's without them: it stays on disk, for a machine that stops before its init is finished.
    Finish,
    /// A join's that looks for the cluster by file.
    Join,
    /// A join's that looks for the cluster by token.
    JoinLater,
}

impl Reads {
    pub(crate) fn workflow(self) -> &'static str {
        match self {
            Reads::Init | Reads::Finish => "init",
            Reads::Join | Reads::JoinLater => "join",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// `kubeadm W phase A B`.
    Phase(Vec<&'static str>),
    /// `kubeadm W --skip-phases=...`: the phases that run, for people, and those that do not.
    Skipping { runs: &'static str, skip: Vec<&'static str> },
}

/// A phase of init, its parts if it has some, and a bound on its time: kubeadm's own bounds and some air.
struct InitPhase {
    name: &'static str,
    parts: &'static [&'static str],
    limit: Duration,
}

const fn phase(name: &'static str, parts: &'static [&'static str], seconds: u64) -> InitPhase {
    InitPhase { name, parts, limit: Duration::from_secs(seconds) }
}

const PREFLIGHT: InitPhase = phase("preflight", &[], 600);
/// Less `ca`, `front-proxy-ca`, `etcd-ca` and `sa`, which muster has made.
const CERTS: InitPhase = phase(
    "certs",
    &[
        "apiserver",
        "apiserver-kubelet-client",
        "front-proxy-client",
        "etcd-server",
        "etcd-peer",
        "etcd-healthcheck-client",
        "apiserver-etcd-client",
    ],
    120,
);
const KUBECONFIG: InitPhase = phase("kubeconfig", &["admin", "kubelet", "controller-manager", "scheduler"], 60);
const KUBECONFIG_SUPER: InitPhase =
    phase("kubeconfig", &["admin", "super-admin", "kubelet", "controller-manager", "scheduler"], 60);
const KUBELET_START: InitPhase = phase("kubelet-start", &[], 120);
const CONTROL_PLANE: InitPhase = phase("control-plane", &["apiserver", "controller-manager", "scheduler"], 60);
const ETCD: InitPhase = phase("etcd", &["local"], 60);
const BOOTSTRAP_TOKEN: InitPhase = phase("bootstrap-token", &[], 120);
const UPLOAD_CONFIG: InitPhase = phase("upload-config", &["kubeadm", "kubelet"], 240);
const MARK_CONTROL_PLANE: InitPhase = phase("mark-control-plane", &[], 240);
const KUBELET_FINALIZE_OLD: InitPhase = phase("kubelet-finalize", &["experimental-cert-rotation"], 120);
const KUBELET_FINALIZE: InitPhase = phase("kubelet-finalize", &["enable-client-cert-rotation"], 120);
const ADDON: InitPhase = phase("addon", &["coredns", "kube-proxy"], 120);

/// How long an API server may take to serve once its manifest is written: kubeadm's four minutes and some air.
pub(crate) const CONTROL_PLANE_LIMIT: Duration = Duration::from_secs(5 * 60);
/// How long a Node may take to be Ready: a network add-on may have to be pulled first.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(15 * 60);
/// `config images pull`.
pub(crate) const PULL_LIMIT: Duration = Duration::from_secs(10 * 60);
/// `token create`, `token delete`.
pub(crate) const TOKEN_LIMIT: Duration = Duration::from_secs(60);
/// `reset`: it waits for etcd to give the member up, and for containers to stop.
pub(crate) const RESET_LIMIT: Duration = Duration::from_secs(3 * 60);

/// How often a phase may be run that only writes to the API.
pub(crate) const TRIES: u32 = 3;

/// The phases of init that only write to the API, and find written what they wrote before: kubeadm's "create or update".
const WRITES_TO_API: [&str; 5] =
    ["bootstrap-token", "upload-config", "mark-control-plane", "kubelet-finalize", "addon"];

/// Everything the other machines wait for comes first. The order differs from kubeadm's own in two points: waiting for
/// the API server is muster's (`init phase wait-control-plane` is hidden before 1.30 and polls slowly), and the tokens
/// come before the uploads, so that the controller manager signs them meanwhile.
pub(crate) fn before_serving(version: &Version, skip: &[String]) -> Vec<Run> {
    let kubeconfig = if version.minor >= 29 { &KUBECONFIG_SUPER } else { &KUBECONFIG };
    match version.minor {
        ..28 => runs(Reads::Init, &[&PREFLIGHT, &CERTS, kubeconfig, &KUBELET_START, &CONTROL_PLANE, &ETCD], skip),
        28.. => runs(Reads::Init, &[&PREFLIGHT, &CERTS, kubeconfig, &ETCD, &CONTROL_PLANE, &KUBELET_START], skip),
    }
}

pub(crate) fn once_serving(skip: &[String]) -> Vec<Run> {
    runs(Reads::Init, &[&BOOTSTRAP_TOKEN, &UPLOAD_CONFIG], skip)
}

/// What no other machine waits for. `mark-control-plane` is among it: it waits for the Node to register.
pub(crate) fn init_finish(version: &Version, skip: &[String]) -> Vec<Run> {
    let finalize = if version.minor >= 33 { &KUBELET_FINALIZE } else { &KUBELET_FINALIZE_OLD };
    runs(Reads::Finish, &[&MARK_CONTROL_PLANE, finalize, &ADDON], skip)
}

fn runs(reads: Reads, phases: &[&InitPhase], skip: &[String]) -> Vec<Run> {
    let skipped = |name: &str| skip.iter().any(|skipped| skipped == name);
    let run = |limit, words: Vec<&'static str>| {
        let tries = if WRITES_TO_API.contains(&words[0]) { TRIES } else { 1 };
        Run { tries, ..Run::new(reads, Form::Phase(words), limit) }
    };
    let mut runs = Vec::new();
    for phase in phases.iter().filter(|phase| !skipped(phase.name)) {
        let part_skipped = |part: &&&str| skipped(&format!("{}/{part}", phase.name));
        match phase.parts {
            [] => runs.push(run(phase.limit, vec![phase.name])),
            [only] if !part_skipped(&only) && phase.name == "etcd" => runs.push(run(phase.limit, vec!["etcd", only])),
            parts if !parts.iter().any(|part| part_skipped(&part)) => {
                runs.push(run(phase.limit, vec![phase.name, "all"]))
            }
            parts => runs.extend(
                parts.iter().filter(|part| !part_skipped(part)).map(|part| run(phase.limit, vec![phase.name, part])),
            ),
        }
    }
    runs
}

/// A worker's whole join, or a control plane's up to etcd. `check-etcd` is left out: etcd itself refuses a member that
/// would endanger its quorum, and while others join the check fails for no good reason.
pub(crate) fn join(version: &Version, role: Role) -> Run {
    let (runs, skip, seconds) = match (role, version.minor) {
        (Role::Worker, ..31) => ("preflight+kubelet-start", vec![], 13 * 60),
        (Role::Worker, 31..) => ("preflight+kubelet-start+kubelet-wait-bootstrap", vec![], 13 * 60),
        (Role::ControlPlane, ..30) => (PREPARE, vec!["check-etcd", "control-plane-join"], 20 * 60),
        (Role::ControlPlane, 30) => (PREPARE, vec!["check-etcd", "control-plane-join", "wait-control-plane"], 20 * 60),
        (Role::ControlPlane, 31..) => (
            PREPARE,
            vec![
                "check-etcd",
                if muster_wire::planted::planted("etcd-outside-turn") { "check-etcd" } else { "etcd-join" },
                "kubelet-wait-bootstrap",
                "control-plane-join",
                "wait-control-plane",
            ],
            20 * 60,
        ),
    };
    Run { reads: Reads::Join, ..skipping(runs, skip, seconds) }
}

const PREPARE: &str = "preflight+control-plane-prepare+kubelet-start";

/// The one part of a join that is taken in turn. From 1.31 to 1.34 a feature gate of the cluster decides which of two
/// phases adds the member, and the other does nothing: both are left in.
pub(crate) fn join_etcd(version: &Version) -> Run {
    let run = match version.minor {
        ..31 => join_phase(vec!["control-plane-join", "etcd"], 300),
        31..35 => skipping("etcd-join", [&BEFORE_ETCD[..], &AFTER_ETCD[..]].concat(), 300),
        35.. => join_phase(vec!["etcd-join"], 300),
    };
    Run { adds_member: true, ..run }
}

const BEFORE_ETCD: [&str; 4] = ["preflight", "control-plane-prepare", "check-etcd", "kubelet-start"];
const AFTER_ETCD: [&str; 3] = ["kubelet-wait-bootstrap", "control-plane-join/mark-control-plane", "wait-control-plane"];

/// What is left of a control plane's join.
pub(crate) fn join_finish(version: &Version) -> Vec<Run> {
    let writes = |words, seconds| Run { tries: TRIES, ..join_phase(words, seconds) };
    let mark = || writes(vec!["control-plane-join", "mark-control-plane"], 240);
    match version.minor {
        ..22 => vec![writes(vec!["control-plane-join", "update-status"], 120), mark()],
        22..31 => vec![mark()],
        31..35 => {
            let skip = [&BEFORE_ETCD[..], &["etcd-join", "control-plane-join/etcd", "wait-control-plane"]].concat();
            vec![Run { tries: TRIES, ..skipping("kubelet-wait-bootstrap+mark-control-plane", skip, 12 * 60) }]
        }
        35.. => vec![writes(vec!["kubelet-wait-bootstrap"], 360), mark()],
    }
}

fn join_phase(words: Vec<&'static str>, seconds: u64) -> Run {
    Run::new(Reads::JoinLater, Form::Phase(words), Duration::from_secs(seconds))
}

fn skipping(runs: &'static str, skip: Vec<&'static str>, seconds: u64) -> Run {
    Run::new(Reads::JoinLater, Form::Skipping { runs, skip }, Duration::from_secs(seconds))
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
    const PARTS: [&InitPhase; 5] = [&CERTS, &KUBECONFIG_SUPER, &ADDON, &KUBELET_FINALIZE, &KUBELET_FINALIZE_OLD];
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
            .is_some_and(|(parent, part)| PARTS.iter().any(|p| p.name == parent && p.parts.contains(&part)))
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

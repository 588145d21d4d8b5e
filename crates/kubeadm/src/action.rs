//! What a step is made of: files, kubeadm's command lines, waits. The agent carries them out on a machine, the simulator
//! against a model of one; both in order, stopping at the first that fails.

use std::path::PathBuf;
use std::time::Duration;

use crate::api::Wait;
use crate::dns::LocalDns;
use crate::kubelet::KubeletServer;
use crate::secret::Secret;

/// One thing to do. Doing an action again after a crash does no harm, except for [`Action::Run`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write a file whole: to a temporary name in the same directory, synced, renamed. Missing parent directories are
    /// made with mode 0755. Nobody but the owner may read it unless `mode` says so, not even for a moment.
    WriteFile {
        /// Where.
        path: PathBuf,
        /// The permission bits, as 0o600.
        mode: u32,
        /// What. Treated as secret whatever it is.
        contents: Secret,
    },
    /// Remove a file; it may be absent.
    RemoveFile {
        /// Which.
        path: PathBuf,
    },
    /// Remove everything below a directory; it may be absent, and stays.
    EmptyDirectory {
        /// Which.
        path: PathBuf,
    },
    /// Run kubeadm and judge it with [`crate::outcome()`].
    Run(Command),
    /// This file must exist now. kubeadm that ended well without having made it lied: see [`crate::Failure::left_undone`].
    Require {
        /// The phase that should have made it.
        phase: String,
        /// Which.
        path: PathBuf,
    },
    /// Wait until this file is there.
    AwaitFile {
        /// What it is waited for in.
        phase: String,
        /// Which.
        path: PathBuf,
        /// Longest time for it.
        limit: Duration,
    },
    /// Let the kubelet ask another API server, or be known by another certificate, from its next start on. See [`KubeletServer`].
    KubeletServer(KubeletServer),
    /// Have the kubelet start a static Pod anew, by another text in its manifest.
    Restart {
        /// The manifest.
        path: PathBuf,
    },
    /// Create CoreDNS' ConfigMap if this machine knows no DNS server and the ConfigMap is not there. See [`LocalDns`].
    LocalDns(LocalDns),
    /// Ask an API server again and again until it answers as wished. See [`Wait`].
    Await(Wait),
}

/// One run of kubeadm. Never passed through a shell; no argument is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What runs, for people and errors: `init/certs`, `join/preflight+kubelet-start`, `version`, ...
    pub phase: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Set besides the environment that the agent itself has.
    pub env: Vec<(String, String)>,
    /// After this long the whole process group is killed.
    pub limit: Duration,
    /// How often it may be run, at least once. More than once if it does nothing but write to the API what is to be there:
    /// one lost connection then costs a second, not the whole init or join. See [`crate::Failure::may_pass`].
    pub tries: u32,
    /// The run is fine as well when it fails because what it makes is already there (`token create`) or is not there
    /// (`token delete`), so that doing it twice is doing it once.
    pub settled: Settled,
    /// If kubeadm prints a line that starts with this, it has added an etcd member that does not run yet. With one member
    /// before, etcd now has no quorum until it does, and the kubelet starts it only once a request of its own has failed.
    /// From then until the run ends, the agent's balancer had better refuse connections at once than let them hang: the
    /// turn then takes 4 s instead of 10 (measured with kubeadm 1.20).
    pub starts_etcd_at: Option<&'static str>,
}

/// Which failure of a command means that nothing was left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// None.
    Never,
    /// "already exists".
    Existing,
    /// "not found".
    Missing,
    /// Any: what it was to do early is done later if need be. `config images pull` fails for one image of many, also one
    /// that the cluster has no use for.
    Anyhow,
}

impl Command {
    /// `kubeadm version -o json`; read its output with [`crate::Version::from_kubeadm`].
    pub fn version(kubeadm: PathBuf) -> Self {
        Self::new("version", kubeadm, ["version", "-o", "json"], Duration::from_secs(30))
    }

    pub(crate) fn new<const N: usize>(phase: &str, program: PathBuf, args: [&str; N], limit: Duration) -> Self {
        Self {
            phase: phase.to_owned(),
            program,
            args: args.map(str::to_owned).to_vec(),
            env: Vec::new(),
            limit,
            tries: 1,
            settled: Settled::Never,
            starts_etcd_at: None,
        }
    }
}

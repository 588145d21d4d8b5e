//! muster.toml: read, layered with what a machine is given besides, checked, and every mistake named with its place.

mod beside;
mod check;
mod disk;
pub(crate) mod example;
pub(crate) mod kernel;
pub(crate) mod key;
mod kind;
mod manifests;
pub(crate) mod plan;
pub(crate) mod problem;
#[cfg(test)]
mod tests;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use muster_protocol::BackupPlan;
use muster_wire::Digest;
use zeroize::Zeroizing;

pub(crate) use kind::PORT;
use problem::{Beside, Place, Problem, Source};
use values::Values;

pub(crate) use beside::{Layer, VOLUME, WRONG, hidden, read as read_text};

/// Where muster.toml is unless somebody says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/muster/muster.toml";

/// Longest muster.toml in bytes; a full one is about 3,000.
const FILE_BYTES_MAX: usize = 256 * 1024;

/// What a machine goes by: muster.toml with all overrides and defaults, checked.
pub(crate) struct Image {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// How many machines carry the image.
    pub(crate) machines: u32,
    /// How many control planes there are to be.
    pub(crate) control_planes: u32,
    /// Key of the machines' network.
    pub(crate) mesh_key: Zeroizing<[u8; 32]>,
    /// This machine's name, if it is not its host name.
    pub(crate) name: Option<String>,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Whether it looks for others by mDNS.
    pub(crate) mdns: bool,
    /// Subnets in which the machines' addresses are to be.
    pub(crate) subnets: Vec<IpNet>,
    /// Addresses where others may be.
    pub(crate) peers: Vec<SocketAddr>,
    /// A name whose addresses are those of machines.
    pub(crate) dns: Option<String>,
    /// What concerns kubeadm.
    pub(crate) kubernetes: Kubernetes,
    /// How long a control plane may be dead before a worker takes its seat.
    pub(crate) replace_after: Option<Duration>,
    pub(crate) backups: BackupPlan,
    /// Where the identity and the promises are.
    pub(crate) state_dir: PathBuf,
    /// Whether they survive a restart.
    pub(crate) durable: bool,
    /// Digest of everything that all machines must share.
    pub(crate) digest: Digest,
    /// Each key that has a value, with the value as text, for `muster config show`. The mesh key is not among them.
    pub(crate) shown: Vec<(&'static str, String, &'static str)>,
}

/// The `[kubernetes]` section.
pub(crate) struct Kubernetes {
    /// The version to deploy; kubeadm's own when absent.
    pub(crate) version: Option<String>,
    /// kubeadm's `networking.podSubnet`.
    pub(crate) pod_subnet: Option<String>,
    /// kubeadm's `networking.serviceSubnet`.
    pub(crate) service_subnet: Option<String>,
    /// kubeadm's `imageRepository`.
    pub(crate) image_repository: Option<String>,
    /// The container runtime's socket; kubeadm looks for it when absent.
    pub(crate) cri_socket: Option<String>,
    /// Where every machine offers the API of all live API servers.
    pub(crate) endpoint_port: u16,
    /// The API servers' own port.
    pub(crate) api_port: u16,
    /// kubeadm's executable.
    pub(crate) kubeadm: PathBuf,
    /// kubeadm's directory.
    pub(crate) dir: PathBuf,
    /// The kubelet's directory.
    pub(crate) kubelet_dir: PathBuf,
    /// etcd's data directory.
    pub(crate) etcd_dir: PathBuf,
    /// Where the API's name is written.
    pub(crate) hosts_file: PathBuf,
    /// The user's documents: path and text.
    pub(crate) documents: Vec<(String, String)>,
    /// What the cluster is to have besides what kubeadm makes.
    pub(crate) manifests: muster_kubeadm::Manifests,
    /// kubeadm phases that are not run.
    pub(crate) skip_phases: Vec<String>,
    /// Preflight checks whose errors are only warnings.
    pub(crate) ignore_preflight: Vec<String>,
}

/// What overrides the file.
#[derive(Default)]
pub(crate) struct Overrides {
    /// The muster.toml of a volume, and of a credential, if there are any.
    pub(crate) beside: Vec<Layer>,
    /// The kernel command line.
    pub(crate) kernel: String,
    /// `KEY=VALUE`, from flags; the last one holds.
    pub(crate) set: Vec<String>,
    /// Where the files that it names are, if it is for other machines: below the first of these directories that has one. Such a
    /// machine's disk is taken to last.
    pub(crate) elsewhere: Option<Vec<PathBuf>>,
}

impl Overrides {
    /// None, for the configuration of other machines, whose files are below these directories.
    pub(crate) fn of_other_machines(below: Vec<PathBuf>) -> Self {
        Self { elsewhere: Some(below), ..Self::default() }
    }

    /// Those of this running machine, `set` beyond them. A machine without `/proc/cmdline` has no kernel command line. Its
    /// bytes may be anything; what is no text in a value of muster's makes that value wrong, and nothing else.
    pub(crate) fn of_this_machine(set: Vec<String>) -> Self {
        let kernel = std::fs::read(kernel::PATH).unwrap_or_default();
        let kernel = String::from_utf8_lossy(&kernel).into_owned();
        Self { beside: beside::of_this_machine(), kernel, set, elsewhere: None }
    }
}

/// A configuration that muster does not run with.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The file.
    pub(crate) path: String,
    /// Every problem, as people read it.
    pub(crate) text: String,
    /// The same for programs.
    pub(crate) problems: Vec<Finding>,
}

/// One problem for `--json`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Finding {
    /// Whether muster runs all the same.
    pub(crate) warning: bool,
    /// The line of the file, counted from 1; none if the problem is not in a line.
    pub(crate) line: Option<usize>,
    /// Which muster.toml beside the image's it is in, if it is not in the file.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub(crate) beside: Option<&'static str>,
    /// What is wrong.
    pub(crate) text: String,
}

/// A configuration that is right, with warnings.
pub(crate) struct Loaded {
    /// What it says.
    pub(crate) image: Image,
    /// Its warnings, as people read them.
    pub(crate) warnings: String,
    /// The same for programs.
    pub(crate) findings: Vec<Finding>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

/// Reads a configuration file.
///
/// # Errors
/// With every problem of the file and the overrides, each with its place.
pub(crate) fn load(path: &Path, overrides: &Overrides) -> Result<Loaded, Refused> {
    let name = path.display().to_string();
    let unreadable = |why: String| {
        let problem = Finding { warning: false, line: None, beside: None, text: why.clone() };
        Refused { path: name.clone(), text: format!("error: {name}: {why}"), problems: vec![problem] }
    };
    let text = match std::fs::read(path) {
        Ok(bytes) if bytes.len() > FILE_BYTES_MAX => Err(format!("is longer than {FILE_BYTES_MAX} bytes")),
        // A line of it would be shown, and no key be seen in it.
        Ok(bytes) if bytes.contains(&0) => Err("has characters of no text: is it UTF-16? It must be UTF-8".to_owned()),
        Ok(bytes) => String::from_utf8(bytes).map_err(|error| format!("is not UTF-8: {error}")),
        // All of it may be what this machine was given.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !overrides.beside.is_empty() => Ok(String::new()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err("is not there; `muster config example` prints one to begin with".to_owned())
        }
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    let text = Zeroizing::new(text.map_err(unreadable)?);
    read(&Source { path: &name, text: &text }, overrides)
}

/// Reads a configuration text.
///
/// # Errors
/// As [`load`].
pub(crate) fn read(source: &Source<'_>, overrides: &Overrides) -> Result<Loaded, Refused> {
    let (mut values, mut problems) = (Values::of(overrides.elsewhere.clone()), Vec::new());
    values.read_file(source.text, None, &mut problems);
    let layers = |kind: Beside| overrides.beside.iter().filter(move |layer| layer.kind == kind);
    layers(Beside::Volume).for_each(|layer| layer.read(&mut values, &mut problems));
    kernel::read(&overrides.kernel, &mut values, &mut problems);
    layers(Beside::Credential).for_each(|layer| layer.read(&mut values, &mut problems));
    for assignment in &overrides.set {
        values.set(assignment, &mut problems);
    }
    // What is missing or does not fit together is only looked for once every value by itself is right.
    let image = if problems.is_empty() { check::image(&values, Path::new(source.path), &mut problems) } else { None };
    // As people read the file; what has no place in it comes last.
    problems.sort_by_key(|problem| match &problem.place {
        Place::File(span) => span.start,
        _ => usize::MAX,
    });
    let text = source.show_all(&problems);
    let findings = problems.iter().map(|problem| finding(source, problem)).collect();
    match image {
        Some(image) if problems.iter().all(|problem| problem.warning) => Ok(Loaded { image, warnings: text, findings }),
        _ => Err(Refused { path: source.path.to_owned(), text, problems: findings }),
    }
}

/// What is wrong in a muster.toml that is given to one machine.
pub(crate) fn wrong_beside(text: Result<Zeroizing<String>, String>) -> Vec<Finding> {
    let (mut values, mut problems) = (Values::default(), Vec::new());
    Layer { kind: Beside::Volume, text }.read(&mut values, &mut problems);
    let source = Source { path: "", text: "" };
    problems.iter().map(|problem| Finding { beside: None, ..finding(&source, problem) }).collect()
}

fn finding(source: &Source<'_>, problem: &Problem) -> Finding {
    let (line, beside) = match &problem.place {
        Place::File(span) => (Some(source.line(span.start)), None),
        Place::Beside(beside, line) => (Some(*line).filter(|line| *line > 0), Some((*beside).into())),
        _ => (None, None),
    };
    Finding { warning: problem.warning, line, beside, text: problem.text.clone() }
}

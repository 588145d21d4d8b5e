//! Every key of muster.toml, once: its name, form, default, and meaning. The parser, the kernel command line,
//! `--set`, `muster config example` and docs/configuration.md all go by this table.

use super::kind::Kind;

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Dotted, with its section: `discovery.peers`.
    pub(crate) path: &'static str,
    /// The form of its values.
    pub(crate) kind: Kind,
    /// Its value when nobody gives one, as text; none if there is no such value.
    pub(crate) default: Option<&'static str>,
    /// Whether all machines must have the same value: it is part of the settings' digest.
    pub(crate) shared: bool,
    /// Its name on the kernel command line, after `muster.`; none if it may not stand there.
    pub(crate) kernel: Option<&'static str>,
    /// What it means, for people.
    pub(crate) about: &'static str,
}

/// Which values a key takes from where it is a machine's own.
const fn own(
    path: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    kernel: Option<&'static str>,
    about: &'static str,
) -> Key {
    Key { path, kind, default, shared: false, kernel, about }
}

const fn shared(
    path: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    kernel: Option<&'static str>,
    about: &'static str,
) -> Key {
    Key { path, kind, default, shared: true, kernel, about }
}

/// The keys, in the order in which people should meet them.
pub(crate) const KEYS: &[Key] = &[
    shared("cluster", Kind::Label(40), None, Some("cluster"), "The cluster's name."),
    shared(
        "machines",
        Kind::Whole(1, 10_000),
        None,
        Some("machines"),
        "How many machines carry this image. Founding needs more than half of them, so that no two clusters can form.",
    ),
    shared(
        "control_planes",
        Kind::Whole(1, 9),
        None,
        Some("control_planes"),
        "How many of them become control planes: 3 when nothing is said, or 1 if there are fewer than 3 machines.",
    ),
    own(
        "mesh_key",
        Kind::Key,
        None,
        None,
        "Key of the machines' network, the same everywhere: a fence against accidents. Made by `muster config example`.",
    ),
    own("mesh_key_file", Kind::Path, None, None, "A file that holds the key instead, readable by its owner alone."),
    own(
        "name",
        Kind::Label(63),
        None,
        Some("name"),
        "This machine's name; its host name when nothing is said. Not for muster.toml, which is the same everywhere.",
    ),
    own(
        "discovery.listen",
        Kind::Listen,
        Some("0.0.0.0:7390"),
        Some("listen"),
        "Where the machine listens for the others. `0.0.0.0` and `[::]` both mean every address, of IPv4 and of IPv6.",
    ),
    own(
        "discovery.mdns",
        Kind::Switch,
        Some("true"),
        Some("mdns"),
        "Whether machines of one link find each other by mDNS.",
    ),
    own(
        "discovery.peers",
        Kind::Peers,
        Some(""),
        Some("peers"),
        "Addresses where other machines may be. Port 7390 when none is named.",
    ),
    own(
        "discovery.dns",
        Kind::HostName,
        None,
        Some("dns"),
        "A name whose addresses are those of machines, asked again and again.",
    ),
    shared(
        "discovery.subnets",
        Kind::Subnets,
        Some(""),
        Some("subnets"),
        "Subnets in which the machines' addresses are to be, where they have several; any when nothing is said.",
    ),
    shared(
        "kubernetes.version",
        Kind::Version,
        None,
        Some("kubernetes.version"),
        "The Kubernetes version to deploy; kubeadm's own when nothing is said.",
    ),
    shared("kubernetes.pod_subnet", Kind::Subnet, None, None, "kubeadm's networking.podSubnet."),
    shared("kubernetes.service_subnet", Kind::Subnet, None, None, "kubeadm's networking.serviceSubnet."),
    shared("kubernetes.image_repository", Kind::Repository, None, None, "kubeadm's imageRepository."),
    shared(
        "kubernetes.endpoint_port",
        Kind::Whole(1, 65_535),
        Some("7443"),
        None,
        "Where every machine offers the API of all live API servers, as api.CLUSTER.muster.",
    ),
    shared("kubernetes.api_port", Kind::Whole(1, 65_535), Some("6443"), None, "The API servers' own port."),
    shared(
        "kubernetes.documents",
        Kind::Paths,
        Some(""),
        None,
        "Files of kubeadm, kubelet and kube-proxy documents, merged with what muster writes.",
    ),
    own(
        "kubernetes.manifests",
        Kind::Paths,
        Some(""),
        None,
        "Files, or directories of files, of objects that the cluster is to have, such as its pod network.",
    ),
    shared("kubernetes.skip_phases", Kind::Words, Some(""), None, "kubeadm phases that are not run."),
    shared(
        "kubernetes.ignore_preflight",
        Kind::Words,
        Some(""),
        None,
        "kubeadm preflight checks whose errors are only warnings.",
    ),
    own("kubernetes.kubeadm", Kind::Path, Some("/usr/bin/kubeadm"), None, "kubeadm's executable."),
    own(
        "kubernetes.dir",
        Kind::Path,
        Some("/etc/kubernetes"),
        None,
        "kubeadm's directory; the real one knows no other.",
    ),
    own(
        "kubernetes.kubelet_dir",
        Kind::Path,
        Some("/var/lib/kubelet"),
        None,
        "The kubelet's directory; the real kubeadm knows no other.",
    ),
    own("kubernetes.etcd_dir", Kind::Path, Some("/var/lib/etcd"), None, "etcd's data directory."),
    own(
        "kubernetes.cri_socket",
        Kind::Socket,
        None,
        None,
        "The container runtime's socket; kubeadm looks for it when nothing is said.",
    ),
    own(
        "kubernetes.hosts_file",
        Kind::Path,
        Some("/etc/hosts"),
        None,
        "Where the name of the API is written, in a block of muster's own.",
    ),
    own(
        "repair.replace_after",
        Kind::After,
        Some("15m"),
        Some("repair.replace_after"),
        "How long a control plane may be dead before a worker takes its seat: 90s, 15m, 2h, or never.",
    ),
    own(
        "backup.every",
        Kind::After,
        Some("12h"),
        Some("backup.every"),
        "How often etcd is backed up: 1h, 12h, or never. One is taken as well before something is taken down.",
    ),
    own(
        "backup.copies",
        Kind::Whole(1, 16),
        Some("3"),
        Some("backup.copies"),
        "On how many machines each backup is, workers included.",
    ),
    own("backup.keep", Kind::Whole(1, 32), Some("8"), Some("backup.keep"), "How many backups are kept."),
    own(
        "state.dir",
        Kind::Path,
        Some("/var/lib/muster"),
        Some("state_dir"),
        "Where the machine's identity and promises are kept.",
    ),
    shared(
        "state.durable",
        Kind::Switch,
        None,
        Some("durable"),
        "Whether the state survives a restart. Found out when nothing is said: false on tmpfs. Without it all machines must vote.",
    ),
];

/// The key of that dotted path.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The sections' names.
pub(crate) fn sections() -> impl Iterator<Item = &'static str> {
    ["discovery", "kubernetes", "repair", "backup", "state"].into_iter()
}

/// Which known name somebody who wrote `wrong` meant: at most two slips away, or a third of its length.
pub(crate) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = known.map(|name| (strsim::damerau_levenshtein(&wrong.to_lowercase().replace('-', "_"), name), name));
    close.min().filter(|(slips, _)| *slips <= 2.max(wrong.chars().count() / 3)).map(|(_, name)| name)
}

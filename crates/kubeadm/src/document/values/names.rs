//! Names, lists of names and words that have a few values.

use std::net::IpAddr;

use serde_json::Value;

use super::{Wrong, text, texts, wrong};
use crate::document::{Object, merge::lookup};
use crate::version::Version;

/// Feature gates of kubeadm by the first and last minor version that has them: `InitFeatureGates` of
/// `cmd/kubeadm/app/features/features.go`, 1.34 to 1.37.
const GATES: [(&str, u32); 5] = [
    ("RootlessControlPlane", 37),
    ("PublicKeysECDSA", 36),
    ("NodeLocalCRISocket", 36),
    ("ControlPlaneKubeletLocalMode", 35),
    ("WaitForAllControlPlaneComponents", 34),
];
const GATES_SINCE: u32 = 34;

/// Those that some of 1.20 to 1.33 had besides, in the same file. Which of them had which is not checked.
const OLDER_GATES: [&str; 4] =
    ["EtcdLearnerMode", "IPv6DualStack", "UnversionedKubeletConfigMap", "UpgradeAddonsBeforeControlPlane"];

/// What a ClusterConfiguration says.
pub(super) fn cluster(cluster: &Object, kubeadm: &Version) -> Result<(), Wrong> {
    if let Some(domain) = text(cluster, "networking.dnsDomain").filter(|domain| !is_subdomain(domain)) {
        let why = format!("{:?} must be lower-case letters, digits, hyphens and dots", clip(domain));
        return Err(wrong("networking.dnsDomain", why));
    }
    for path in ["apiServer.certSANs", "etcd.local.serverCertSANs", "etcd.local.peerCertSANs"] {
        let is_name =
            |name: &&&str| name.parse::<IpAddr>().is_ok() || is_subdomain(name.strip_prefix("*.").unwrap_or(name));
        if let Some(name) = texts(cluster, path).iter().find(|name| !is_name(name)) {
            return Err(wrong(path, format!("{:?} is neither an IP address nor a DNS name", clip(name))));
        }
    }
    for path in ["apiServer.extraArgs", "controllerManager.extraArgs", "scheduler.extraArgs", "etcd.local.extraArgs"] {
        arguments(cluster, path)?;
    }
    for path in ["imageRepository", "dns.imageRepository", "etcd.local.imageRepository"] {
        if let Some(repository) = text(cluster, path).filter(|repository| !is_repository(repository)) {
            return Err(wrong(
                path,
                format!("{:?} is no image repository: a host and a path, no scheme", clip(repository)),
            ));
        }
    }
    const ALGORITHMS: [&str; 5] = ["RSA-2048", "RSA-3072", "RSA-4096", "ECDSA-P256", "ECDSA-P384"];
    one_of(cluster, "encryptionAlgorithm", &ALGORITHMS)?;
    gates(cluster, kubeadm)
}

/// What an InitConfiguration or a JoinConfiguration says of the machine.
pub(super) fn node(document: &Object) -> Result<(), Wrong> {
    arguments(document, "nodeRegistration.kubeletExtraArgs")?;
    one_of(document, "nodeRegistration.imagePullPolicy", &["Always", "IfNotPresent", "Never"])?;
    socket(document, "nodeRegistration.criSocket")
}

/// What a ResetConfiguration says.
pub(super) fn reset(document: &Object) -> Result<(), Wrong> {
    const FLAGS: [&str; 4] = ["MNT_FORCE", "MNT_DETACH", "MNT_EXPIRE", "UMOUNT_NOFOLLOW"];
    if let Some(flag) = texts(document, "unmountFlags").iter().find(|flag| !FLAGS.contains(flag)) {
        return Err(wrong("unmountFlags", format!("{:?} is none of {}", clip(flag), FLAGS.join(", "))));
    }
    socket(document, "criSocket")
}

/// Every argument has a name; kubeadm puts the dashes before it.
fn arguments(document: &Object, path: &str) -> Result<(), Wrong> {
    let names: Vec<&str> = match lookup(document, path) {
        Some(Value::Array(list)) => list.iter().map(|entry| entry["name"].as_str().unwrap_or_default()).collect(),
        Some(Value::Object(map)) => map.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    match names.iter().find(|name| name.is_empty() || name.starts_with('-')) {
        None => Ok(()),
        Some(&"") => Err(wrong(path, "an argument has no name")),
        Some(name) => Err(wrong(path, format!("{:?}: an argument's name has no dashes before it", clip(name)))),
    }
}

fn one_of(document: &Object, path: &str, known: &[&str]) -> Result<(), Wrong> {
    match text(document, path).filter(|word| !known.contains(word)) {
        None => Ok(()),
        Some(word) => Err(wrong(path, format!("{:?} is none of {}", clip(word), known.join(", ")))),
    }
}

/// kubeadm puts `unix://` before a path, and reads any other scheme as part of one.
fn socket(document: &Object, path: &str) -> Result<(), Wrong> {
    match text(document, path).filter(|socket| !socket.strip_prefix("unix://").unwrap_or(socket).starts_with('/')) {
        None => Ok(()),
        Some(socket) => Err(wrong(path, format!("{:?} is neither a path nor a unix:// URL", clip(socket)))),
    }
}

fn gates(cluster: &Object, kubeadm: &Version) -> Result<(), Wrong> {
    let Some(Value::Object(gates)) = lookup(cluster, "featureGates") else { return Ok(()) };
    let older = |gate: &str| kubeadm.minor < GATES_SINCE && OLDER_GATES.contains(&gate);
    let known = |gate: &str| older(gate) || GATES.iter().any(|(name, last)| *name == gate && kubeadm.minor <= *last);
    match gates.keys().find(|gate| !known(gate)) {
        None => Ok(()),
        Some(gate) => {
            let why = format!(
                "{:?} is no feature gate of kubeadm v1.{}; a component's gates go into its extraArgs",
                clip(gate),
                kubeadm.minor
            );
            Err(wrong("featureGates", why))
        }
    }
}

/// RFC 1123, as Kubernetes reads it.
fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// A host with an optional port, and path components of lower-case letters, digits and separators between them.
fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let inside = |byte: u8| plain(byte) || matches!(byte, b'.' | b'_' | b'-');
        part.bytes().all(inside) && part.bytes().next().is_some_and(plain) && part.bytes().last().is_some_and(plain)
    };
    let (host, path) = name.split_once('/').map_or((name, None), |(host, path)| (host, Some(path)));
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match bracketed {
        Some((address, port)) => (address.parse::<IpAddr>().is_ok().then_some("v6"), port.strip_prefix(':')),
        None => host.split_once(':').map_or((Some(host), None), |(host, port)| (Some(host), Some(port))),
    };
    host.is_some_and(|host| part(&host.to_lowercase()))
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
        && path.is_none_or(|path| path.split('/').all(part))
}

/// The beginning of a text that may be endless.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

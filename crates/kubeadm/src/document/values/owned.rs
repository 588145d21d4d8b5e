//! Arguments and environment of components by which a document would go round what its fields may not say: where etcd and its data
//! are, addresses, ports and subnets that muster or its settings give, and names, since one image is on every machine.
//!
//! kubeadm lays a user's `extraArgs` over its own (`cmd/kubeadm/app/util/arguments.go`, Kubernetes 1.37), so each of them would hold.
//! Components of Kubernetes read `_` in a flag as `-` (`WordSepNormalizeFunc`, `staging/src/k8s.io/component-base/cli/flag/flags.go`).
//! etcd reads `ETCD_NAME` for `--name`, and ends when both are there and differ (`verifyEnv`, `pkg/flags/flag.go`, etcd 3.6).

use std::net::IpAddr;

use serde_json::Value;

use super::{Wrong, text, wrong};
use crate::document::Object;
use crate::document::merge::lookup;
use crate::settings::Settings;

/// What an argument may say.
enum May {
    /// Nothing, and why.
    Nothing(&'static str),
    /// Only this, and where to say it instead; nothing, if there is none.
    Only(Option<String>, &'static str),
    /// Only that this machine's own address be found, of one family or any.
    Unspecified(&'static str),
}

type Rule = (&'static str, May);

const SAME_EVERYWHERE: &str = "the image is the same on every machine; muster sets it on each";
const ETCD_ITSELF: &str = "etcd's members find each other by what muster and kubeadm set on each machine";
const ETCD_ELSEWHERE: &str =
    "muster runs etcd on the control planes and counts their members; an etcd elsewhere it cannot join";
const KUBEADM_WRITES: &str = "kubeadm writes that file, and muster reads it where kubeadm puts it";
const API_PORT: &str = "set kubernetes.api_port in muster.toml";
const PODS: &str = "set kubernetes.pod_subnet in muster.toml";
const SERVICES: &str = "set kubernetes.service_subnet in muster.toml";

/// What a ClusterConfiguration's components are told: `document` is the user's, `merged` what kubeadm reads.
pub(super) fn cluster(document: &Object, merged: &Object, settings: &Settings) -> Result<(), Wrong> {
    let subnet = |path: &str| text(merged, path).map(str::to_owned);
    let services = || May::Only(subnet("networking.serviceSubnet"), SERVICES);
    let etcd = etcd(settings);
    arguments(document, "etcd.local.extraArgs", &etcd)?;
    environment(document, "etcd.local.extraEnvs", "ETCD_", &etcd)?;
    let server: [Rule; 8] = [
        ("etcd-servers", May::Nothing(ETCD_ELSEWHERE)),
        ("etcd-cafile", May::Nothing(ETCD_ELSEWHERE)),
        ("etcd-certfile", May::Nothing(ETCD_ELSEWHERE)),
        ("etcd-keyfile", May::Nothing(ETCD_ELSEWHERE)),
        ("secure-port", May::Only(Some(settings.api_port.to_string()), API_PORT)),
        ("advertise-address", May::Nothing(SAME_EVERYWHERE)),
        ("bind-address", May::Unspecified("every machine answers at its own address and at loopback")),
        ("service-cluster-ip-range", services()),
    ];
    arguments(document, "apiServer.extraArgs", &server)?;
    let manager: [Rule; 3] = [
        ("cluster-cidr", May::Only(subnet("networking.podSubnet"), PODS)),
        ("service-cluster-ip-range", services()),
        ("kubeconfig", May::Nothing(KUBEADM_WRITES)),
    ];
    arguments(document, "controllerManager.extraArgs", &manager)?;
    arguments(document, "scheduler.extraArgs", &[("kubeconfig", May::Nothing(KUBEADM_WRITES))])
}

/// What an InitConfiguration or a JoinConfiguration tells the kubelet.
pub(super) fn node(document: &Object, settings: &Settings) -> Result<(), Wrong> {
    const IN_A_DOCUMENT: &str = "set it in a KubeletConfiguration, which muster reads";
    let dir = |path: std::path::PathBuf| Some(path.display().to_string());
    let rules: [Rule; 13] = [
        ("node-ip", May::Unspecified(SAME_EVERYWHERE)),
        ("hostname-override", May::Nothing(SAME_EVERYWHERE)),
        ("provider-id", May::Nothing(SAME_EVERYWHERE)),
        ("config", May::Nothing(KUBEADM_WRITES)),
        ("kubeconfig", May::Nothing(KUBEADM_WRITES)),
        ("bootstrap-kubeconfig", May::Nothing(KUBEADM_WRITES)),
        ("register-node", May::Only(Some("true".to_owned()), "muster waits until the Node is Ready")),
        ("root-dir", May::Only(dir(settings.kubelet_dir.clone()), "the real kubeadm knows no other")),
        ("cert-dir", May::Only(dir(settings.kubelet_dir.join("pki")), "muster reads the kubelet's certificate there")),
        ("pod-manifest-path", May::Only(dir(settings.dir.join("manifests")), "kubeadm writes the static Pods there")),
        (
            "container-runtime-endpoint",
            May::Only(settings.cri_socket.clone(), "set kubernetes.cri_socket in muster.toml"),
        ),
        ("port", May::Nothing(IN_A_DOCUMENT)),
        ("healthz-port", May::Nothing(IN_A_DOCUMENT)),
    ];
    arguments(document, "nodeRegistration.kubeletExtraArgs", &rules)
}

/// etcd's listening for metrics is its user's own business.
fn etcd(settings: &Settings) -> [Rule; 14] {
    const ALL_DATA: &str = "a reset empties etcd's directory and no other";
    let dir = Some(settings.etcd_dir.display().to_string());
    [
        ("data-dir", May::Only(dir, "set kubernetes.etcd_dir in muster.toml")),
        ("wal-dir", May::Nothing(ALL_DATA)),
        ("config-file", May::Nothing("etcd would read nothing but that file")),
        ("name", May::Nothing(SAME_EVERYWHERE)),
        ("listen-client-urls", May::Nothing(ETCD_ITSELF)),
        ("listen-peer-urls", May::Nothing(ETCD_ITSELF)),
        ("advertise-client-urls", May::Nothing(ETCD_ITSELF)),
        ("initial-advertise-peer-urls", May::Nothing(ETCD_ITSELF)),
        ("initial-cluster", May::Nothing(ETCD_ITSELF)),
        ("initial-cluster-state", May::Nothing(ETCD_ITSELF)),
        ("discovery", May::Nothing(ETCD_ITSELF)),
        ("discovery-srv", May::Nothing(ETCD_ITSELF)),
        ("discovery-endpoints", May::Nothing(ETCD_ITSELF)),
        ("force-new-cluster", May::Nothing("it would end a cluster of several members at every start")),
    ]
}

/// Names and values as they are written, in whichever API.
fn written<'a>(document: &'a Object, path: &str) -> Vec<(&'a str, Option<&'a str>)> {
    match lookup(document, path) {
        Some(Value::Array(list)) => {
            list.iter().map(|entry| (entry["name"].as_str().unwrap_or_default(), entry["value"].as_str())).collect()
        }
        Some(Value::Object(map)) => map.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        _ => Vec::new(),
    }
}

fn arguments(document: &Object, path: &str, rules: &[Rule]) -> Result<(), Wrong> {
    for (name, value) in written(document, path) {
        // kubeadm puts two dashes and this before an equals sign; a name with one in it would be cut there by the component.
        let (flag, inside) = name.split_once('=').map_or((name, None), |(flag, value)| (flag, Some(value)));
        let flag = flag.trim_start_matches('-').replace('_', "-");
        judge(path, name, &flag, inside.or(value), rules)?;
    }
    Ok(())
}

fn environment(document: &Object, path: &str, prefix: &str, rules: &[Rule]) -> Result<(), Wrong> {
    for (name, value) in written(document, path) {
        if let Some(flag) = name.strip_prefix(prefix) {
            judge(path, name, &flag.to_lowercase().replace('_', "-"), value, rules)?;
        }
    }
    Ok(())
}

fn judge(path: &str, name: &str, flag: &str, value: Option<&str>, rules: &[Rule]) -> Result<(), Wrong> {
    let Some((_, may)) = rules.iter().find(|(ruled, _)| *ruled == flag) else { return Ok(()) };
    let value = value.unwrap_or_default();
    let shown: String = value.chars().take(80).collect();
    let unspecified = || value.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    let why = match may {
        May::Only(Some(ours), _) if value == ours => return Ok(()),
        May::Unspecified(_) if unspecified() => return Ok(()),
        May::Only(Some(ours), instead) => format!("it is {shown:?} here but must be {ours:?}; {instead}"),
        May::Only(None, why) | May::Nothing(why) | May::Unspecified(why) => (*why).to_owned(),
    };
    Err(wrong(path, format!("{name:?}: {why}")))
}

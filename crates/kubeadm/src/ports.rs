//! The ports of a machine that Kubernetes' own programs take.

use crate::Kind;
use crate::document::{DocumentError, UserTexts};
use crate::settings::Settings;

/// Each port that something of Kubernetes takes on a control plane, with its owner; the API server's, which muster.toml
/// names, is not among them. Defaults: `cmd/kubeadm/app/constants/constants.go` for etcd, the kubelet, the scheduler and
/// the controller manager, `pkg/cluster/ports/ports.go` for kube-proxy, both of Kubernetes 1.37. The user's documents may
/// move some of them; 0 turns one off.
///
/// # Errors
/// When a document cannot be read.
pub fn ports(settings: &Settings) -> Result<Vec<(u16, &'static str)>, DocumentError> {
    use Kind::{ClusterConfiguration as Cluster, KubeProxyConfiguration as Proxy, KubeletConfiguration as Kubelet};
    const MOVABLE: [(u16, &str, Kind, &str); 7] = [
        (10250, "the kubelet", Kubelet, "port"),
        (10248, "the kubelet's health check", Kubelet, "healthzPort"),
        (0, "the kubelet's read-only port", Kubelet, "readOnlyPort"),
        (10249, "kube-proxy's metrics", Proxy, "metricsBindAddress"),
        (10256, "kube-proxy's health check", Proxy, "healthzBindAddress"),
        (10257, "the controller manager", Cluster, "controllerManager"),
        (10259, "the scheduler", Cluster, "scheduler"),
    ];
    let user = UserTexts::read(&settings.documents)?;
    let mut ports = vec![(2379, "etcd"), (2380, "etcd's members among themselves"), (2381, "etcd's health check")];
    ports.extend(MOVABLE.iter().filter_map(|(usual, owner, kind, field)| {
        let said = user.port(*kind, field).and_then(|text| text.rsplit(':').next()?.parse().ok());
        Some((said.unwrap_or(*usual), *owner)).filter(|(port, _)| *port != 0)
    }));
    Ok(ports)
}

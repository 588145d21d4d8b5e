//! The ports and subnets of a machine that Kubernetes' own programs take.

use ipnet::IpNet;

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
    const MOVABLE: [(u16, &str, Kind, &str); 8] = [
        (2381, "etcd's health check", Cluster, "etcd"),
        (10250, "the kubelet", Kubelet, "port"),
        (10248, "the kubelet's health check", Kubelet, "healthzPort"),
        (0, "the kubelet's read-only port", Kubelet, "readOnlyPort"),
        (10249, "kube-proxy's metrics", Proxy, "metricsBindAddress"),
        (10256, "kube-proxy's health check", Proxy, "healthzBindAddress"),
        (10257, "the controller manager", Cluster, "controllerManager"),
        (10259, "the scheduler", Cluster, "scheduler"),
    ];
    let user = UserTexts::read(&settings.documents)?;
    let mut ports = vec![(2379, "etcd"), (2380, "etcd's members among themselves")];
    for (usual, owner, kind, field) in MOVABLE {
        let said: Vec<u16> = user.ports(kind, field);
        ports.extend(if said.is_empty() { vec![usual] } else { said }.into_iter().map(|port| (port, owner)));
    }
    ports.retain(|(port, _)| *port != 0);
    Ok(ports)
}

/// The subnets that Pods and Services are given, by muster.toml or by the user's documents; kubeadm's own, where neither says any,
/// are not among them.
///
/// # Errors
/// When a document cannot be read.
pub fn subnets(settings: &Settings) -> Result<Vec<IpNet>, DocumentError> {
    let user = UserTexts::read(&settings.documents)?;
    let own = [settings.pod_subnet.clone(), settings.service_subnet.clone()].into_iter().flatten();
    let said: Vec<String> = own.chain(user.subnets()).collect();
    let mut nets: Vec<IpNet> =
        said.iter().flat_map(|nets| nets.split(',')).filter_map(|net| net.trim().parse().ok()).collect();
    nets.sort_unstable();
    nets.dedup();
    Ok(nets)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::UserFile;

    fn with(fields: &str) -> Settings {
        let text = format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{fields}");
        let documents = vec![UserFile { name: "a.yaml".to_owned(), text }];
        Settings { pod_subnet: Some("10.244.0.0/16".to_owned()), documents, ..Settings::of("site", Path::new("/")) }
    }

    #[test]
    fn etcds_health_check_is_where_a_document_puts_it() {
        let urls = "etcd:\n  local:\n    extraArgs:\n    - name: listen-metrics-urls\n      value: http://127.0.0.1:7443,http://[::1]:7444/\n";
        let health: Vec<u16> = ports(&with(urls))
            .expect("readable")
            .into_iter()
            .filter_map(|(port, owner)| (owner == "etcd's health check").then_some(port))
            .collect();
        assert_eq!(health, [7443, 7444]);
    }

    #[test]
    fn subnets_are_those_of_the_settings_and_of_documents() {
        let nets =
            subnets(&with("networking:\n  podSubnet: 10.244.0.0/16,fd00:10::/56\n  serviceSubnet: 10.97.0.0/16\n"));
        let nets: Vec<String> = nets.expect("readable").iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.97.0.0/16", "10.244.0.0/16", "fd00:10::/56"]);
    }
}

//! A cluster's DNS where the machines know no DNS server.
//!
//! kubeadm's CoreDNS add-on forwards what is not the cluster's to the servers in the file that the kubelet gives to its Pods. Where
//! that names none, CoreDNS ends at once, again and again ("plugin/forward: no valid upstream addresses found"); where it names
//! a loopback address, that is the Pod's own, and the plugin `loop` ends it. kubeadm keeps a ConfigMap that is there and is none
//! of its own defaults (`cmd/kubeadm/app/phases/addons/dns/dns.go`, the same in 1.34 to 1.37), so one is made before, less these
//! two plugins.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

/// Where ConfigMaps of kube-system are created.
pub const COLLECTION: &str = "/api/v1/namespaces/kube-system/configmaps";

/// The kubelet's own default (`pkg/kubelet/apis/config/v1beta1/defaults.go`).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Make sure that CoreDNS can run on machines that know no DNS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDns {
    /// `host:port` of the API server, also its name in TLS.
    pub server: String,
    /// Holds the CA and the identity to ask with.
    pub kubeconfig: PathBuf,
    /// The kubelet's configuration, which kubeadm has written by now. kubeadm has put systemd-resolved's own file into it where
    /// that runs (`cmd/kubeadm/app/componentconfigs/kubelet_unix.go`).
    pub kubelet_config: PathBuf,
    /// `networking.dnsDomain`.
    pub domain: String,
}

impl LocalDns {
    /// The file that the kubelet gives to its Pods; none if it gives them no file, which it does as a loopback address.
    pub fn resolv_conf(kubelet_config: &str) -> Option<PathBuf> {
        let options = serde_saphyr::options! { with_snippet: false };
        let config: Value = serde_saphyr::from_str_with_options(kubelet_config, options).unwrap_or_default();
        match config["resolvConf"].as_str() {
            Some("") => None,
            Some(path) => Some(path.into()),
            None => Some(RESOLV_CONF.into()),
        }
    }

    /// The ConfigMap to create, given that file's text; none if kubeadm's own will do.
    pub fn config_map(&self, resolv_conf: Option<&str>) -> Option<String> {
        if resolv_conf.is_some_and(names_server) {
            return None;
        }
        let config_map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": "coredns", "namespace": "kube-system" },
            "data": { "Corefile": corefile(&self.domain) },
        });
        Some(config_map.to_string())
    }
}

/// Whether a resolv.conf names a server that a Pod can reach, read as the kubelet reads it (`pkg/kubelet/network/dns/dns.go`).
fn names_server(text: &str) -> bool {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten().map(str::to_owned)
    };
    let elsewhere = |server: String| {
        let address = server.split('%').next().unwrap_or_default().parse::<IpAddr>();
        address.is_ok_and(|address| !address.to_canonical().is_loopback() && !address.is_unspecified())
    };
    text.lines().filter_map(server).any(elsewhere)
}

/// kubeadm's Corefile (`cmd/kubeadm/app/phases/addons/dns/manifests.go`) less `forward` and `loop`.
fn corefile(domain: &str) -> String {
    format!(
        ".:53 {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    reload
    loadbalance
}}
"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dns() -> LocalDns {
        LocalDns {
            server: "api.site.muster:7443".into(),
            kubeconfig: "/etc/kubernetes/admin.conf".into(),
            kubelet_config: "/var/lib/kubelet/config.yaml".into(),
            domain: "cluster.local".into(),
        }
    }

    #[test]
    fn a_server_elsewhere_is_all_that_counts() {
        let enough = [
            "nameserver 10.0.0.53\n",
            "nameserver\t10.0.0.53   \n",
            "  nameserver fd00::53\r\noptions edns0\r\n",
            "nameserver fe80::1%eth0\n",
            "nameserver 127.0.0.53\nnameserver 10.0.0.53\n",
        ];
        for text in enough {
            assert_eq!(dns().config_map(Some(text)), None, "{text:?}");
        }
        let nothing = [
            "",
            "# nameserver 10.0.0.53\n; nameserver 10.0.0.53\n#nameserver 10.0.0.53\n",
            "search example.org\noptions ndots:5\n",
            "nameserver\n",
            "nameserver somewhere\n",
            "nameservers 10.0.0.53\n",
            "nameserver 127.0.0.53   \r\nnameserver ::1\r\n",
            "nameserver 0.0.0.0\nnameserver ::ffff:127.0.0.1\n",
        ];
        for text in nothing {
            assert!(dns().config_map(Some(text)).is_some(), "{text:?}");
        }
        assert!(dns().config_map(None).is_some());
    }

    #[test]
    fn the_corefile_has_the_clusters_domain_and_neither_forwards_nor_looks_for_loops() {
        let config_map = LocalDns { domain: "example.internal".into(), ..dns() }.config_map(None).expect("is needed");
        let config_map: Value = serde_json::from_str(&config_map).expect("JSON");
        assert_eq!(config_map["metadata"], json!({ "name": "coredns", "namespace": "kube-system" }));
        let corefile = config_map["data"]["Corefile"].as_str().expect("a Corefile");
        assert!(corefile.contains("kubernetes example.internal in-addr.arpa ip6.arpa {"), "{corefile}");
        assert!(corefile.contains("disable denial example.internal"), "{corefile}");
        assert!(!corefile.contains("forward") && !corefile.contains("loop\n"), "{corefile}");
        assert_eq!(corefile.matches('{').count(), corefile.matches('}').count());
    }

    #[test]
    fn the_kubelets_configuration_says_which_file() {
        let file = |text: &str| LocalDns::resolv_conf(text);
        assert_eq!(
            file("resolvConf: /run/systemd/resolve/resolv.conf\n"),
            Some("/run/systemd/resolve/resolv.conf".into())
        );
        assert_eq!(file("kind: KubeletConfiguration\n"), Some(RESOLV_CONF.into()));
        assert_eq!(file("resolvConf: \"\"\n"), None);
        assert_eq!(file("{["), Some(RESOLV_CONF.into()));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~\r\n\t]{0,200}") {
            let _ = dns().config_map(Some(&text));
            let _ = LocalDns::resolv_conf(&text);
        }
    }
}

//! What kubeadm 1.37 itself says of such documents was looked at with `kubeadm config validate`.

use super::*;
use crate::document::{Documents, parse};
use crate::settings::UserFile;

fn settings(pod: Option<&str>, service: Option<&str>, documents: &str) -> Settings {
    Settings {
        pod_subnet: pod.map(str::to_owned),
        service_subnet: service.map(str::to_owned),
        documents: vec![UserFile { name: "k.yaml".into(), text: documents.into() }],
        ..Settings::of("site", std::path::Path::new("/"))
    }
}

fn refusal(version: &str, settings: &Settings) -> Option<String> {
    let version: Version = version.parse().expect("a version");
    Documents::new(&version, &version, settings).err().map(|error| error.to_string())
}

fn of_subnets(pod: Option<&str>, service: Option<&str>) -> Option<String> {
    refusal("v1.37.2", &settings(pod, service, ""))
}

fn of_document(kind: &str, fields: &str) -> Option<String> {
    let text = format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: {kind}\n{fields}\n");
    refusal("v1.37.2", &settings(None, None, &text))
}

#[test]
fn subnets_that_kubeadm_or_the_cluster_cannot_use_are_refused_with_their_key() {
    for (pod, service, expected) in [
        (
            Some("fd00:10::/40"),
            Some("fd00:20::/112"),
            "kubernetes.pod_subnet: fd00:10::/40 is too large for machines that get a /64",
        ),
        (
            Some("10.0.0.0/7"),
            Some("192.168.0.0/16"),
            "kubernetes.pod_subnet: 10.0.0.0/7 is too large for machines that get a /24",
        ),
        (
            Some("10.244.0.0/26"),
            None,
            "kubernetes.pod_subnet: 10.244.0.0/26 is smaller than what every machine gets of it, a /24",
        ),
        (Some("fd00:10::/65"), Some("fd00:20::/112"), "kubernetes.pod_subnet: fd00:10::/65 is smaller"),
        (
            Some("10.244.0.0/29"),
            None,
            "kubernetes.pod_subnet: 10.244.0.0/29 is too small: it has 8 addresses, 14 are the least",
        ),
        (None, Some("10.0.0.0/8"), "kubernetes.service_subnet: 10.0.0.0/8 is too large: /12 is the largest"),
        (None, Some("fd00:20::/64"), "kubernetes.service_subnet: fd00:20::/64 is too large: /108 is the largest"),
        (None, Some("10.96.0.0/12,fd00:20::/64"), "kubernetes.service_subnet: fd00:20::/64 is too large"),
        (
            None,
            Some("10.96.0.0/29"),
            "kubernetes.service_subnet: 10.96.0.0/29 is too small: it has 8 addresses, 10 are the least",
        ),
        (None, Some("10.96.0.0/30"), "kubernetes.service_subnet: 10.96.0.0/30 is too small"),
        (None, Some("fd00:20::/125"), "kubernetes.service_subnet: fd00:20::/125 is too small"),
        (
            Some("10.96.0.0/16"),
            None,
            "kubernetes.pod_subnet: the Services' 10.96.0.0/12 (kubeadm's when none is named) and",
        ),
        (Some("10.97.0.0/16,fd00:10::/56"), None, "kubernetes.pod_subnet: the Services' 10.96.0.0/12"),
        (
            Some("10.96.0.0/16"),
            Some("10.96.8.0/24"),
            "kubernetes.service_subnet: the Services' 10.96.8.0/24 and the Pods' 10.96.0.0/16 overlap",
        ),
        (
            Some("fd00:10::/56"),
            None,
            "kubernetes.pod_subnet: the Services' 10.96.0.0/12 (kubeadm's when none is named) is of another family",
        ),
        (
            Some("10.244.0.0/16"),
            Some("fd00:20::/112"),
            "kubernetes.service_subnet: the Services' fd00:20::/112 is of another family",
        ),
    ] {
        let told = of_subnets(pod, service).unwrap_or_else(|| panic!("{pod:?} {service:?} is not refused"));
        assert!(told.starts_with(expected), "{told}\nshould begin with\n{expected}");
    }
}

#[test]
fn subnets_that_work_are_right() {
    for (pod, service) in [
        (None, None),
        (Some("10.244.0.0/16"), None),
        (Some("10.244.0.0/24"), Some("10.96.0.0/28")),
        (Some("10.8.0.0/13"), Some("192.168.0.0/16")),
        (Some("fd00:10::/48"), Some("fd00:20::/108")),
        (Some("fd00:10::/64"), Some("fd00:20::/112")),
        (Some("10.244.0.0/16,fd00:10::/56"), Some("10.96.0.0/16,fd00:20::/112")),
        (Some("fd00:10::/56,10.244.0.0/16"), None),
    ] {
        assert_eq!(of_subnets(pod, service), None, "{pod:?} {service:?}");
    }
}

#[test]
fn a_document_may_say_how_much_every_machine_gets() {
    let masks = |arguments: &str, pod: &str| {
        of_document(
            "ClusterConfiguration",
            &format!("controllerManager: {{extraArgs: [{arguments}]}}\nnetworking: {{podSubnet: {pod}}}"),
        )
    };
    let mask = |value: &str| format!("{{name: node-cidr-mask-size-ipv4, value: \"{value}\"}}");
    assert_eq!(masks(&mask("26"), "10.244.0.0/26"), None);
    assert_eq!(masks("{name: allocate-node-cidrs, value: \"false\"}", "10.244.0.0/26"), None);
    assert_eq!(masks(&format!("{}, {}", mask("8"), mask("24")), "10.244.0.0/16"), None, "the last one holds");
    let told = masks(&mask("8"), "10.244.0.0/16").expect("refused");
    assert!(told.starts_with("k.yaml: ClusterConfiguration: networking.podSubnet: 10.244.0.0/16 is smaller"), "{told}");
    for value in ["many", "33", "-1"] {
        let told = masks(&mask(value), "10.244.0.0/16").expect("refused");
        assert!(told.contains("controllerManager.extraArgs: node-cidr-mask-size-ipv4 is"), "{told}");
    }
    // The same of the older APIs, whose arguments are a map.
    let old = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\ncontrollerManager: {extraArgs: \
               {node-cidr-mask-size-ipv4: \"26\"}}\n";
    for version in ["v1.25.0", "v1.37.2"] {
        assert_eq!(refusal(version, &settings(Some("10.244.0.0/26"), None, old)), None, "{version}");
    }
}

#[test]
fn words_and_names_that_kubeadm_refuses_are_refused() {
    for (kind, fields, expected) in [
        ("ClusterConfiguration", "networking: {dnsDomain: A_b}", "networking.dnsDomain"),
        ("ClusterConfiguration", "networking: {podSubnet: ten}", "networking.podSubnet: \"ten\" is no subnet"),
        (
            "ClusterConfiguration",
            "networking: {serviceSubnet: \"10.96.0.0/16,10.97.0.0/16\"}",
            "networking.serviceSubnet",
        ),
        ("ClusterConfiguration", "apiServer: {certSANs: [\"*.a\", 'a b']}", "apiServer.certSANs: \"a b\""),
        ("ClusterConfiguration", "etcd: {local: {peerCertSANs: [-a]}}", "etcd.local.peerCertSANs: \"-a\""),
        (
            "ClusterConfiguration",
            "scheduler: {extraArgs: [{value: a}]}",
            "scheduler.extraArgs: an argument has no name",
        ),
        ("ClusterConfiguration", "scheduler: {extraArgs: [{name: --v, value: a}]}", "scheduler.extraArgs: \"--v\""),
        ("ClusterConfiguration", "dns: {imageRepository: \"http://a\"}", "dns.imageRepository: \"http://a\""),
        ("ClusterConfiguration", "encryptionAlgorithm: DSA", "encryptionAlgorithm: \"DSA\" is none of RSA-2048"),
        (
            "ClusterConfiguration",
            "featureGates: {EtcdLearnerMode: true}",
            "featureGates: \"EtcdLearnerMode\" is no feature gate",
        ),
        (
            "ClusterConfiguration",
            "etcd: {external: {endpoints: [\"https://e:2379\"]}}",
            "etcd.external: muster runs etcd on",
        ),
        (
            "ClusterConfiguration",
            "etcd: {local: {dataDir: /data}}",
            "etcd.local.dataDir: it is /data here but must be \"/var/lib/etcd\"; set kubernetes.etcd_dir",
        ),
        ("InitConfiguration", "nodeRegistration: {imagePullPolicy: Sometimes}", "nodeRegistration.imagePullPolicy"),
        ("JoinConfiguration", "nodeRegistration: {criSocket: \"tcp://x\"}", "nodeRegistration.criSocket: \"tcp://x\""),
        (
            "JoinConfiguration",
            "nodeRegistration: {kubeletExtraArgs: [{name: \"\"}]}",
            "nodeRegistration.kubeletExtraArgs",
        ),
        ("ResetConfiguration", "unmountFlags: [A]", "unmountFlags: \"A\" is none of MNT_FORCE"),
        ("ResetConfiguration", "unmountFlag: [A]", "unmountFlag: there is no such field; did you mean unmountFlags?"),
    ] {
        let told = of_document(kind, fields).unwrap_or_else(|| panic!("{kind} {fields} is not refused"));
        assert!(told.starts_with(&format!("k.yaml: {kind}: {expected}")), "{told}\nshould name\n{expected}");
    }
}

/// An argument in the form of v1beta4 and of v1beta3, and with what else a component takes for the same name.
fn in_all_forms(path: &str, name: &str, value: &str) -> Vec<(&'static str, String)> {
    let (mut open, mut close) = (String::new(), String::new());
    for part in path.split('.') {
        open += &format!("{part}: {{");
        close += "}";
    }
    // The last part holds the arguments themselves.
    let last = open.rfind('{').expect("a part");
    let (open, close) = (&open[..last], &close[1..]);
    let names = [name.to_owned(), format!("--{name}"), format!("-{name}"), name.replace('-', "_")];
    let mut all: Vec<(&str, String)> = Vec::new();
    for name in &names {
        all.push(("v1beta4", format!("{open}[{{name: \"{name}\", value: \"{value}\"}}]{close}")));
        all.push(("v1beta3", format!("{open}{{\"{name}\": \"{value}\"}}{close}")));
    }
    all.push(("v1beta4", format!("{open}[{{name: \"{name}={value}\", value: \"\"}}]{close}")));
    all
}

#[test]
fn arguments_that_go_round_what_fields_may_not_say_are_refused_in_every_form() {
    const CLUSTER: &str = "ClusterConfiguration";
    const KUBELET: &str = "nodeRegistration.kubeletExtraArgs";
    for (kind, path, name, value) in [
        (CLUSTER, "etcd.local.extraArgs", "data-dir", "/x"),
        (CLUSTER, "etcd.local.extraArgs", "wal-dir", "/x"),
        (CLUSTER, "etcd.local.extraArgs", "listen-client-urls", "https://0.0.0.0:2379"),
        (CLUSTER, "etcd.local.extraArgs", "listen-peer-urls", "https://0.0.0.0:2380"),
        (CLUSTER, "etcd.local.extraArgs", "advertise-client-urls", "https://1.2.3.4:2379"),
        (CLUSTER, "etcd.local.extraArgs", "initial-advertise-peer-urls", "https://1.2.3.4:2380"),
        (CLUSTER, "etcd.local.extraArgs", "initial-cluster", "a=https://1.2.3.4:2380"),
        (CLUSTER, "etcd.local.extraArgs", "config-file", "/etc/etcd.yaml"),
        (CLUSTER, "apiServer.extraArgs", "etcd-servers", "https://1.2.3.4:2379"),
        (CLUSTER, "apiServer.extraArgs", "secure-port", "6444"),
        (CLUSTER, "apiServer.extraArgs", "advertise-address", "1.2.3.4"),
        (CLUSTER, "apiServer.extraArgs", "bind-address", "127.0.0.1"),
        (CLUSTER, "apiServer.extraArgs", "service-cluster-ip-range", "10.97.0.0/16"),
        (CLUSTER, "controllerManager.extraArgs", "cluster-cidr", "10.1.0.0/16"),
        (CLUSTER, "controllerManager.extraArgs", "service-cluster-ip-range", "10.97.0.0/16"),
        (CLUSTER, "scheduler.extraArgs", "kubeconfig", "/x"),
        ("InitConfiguration", KUBELET, "node-ip", "1.2.3.4"),
        ("InitConfiguration", KUBELET, "hostname-override", "x"),
        ("JoinConfiguration", KUBELET, "node-ip", "fd00::1"),
        ("JoinConfiguration", KUBELET, "hostname-override", "x"),
        ("JoinConfiguration", KUBELET, "config", "/x"),
        ("JoinConfiguration", KUBELET, "kubeconfig", "/x"),
        ("JoinConfiguration", KUBELET, "root-dir", "/x"),
        ("JoinConfiguration", KUBELET, "register-node", "false"),
    ] {
        for (api, fields) in in_all_forms(path, name, value) {
            let document = format!("apiVersion: kubeadm.k8s.io/{api}\nkind: {kind}\n{fields}\n");
            for version in ["v1.28.0", "v1.37.2"] {
                let told = refusal(version, &settings(Some("10.244.0.0/16"), None, &document));
                let told = told.unwrap_or_else(|| panic!("{version} {fields} is not refused"));
                let named = told.replace('_', "-").contains(name);
                assert!(told.starts_with(&format!("k.yaml: {kind}: {path}: ")) && named, "{told}");
            }
        }
    }
    let environment = "etcd: {local: {extraEnvs: [{name: ETCD_DATA_DIR, value: /x}]}}";
    let told = of_document(CLUSTER, environment).expect("refused");
    assert!(
        told.starts_with("k.yaml: ClusterConfiguration: etcd.local.extraEnvs: \"ETCD_DATA_DIR\": it is \"/x\""),
        "{told}"
    );
    let proxy = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nhostnameOverride: x\n";
    let told = refusal("v1.37.2", &settings(None, None, proxy)).expect("refused");
    assert!(told.contains("hostnameOverride: the image is the same on every machine"), "{told}");
}

#[test]
fn arguments_that_say_what_holds_anyway_and_those_of_nobody_else_are_right() {
    for (kind, path, name, value) in [
        ("ClusterConfiguration", "etcd.local.extraArgs", "data-dir", "/var/lib/etcd"),
        ("ClusterConfiguration", "etcd.local.extraArgs", "listen-metrics-urls", "http://0.0.0.0:2381"),
        ("ClusterConfiguration", "etcd.local.extraArgs", "quota-backend-bytes", "8589934592"),
        ("ClusterConfiguration", "apiServer.extraArgs", "secure-port", "6443"),
        ("ClusterConfiguration", "apiServer.extraArgs", "bind-address", "::"),
        ("ClusterConfiguration", "apiServer.extraArgs", "audit-log-path", "-"),
        ("ClusterConfiguration", "controllerManager.extraArgs", "cluster-cidr", "10.244.0.0/16"),
        ("ClusterConfiguration", "controllerManager.extraArgs", "bind-address", "0.0.0.0"),
        ("JoinConfiguration", "nodeRegistration.kubeletExtraArgs", "node-ip", "::"),
        ("JoinConfiguration", "nodeRegistration.kubeletExtraArgs", "cloud-provider", "external"),
    ] {
        let (list, map) = (&in_all_forms(path, name, value)[0], &in_all_forms(path, name, value)[1]);
        for (api, fields) in [list, map] {
            let document = format!("apiVersion: kubeadm.k8s.io/{api}\nkind: {kind}\n{fields}\n");
            for version in ["v1.28.0", "v1.37.2"] {
                assert_eq!(refusal(version, &settings(Some("10.244.0.0/16"), None, &document)), None, "{fields}");
            }
        }
    }
    let environment =
        "etcd: {local: {extraEnvs: [{name: ETCD_DATA_DIR, value: /var/lib/etcd}, {name: GODEBUG, value: x}]}}";
    assert_eq!(of_document("ClusterConfiguration", environment), None);
}

#[test]
fn a_feature_gate_that_no_kubeadm_has_is_right_for_none() {
    let gate = |name: &str| {
        format!("apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nfeatureGates: {{{name}: true}}\n")
    };
    for minor in Version::OLDEST_MINOR..=Version::NEWEST_MINOR {
        for wrong in ["Nope", "NodeSwap", "publicKeysECDSA"] {
            let told = refusal(&format!("v1.{minor}.0"), &settings(None, None, &gate(wrong)));
            let told = told.unwrap_or_else(|| panic!("v1.{minor} takes {wrong}"));
            assert!(
                told.contains(&format!("featureGates: {wrong:?} is no feature gate of kubeadm v1.{minor}")),
                "{told}"
            );
        }
    }
    assert_eq!(refusal("v1.27.0", &settings(None, None, &gate("EtcdLearnerMode"))), None);
}

#[test]
fn words_and_names_that_kubeadm_takes_are_right() {
    for (kind, fields) in [
        ("ClusterConfiguration", "apiServer: {certSANs: [\"*.a.b\", \"10.0.0.1\", \"fd00::1\", k8s.example]}"),
        ("ClusterConfiguration", "imageRepository: \"Registry.example:5000/a_b/c-d\""),
        ("ClusterConfiguration", "imageRepository: \"[fd00::1]:5000/k8s\""),
        ("ClusterConfiguration", "featureGates: {RootlessControlPlane: true}\nnetworking: {dnsDomain: a.b}"),
        ("ClusterConfiguration", "etcd: {local: {dataDir: /var/lib/etcd, serverCertSANs: [e]}}"),
        ("InitConfiguration", "nodeRegistration: {criSocket: /run/containerd/containerd.sock, imagePullPolicy: \"\"}"),
        ("ResetConfiguration", "unmountFlags: [MNT_DETACH]\ncriSocket: unix:///run/c.sock"),
    ] {
        assert_eq!(of_document(kind, fields), None, "{kind} {fields}");
    }
    let older =
        "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nfeatureGates: {EtcdLearnerMode: true}\n";
    assert_eq!(refusal("v1.28.0", &settings(None, None, older)), None);
}

#[test]
fn a_component_s_document_of_another_api_is_refused() {
    for (api, kind, expected) in [
        ("kubelet.config.k8s.io/v1", "KubeletConfiguration", "v1beta1"),
        ("kubeproxy.config.k8s.io/v1beta1", "KubeProxyConfiguration", "v1alpha1"),
        ("kubelet.config.k8s.io", "KubeletConfiguration", "v1beta1"),
    ] {
        let file = UserFile { name: "k.yaml".into(), text: format!("apiVersion: {api}\nkind: {kind}\n") };
        let told = parse::all(&[file]).expect_err("refused").to_string();
        assert!(told.contains("apiVersion") && told.ends_with(expected), "{told}");
    }
}

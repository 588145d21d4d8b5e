//! Fields as kubeadm's own `config validate` takes or refuses them.

use serde_json::json;

use super::*;

fn mistake(kind: Kind, api: ConfigApi, document: &Value) -> Option<String> {
    let document = document.as_object().expect("a map");
    check(kind, api, document).err().map(|wrong| format!("{}: {}", wrong.field, wrong.what))
}

#[test]
fn a_slip_is_told_with_what_was_meant_and_a_field_of_another_api_with_that() {
    use ConfigApi::{V1Beta2, V1Beta3, V1Beta4};
    for (kind, api, document, expected) in [
        (
            Kind::ClusterConfiguration,
            V1Beta4,
            json!({"networking": {"podSubnets": "10.1.0.0/16"}}),
            "networking.podSubnets: there is no such field; did you mean podSubnet?",
        ),
        (
            Kind::KubeletConfiguration,
            V1Beta4,
            json!({"evictionHardly": {}, "maxPods": 3}),
            "evictionHardly: there is no such field; did you mean evictionHard?",
        ),
        (Kind::KubeProxyConfiguration, V1Beta4, json!({"replicas": 3}), "replicas: there is no such field"),
        (
            Kind::InitConfiguration,
            V1Beta2,
            json!({"timeouts": {}}),
            "timeouts: this API has no such field; kubeadm.k8s.io/v1beta4 has",
        ),
        (
            Kind::JoinConfiguration,
            V1Beta4,
            json!({"discovery": {"timeout": "1s"}}),
            "discovery.timeout: this API has no such field; kubeadm.k8s.io/v1beta3 has",
        ),
        (
            Kind::ClusterConfiguration,
            V1Beta4,
            json!({"apiServer": {"extraArgs": {"profiling": "false"}}}),
            "apiServer.extraArgs: it must be a list of maps with `name` and `value`",
        ),
        (
            Kind::ClusterConfiguration,
            V1Beta3,
            json!({"controllerManager": {"extraArgs": {"node-cidr-mask-size": 24}}}),
            "controllerManager.extraArgs: it must be a map of strings, in quotes if they look like numbers",
        ),
        (
            Kind::KubeletConfiguration,
            V1Beta4,
            json!({"authentication": {"webhook": {"cacheTTL": 2}}}),
            "authentication.webhook.cacheTTL: it must be a duration as \"4m0s\"",
        ),
        (
            Kind::KubeletConfiguration,
            V1Beta4,
            json!({"shutdownGracePeriodByPodPriority": [{"priority": "high"}]}),
            "shutdownGracePeriodByPodPriority[0].priority: it must be a whole number",
        ),
    ] {
        assert_eq!(mistake(kind, api, &document).as_deref(), Some(expected));
    }
}

#[test]
fn what_kubeadm_takes_is_right() {
    let api = ConfigApi::V1Beta4;
    for (kind, document) in [
        (
            Kind::KubeletConfiguration,
            json!({"oomScoreAdj": -999, "syncFrequency": "1m0s", "kubeReserved": {"cpu": "1"}}),
        ),
        (Kind::KubeletConfiguration, json!({"logging": {"flushFrequency": 5, "options": {"json": {}}}, "port": null})),
        (Kind::KubeProxyConfiguration, json!({"conntrack": {"maxPerCore": 0}, "mode": "nftables"})),
        (Kind::ClusterConfiguration, json!({"controllerManager": {"extraArgs": [{"name": "v", "value": "4"}]}})),
        (Kind::JoinConfiguration, json!({"timeouts": {"discovery": "1h0m2.5s"}})),
    ] {
        assert_eq!(mistake(kind, api, &document), None, "{document}");
    }
}

#[test]
fn a_malformed_token_is_not_repeated() {
    let document = json!({"discovery": {"tlsBootstrapToken": "hunter2"}});
    let told = mistake(Kind::JoinConfiguration, ConfigApi::V1Beta4, &document).expect("refused");
    assert!(told.starts_with("discovery.tlsBootstrapToken") && !told.contains("hunter2"), "{told}");
}

#[test]
fn durations_are_gos() {
    for text in ["0", "4m0s", "1h0m2.5s", "-3s", "+1.5h", "300ms", "5us", "5µs", ".5s", "1.s"] {
        assert!(is_duration(text), "{text}");
    }
    for text in ["", "-", "5", "s", "1d", "1m 2s", ".s", "1.2.3s", "1h-2m"] {
        assert!(!is_duration(text), "{text}");
    }
}

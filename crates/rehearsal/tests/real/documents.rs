//! Documents, by `kubeadm config validate`, which reads them strictly: taken or refused by both, and for the same reason as far as
//! muster tells reasons apart. What other commands do with unknown fields differs, see docs/rehearsal.md.

use crate::kubeadm::Kubeadm;

/// A document of a kind in an API, with these fields.
fn document(api: &str, kind: &str, fields: &str) -> String {
    format!("apiVersion: kubeadm.k8s.io/{api}\nkind: {kind}\n{fields}\n")
}

/// What makes a file of an InitConfiguration whole: without a version the real kubeadm asks the internet for one.
fn cluster(api: &str, fields: &str) -> String {
    document(api, "ClusterConfiguration", &format!("kubernetesVersion: \"@VERSION@\"\n{fields}"))
}

fn component(group: &str, kind: &str, fields: &str) -> String {
    let own = format!("apiVersion: {group}\nkind: {kind}\n{fields}\n");
    format!("{}---\n{own}", cluster("v1beta4", ""))
}

/// Each with a name. What they hold that differs between versions is for the versions to say.
fn documents() -> Vec<(String, String)> {
    const TOKEN: &str = "token: abcdef.0123456789abcdef, apiServerEndpoint: \"10.0.0.1:6443\"";
    const NEW: &str = "v1beta4";
    let mut all = Vec::new();
    let mut add = |name: &str, text: String| all.push((name.to_owned(), text));
    for api in ["v1beta1", "v1beta2", "v1beta3", "v1beta4", "v1beta9", "v1", "v2"] {
        add(&format!("{api} init"), document(api, "InitConfiguration", "") + "---\n" + &cluster(api, ""));
        let discovery = format!("discovery: {{bootstrapToken: {{{TOKEN}, unsafeSkipCAVerification: true}}}}");
        add(&format!("{api} join"), document(api, "JoinConfiguration", &discovery));
        add(&format!("{api} reset"), document(api, "ResetConfiguration", "force: true"));
    }
    let init = |fields: &str| document(NEW, "InitConfiguration", fields) + "---\n" + &cluster(NEW, "");
    let join = |fields: &str| document(NEW, "JoinConfiguration", fields);
    let with = |fields: &str| cluster(NEW, fields);
    for (name, fields) in [
        ("unknown field", "nosuch: 1"),
        ("unknown nested field", "nodeRegistration: {nosuch: 1}"),
        ("field in another case", "NodeRegistration: {name: m1}"),
        ("field of an older API", "nodeRegistration: {kubeletExtraArgs: {v: \"4\"}}"),
        ("text for a number", "localAPIEndpoint: {bindPort: many}"),
        ("number for a text", "nodeRegistration: {name: 1}"),
        ("map for a list", "skipPhases: {a: b}"),
        ("list for a map", "nodeRegistration: [a]"),
        ("text for a switch", "dryRun: perhaps"),
        ("null", "patches: null"),
        ("duration", "timeouts: {discovery: 1m30s}"),
        ("not a duration", "timeouts: {discovery: 5parsecs}"),
        ("number for a duration", "timeouts: {discovery: 5}"),
        ("not an address", "localAPIEndpoint: {advertiseAddress: nosuch}"),
        ("port out of range", "localAPIEndpoint: {bindPort: 99999}"),
        ("token", "bootstrapTokens: [{token: abcdef.0123456789abcdef, ttl: 24h0m0s}]"),
        ("not a token", "bootstrapTokens: [{token: hunter2}]"),
        ("key twice", "certificateKey: a\ncertificateKey: b"),
        ("name", "nodeRegistration: {name: m1.site}"),
        ("name that is none", "nodeRegistration: {name: a_b}"),
    ] {
        add(&format!("init, {name}"), init(fields));
    }
    for (name, fields) in [
        ("map for a list", "apiServer: {extraArgs: {v: \"4\"}}"),
        ("arguments", "scheduler: {extraArgs: [{name: v, value: \"4\"}]}"),
        ("unknown field", "apiserver: {}"),
        ("feature gate that is no switch", "featureGates: {a: perhaps}"),
        ("etcd", "etcd: {local: {dataDir: /var/lib/etcd, imageTag: 3.6.5-0}}"),
        ("dns disabled", "dns: {disabled: true}"),
        ("algorithm", "encryptionAlgorithm: ECDSA-P256"),
        ("validity", "certificateValidityPeriod: 8760h0m0s"),
    ] {
        add(&format!("cluster, {name}"), with(fields));
    }
    for (name, fields) in [
        ("nothing", String::new()),
        ("no pin", format!("discovery: {{bootstrapToken: {{{TOKEN}}}}}")),
        ("file", "discovery: {file: {kubeConfigPath: /x.conf}, tlsBootstrapToken: abcdef.0123456789abcdef}".into()),
        ("both", format!("discovery: {{bootstrapToken: {{{TOKEN}}}, file: {{kubeConfigPath: /x.conf}}}}")),
        ("not a token", "discovery: {file: {kubeConfigPath: /x.conf}, tlsBootstrapToken: hunter2}".into()),
        ("old timeout", "discovery: {timeout: 1s}".into()),
    ] {
        add(&format!("join, {name}"), join(&fields));
    }
    add("reset, unknown field", document(NEW, "ResetConfiguration", "nosuch: 1"));
    add("wrong kind", document(NEW, "NosuchConfiguration", ""));
    add("no kind", "apiVersion: kubeadm.k8s.io/v1beta4\n".into());
    add("a foreign kind", "apiVersion: apps/v1\nkind: Deployment\n".into());
    add("a kind of the core group", "apiVersion: v1\nkind: ConfigMap\n".into());
    add("twice", with("") + "---\n" + &with(""));
    add("version two behind", document(NEW, "ClusterConfiguration", "kubernetesVersion: v1.20.0"));
    add("an empty file", String::new());
    add("an empty document", "---\n".into());
    add("an empty document first", "---\n".to_owned() + &with(""));
    add("an empty document last", with("") + "---\n");
    add("nothing after an empty document", with("") + "---\n---\n" + &document(NEW, "NosuchConfiguration", ""));
    add("not YAML", "a: [1\n".into());
    add("a list", "- a\n".into());
    add("a word", "a\n".into());
    let (kubelet, proxy) = ("kubelet.config.k8s.io/v1beta1", "kubeproxy.config.k8s.io/v1alpha1");
    add("kubelet", component(kubelet, "KubeletConfiguration", "failSwapOn: false\ncgroupDriver: cgroupfs"));
    add("kubelet alone", format!("apiVersion: {kubelet}\nkind: KubeletConfiguration\n"));
    add("kubelet, unknown kind", component(kubelet, "NosuchConfiguration", ""));
    add("proxy", component(proxy, "KubeProxyConfiguration", "mode: nftables\nconntrack: {maxPerCore: 0}"));
    add("proxy, unknown API", component("kubeproxy.config.k8s.io/v9", "KubeProxyConfiguration", ""));
    for (name, fields) in UNKNOWN_TO_THE_DOUBLE {
        add(name, component(kubelet, "KubeletConfiguration", fields));
    }
    all
}

/// Refused by the real kubeadm alone: the double has no list of the kubelet's fields, which differ from version to version, and passes
/// components' documents on.
const UNKNOWN_TO_THE_DOUBLE: [(&str, &str); 2] =
    [("kubelet, unknown field", "nosuch: 1"), ("kubelet, text for a switch", "failSwapOn: perhaps")];

pub(crate) fn compare(real: &Kubeadm, double: &Kubeadm, minor: u32) {
    let mut differ = Vec::new();
    for (name, text) in documents() {
        real.put("document.yaml", &text);
        double.put("document.yaml", &text);
        let line = "config validate --config @/document.yaml";
        let (theirs, ours) = (real.run(line), double.run(line));
        if UNKNOWN_TO_THE_DOUBLE.iter().any(|(known, _)| *known == name) {
            assert_ne!(
                theirs.verdict, ours.verdict,
                "1.{minor}: {name}: no longer a difference: take it from the list"
            );
        } else if theirs.verdict != ours.verdict {
            differ.push(format!(
                "{name}\n   real: {:?} {}\n double: {:?} {}",
                theirs.verdict,
                theirs.error(),
                ours.verdict,
                ours.error()
            ));
        }
    }
    assert!(differ.is_empty(), "1.{minor}: {} differ\n{}", differ.len(), differ.join("\n"));
}

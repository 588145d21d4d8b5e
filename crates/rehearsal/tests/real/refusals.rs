//! Command lines that are refused: the same exit code, the same class of failure for muster, and the same words where the command
//! line alone is at fault.

use crate::kubeadm::Kubeadm;

const INIT: &str = "
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 10.0.0.1}
nodeRegistration: {name: m1, criSocket: unix:///run/containerd/containerd.sock}
bootstrapTokens: [{token: abcdef.0123456789abcdef}]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: @VERSION@
controlPlaneEndpoint: api.site.muster:7443
";
const JOIN: &str = "
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
nodeRegistration: {name: m1, criSocket: unix:///run/containerd/containerd.sock}
discovery: {bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: 10.0.0.1:6443, unsafeSkipCAVerification: true}}
";

/// Refused for the command line alone.
const LINES: &[&str] = &[
    "nosuch",
    "nosuch --config @/init.yaml",
    "init extra",
    "init --nosuch",
    "init --config",
    "init phase nosuch",
    "init phase nosuch --config @/init.yaml",
    "init phase certs nosuch",
    "init phase etcd local --cofig @/init.yaml",
    "init phase etcd local extra",
    "init phase certs all --ignore-preflight-errors=all",
    "init phase wait-control-plane --config @/init.yaml",
    "init phase show-join-command --config @/init.yaml",
    "init --config @/init.yaml --cert-dir /x",
    "init phase certs all --config @/init.yaml --cert-dir /x --kubernetes-version v1.0.0",
    "init phase mark-control-plane --kubeconfig @/x",
    "join a b",
    "join --config @/join.yaml --token abcdef.0123456789abcdef",
    "join phase nosuch",
    "join phase check-etcd",
    "join phase check-etcd --config @/join.yaml",
    "join phase wait-control-plane --config @/join.yaml",
    "join phase kubelet-wait-bootstrap --config @/join.yaml --node-name m1",
    "join phase control-plane-join etcd --nosuch",
    "join phase etcd-join extra",
    "reset --nosuch",
    "reset phase nosuch",
    "reset phase remove-etcd-member --config @/join.yaml",
    "reset --config @/reset.yaml --force",
    "token delete --config @/init.yaml",
    "token nosuch",
    "config images pull extra",
    "config validate extra",
    "config nosuch",
    "version extra",
    "version -x",
    "version -o nosuch",
    "reset --skip-phases=nosuch --force",
    "init --config @/init.yaml --skip-phases=nosuch",
    "join --config @/join.yaml --skip-phases=nosuch",
    "join --config @/join.yaml --skip-phases=preflight,upload-certs",
    "init phase preflight --config @/init.yaml --ignore-preflight-errors=all,Swap",
    "init --config @/join.yaml",
    "join --config @/init.yaml",
    "join phase kubelet-start --config @/init.yaml",
    "reset --config @/init.yaml",
    "config validate",
    "token delete",
];

/// Refused for what is not there, or asks something of the user: the words name files, which are others.
const CLASSES: &[&str] = &[
    "init --config @/nosuch.yaml",
    "join --config @/nosuch.yaml",
    "reset --config @/nosuch.yaml",
    "config images pull --config @/nosuch.yaml",
    "config validate --config @/nosuch.yaml",
    "token create --config @/init.yaml --kubeconfig @/nosuch.conf",
    "token create --config @/nosuch.yaml --kubeconfig @/nosuch.conf",
    "token delete abcdef --kubeconfig @/nosuch.conf",
    "init phase bootstrap-token --config @/init.yaml",
    "init phase upload-config all --config @/init.yaml",
    "init phase mark-control-plane --config @/init.yaml",
    "init phase addon",
    "init phase certs",
    "init phase",
    "join phase",
    "reset extra",
    "token create a b",
    "token",
    "config images",
    "reset",
];

/// Not refused at all.
const TAKEN: &[&str] = &[
    "version",
    "version -o json",
    "config validate --config @/init.yaml",
    "config validate --config @/join.yaml",
    "config images list --config @/init.yaml",
    "init phase upload-certs --config @/init.yaml",
];

/// Taken as well, where no container runtime is needed although every check is ignored.
const TAKEN_SINCE_1_35: &[&str] = &[
    "init phase preflight --config @/init.yaml --ignore-preflight-errors=all",
    "init phase preflight --config @/init.yaml --ignore-preflight-errors=ALL --v=1",
];

pub(crate) fn compare(real: &Kubeadm, double: &Kubeadm, minor: u32) {
    for kubeadm in [real, double] {
        kubeadm.put("init.yaml", INIT);
        kubeadm.put("join.yaml", JOIN);
        kubeadm.put("reset.yaml", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\nforce: true\n");
    }
    let mut differ = Vec::new();
    let taken: Vec<_> = TAKEN.iter().chain(if minor >= 35 { TAKEN_SINCE_1_35 } else { &[] }).collect();
    for line in LINES.iter().chain(CLASSES).chain(taken.iter().copied()) {
        let (theirs, ours) = (real.run(line), double.run(line));
        let same_words = !LINES.contains(line) || theirs.error() == ours.error();
        if theirs.verdict != ours.verdict || !same_words {
            differ.push(format!(
                "kubeadm {line}\n   real: {:?} {}\n double: {:?} {}",
                theirs.verdict,
                theirs.error(),
                ours.verdict,
                ours.error()
            ));
        }
        assert_eq!(theirs.verdict.code == 0, taken.contains(&line), "{}: {line}: {}", real.version, theirs.stderr);
    }
    assert!(differ.is_empty(), "1.{minor}: {} differ\n{}", differ.len(), differ.join("\n"));
}

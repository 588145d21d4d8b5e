//! What muster's own plan writes and runs: every document is taken by `config validate`, and no command line of any step is refused
//! for itself.

use std::net::IpAddr;
use std::path::Path;

use muster_kubeadm::EtcdTiming;
use muster_kubeadm::{
    Action, FailureKind, Founding, Node, PkiBundle, Plan, Settings, StepInput, Ticket, Token, UserFile, Version,
};
use muster_wire::{Attempt, Digest, Role};
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

use crate::kubeadm::Kubeadm;

/// What a user may say; some of it in each document that muster writes.
const DOCUMENTS: &str = "
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
apiServer: {extraArgs: [{name: v, value: \"2\"}]}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {kubeletExtraArgs: [{name: v, value: \"2\"}]}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
timeouts: {discovery: 2m0s}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ResetConfiguration
cleanupTmpDir: true
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failCgroupV1: false
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
";

/// `root` comes before every path that kubeadm is to see.
fn settings(root: &str, documents: &str) -> Settings {
    Settings {
        kubeadm: "/kubeadm".into(),
        pod_subnet: Some("10.244.0.0/16".into()),
        service_subnet: Some("10.96.0.0/12".into()),
        cri_socket: Some("unix:///run/containerd/containerd.sock".into()),
        documents: vec![UserFile { name: "/etc/muster/kubeadm.yaml".into(), text: documents.into() }],
        skip_phases: vec!["addon/coredns".into()],
        ignore_preflight: vec!["Swap".into()],
        ..Settings::of("site", &Path::new("/").join(root.trim_start_matches('/')))
    }
}

pub(crate) fn compare(real: &Kubeadm, double: &Kubeadm, minor: u32) {
    let version: Version = real.version.parse().expect("a version");
    let pki = PkiBundle::make(&version, &mut ChaCha8Rng::seed_from_u64(1)).expect("makes");
    let node = Node { name: "m1".into(), address: IpAddr::from([10, 0, 0, 1]) };
    let token = Token::parse("abcdef.0123456789abcdef").expect("a token");
    let ticket = Ticket {
        attempt: Attempt(1),
        token: token.clone(),
        ca_certificate: pki.ca_certificate().to_owned(),
        ca_hash: Digest([7; 32]),
        endpoints: vec!["10.0.0.1:6443".into()],
        node: None,
    };
    let tokens = [token.clone()];
    let second = Node { name: "m2".into(), address: IpAddr::from([10, 0, 0, 2]) };
    let founding = Founding { token: "0123-1".into(), members: vec![node.clone(), second] };
    for (kubeadm, documents) in [(real, ""), (real, DOCUMENTS), (double, ""), (double, DOCUMENTS)] {
        let plan = Plan::new(&version, settings(&kubeadm.inside, documents)).expect("a plan");
        let steps = [
            StepInput::Prepare { role: Role::ControlPlane },
            StepInput::InitCluster {
                node: &node,
                pki: &pki,
                tokens: &tokens,
                timing: EtcdTiming::Fast,
                founding: None,
            },
            StepInput::InitCluster {
                node: &node,
                pki: &pki,
                tokens: &tokens,
                timing: EtcdTiming::Fast,
                founding: Some(&founding),
            },
            StepInput::InitFinish,
            StepInput::Found { node: &node, pki: &pki, timing: EtcdTiming::Own, founding: &founding, again: false },
            StepInput::FoundFinish { node: &node, timing: EtcdTiming::Own },
            StepInput::Join { role: Role::ControlPlane, node: &node, ticket: &ticket, pki: Some(&pki) },
            StepInput::JoinEtcd,
            StepInput::JoinFinish { role: Role::ControlPlane, node: &node, ticket: &ticket },
            StepInput::JoinFinish { role: Role::Worker, node: &node, ticket: &ticket },
            StepInput::Join { role: Role::Worker, node: &node, ticket: &ticket, pki: None },
            StepInput::CreateToken { token: &token },
            StepInput::DeleteToken { token: &token },
            StepInput::Reset,
            StepInput::ResetOutsideEtcd,
        ];
        let mut written = 0;
        for action in steps.iter().flat_map(|step| plan.step(step)) {
            match action {
                Action::WriteFile { path, contents, .. } => {
                    let text = String::from_utf8(contents.expose().to_vec()).expect("text");
                    if path.extension().is_some_and(|extension| extension == "yaml") {
                        kubeadm.put("plan.yaml", &text);
                        let ran = kubeadm.run("config validate --config @/plan.yaml");
                        assert_eq!(ran.verdict.code, 0, "1.{minor}: {}: {}\n{text}", path.display(), ran.stderr);
                        written += 1;
                    } else if path.ends_with("discovery.conf") {
                        // The document that names it is refused if it is not there.
                        let path = path.display().to_string();
                        let below = path.strip_prefix(&kubeadm.inside).expect("is below").trim_start_matches('/');
                        let path = kubeadm.root.join(below);
                        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
                        std::fs::write(path, text).expect("is written");
                    }
                }
                // With its document away it gets no further than to look for it, and touches nothing.
                Action::Run(command) if command.args.iter().any(|arg| arg == "--config") => {
                    let kind = kubeadm.run_args(&command.args).verdict.kind;
                    let refused = matches!(kind, None | Some(FailureKind::Configuration));
                    assert!(!refused, "1.{minor}: kubeadm {}: {kind:?}", command.args.join(" "));
                }
                _ => {}
            }
        }
        assert!(written >= 6, "1.{minor}: {written} documents are not all");
    }
}

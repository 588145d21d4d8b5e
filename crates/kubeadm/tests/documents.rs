//! What kubeadm is given, to the byte, for the three APIs; and the user's documents: passed on, converted, refused.
//!
//! `UPDATE_GOLDEN=1 cargo test -p muster-kubeadm` writes `tests/golden` anew; read the difference before you commit it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use muster_kubeadm::EtcdTiming;
use muster_kubeadm::versions::{CommandLine, Workflow};
use muster_kubeadm::{
    Action, Founding, Node, PkiBundle, Plan, PlanError, Settings, StepInput, Ticket, Token, UserFile, Version,
};
use muster_wire::{Attempt, Digest, Role};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

fn settings(documents: &str) -> Settings {
    Settings {
        pod_subnet: Some("10.244.0.0/16".into()),
        service_subnet: Some("10.96.0.0/12".into()),
        cri_socket: Some("unix:///run/containerd/containerd.sock".into()),
        documents: vec![UserFile { name: "/etc/muster/kubeadm.yaml".into(), text: documents.into() }],
        skip_phases: vec!["addon/coredns".into()],
        ignore_preflight: vec!["Swap".into(), "NumCPU".into()],
        ..Settings::of("site", Path::new("/"))
    }
}

fn plan(version: &str, documents: &str) -> Result<Plan, PlanError> {
    Plan::new(&version.parse().expect("a version"), settings(documents))
}

fn node() -> Node {
    Node { name: "m1".into(), address: "10.0.0.1".parse().expect("an address") }
}

fn ticket() -> Ticket {
    Ticket {
        attempt: Attempt(1),
        token: Token::parse("abcdef.0123456789abcdef").expect("a token"),
        ca_certificate: "-----BEGIN CERTIFICATE-----\nCA\n-----END CERTIFICATE-----\n".into(),
        ca_hash: Digest([7; 32]),
        endpoints: vec!["10.0.0.1:6443".into()],
        node: None,
    }
}

/// Every step of a version, in the order of a machine's life, for whoever wants to see its actions.
fn every_step(plan: &Plan, mut see: impl FnMut(&str, Vec<Action>)) {
    let pki = PkiBundle::make(plan.version(), &mut ChaCha8Rng::seed_from_u64(1)).expect("makes");
    let (node, ticket) = (node(), ticket());
    let certificate = pki.node_certificate("m1", SystemTime::UNIX_EPOCH, &mut ChaCha8Rng::seed_from_u64(2));
    let known = Ticket { node: Some(certificate.expect("makes")), ..ticket.clone() };
    let tokens = [ticket.token.clone()];
    let (control_plane, worker) = (Role::ControlPlane, Role::Worker);
    let other = |name: &str, address: &str| Node { name: name.into(), address: address.parse().expect("an address") };
    let members = vec![node.clone(), other("m2", "10.0.0.2"), other("m3", "fd00::3")];
    let founding = Founding { token: "0123-1".into(), members };
    let found =
        |again| StepInput::Found { node: &node, pki: &pki, timing: EtcdTiming::Own, founding: &founding, again };
    let steps = [
        ("Prepare", StepInput::Prepare { role: control_plane }),
        (
            "InitCluster",
            StepInput::InitCluster { node: &node, pki: &pki, tokens: &tokens, timing: EtcdTiming::Own, founding: None },
        ),
        (
            "InitCluster, with others",
            StepInput::InitCluster {
                node: &node,
                pki: &pki,
                tokens: &tokens,
                timing: EtcdTiming::Own,
                founding: Some(&founding),
            },
        ),
        ("InitFinish", StepInput::InitFinish),
        ("Found", found(false)),
        ("Found, again", found(true)),
        ("FoundFinish", StepInput::FoundFinish { node: &node, timing: EtcdTiming::Own }),
        ("Join, control plane", StepInput::Join { role: control_plane, node: &node, ticket: &ticket, pki: Some(&pki) }),
        ("JoinEtcd", StepInput::JoinEtcd),
        ("JoinFinish", StepInput::JoinFinish { role: control_plane, node: &node, ticket: &ticket }),
        ("Join, worker", StepInput::Join { role: worker, node: &node, ticket: &ticket, pki: None }),
        ("JoinFinish, worker", StepInput::JoinFinish { role: worker, node: &node, ticket: &ticket }),
        ("Join, worker with a certificate", StepInput::Join { role: worker, node: &node, ticket: &known, pki: None }),
        ("JoinFinish, worker with a certificate", StepInput::JoinFinish { role: worker, node: &node, ticket: &known }),
        ("Renew", StepInput::Renew { node: &node, overdue: false }),
        ("Renew, overdue", StepInput::Renew { node: &node, overdue: true }),
        (
            "RenewKubelet",
            StepInput::RenewKubelet { node: &node, ticket: &known, pair: known.node.as_ref().expect("one") },
        ),
        ("AwaitReady", StepInput::AwaitReady { name: "m1" }),
        ("CreateToken", StepInput::CreateToken { token: &ticket.token }),
        ("DeleteToken", StepInput::DeleteToken { token: &ticket.token }),
        ("Reset", StepInput::Reset),
        ("ResetOutsideEtcd", StepInput::ResetOutsideEtcd),
    ];
    steps.iter().for_each(|(name, step)| see(name, plan.step(step)));
}

/// Every step as people read it: files with their contents but for the certificates, commands, questions.
fn script(plan: &Plan) -> String {
    let mut text = format!("kubeadm {}\n", plan.version());
    every_step(plan, |name, actions| {
        text.push_str(&format!("\n== {name}\n"));
        actions.iter().for_each(|action| text.push_str(&describe(action)));
    });
    text
}

fn describe(action: &Action) -> String {
    match action {
        Action::WriteFile { path, mode, .. }
            if path.starts_with("/etc/kubernetes/pki") || path.ends_with("kubelet.conf") =>
        {
            format!("write {mode:o} {}\n", path.display())
        }
        Action::WriteFile { path, mode, contents } => {
            format!("write {mode:o} {}\n{}", path.display(), String::from_utf8_lossy(contents.expose()))
        }
        Action::RemoveFile { path } => format!("remove {}\n", path.display()),
        Action::EmptyDirectory { path } => format!("empty {}\n", path.display()),
        Action::Run(command) => {
            assert!(command.env.is_empty(), "the real kubeadm is told nothing by its environment");
            let seconds = command.limit.as_secs();
            format!(
                "run {} (at most {seconds} s, {:?})\n  {} {}\n",
                command.phase,
                command.settled,
                command.program.display(),
                command.args.join(" ")
            )
        }
        Action::Require { phase, path } => format!("require {} of {phase}\n", path.display()),
        Action::AwaitFile { phase, path, limit } => {
            format!("await {} of {phase} (at most {} s)\n", path.display(), limit.as_secs())
        }
        Action::KubeletServer(change) => {
            let renewed = change.renewed.as_ref().map(|path| format!(" with {}", path.display())).unwrap_or_default();
            format!(
                "kubelet asks {} by {}{renewed}\n",
                change.server.as_deref().unwrap_or("as before"),
                change.path.display()
            )
        }
        Action::Restart { path } => format!("restart what is in {}\n", path.display()),
        Action::LocalDns(dns) => format!("local DNS for {} by {}\n", dns.domain, dns.kubelet_config.display()),
        Action::Await(wait) => format!(
            "await {} https://{}{} by {} until {:?} (at most {} s)\n",
            wait.phase,
            wait.server,
            wait.path,
            wait.kubeconfig.display(),
            wait.until,
            wait.limit.as_secs()
        ),
    }
}

fn golden(name: &str, text: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("is written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{name} differs from tests/golden; it is now:\n{text}");
}

/// What users have in their images, one in each API.
const OLD: &str = "
apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
apiServer: {extraArgs: {v: \"4\", audit-log-path: /var/log/audit}, timeoutForControlPlane: 8m0s, certSANs: [k8s.example]}
dns: {type: CoreDNS, imageTag: v1.9.3}
networking: {podSubnet: 10.200.0.0/16}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failSwapOn: no
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
conntrack: {maxPerCore: 0}
";
const NEW: &str = "
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
scheduler: {extraArgs: [{name: v, value: \"4\"}]}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
timeouts: {discovery: 2m0s}
nodeRegistration: {kubeletExtraArgs: [{name: node-labels, value: a=b}]}
";

#[test]
fn every_range_of_versions_has_its_plan() {
    for version in ["v1.20.2", "v1.25.0", "v1.29.0", "v1.34.4", "v1.35.4", "v1.36.3", "v1.37.2"] {
        golden(&format!("{version}.txt"), &script(&plan(version, "").expect("a plan")));
    }
}

/// What a kubeadm of that version would say of a command line before it looks at any file.
#[test]
fn no_version_is_given_a_command_or_a_flag_that_it_lacks() {
    for minor in Version::OLDEST_MINOR..=Version::NEWEST_MINOR {
        let part = if minor < 33 { "experimental" } else { "enable-client" };
        let finalize = format!("kubelet-finalize/{part}-cert-rotation");
        let skips: [&[&str]; 4] = [
            &[],
            &["preflight", "control-plane-join/mark-control-plane", "wait-control-plane", "addon", "check-etcd"],
            &["mark-control-plane", "addon/kube-proxy", "kubeconfig/admin", "upload-certs", "show-join-command"],
            &["certs/apiserver", "addon/coredns", "addon/kube-proxy", &finalize],
        ];
        for (skip, documents) in skips.iter().flat_map(|skip| [(skip, ""), (skip, NEW)]) {
            let mut settings = settings(documents);
            settings.skip_phases = skip.iter().map(|&name| name.to_owned()).collect();
            // What old kubeadms cannot be told is refused when the plan is made, elsewhere.
            let version: Version = format!("v1.{minor}.1").parse().expect("a version");
            let Ok(plan) = Plan::new(&version, settings) else {
                assert!(minor < 31 && documents == NEW, "v1.{minor}.1: no plan");
                continue;
            };
            let mut commands = 0;
            every_step(&plan, |step, actions| {
                for action in actions {
                    let Action::Run(command) = action else { continue };
                    commands += 1;
                    let read = CommandLine::parse(&command.args, minor).unwrap_or_else(|refusal| {
                        panic!("v1.{minor}.1: {step}: kubeadm {}: {refusal}", command.args.join(" "))
                    });
                    let workflow = [Workflow::Init, Workflow::Join, Workflow::Reset]
                        .into_iter()
                        .find(|workflow| read.command == [workflow.name()]);
                    for name in read.list("skip-phases") {
                        let known = workflow.is_some_and(|workflow| workflow.row(name, minor).is_some());
                        assert!(known, "v1.{minor}.1: {step}: --skip-phases={name}");
                    }
                }
            });
            assert!(commands > 10, "v1.{minor}.1: {commands} commands are not all");
        }
    }
}

#[test]
fn old_documents_are_converted_for_a_new_kubeadm() {
    golden("old-documents-v1.31.4.txt", &script(&plan("v1.31.4", OLD).expect("a plan")));
}

#[test]
fn new_documents_are_converted_for_an_old_kubeadm() {
    golden("new-documents-v1.20.2.txt", &script(&plan("v1.20.2", NEW).expect("a plan")));
}

#[test]
fn what_cannot_be_used_is_refused_by_file_kind_and_field() {
    let kubeadm = |kind: &str, field: &str| format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: {kind}\n{field}\n");
    let error = |version: &str, text: &str| plan(version, text).expect_err("refused").to_string();
    for (text, expected) in [
        (
            kubeadm("InitConfiguration", "bootstrapTokens: []"),
            "/etc/muster/kubeadm.yaml: InitConfiguration: bootstrapTokens: muster makes the tokens, one a machine",
        ),
        (
            kubeadm("ClusterConfiguration", "controlPlaneEndpoint: k8s.example:6443"),
            "/etc/muster/kubeadm.yaml: ClusterConfiguration: controlPlaneEndpoint: it is k8s.example:6443 here but must be \"api.site.muster:7443\"; every machine answers to that name itself",
        ),
        (
            kubeadm("ClusterConfiguration", "kubernetesVersion: v1.30.0"),
            "/etc/muster/kubeadm.yaml: ClusterConfiguration: kubernetesVersion: it is v1.30.0 here but must be \"v1.31.4\"; set kubernetes.version in muster.toml",
        ),
        (
            kubeadm("JoinConfiguration", "nodeRegistration: {name: m1}"),
            "/etc/muster/kubeadm.yaml: JoinConfiguration: nodeRegistration.name: the image is the same on every machine; muster sets it on each",
        ),
        (
            kubeadm("InitConfiguration", "nodeRegistration: containerd"),
            "/etc/muster/kubeadm.yaml: InitConfiguration: nodeRegistration: it must be a map",
        ),
        (
            kubeadm("InitConfiguration", "certificateKey: abc"),
            "/etc/muster/kubeadm.yaml: InitConfiguration: certificateKey: every holder of a token could read the certificates that it encrypts; muster seals them instead",
        ),
        (
            kubeadm("ClusterStatus", ""),
            "/etc/muster/kubeadm.yaml: apiVersion \"kubeadm.k8s.io/v1beta4\" and kind \"ClusterStatus\" are none that muster passes to kubeadm",
        ),
        (
            "apiVersion: kubeadm.k8s.io/v1\nkind: InitConfiguration\n".into(),
            "/etc/muster/kubeadm.yaml: InitConfiguration: apiVersion: \"v1\" is no API that muster knows: v1beta2, v1beta3, v1beta4",
        ),
        ("- a\n- b\n".into(), "/etc/muster/kubeadm.yaml: a document is not a map of fields"),
        ("a: [1\nb: 2\n".into(), "/etc/muster/kubeadm.yaml:2:"),
    ] {
        let error = error("v1.31.4", &text);
        assert!(error.starts_with(expected), "{error}\nshould begin with\n{expected}");
    }
    let twice = kubeadm("InitConfiguration", "---") + &kubeadm("InitConfiguration", "");
    assert!(error("v1.31.4", &twice).contains("it is in /etc/muster/kubeadm.yaml already"));
    let unsayable = error("v1.20.2", &kubeadm("ClusterConfiguration", "certificateValidityPeriod: 100h"));
    assert!(
        unsayable.ends_with(
            "ClusterConfiguration: certificateValidityPeriod: this image's kubeadm reads v1beta2, which cannot say it"
        ),
        "{unsayable}"
    );
    let given_twice =
        kubeadm("ClusterConfiguration", "scheduler: {extraArgs: [{name: v, value: a}, {name: v, value: b}]}");
    assert!(error("v1.25.0", &given_twice).contains("scheduler.extraArgs: this kubeadm cannot give an argument twice"));
}

#[test]
fn settings_are_checked_before_anything_runs() {
    let error = |change: fn(&mut Settings)| {
        let mut settings = settings("");
        change(&mut settings);
        Plan::new(&"v1.31.4".parse().expect("a version"), settings).expect_err("refused").to_string()
    };
    assert_eq!(
        error(|settings| settings.skip_phases = vec!["bootstrap-token".into()]),
        "kubernetes.skip_phases: \"bootstrap-token\": without this phase no cluster comes about"
    );
    assert!(error(|settings| settings.skip_phases = vec!["adon".into()]).contains("kubeadm has no such phase"));
    assert!(error(|settings| settings.ignore_preflight = vec!["a b".into()]).contains("\"a b\" is not the name"));
    let skew = error(|settings| settings.version = "v1.29.0".parse().ok());
    assert_eq!(
        skew,
        "kubeadm v1.31.4 cannot deploy Kubernetes v1.29.0: it deploys its own minor version or the one before"
    );
}

proptest! {
    #[test]
    fn no_document_makes_it_panic(text in "[ -~\n]{0,200}") {
        let _ = plan("v1.31.4", &text);
    }

    /// Documents that are nearly right get further than random text.
    #[test]
    fn no_field_makes_it_panic(
        kind in "(Init|Cluster|Join|Reset)Configuration",
        api in "v1beta[234]",
        version in "v1\\.(20|25|31)\\.0",
        field in "(nodeRegistration|discovery|apiServer|etcd|timeouts|networking|localAPIEndpoint|scheduler)",
        inner in "(extraArgs|local|name|timeout|discovery|kubeletExtraArgs|dataDir)",
        value in "(1|x|\\[\\]|\\{\\}|\\[\\{name: a\\}\\]|\\{a: b\\}|null|\\[1\\])",
        outer in "(x|null|\\[\\]|)",
    ) {
        let nested = if outer.is_empty() { format!("{{{inner}: {value}}}") } else { outer };
        let text = format!("apiVersion: kubeadm.k8s.io/{api}\nkind: {kind}\n{field}: {nested}\n");
        if let Ok(plan) = plan(&version, &text) {
            let _ = plan.step(&StepInput::Prepare { role: Role::ControlPlane });
            let (node, ticket) = (node(), ticket());
            let _ = plan.step(&StepInput::Join { role: Role::ControlPlane, node: &node, ticket: &ticket, pki: None });
        }
    }
}

#[test]
fn a_site_without_dns_servers_is_looked_after_before_coredns_unless_it_is_to_have_none() {
    let actions = |skip: &[&str], document: &str| {
        let document = format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{document}");
        let mut settings = settings(&document);
        settings.skip_phases = skip.iter().map(|phase| (*phase).to_owned()).collect();
        let plan = Plan::new(&"v1.36.0".parse().expect("a version"), settings).expect("plans");
        plan.step(&StepInput::InitFinish)
    };
    let domain = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::LocalDns(dns) => Some(dns.domain.clone()),
            _ => None,
        })
    };
    let plain = actions(&[], "");
    assert_eq!(domain(&plain).as_deref(), Some("cluster.local"));
    let at = |wanted: &dyn Fn(&Action) -> bool| plain.iter().position(wanted).expect("is there");
    let addon = at(&|action| matches!(action, Action::Run(command) if command.phase == "init/addon"));
    assert_eq!(at(&|action| matches!(action, Action::LocalDns(_))) + 1, addon);
    assert_eq!(domain(&actions(&["addon/kube-proxy"], "networking: {dnsDomain: a.b}\n")).as_deref(), Some("a.b"));
    for (skip, document) in [(vec!["addon"], ""), (vec!["addon/coredns"], ""), (vec![], "dns: {disabled: true}\n")] {
        assert_eq!(domain(&actions(&skip, document)), None, "{skip:?} {document}");
    }
}

#[test]
fn an_older_kubeadm_is_a_worker_at_most() {
    let plan = |kubeadm: &str, wanted: &str| {
        let settings = Settings { version: wanted.parse().ok(), ..settings("") };
        Plan::new(&kubeadm.parse().expect("a version"), settings)
    };
    assert_eq!(plan("v1.37.2", "v1.37.2").expect("a plan").worker_only(), None);
    assert_eq!(plan("v1.37.2", "v1.36.3").expect("a plan").worker_only(), None);
    for older in ["v1.36.3", "v1.34.4"] {
        let why = plan(older, "v1.37.2").expect("a plan").worker_only().expect("a worker at most");
        assert!(why.contains(older) && why.chars().count() <= 60, "{why}");
    }
    assert!(plan("v1.33.0", "v1.37.2").is_err() && plan("v1.37.2", "v1.35.4").is_err());
}

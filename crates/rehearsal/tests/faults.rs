//! Whatever kubeadm does wrong has an outcome of its own.

mod support;

use std::time::Duration;

use muster_kubeadm::EtcdTiming;
use muster_kubeadm::{Action, Failure, FailureKind, StepInput, Token};
use muster_wire::Role;
use support::{Machine, Site};

/// What an init ends in on a machine that was told this fault.
fn init_with(site: &Site, number: u8, fault: &str) -> Failure {
    let mut machine = site.machine(number).fault(fault);
    if fault.starts_with("hang") {
        machine.limit = Some(Duration::from_millis(500));
    }
    site.init(&machine, &[]).expect_err("fails")
}

fn assert_failure(failure: &Failure, phase: &str, kind: &FailureKind) {
    assert_eq!((failure.phase.as_str(), &failure.kind), (phase, kind), "{failure}");
}

#[test]
fn every_phase_of_init_may_fail_and_says_so() {
    let site = Site::new("v1.20.2", 1);
    let phases = [
        "preflight",
        "certs",
        "kubeconfig",
        "kubelet-start",
        "control-plane",
        "etcd",
        "bootstrap-token",
        "upload-config",
    ];
    for (number, phase) in (1..).zip(phases) {
        let failure = init_with(&site, number, &format!("fail:{phase}"));
        assert!(failure.phase.starts_with(&format!("init/{phase}")), "{failure}");
        assert_eq!(failure.kind, FailureKind::Other, "{failure}");
        assert!(failure.excerpt.contains("the rehearsal was told to fail"), "{failure}");
        assert!(!failure.is_hopeless());
    }
}

#[test]
fn hanging_dying_lying_and_nonsense_are_told_apart() {
    let site = Site::new("v1.31.4", 2);
    assert_failure(&init_with(&site, 1, "hang:certs"), "init/certs", &FailureKind::TimedOut);
    assert_failure(&init_with(&site, 2, "die:kubeconfig"), "init/kubeconfig", &FailureKind::Killed(9));
    assert_failure(&init_with(&site, 3, "lie:certs"), "init/certs", &FailureKind::LeftUndone);
    assert_failure(&init_with(&site, 4, "lie:kubeconfig"), "init/kubeconfig", &FailureKind::LeftUndone);
    assert_failure(&init_with(&site, 5, "lie:kubelet-start"), "init/kubelet-start", &FailureKind::LeftUndone);
    assert_failure(&init_with(&site, 6, "lie:etcd"), "init/etcd/local", &FailureKind::LeftUndone);
    let nonsense = init_with(&site, 7, "nonsense:preflight");
    assert_failure(&nonsense, "init/preflight", &FailureKind::Other);
    assert!(!nonsense.excerpt.chars().any(char::is_control), "{nonsense:?}");
}

#[test]
fn a_lie_about_bootstrap_tokens_is_found_by_asking_for_cluster_info() {
    let site = Site::new("v1.31.4", 3);
    let machine = site.machine(1).fault("lie:bootstrap-token");
    let plan = machine.plan.step(&StepInput::InitCluster {
        node: &machine.node,
        pki: &site.pki,
        tokens: &[],
        timing: EtcdTiming::Own,
        founding: None,
    });
    let at = plan.iter().rposition(|action| matches!(action, Action::Await(_))).expect("init asks");
    let Action::Await(last) = &plan[at] else { unreachable!("it was just found") };
    site.serve_by(&machine);
    for action in &plan[..at] {
        machine.act(action).expect("goes well, or seems to");
    }
    let (status, body) = machine.get(&last.server, &last.path, &last.kubeconfig).expect("answers");
    assert_eq!(last.met(status, &body), Err("it is not there yet".into()));
}

#[test]
fn what_failed_once_succeeds_after_a_reset() {
    let site = Site::new("v1.31.4", 4);
    let machine = site.machine(1).fault("fail-once:upload-config");
    let failure = site.init(&machine, &[]).expect_err("fails once");
    assert_failure(&failure, "init/upload-config/kubeadm", &FailureKind::Other);
    let again = site.init(&machine, &[]).expect_err("is not clean");
    assert!(matches!(again.kind, FailureKind::Preflight(_)), "{again}");
    machine.carry_out(&StepInput::Reset).expect("resets");
    site.init(&machine, &[]).expect("initialises");
}

#[test]
fn a_machine_that_died_while_it_joined_etcd_joins_after_a_reset() {
    let site = Site::new("v1.31.4", 11);
    let (first, second) = (site.machine(1), site.machine(2).fault("die-once:control-plane-join/etcd"));
    site.init(&first, &[&second]).expect("initialises");
    site.join(&second, Role::ControlPlane).expect("joins");
    assert_eq!(second.carry_out(&StepInput::JoinEtcd).expect_err("dies").kind, FailureKind::Killed(9));
    second.carry_out(&StepInput::Reset).expect("resets");
    site.join(&second, Role::ControlPlane).expect("joins again");
    second.carry_out(&StepInput::JoinEtcd).expect("joins etcd");
}

#[test]
fn a_taken_port_is_named() {
    let site = Site::new("v1.31.4", 5);
    let machine = site.machine(1);
    let _taken = std::net::TcpListener::bind((machine.node.address, 6443)).expect("a free port");
    assert_failure(&site.init(&machine, &[]).expect_err("fails"), "init/preflight", &FailureKind::PortInUse);
}

#[test]
fn a_kubeadm_that_is_not_there_is_hopeless() {
    let site = Site::new("v1.31.4", 6);
    let machine = site.machine(1);
    let mut command = muster_kubeadm::Command::version("/nowhere/kubeadm".into());
    let failure = machine.run(&command).expect_err("is not there");
    assert_failure(&failure, "version", &FailureKind::NotStarted);
    assert!(failure.is_hopeless());
    // A kubeadm of another version does not read what was written for this one.
    let mut machine = machine;
    machine.environment.insert("MUSTER_REHEARSAL_VERSION".into(), "v1.20.2".into());
    let failure = site.init(&machine, &[]).expect_err("does not read v1beta4");
    assert_failure(&failure, "init/preflight", &FailureKind::Configuration);
    assert!(failure.is_hopeless());
    command.args.push("--evil".into());
    assert!(machine.run(&command).is_err());
}

#[test]
fn strangers_are_kept_out() {
    let site = Site::new("v1.31.4", 7);
    let other = Site::new("v1.31.4", 8);
    let (first, second, third) = (site.machine(1), site.machine(2), site.machine(3));
    site.init(&first, &[&second, &third]).expect("initialises");
    let join = |machine: &Machine, ticket: &muster_kubeadm::Ticket| {
        machine.carry_out(&StepInput::Join { role: Role::Worker, node: &machine.node, ticket, pki: None })
    };
    // A token that nobody registered.
    let mut ticket = site.ticket(&second);
    ticket.token = Token::parse("abcdef.0123456789abcdef").expect("a token");
    let failure = join(&second, &ticket).expect_err("the token is unknown");
    assert_eq!(failure.kind, FailureKind::TokenUnknown, "{failure}");
    assert!(!failure.to_string().contains("0123456789abcdef"));
    // The CA of another cluster.
    let mut ticket = site.ticket(&third);
    ticket.ca_certificate = other.pki.ca_certificate().to_owned();
    let failure = join(&third, &ticket).expect_err("the CA is another");
    assert_eq!(failure.kind, FailureKind::CaMismatch, "{failure}");
}

#[test]
fn a_token_looks_at_the_ca_by_its_pin() {
    let site = Site::new("v1.20.2", 9);
    let first = site.machine(1);
    let second = site.machine(2);
    site.init(&first, &[&second]).expect("initialises");
    site.join(&second, Role::ControlPlane).expect("joins");
    // The later phases discover by token: with another pin they stop before anything is added.
    let later = second.root.join("run/muster/kubeadm/join-later.yaml");
    let document = std::fs::read_to_string(&later).expect("is there");
    let pin = pin_in(&document);
    std::fs::write(&later, document.replace(&pin, &"0".repeat(64))).expect("a file");
    assert_eq!(second.carry_out(&StepInput::JoinEtcd).expect_err("is another").kind, FailureKind::CaMismatch);
    std::fs::write(&later, document).expect("a file");
    second.carry_out(&StepInput::JoinEtcd).expect("joins etcd");
}

fn pin_in(document: &str) -> String {
    let (_, rest) = document.split_once("sha256:").expect("a pin");
    rest.chars().take_while(char::is_ascii_hexdigit).collect()
}

#[test]
fn no_secret_is_an_argument() {
    let site = Site::new("v1.31.4", 10);
    let machine = site.machine(1);
    let token = site.pki.token_for(machine.id);
    let ticket = site.ticket(&machine);
    let tokens = [token.clone()];
    let steps = [
        StepInput::Prepare { role: Role::ControlPlane },
        StepInput::InitCluster {
            node: &machine.node,
            pki: &site.pki,
            tokens: &tokens,
            timing: EtcdTiming::Own,
            founding: None,
        },
        StepInput::Join { role: Role::ControlPlane, node: &machine.node, ticket: &ticket, pki: Some(&site.pki) },
        StepInput::CreateToken { token: &token },
        StepInput::DeleteToken { token: &token },
        StepInput::Reset,
    ];
    let secret = &token.expose()[7..];
    for step in &steps {
        let actions = machine.plan.step(step);
        assert!(!format!("{actions:?}").contains(secret), "{step:?}");
        for action in actions {
            if let Action::WriteFile { path, mode, contents } = action {
                let text = String::from_utf8_lossy(contents.expose()).into_owned();
                let is_secret = text.contains(secret) || text.contains("PRIVATE KEY");
                assert!(!is_secret || mode == 0o600, "{}", path.display());
            }
        }
    }
}

//! Whole clusters formed by carrying plans out against the double.

mod support;

use muster_kubeadm::{Command, EtcdTiming, Failure, FailureKind, Founding, StepInput, Version};
use muster_wire::Role;
use serde_json::Value;
use support::{DOUBLE, Machine, Site};

fn nodes(machine: &Machine) -> Vec<(String, bool)> {
    let (status, body) = machine.get("api.test.muster:7443", "/api/v1/nodes", &machine.admin_conf()).expect("answers");
    assert_eq!(status, 200);
    let list: Value = serde_json::from_slice(&body).expect("JSON");
    let is_control_plane =
        |node: &Value| node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"].is_string();
    let items = list["items"].as_array().expect("a list");
    items
        .iter()
        .map(|node| (node["metadata"]["name"].as_str().expect("a name").to_owned(), is_control_plane(node)))
        .collect()
}

/// Three control planes and two workers, joining at once but for the etcd turns.
fn form(version: &str, number: u8) {
    let site = Site::new(version, number);
    let machines: Vec<Machine> = (1..=5).map(|n| site.machine(n)).collect();
    let [first, second, third, ..] = &machines[..] else { unreachable!("there are five") };
    let others: Vec<_> = machines.iter().skip(1).collect();
    first.carry_out(&StepInput::Prepare { role: Role::ControlPlane }).expect("prepares");
    site.init(first, &others).expect("initialises");
    std::thread::scope(|scope| {
        scope.spawn(|| first.carry_out(&StepInput::InitFinish).expect("finishes"));
        for (at, machine) in machines.iter().enumerate().skip(1) {
            let role = if at < 3 { Role::ControlPlane } else { Role::Worker };
            let site = &site;
            scope.spawn(move || {
                let named = |error| panic!("{version}: {}: {error}", machine.node.name);
                site.join(machine, role).unwrap_or_else(named);
                if role == Role::Worker {
                    site.join_finish(machine, role).unwrap_or_else(named);
                }
            });
        }
    });
    for machine in [second, third] {
        machine.carry_out(&StepInput::JoinEtcd).unwrap_or_else(|error| panic!("{version}: {error}"));
        site.serve_by(machine);
        site.join_finish(machine, Role::ControlPlane).unwrap_or_else(|error| panic!("{version}: {error}"));
    }
    for machine in &machines {
        machine.await_ready().unwrap_or_else(|error| panic!("{version}: {error}"));
        let left: Vec<_> = std::fs::read_dir(machine.root.join("run/muster/kubeadm")).expect("a directory").collect();
        assert!(left.is_empty(), "no document with a token stays: {left:?}");
    }
    let expected: Vec<_> = (1..=5).map(|n| (format!("m{n}"), n <= 3)).collect();
    assert_eq!(nodes(first), expected, "{version}");

    first.kill_server();
    assert_eq!(nodes(second), expected, "{version}: the survivors serve on");
    let token = site.pki.token_for(third.id);
    second.carry_out(&StepInput::DeleteToken { token: &token }).expect("deletes");
    second.carry_out(&StepInput::DeleteToken { token: &token }).expect("is gone, which is fine");
}

#[test]
fn forms_with_v1beta2() {
    form("v1.20.2", 20);
}

#[test]
fn forms_with_v1beta3() {
    form("v1.25.16", 25);
    form("v1.30.1", 30);
}

#[test]
fn forms_with_v1beta4() {
    form("v1.31.4", 31);
    form("v1.33.0", 33);
    form("v1.36.0", 36);
}

/// Three control planes begin etcd together, one of them when the cluster is made; then a fourth joins, and a worker.
fn found(version: &str, number: u8) {
    let site = Site::new(version, number);
    let machines: Vec<Machine> = (1..=5).map(|n| site.machine(n)).collect();
    let [first, second, late, joins, worker] = &machines[..] else { unreachable!("there are five") };
    let founding =
        Founding { token: "site-1".into(), members: [first, second, late].map(|machine| machine.node.clone()).into() };
    let timing = EtcdTiming::Own;
    let found = |machine: &Machine, again| {
        let (node, pki, founding) = (&machine.node, &site.pki, &founding);
        machine.carry_out(&StepInput::Found { node, pki, timing, founding, again })
    };
    let finish = |machine: &Machine| machine.carry_out(&StepInput::FoundFinish { node: &machine.node, timing });
    let tokens = [joins, worker].map(|machine| site.pki.token_for(machine.id));
    site.serve_by(first);
    let named = |error: Failure| panic!("{version}: {error}");
    std::thread::scope(|scope| {
        scope.spawn(|| found(second, false).unwrap_or_else(named));
        let (node, pki, founding) = (&first.node, &site.pki, Some(&founding));
        first.carry_out(&StepInput::InitCluster { node, pki, tokens: &tokens, timing, founding }).unwrap_or_else(named);
    });
    first.carry_out(&StepInput::InitFinish).unwrap_or_else(named);
    // What was done is no obstacle, and what etcd wrote stays.
    found(second, true).unwrap_or_else(named);
    finish(second).unwrap_or_else(named);
    site.join(worker, Role::Worker).unwrap_or_else(named);
    found(late, false).unwrap_or_else(named);
    finish(late).unwrap_or_else(named);
    site.join(joins, Role::ControlPlane).unwrap_or_else(named);
    joins.carry_out(&StepInput::JoinEtcd).unwrap_or_else(named);
    site.join_finish(joins, Role::ControlPlane).unwrap_or_else(named);
    for machine in &machines {
        machine.await_ready().unwrap_or_else(named);
    }
    let expected: Vec<_> = (1..=5).map(|n| (format!("m{n}"), n <= 4)).collect();
    assert_eq!(nodes(first), expected, "{version}");
    site.serve_by(late);
    first.kill_server();
    assert_eq!(nodes(late), expected, "{version}: it has what it missed");
}

#[test]
fn control_planes_found_together() {
    found("v1.20.2", 40);
    found("v1.30.1", 41);
    found("v1.36.0", 42);
}

#[test]
fn founders_of_two_attempts_are_two_clusters() {
    let site = Site::new("v1.36.0", 43);
    let (first, second, third) = (site.machine(1), site.machine(2), site.machine(3));
    let founding = |attempt: u32| Founding {
        token: format!("site-{attempt}"),
        members: [&first, &second, &third].map(|machine| machine.node.clone()).into(),
    };
    let timing = EtcdTiming::Own;
    let found = |machine: &Machine, attempt| {
        let (node, pki, founding) = (&machine.node, &site.pki, &founding(attempt));
        machine.carry_out(&StepInput::Found { node, pki, timing, founding, again: false }).expect("founds");
    };
    found(&first, 1);
    found(&second, 2);
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(1_500);
    while std::time::Instant::now() < deadline {
        let asked = second.get(&format!("{}:6443", second.node.address), "/readyz", &second.admin_conf());
        assert!(!asked.is_ok_and(|(status, _)| status == 200), "no majority of either is there");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    second.carry_out(&StepInput::ResetOutsideEtcd).expect("resets");
    found(&second, 1);
    site.serve_by(&second);
    second.carry_out(&StepInput::FoundFinish { node: &second.node, timing }).expect("finishes");
}

#[test]
fn a_reset_machine_joins_again() {
    let site = Site::new("v1.31.4", 1);
    let (first, second) = (site.machine(1), site.machine(2));
    site.init(&first, &[&second]).expect("initialises");
    site.join(&second, Role::ControlPlane).expect("joins");
    second.carry_out(&StepInput::JoinEtcd).expect("joins etcd");
    second.carry_out(&StepInput::Reset).expect("resets");
    second.carry_out(&StepInput::Reset).expect("may be repeated");
    assert!(!second.admin_conf().exists() && second.server_pid().is_none());
    assert!(!second.root.join("etc/kubernetes/pki/ca.key").exists());
    // Its member is gone with the reset. Its Node is not, but is soon found to be dead.
    site.join(&second, Role::ControlPlane).expect("joins again");
    second.carry_out(&StepInput::JoinEtcd).expect("joins etcd again");
    site.join_finish(&second, Role::ControlPlane).expect("finishes");
    second.await_ready().expect("is Ready");
}

#[test]
fn a_ready_node_keeps_its_name() {
    let site = Site::new("v1.31.4", 7);
    let (first, second, mut third) = (site.machine(1), site.machine(2), site.machine(3));
    site.init(&first, &[&second, &third]).expect("initialises");
    site.join(&second, Role::Worker).expect("joins");
    third.node.name = second.node.name.clone();
    assert_eq!(site.join(&third, Role::Worker).expect_err("the name is taken").kind, FailureKind::AlreadyExists);
}

#[test]
fn a_crashed_etcd_join_blocks_the_next_until_it_is_reset() {
    let site = Site::new("v1.31.4", 2);
    let (first, third) = (site.machine(1), site.machine(3));
    let mut second = site.machine(2);
    site.init(&first, &[&second, &third]).expect("initialises");
    site.join(&second, Role::ControlPlane).expect("joins");
    site.join(&third, Role::ControlPlane).expect("joins");
    // The member is added, and its server never comes up: something else has its port.
    let _taken = std::net::TcpListener::bind((second.node.address, 6443)).expect("a free port");
    second.limit = Some(std::time::Duration::from_millis(700));
    assert_eq!(second.carry_out(&StepInput::JoinEtcd).expect_err("hangs").kind, FailureKind::TimedOut);
    assert_eq!(third.carry_out(&StepInput::JoinEtcd).expect_err("has to wait").kind, FailureKind::EtcdBusy);
    second.limit = None;
    second.carry_out(&StepInput::Reset).expect("resets");
    third.carry_out(&StepInput::JoinEtcd).expect("may now");
}

#[test]
fn an_init_is_finished_after_a_restart() {
    let site = Site::new("v1.31.4", 6);
    let machine = site.machine(1);
    site.init(&machine, &[]).expect("initialises");
    // What systemd does to a runtime directory, or a reboot to /run.
    std::fs::remove_dir_all(machine.root.join("run")).expect("is there");
    for _ in 0..2 {
        machine.carry_out(&StepInput::InitFinish).expect("finishes, and may be repeated");
    }
    machine.await_ready().expect("is Ready");
}

#[test]
fn a_token_made_later_lets_a_machine_in() {
    let site = Site::new("v1.31.4", 3);
    let (first, late) = (site.machine(1), site.machine(2));
    site.init(&first, &[]).expect("initialises");
    let token = site.pki.token_for(late.id);
    assert_eq!(site.join(&late, Role::Worker).expect_err("is unknown").kind, FailureKind::TokenUnknown);
    first.carry_out(&StepInput::CreateToken { token: &token }).expect("creates");
    first.carry_out(&StepInput::CreateToken { token: &token }).expect("exists, which is fine");
    late.carry_out(&StepInput::Reset).expect("resets");
    site.join(&late, Role::Worker).expect("joins");
}

#[test]
fn says_in_every_output_that_it_is_a_double() {
    let site = Site::new("v1.31.4", 4);
    let machine = site.machine(1);
    machine.carry_out(&StepInput::Reset).expect("resets nothing");
    assert!(machine.said.lock().expect("unpoisoned").contains("rehearsal kubeadm: a test double, no cluster is made"));
}

#[test]
fn it_touches_nothing_without_directories_of_its_own() {
    let output = std::process::Command::new(DOUBLE).args(["reset", "-f"]).output().expect("runs");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("MUSTER_REHEARSAL_DIR is not set: without it this double touches nothing"), "{said}");
}

#[test]
fn its_version_is_what_it_is_told() {
    let site = Site::new("v1.28.3", 5);
    let version = |machine: &Machine| {
        let command = Command::version(DOUBLE.into());
        let output = std::process::Command::new(&command.program)
            .args(&command.args)
            .envs(&machine.environment)
            .output()
            .expect("runs");
        Version::from_kubeadm(&output.stdout)
    };
    assert_eq!(version(&site.machine(1)).expect("a version").to_string(), "v1.28.3");
    let old = version(&site.machine(2).fault("too-old")).expect_err("too old").to_string();
    assert!(old.contains("v1.19.16 is too old"), "{old}");
    assert!(version(&site.machine(3).fault("lie:version")).is_err());
    assert!(version(&site.machine(4).fault("nonsense:version")).is_err());
}

//! Whole labs: real agents as processes, the rehearsal kubeadm, an ordinary user's temporary directory.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn muster(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.args(arguments).env("TMPDIR", dir).stderr(Stdio::inherit());
    command
}

fn lab(dir: &Path, arguments: &[&str]) -> Output {
    muster(dir, &[&["lab", "--once", "--json"], arguments].concat()).output().expect("the lab starts")
}

/// The lines of a lab, and the last of them.
fn events(output: &Output) -> (Vec<Value>, Value) {
    let text = String::from_utf8_lossy(&output.stdout);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let last = events.last().cloned().expect("the lab says what came of it");
    (events, last)
}

/// Processes that were started with a path below `dir`.
fn processes(dir: &Path) -> usize {
    let dir = dir.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    entries
        .filter(|entry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(&dir)))
        .count()
}

/// What is left of labs in a temporary directory.
fn left(dir: &Path) -> Vec<String> {
    let bases = fs::read_dir(dir).expect("the directory").filter_map(Result::ok);
    let labs = bases.flat_map(|base| fs::read_dir(base.path()).into_iter().flatten()).filter_map(Result::ok);
    labs.map(|lab| lab.path().display().to_string()).collect()
}

fn assert_formed(output: &Output, machines: usize, control_planes: usize) {
    let (_, last) = events(output);
    assert!(output.status.success() && last["ready"] == true, "{last:#}");
    let each = last["machines"].as_array().expect("machines");
    assert_eq!(each.len(), machines);
    assert!(each.iter().all(|machine| machine["phase"] == "ready"), "{last:#}");
    let leaders = each.iter().filter(|machine| machine["role"] == "control-plane").count();
    assert_eq!(leaders, control_planes, "{last:#}");
    assert!(last["charter"].is_string() && last["leader"].is_string(), "{last:#}");
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, signal).expect("it lives");
}

/// A lab that a failed test does not leave behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            signal(&self.0, Signal::INT);
            let _ = self.0.wait();
        }
    }
}

/// Reads a running lab's lines until it is Ready.
fn wait_until_ready(child: &mut Child) -> Value {
    let output = child.stdout.take().expect("its output");
    for line in BufReader::new(output).lines() {
        let event: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        if event["ready"].is_boolean() {
            assert_eq!(event["ready"], true, "{event:#}");
            return event;
        }
    }
    panic!("the lab ended before it was Ready");
}

#[test]
fn five_machines_become_one_cluster_and_nothing_is_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = lab(dir.path(), &[]);
    assert_formed(&output, 5, 3);
    assert_eq!((left(dir.path()), processes(dir.path())), (Vec::<String>::new(), 0));
}

#[test]
fn one_machine_is_a_cluster_and_two_labs_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = |arguments: &[&str]| {
        let arguments = [&["lab", "--once", "--json"], arguments].concat();
        muster(dir.path(), &arguments).stdout(Stdio::piped()).spawn().expect("the lab starts")
    };
    let one = start(&["--machines", "1"]);
    let three = start(&["--machines", "3", "--control-planes", "1"]);
    assert_formed(&one.wait_with_output().expect("it ends"), 1, 1);
    assert_formed(&three.wait_with_output().expect("it ends"), 3, 1);
    assert_eq!((left(dir.path()), processes(dir.path())), (Vec::<String>::new(), 0));
}

#[test]
fn a_running_lab_can_be_looked_into_and_ctrl_c_ends_it_cleanly() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = muster(dir.path(), &["lab", "--json", "--machines", "3"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the lab starts");
    let last = wait_until_ready(&mut child);
    let ask = |arguments: &[&str]| {
        let output = muster(dir.path(), arguments).output().expect("muster starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, status) = ask(&["status", "--machine", "lab-2", "--json"]);
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((code, &status["phase"], &status["charter"]), (Some(0), &"ready".into(), &last["charter"]));
    let (code, text) = ask(&["status", "--machine", "lab-1"]);
    assert!(code == Some(0) && text.starts_with("lab-1 (m-") && text.contains("leader lab-"), "{text}");
    let (code, text) = ask(&["explain", "--machine", "lab-3"]);
    assert!(code == Some(0) && text.contains("- it waits for nothing"), "{text}");
    let (code, text) = ask(&["logs", "--machine", "lab-3"]);
    assert!(code == Some(0) && text.contains("founded"), "{text}");
    let (code, _) = ask(&["status", "--machine", "lab-9"]);
    assert_eq!(code, Some(3));
    signal(&child, Signal::INT);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert_eq!((left(dir.path()), processes(dir.path())), (Vec::<String>::new(), 0));
}

const PETS: &str = "\
apiVersion: example.org/v1
kind: Dog
metadata: {name: rex, namespace: pets}
---
apiVersion: v1
kind: Secret
metadata: {name: collar, namespace: pets}
stringData: {number: hush-hush}
---
# A mistake of its author's.
apiVersion: v1
kind: ConfigMap
metadata: {name: Food, namespace: pets}
";

const DEFINITIONS: &str = "\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: pets}
- apiVersion: apiextensions.k8s.io/v1
  kind: CustomResourceDefinition
  metadata: {name: dogs.example.org}
  spec:
    group: example.org
    names: {kind: Dog, plural: dogs}
    scope: Namespaced
    versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
";

#[test]
fn the_images_manifests_are_applied_and_a_mistake_in_them_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let (manifests, place) = (dir.path().join("manifests"), dir.path().join("lab"));
    fs::create_dir(&manifests).expect("made");
    fs::write(manifests.join("10-pets.yaml"), PETS).expect("written");
    fs::write(manifests.join("20-definitions.yml"), DEFINITIONS).expect("written");
    let [manifests, shown] = [&manifests, &place].map(|path| path.display().to_string());
    let arguments = ["lab", "--json", "--machines", "3", "--manifests", &manifests, "--dir", &shown, "--log", "debug"];
    let child = muster(dir.path(), &arguments).stdout(Stdio::piped()).spawn().expect("the lab starts");
    let mut lab = Running(child);
    wait_until_ready(&mut lab.0);
    let ask = |machine: usize, what: &str| {
        let machine = format!("lab-{machine}");
        let asked = muster(dir.path(), &[what, "--machine", &machine, "--lab", &shown, "--json"]).output();
        serde_json::from_slice::<Value>(&asked.expect("muster starts").stdout).unwrap_or(Value::Null)
    };
    let begun = Instant::now();
    let applier = loop {
        if let Some(machine) = (1..=3).find(|machine| ask(*machine, "status")["manifests"]["applied"] == 4) {
            break machine;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "{:#}", ask(1, "status"));
        sleep(Duration::from_millis(50));
    };
    let said = ask(applier, "explain").to_string();
    let mistake = "10-pets.yaml, document 3): status 422: ConfigMap \\\"Food\\\" is invalid";
    assert!(said.contains("refused") && said.contains("ConfigMap pets/Food (") && said.contains(mistake), "{said}");
    assert!(said.contains("4 of 5 objects are applied"), "{said}");
    for machine in 1..=3 {
        let log = fs::read_to_string(place.join(format!("lab-{machine}/agent.log"))).expect("a log");
        assert!(!log.contains("hush-hush"), "what a Secret holds is in the log of lab-{machine}");
        assert!(!log.contains("begins step=\"reset\""), "lab-{machine} was reset");
    }
    signal(&lab.0, Signal::INT);
    assert_eq!(lab.0.wait().expect("it ends").code(), Some(0));
}

#[test]
fn what_a_crashed_lab_left_does_not_hinder_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = muster(dir.path(), &["lab", "--json", "--machines", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the lab starts");
    wait_until_ready(&mut child);
    signal(&child, Signal::KILL);
    child.wait().expect("it ends");
    assert_eq!(left(dir.path()).len(), 1);
    assert_formed(&lab(dir.path(), &["--machines", "3"]), 3, 3);
    assert_eq!((left(dir.path()), processes(dir.path())), (Vec::<String>::new(), 0));
}

#[test]
fn agents_killed_at_random_moments_still_form_one_cluster() {
    let dir = tempfile::tempdir().expect("a directory");
    for seed in ["1", "2", "3"] {
        // Where two of three founders are killed before their etcd has written anything the attempt is given up after ten minutes.
        let patient = ["--timeout", "900"];
        let output =
            lab(dir.path(), &[&["--kill-random", "4", "--seed", seed, "--pace", "0.05"], &patient[..]].concat());
        assert_formed(&output, 5, 3);
        let (events, _) = events(&output);
        assert_eq!(events.iter().filter(|event| event["event"] == "killed").count(), 4);
        assert_eq!(events.iter().filter(|event| event["event"] == "charter").count(), 1);
    }
}

#[test]
fn a_machine_whose_kubeadm_fails_once_joins_all_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = ["--fault", "lab-1=fail-once:kubelet-start", "--fault", "lab-4=fail-once:preflight"];
    assert_formed(&lab(dir.path(), &faults), 5, 3);
}

#[test]
fn whatever_kubeadm_does_wrong_once_at_any_phase_the_cluster_forms() {
    let dir = tempfile::tempdir().expect("a directory");
    let phases = [
        "version",
        "preflight",
        "certs",
        "kubeconfig",
        "kubelet-start",
        "control-plane",
        "etcd",
        "upload-config",
        "bootstrap-token",
        "addon",
        "join/preflight",
        "join/control-plane-prepare",
        "join/kubelet-start",
        "join/etcd-join",
        "reset",
    ];
    let whats = ["fail", "die", "nonsense"];
    // Each machine meets three phases that go wrong, each in another way; whoever inits meets its own.
    for round in 0..phases.len() / 3 {
        let faults = (1..=4).map(|machine| {
            let three = (0..3).map(|which| {
                let (phase, what) = (phases[which * 5 + round], whats[(which + round + machine) % 3]);
                format!("lab-{machine}={what}-once:{phase}")
            });
            three.collect::<Vec<_>>()
        });
        let faults: Vec<String> = faults.flatten().flat_map(|fault| ["--fault".to_owned(), fault]).collect();
        let arguments =
            [&["--machines", "4", "--control-planes", "3"][..], &faults.iter().map(String::as_str).collect::<Vec<_>>()];
        assert_formed(&lab(dir.path(), &arguments.concat()), 4, 3);
    }
}

/// kubeadm that does its work and is killed before it can say so leaves a member that votes: a machine that works is not
/// taken down for it.
#[test]
fn a_machine_whose_etcd_member_votes_is_not_reset_because_kubeadm_died() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("lab");
    let path = place.display().to_string();
    let dies: Vec<String> = (1..=3).map(|machine| format!("lab-{machine}=die-once:control-plane-join/etcd")).collect();
    // One of them cannot run kubeadm at first, so etcd is begun by one, and the others join it in turn.
    let mut arguments = vec!["--machines", "3", "--control-planes", "3", "--keep", "--dir", &path];
    arguments.extend(["--fault", "lab-1=fail-once:version"]);
    arguments.extend(dies.iter().flat_map(|fault| ["--fault", fault.as_str()]));
    assert_formed(&lab(dir.path(), &arguments), 3, 3);
    let logs: Vec<String> = (1..=3)
        .map(|machine| fs::read_to_string(place.join(format!("lab-{machine}/agent.log"))).expect("a log"))
        .collect();
    let with = |words: &str| logs.iter().filter(|log| log.contains(words)).count();
    assert_eq!(with("it votes all the same"), 2, "of one founder and two joins");
    assert_eq!((with("gave its etcd membership up"), with("step=\"reset\"")), (0, 0), "nothing is taken down");
}

/// The last step of a join fails three times on every machine: it is tried again, and nothing is reset.
#[test]
fn a_last_step_that_fails_is_tried_again_and_resets_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("lab");
    let path = place.display().to_string();
    let fails: Vec<String> = (1..=3)
        .flat_map(|machine| {
            ["mark-control-plane", "control-plane-join/mark-control-plane"]
                .map(|phase| format!("lab-{machine}=nonsense-once:{phase}"))
        })
        .collect();
    let mut arguments = vec!["--machines", "3", "--control-planes", "3", "--keep", "--dir", &path];
    arguments.extend(fails.iter().flat_map(|fault| ["--fault", fault.as_str()]));
    assert_formed(&lab(dir.path(), &arguments), 3, 3);
    for machine in 1..=3 {
        let log = fs::read_to_string(place.join(format!("lab-{machine}/agent.log"))).expect("a log");
        assert!(!log.contains("step=\"reset\""), "lab-{machine} was reset");
    }
}

#[test]
fn a_lab_that_cannot_form_says_so_and_whom_it_waits_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let output =
        lab(dir.path(), &["--machines", "3", "--control-planes", "1", "--fault", "lab-3=too-old", "--timeout", "8"]);
    let (_, last) = events(&output);
    assert_eq!((output.status.code(), &last["ready"]), (Some(1), &false.into()));
    let third = &last["machines"][2];
    assert_ne!(third["phase"], "ready");
    assert!(third["waiting"].to_string().contains("kubeadm"), "{third:#}");
    assert_eq!((left(dir.path()), processes(dir.path())), (Vec::<String>::new(), 0));
}

/// Every private thing in a lab's files: the mesh key, identities' seeds, private keys.
fn secrets(lab: &Path) -> Vec<(String, Vec<u8>)> {
    let config = fs::read_to_string(lab.join("muster.toml")).expect("the configuration");
    let mesh_key = config.lines().find_map(|line| line.strip_prefix("mesh_key = ")).expect("a mesh key");
    let mut secrets = vec![("mesh key".to_owned(), mesh_key.trim_matches('"').as_bytes().to_vec())];
    for entry in fs::read_dir(lab).expect("the lab").flatten().filter(|entry| entry.path().is_dir()) {
        let root = entry.path();
        let state = fs::read(root.join("var/lib/muster/state")).expect("the state");
        let id = fs::read_to_string(root.join("agent.log")).expect("the log");
        let seed = state.windows(32).find(|window| {
            let seed: [u8; 32] = (*window).try_into().expect("32 bytes");
            id.contains(&muster_wire::Identity::from_seed(&seed).machine().to_string())
        });
        secrets.push((format!("seed in {}", root.display()), seed.expect("the state holds the seed").to_vec()));
        for file in fs::read_dir(root.join("etc/kubernetes/pki")).into_iter().flatten().flatten() {
            if file.path().extension().is_some_and(|extension| extension == "key") {
                let pem = fs::read_to_string(file.path()).expect("a key");
                let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-') && line.len() > 30).collect();
                secrets.push((file.path().display().to_string(), lines[lines.len() / 2].as_bytes().to_vec()));
            }
        }
    }
    secrets
}

#[test]
fn a_lab_records_every_machine_and_no_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let (place, records) = (dir.path().join("lab"), dir.path().join("records"));
    let path = |path: &Path| path.display().to_string();
    let output = lab(dir.path(), &["--machines", "3", "--keep", "--dir", &path(&place), "--record", &path(&records)]);
    assert_formed(&output, 3, 3);
    let recordings: Vec<Vec<u8>> = fs::read_dir(&records)
        .expect("the recordings")
        .map(|entry| fs::read(entry.expect("an entry").path()).expect("reads"))
        .collect();
    assert_eq!(recordings.len(), 3);
    let secrets = secrets(&place);
    assert!(secrets.len() > 3 + 3 && secrets.iter().all(|(_, secret)| secret.len() >= 30));
    for recording in &recordings {
        let turns = muster_protocol::record::Recording::open(recording).expect("opens");
        let joined = turns.filter(|turn| {
            let done = turn.as_ref().expect("is whole").done.iter().flatten();
            done.clone().any(|doing| doing.what.starts_with("says phase: Ready"))
        });
        assert_eq!(joined.count(), 1);
        for (whose, secret) in &secrets {
            assert!(!recording.windows(secret.len()).any(|window| window == secret), "{whose} is in a recording");
        }
    }
}

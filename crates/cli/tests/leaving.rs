//! `muster remove` and `muster reset`, in a lab: real agents as processes, the rehearsal kubeadm.

#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long something that must come is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// A lab of five machines, three of them control planes; ended when dropped.
struct Lab {
    child: Child,
    dir: tempfile::TempDir,
}

fn muster(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.args(arguments).env("TMPDIR", dir).stdin(Stdio::null());
    command
}

impl Lab {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut child = muster(dir.path(), &["lab", "--json"]).stdout(Stdio::piped()).spawn().expect("the lab starts");
        let output = child.stdout.take().expect("its output");
        let lab = Self { child, dir };
        let lines = BufReader::new(output).lines().map(|line| line.expect("a line"));
        let mut events = lines.map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
        let last = events.find(|event| event["ready"].is_boolean()).expect("it says what came of it");
        assert_eq!(last["ready"], true, "{last:#}");
        lab
    }

    fn ask(&self, machine: &str, arguments: &[&str]) -> Output {
        muster(self.dir.path(), &[arguments, &["--machine", machine]].concat()).output().expect("it runs")
    }

    fn json(&self, machine: &str, arguments: &[&str]) -> Value {
        let output = self.ask(machine, &[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {output:?}"))
    }

    /// The names of those in a role, as a machine sees the others.
    fn others(&self, machine: &str, role: &str) -> Vec<String> {
        let status = self.json(machine, &["status"]);
        let peers = status["peers"].as_array().expect("peers").iter();
        let named = |peer: &Value| peer["name"].as_str().unwrap_or_default().to_owned();
        peers.filter(|peer| peer["role"] == role).map(named).collect()
    }

    fn wait_for(&self, machine: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let output = self.ask(machine, &["status", "--json"]);
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if so(&status) {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "{machine} is never {what}: {status:#}");
            sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        let _ = kill_process(pid, Signal::INT);
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn machines_leave_for_good_and_come_back_as_others() {
    let lab = Lab::start();
    let worker = lab.others("lab-1", "worker").remove(0);
    let asked = if worker == "lab-2" { "lab-3" } else { "lab-2" };

    let unknown = lab.ask(asked, &["remove", "nobody", "--yes"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    assert!(text(&unknown.stderr).contains("lab-1"), "it names those that there are: {unknown:?}");
    let unasked = lab.ask(asked, &["remove", &worker]);
    assert_eq!(unasked.status.code(), Some(2), "nobody can be asked: {unasked:?}");
    let dry = lab.ask(asked, &["remove", &worker, "--dry-run"]);
    assert!(dry.status.success() && text(&dry.stdout).contains("nothing is changed"), "{dry:?}");
    assert!(lab.others(asked, "worker").contains(&worker) || asked == worker, "nothing was changed");
    let stays = lab.ask(asked, &["remove", &worker, "--withdraw"]);
    assert_eq!(stays.status.code(), Some(1), "no removal is wished: {stays:?}");

    let gone = lab.ask(asked, &["remove", &worker, "--yes"]);
    assert!(gone.status.success(), "{gone:?}");
    let out = lab.wait_for(&worker, "out", |status| status["removed"] == "out");
    assert_eq!(out["phase"], "halted");
    let identity = out["machine"].clone();

    // Whoever leads is taken out by another one, and leads no more.
    let leader = out["leader"].as_str().expect("a leader").to_owned();
    let peers = out["peers"].as_array().expect("peers");
    let leader = peers.iter().find(|peer| peer["machine"] == leader.as_str()).expect("it is here")["name"].clone();
    let leader = leader.as_str().expect("a name").to_owned();
    let left = lab.ask(&leader, &["reset", "--yes"]);
    assert!(left.status.success(), "{left:?}");
    lab.wait_for(&leader, "out", |status| status["removed"] == "out");

    // Two control planes are left; one of them is recreated, and so is the worker, which takes the free seat.
    let back = lab.ask(&worker, &["reset", "--rejoin", "--yes"]);
    assert!(back.status.success(), "{back:?}");
    let again = lab.wait_for(&worker, "Ready as another", |status| status["phase"] == "ready");
    assert_ne!(again["machine"], identity);
    assert_eq!(again["role"], "control-plane", "a seat was free");
    let plane = lab.others(&worker, "control-plane").remove(0);
    let before = lab.json(&plane, &["status"])["machine"].clone();
    let recreated = lab.ask(&plane, &["reset", "--rejoin", "--yes", "--json"]);
    assert!(recreated.status.success(), "{recreated:?}");
    assert!(text(&recreated.stdout).lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{recreated:?}");
    lab.wait_for(&plane, "Ready as another", |status| status["phase"] == "ready" && status["machine"] != before);
}

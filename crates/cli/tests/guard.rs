//! `muster guard` asks the agent where etcd would go on with what it had before the machine was switched on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

const MANIFEST: &str =
    "    - --name=m1\n    - --data-dir=/var/lib/etcd\n    - --initial-cluster=m1=https://10.0.0.1:2380\n";

/// A machine that has just been switched on, with etcd's data on its disk.
fn switched_on() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    for directory in ["etc/kubernetes/manifests", "var/lib/etcd/member/wal", "run"] {
        fs::create_dir_all(root.path().join(directory)).expect("made");
    }
    fs::write(root.path().join("etc/kubernetes/manifests/etcd.yaml"), MANIFEST).expect("written");
    root
}

fn guard(root: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.arg("guard").arg("--root").arg(root).arg("--socket").arg(root.join("socket")).args(words);
    command.env_remove("MUSTER_SOCKET").output().expect("muster runs")
}

/// An agent that gives these answers, one a question, and ends.
fn agent(root: &Path, answers: &'static [&'static str]) -> std::thread::JoinHandle<()> {
    let listener = UnixListener::bind(root.join("socket")).expect("bound");
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("asked");
            let mut asked = [0; 4096];
            let length = stream.read(&mut asked).expect("read");
            assert!(asked[..length].starts_with(b"GET /v1/start "), "another question");
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len())
                .expect("answered");
        }
    })
}

#[test]
fn the_kubelet_starts_once_the_agent_says_so() {
    let root = switched_on();
    let asked = agent(root.path(), &[r#"{"starts":false,"why":"it has met nobody"}"#, r#"{"starts":true,"why":null}"#]);
    let ran = guard(root.path(), &[]);
    asked.join().expect("asked twice");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success() && said.contains("the kubelet waits: it has met nobody"), "{said}");
    // It is started now: nobody is asked when it starts again.
    assert!(guard(root.path(), &[]).status.success());
}

#[test]
fn what_would_happen_is_said_at_once() {
    let root = switched_on();
    let asked = agent(root.path(), &[r#"{"starts":false,"why":"it has met nobody"}"#]);
    let ran = guard(root.path(), &["--dry-run", "--json"]);
    asked.join().expect("asked");
    let said: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    assert_eq!(ran.status.code(), Some(1));
    assert!(said["starts"] == false && said["agent"] == "waits" && said["why"] == "it has met nobody", "{said}");
    fs::remove_file(root.path().join("socket")).expect("removed");
    let said: serde_json::Value =
        serde_json::from_slice(&guard(root.path(), &["--dry-run", "--json"]).stdout).expect("JSON");
    assert!(said["starts"] == true && said["agent"] == "silent", "{said}");
    assert!(!root.path().join("run/muster-guard").exists(), "a dry run notes nothing");
}

#[test]
fn a_person_may_let_it_start() {
    let root = switched_on();
    let ran = guard(root.path(), &["--alone", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    assert!(ran.status.success() && said["agent"].is_null(), "{said}");
}

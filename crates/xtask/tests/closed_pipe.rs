//! `cargo xtask testbed status | head -1` closes the pipe, which is no mistake of anybody's.

#![forbid(unsafe_code)]

use std::process::{Command, Stdio};

#[test]
fn a_reader_that_is_gone_ends_every_command_quietly() {
    let state = tempfile::tempdir().expect("a directory");
    let state = state.path().to_str().expect("text");
    let commands: [&[&str]; 6] = [
        &["--help"],
        &["testbed", "--help"],
        // Whoever is not root is told so, and root that there is no such testbed.
        &["testbed", "status", "--state", state],
        &["testbed", "status", "--state", state, "--json"],
        &["testbed", "down", "--state", state],
        &["testbed", "down", "--state", state, "--json"],
    ];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let said = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .expect("starts");
        let complaint = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.code().is_some_and(|code| code <= 2), "{arguments:?}: {}: {complaint}", said.status);
        assert!(!complaint.contains("panic"), "{arguments:?}: {complaint}");
    }
}

//! `muster-sim list | head -1` closes the pipe, which is no mistake of anybody's.

use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_reader_that_is_gone_ends_every_command_quietly() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = concat!(env!("CARGO_TARGET_TMPDIR"), "/closed-pipe.html");
    let commands: [&[&str]; 9] = [
        &["--help"],
        &["list"],
        &["list", "--json"],
        &["completions", "bash"],
        &["run", "five"],
        &["run", "five", "--json"],
        &["run", "no-such-scenario", "--json"],
        &["sweep", "five", "--seeds", "0..2"],
        &["report", "five", "--out", page],
    ];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let said = Command::new(env!("CARGO_BIN_EXE_muster-sim"))
            .args(arguments)
            .current_dir(&folder)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .expect("starts");
        let complaint = String::from_utf8_lossy(&said.stderr);
        // As a shell counts a program that its reader's end has ended; clap's help ends well all the same.
        let quiet = said.status.code().is_some_and(|code| code == 141 || (code == 0 && arguments == ["--help"]));
        assert!(quiet, "{arguments:?}: {}: {complaint}", said.status);
        assert!(!complaint.contains("panic"), "{arguments:?}: {complaint}");
    }
}

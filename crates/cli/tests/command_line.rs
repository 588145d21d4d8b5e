//! Golden transcripts: what each command prints, word for word. `INSTA_UPDATE=always cargo test` writes them anew.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs muster in `dir` and gives its whole transcript.
fn transcript(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("TMPDIR", dir)
        .output()
        .expect("muster starts");
    let code = output.status.code().map_or("a signal".to_owned(), |code| code.to_string());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("$ muster {}\n{out}{err}[exit code {code}]\n", arguments.join(" "))
}

fn here() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

macro_rules! golden {
    ($name:literal, $dir:expr, $($arguments:expr),+ $(,)?) => {
        insta::assert_snapshot!($name, [$(transcript($dir, &$arguments)),+].join("\n"))
    };
}

#[test]
fn help_teaches() {
    let dir = here();
    golden!("help", dir.path(), ["--help"]);
    golden!("help-run", dir.path(), ["run", "--help"]);
    golden!("help-lab", dir.path(), ["lab", "--help"]);
    golden!("help-looking", dir.path(), ["status", "--help"], ["explain", "--help"], ["logs", "--help"]);
    golden!(
        "help-config",
        dir.path(),
        ["config", "--help"],
        ["config", "check", "--help"],
        ["config", "example", "--help"]
    );
    golden!("help-image", dir.path(), ["image", "--help"], ["image", "build", "--help"], ["image", "boot", "--help"]);
    golden!("version", dir.path(), ["version"], ["version", "--json"]);
}

#[test]
fn a_wrong_command_line_is_answered_with_what_was_meant() {
    let dir = here();
    golden!(
        "wrong-command-line",
        dir.path(),
        [],
        ["stauts"],
        ["lab", "--control-plane", "3"],
        ["lab", "--machines", "3", "--control-planes", "4"],
        ["lab", "--machines", "0"],
        ["lab", "--pace", "fast"],
        ["lab", "--fault", "hang"],
        ["lab", "--fault", "lab-9=hang:etcd"],
        ["status", "--machine", "lab-1", "--socket", "/x"],
        ["completions", "tcsh"],
    );
}

#[test]
fn an_image_is_planned_and_what_is_none_is_named() {
    let dir = here();
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let site = format!(
        "cluster = \"site\"\nmachines = 3\nmesh_key = \"{key}\"\n[kubernetes]\nmanifests = [\"/etc/muster/manifests\"]\n"
    );
    let path = dir.path().join("site.toml");
    fs::write(&path, site).expect("written");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
    let manifests = dir.path().join("files/etc/muster/manifests");
    fs::create_dir_all(&manifests).expect("made");
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: site}\n";
    fs::write(manifests.join("site.yaml"), namespace).expect("written");
    fs::write(dir.path().join("text.raw"), "no disk").expect("written");
    fs::write(dir.path().join("muster"), "").expect("written");
    let build = |more: &[&'static str]| {
        let begin = ["image", "build", "--config", "site.toml", "--muster", "muster", "--dry-run"];
        [&begin[..], more].concat()
    };
    golden!(
        "image",
        dir.path(),
        ["image", "build"],
        ["image", "build", "--rehearsal", "--dry-run"],
        build(&["--rehearsal"]),
        build(&["--rehearsal", "--add", "files", "--output", "raw-zst", "--output", "tar"]),
        build(&["--kubernetes", "none", "--add", "files"]),
        build(&["--kubernetes", "files", "--add", "files", "--json"]),
        build(&["--rehearsal", "--add", "files", "--command-line", "muster.machnes=4"]),
        build(&["--rehearsal", "--add", "files", "--from", "no/where"]),
        build(&["--rehearsal", "--add", "nowhere"]),
        ["image", "show", "text.raw"],
        ["image", "verify", "text.raw", "--json"],
        ["image", "show", "none.raw"],
    );
}

#[test]
fn without_an_agent_the_socket_is_named() {
    let dir = here();
    golden!(
        "no-agent",
        dir.path(),
        ["status", "--socket", "none.sock"],
        ["explain", "--socket", "none.sock"],
        ["logs", "--socket", "none.sock"],
    );
    let no_lab = transcript(dir.path(), &["status", "--machine", "lab-1"]);
    assert!(no_lab.contains("no lab runs; `muster lab` starts one") && no_lab.contains("[exit code 3]"), "{no_lab}");
}

#[test]
fn a_wrong_configuration_is_answered_with_every_mistake_and_its_line() {
    let dir = here();
    let wrong = "\
cluster = \"Site\"
machnes = 5
control_planes = 3
mesh_key = \"00112233\"

[discovery]
peers = [\"10.0.0.1:7390\", \"left\"]
version = \"v1.31.4\"
";
    fs::write(dir.path().join("wrong.toml"), wrong).expect("written");
    fs::write(dir.path().join("broken.toml"), "cluster = \"site\nmachines = 5\n").expect("written");
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let even = format!(
        "cluster = \"site\"\nmachines = 5\ncontrol_planes = 2\nmesh_key = \"{key}\"\n[state]\ndurable = true\n"
    );
    let even_path = dir.path().join("even.toml");
    fs::write(&even_path, even).expect("written");
    fs::set_permissions(&even_path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
    golden!(
        "config",
        dir.path(),
        ["config", "check", "wrong.toml"],
        ["config", "check", "wrong.toml", "--json"],
        ["config", "check", "broken.toml"],
        ["config", "check", "none.toml"],
        ["config", "check", "even.toml"],
        ["config", "check", "even.toml", "--set", "control_planes=3"],
        ["config", "check", "even.toml", "--set", "machines=1"],
        ["config", "check", "even.toml", "--json"],
        ["run", "--config", "wrong.toml"],
        ["run", "--config", "even.toml", "--listen", "here"],
        ["run", "--config", "even.toml", "--log", "muster=loud"],
    );
}

#[test]
fn an_example_is_taken_as_it_is() {
    let dir = here();
    let output = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["config", "example", "--cluster", "north", "--machines", "7", "--control-planes", "5"])
        .output()
        .expect("muster starts");
    fs::write(dir.path().join("muster.toml"), &output.stdout).expect("written");
    let checked = transcript(dir.path(), &["config", "check", "muster.toml"]);
    assert!(checked.contains("muster.toml is right: cluster north, 7 machines, 5 control planes"), "{checked}");
    let wrong = transcript(dir.path(), &["config", "example", "--cluster", "North"]);
    assert!(wrong.contains("`cluster` is \"North\"") && wrong.contains("[exit code 2]"), "{wrong}");
}

/// A pipe whose reader is gone before anything is written, as `| head -0`.
fn closed_pipe() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer
}

#[test]
fn a_reader_that_is_gone_ends_every_command_quietly() {
    let dir = here();
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let text = format!("cluster = \"site\"\nmachines = 3\nmesh_key = \"{key}\"\n");
    fs::write(dir.path().join("right.toml"), text).expect("written");
    fs::write(dir.path().join("wrong.toml"), "machnes = 5\n").expect("written");
    let commands: [(&[&str], i32); 20] = [
        (&["--help"], 0),
        (&["--version"], 0),
        (&["version"], 0),
        (&["version", "--json"], 0),
        (&["rehearsal-kubeadm", "version"], 0),
        (&["rehearsal-kubeadm", "version", "-o", "json"], 0),
        (&["rehearsal-kubeadm", "no-such-command"], 1),
        (&["completions", "bash"], 0),
        (&["completions", "zsh"], 0),
        (&["config", "check", "right.toml"], 0),
        (&["config", "check", "right.toml", "--json"], 0),
        (&["config", "check", "wrong.toml"], 2),
        (&["config", "check", "wrong.toml", "--json"], 2),
        (&["config", "show", "right.toml"], 0),
        (&["config", "example"], 0),
        (&["status", "--socket", "none.sock"], 3),
        (&["explain", "--socket", "none.sock"], 3),
        (&["logs", "--socket", "none.sock"], 3),
        (&["run", "--config", "wrong.toml"], 2),
        (&["lab", "--machines", "3", "--control-planes", "4"], 2),
    ];
    for (arguments, code) in commands {
        // Standard output alone, and both, as `2>&1 | head`.
        for both in [false, true] {
            let mut muster = Command::new(env!("CARGO_BIN_EXE_muster"));
            muster.args(arguments).current_dir(dir.path()).env_clear().stdout(closed_pipe());
            let said = if both {
                muster.stderr(closed_pipe()).output()
            } else {
                muster.stderr(std::process::Stdio::piped()).output()
            };
            let said = said.expect("muster starts");
            let complaint = String::from_utf8_lossy(&said.stderr);
            assert_eq!(said.status.code(), Some(code), "{arguments:?}: {complaint}");
            assert!(!complaint.contains("panic") && !complaint.contains("pipe"), "{arguments:?}: {complaint}");
        }
    }
}

#[test]
fn what_cannot_be_written_is_said_and_fails() {
    let full = || fs::File::options().write(true).open("/dev/full").expect("opens");
    for arguments in [vec!["version"], vec!["completions", "fish"], vec!["config", "example"]] {
        let said = Command::new(env!("CARGO_BIN_EXE_muster")).args(&arguments).stdout(full()).output().expect("starts");
        let complaint = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(1), "{arguments:?}: {complaint}");
        assert!(complaint.contains("cannot write to standard output") && complaint.contains("No space"), "{complaint}");
    }
}

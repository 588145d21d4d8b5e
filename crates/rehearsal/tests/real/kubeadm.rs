//! A kubeadm in a root directory of its own: the real one or the double.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use muster_kubeadm::{Command, Exit, FailureKind, Settled, outcome};

/// The version that a document or an argument has where it says `@VERSION@`; `@` alone is the root directory as kubeadm sees it.
const VERSION: &str = "@VERSION@";

pub(crate) struct Kubeadm {
    pub(crate) root: PathBuf,
    pub(crate) version: String,
    words: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    /// `root` as kubeadm sees it.
    pub(crate) inside: String,
    _dir: tempfile::TempDir,
}

/// How a run ended, and what class of failure muster takes it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) code: i32,
    pub(crate) kind: Option<FailureKind>,
}

pub(crate) struct Ran {
    pub(crate) verdict: Verdict,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// What kubeadm says last, after `error: `.
    pub(crate) fn error(&self) -> &str {
        let line = self.stderr.lines().rev().find_map(|line| line.strip_prefix("error: "));
        line.unwrap_or_default()
    }
}

impl Kubeadm {
    /// Writes a file below the root directory.
    pub(crate) fn put(&self, name: &str, text: &str) {
        std::fs::write(self.root.join(name), self.fill_in(text)).expect("is written");
    }

    pub(crate) fn run(&self, line: &str) -> Ran {
        let args: Vec<String> = line.split_whitespace().map(|word| self.fill_in(word)).collect();
        self.run_args(&args)
    }

    pub(crate) fn run_args(&self, args: &[String]) -> Ran {
        // Modes are compared: nothing depends on whose umask it is.
        let mut process = Process::new("sh");
        process.args(["-c", "umask 022; exec \"$@\"", "sh"]).args(&self.words).args(args);
        process.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = process.env_remove("KUBECONFIG").stdin(Stdio::null()).output().expect("sh runs");
        let code = output.status.code().unwrap_or(-1);
        let command = Command {
            phase: "compared".into(),
            program: "kubeadm".into(),
            args: Vec::new(),
            env: Vec::new(),
            limit: Duration::ZERO,
            tries: 1,
            settled: Settled::Never,
            starts_etcd_at: None,
        };
        let kind = outcome(&command, &Exit::Code(code), &output.stdout, &output.stderr).err().map(|failed| failed.kind);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { verdict: Verdict { code, kind }, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    fn fill_in(&self, text: &str) -> String {
        text.replace(VERSION, &self.version).replace("@", &self.inside)
    }
}

/// Says so where it is seen although the test passes, and fails where comparing is required.
fn not_compared(why: &str) {
    let words = format!("NOT COMPARED: {why}\n");
    assert!(std::env::var_os("MUSTER_KUBEADMS_REQUIRED").is_none_or(|value| value != "1"), "{words}");
    // Not by a macro, whose output nobody sees when a test passes.
    std::io::stderr().write_all(words.as_bytes()).expect("standard error is open");
}

pub(crate) fn real_and_double(minor: u32) -> Option<(Kubeadm, Kubeadm)> {
    let dir = std::env::var_os("MUSTER_KUBEADMS").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| "/var/cache/muster-testbed/kubeadms".into());
    let program = dir.join(format!("1.{minor}"));
    if !program.exists() {
        not_compared(&format!("no kubeadm 1.{minor} in {}", dir.display()));
        return None;
    }
    let Some(real) = real(&program) else {
        not_compared(&format!("kubeadm 1.{minor}: unshare cannot give it a root directory of its own here"));
        return None;
    };
    assert!(real.version.starts_with(&format!("v1.{minor}.")), "{} is {}", program.display(), real.version);
    let double = double(&real.version);
    Some((real, double))
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().to_owned();
    for below in ["etc", "var/lib", "tmp", "proc/net"] {
        std::fs::create_dir_all(root.join(below)).expect("a directory");
    }
    // A machine without a route, so that documents without an address are looked at all the same.
    for file in ["route", "ipv6_route"] {
        std::fs::write(root.join("proc/net").join(file), "").expect("is written");
    }
    (dir, root)
}

fn real(program: &Path) -> Option<Kubeadm> {
    let (dir, root) = directory();
    let inside = root.join("kubeadm");
    // The executable may be given as a symbolic link, which would lead nowhere in there.
    let program = program.canonicalize().expect("is there");
    std::fs::hard_link(&program, &inside).or_else(|_| std::fs::copy(&program, &inside).map(drop)).expect("is copied");
    let mut to_root = OsString::from("--root=");
    to_root.push(&root);
    let own = ["unshare", "--mount", "--net"].map(OsString::from);
    let user = ["--user", "--map-root-user"].map(OsString::from);
    let ways = [own.iter().chain(&user).cloned().collect::<Vec<_>>(), own.to_vec()];
    let mut real = Kubeadm {
        root,
        version: String::new(),
        words: Vec::new(),
        environment: Vec::new(),
        inside: String::new(),
        _dir: dir,
    };
    for way in ways {
        real.words = way.into_iter().chain([to_root.clone(), "/kubeadm".into()]).collect();
        let ran = real.run("version -o short");
        if ran.verdict.code == 0 {
            real.version = ran.stdout.trim().to_owned();
            return Some(real);
        }
    }
    None
}

fn double(version: &str) -> Kubeadm {
    let (dir, root) = directory();
    let below = |name: &str| root.join(name).into_os_string();
    let environment = vec![
        ("MUSTER_REHEARSAL_DIR", below("etc/kubernetes")),
        ("MUSTER_REHEARSAL_KUBELET_DIR", below("var/lib/kubelet")),
        ("MUSTER_REHEARSAL_VERSION", version.into()),
    ];
    let inside = root.display().to_string();
    let words = vec![env!("CARGO_BIN_EXE_rehearsal-kubeadm").into()];
    Kubeadm { root, version: version.to_owned(), words, environment, inside, _dir: dir }
}

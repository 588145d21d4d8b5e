//! Running kubeadm: in a process group of its own, with a time limit, its words to the log, nothing left behind.
//!
//! What it prints goes to files, not to pipes: kubeadm under way outlives an agent that is replaced or killed, and a program whose reader is gone
//! is ended by its own output. An agent that starts waits for what an earlier one has left running ([`Former`]).

mod former;
mod output;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use muster_kubeadm::work::Ran;
use muster_kubeadm::{Command, Exit, redact};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;
use tracing::{debug, warn};

pub(crate) use former::Former;
use output::Output;

use crate::proxy::is_kept_back;

/// How often it is looked for more output.
const LOOK: Duration = Duration::from_millis(20);

/// A process that was killed and lives longer is told of.
const DIES_WITHIN: Duration = Duration::from_secs(5);

/// Where runs are noted, and whether they outlive this agent.
#[derive(Debug)]
pub(crate) struct Runs {
    directory: PathBuf,
    count: AtomicU64,
    /// Whether the agent ends and what it has started goes on.
    leaves: AtomicBool,
    /// The process groups that were killed and may not have died yet.
    dying: Mutex<Vec<u32>>,
}

impl Runs {
    /// Runs that are noted in this directory, which nobody else may read.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, count: AtomicU64::new(0), leaves: AtomicBool::new(false), dying: Mutex::default() }
    }

    /// From now on nothing that runs is killed because nobody waits for it any more.
    pub(crate) fn leave(&self) {
        self.leaves.store(true, Ordering::Relaxed);
    }

    /// Waits until everything that was killed is dead. A process in the midst of a call of the kernel, as one that writes to a slow
    /// disk, dies when that returns: nothing may be begun beside it.
    pub(crate) async fn died(&self) {
        let since = Instant::now();
        let mut told = false;
        loop {
            let dying = {
                let mut dying = self.dying.lock().unwrap_or_else(PoisonError::into_inner);
                dying.retain(|leader| former::lives(*leader));
                dying.clone()
            };
            if dying.is_empty() {
                return;
            }
            if since.elapsed() > DIES_WITHIN && !std::mem::replace(&mut told, true) {
                warn!(?dying, "these process groups were killed and do not die; nothing else is begun meanwhile");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Runs `command`. `line` sees every line of its output. Dropping the future kills the group, unless all of them are left.
pub(crate) async fn run(
    command: &Command,
    env: &[(String, String)],
    runs: &Runs,
    line: &(impl Fn(&str) + Sync),
) -> Ran {
    let not_started =
        |why: String| Ran { exit: Exit::NotStarted(why), stdout: Vec::new(), stderr: Vec::new(), note: None };
    let mut builder = tokio::process::Command::new(&command.program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_kept_back) {
            builder.env_remove(name);
        }
    }
    let note = runs.directory.join(format!("{}-{}", std::process::id(), runs.count.fetch_add(1, Ordering::Relaxed)));
    let outputs = (Output::begin(&note.with_extension("out")), Output::begin(&note.with_extension("err")));
    let (Ok((mut out, stdout)), Ok((mut err, stderr))) = outputs else {
        return not_started(format!("{}: what kubeadm prints cannot be kept there", runs.directory.display()));
    };
    builder
        .args(&command.args)
        .envs(env.iter().chain(&command.env).map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0);
    debug!(phase = command.phase, program = %command.program.display(), "runs");
    let mut child = match builder.spawn() {
        Ok(child) => child,
        Err(why) => return not_started(format!("{}: {why}", command.program.display())),
    };
    let group = Group { leader: child.id(), note: note.with_extension("run"), runs };
    if let Some(pid) = child.id()
        && let Err(why) = former::note(&note.with_extension("run"), pid, command)
    {
        warn!(phase = command.phase, "another agent would not wait for this run: {why}");
    }
    let seen = |text: &str| {
        debug!(phase = command.phase, "{}", redact(text));
        line(text);
    };
    let begun = Instant::now();
    let exit = loop {
        let ended = tokio::time::timeout(LOOK, ended(&mut child)).await;
        out.read(&seen);
        err.read(&seen);
        match ended {
            Ok(exit) => break exit,
            Err(_) if begun.elapsed() > command.limit => {
                warn!(phase = command.phase, limit = ?command.limit, "took too long and is killed");
                group.kill();
                let _ = child.wait().await;
                runs.died().await;
                break Exit::TimedOut;
            }
            Err(_) => {}
        }
    };
    // Ended by itself: what it started on purpose, as a server, may live on.
    std::mem::forget(group);
    // It was not killed for nothing if this fails: the next agent finds that it runs no more.
    let _ = std::fs::remove_file(note.with_extension("run"));
    Ran { exit, stdout: out.end(&seen), stderr: err.end(&seen), note: None }
}

/// A process group that is killed when nobody waits for it any more.
struct Group<'a> {
    leader: Option<u32>,
    note: PathBuf,
    runs: &'a Runs,
}

impl Group<'_> {
    fn kill(&self) {
        kill(self.leader);
        self.runs.dying.lock().unwrap_or_else(PoisonError::into_inner).extend(self.leader);
    }
}

/// Kills a process group. It may have ended in the meantime.
fn kill(leader: Option<u32>) {
    if let Some(pid) = leader.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        if !self.runs.leaves.load(Ordering::Relaxed) {
            self.kill();
            let _ = std::fs::remove_file(&self.note);
        }
    }
}

async fn ended(child: &mut Child) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match child.wait().await {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        },
        Err(why) => Exit::NotStarted(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(directory: &tempfile::TempDir, text: &str) -> Command {
        let path = directory.path().join("kubeadm");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("made executable");
        Command::version(path)
    }

    async fn ran(text: &str, limit: Option<Duration>) -> (Ran, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = script(&directory, text);
        command.limit = limit.unwrap_or(command.limit);
        let runs = Runs::new(directory.path().join("runs"));
        std::fs::create_dir(runs.directory()).expect("made");
        let ran = run(&command, &[("SEEN".to_owned(), "yes".to_owned())], &runs, &|_| {}).await;
        assert_eq!(std::fs::read_dir(runs.directory()).expect("reads").count(), 0, "nothing is left behind");
        (ran, directory)
    }

    #[tokio::test]
    async fn output_and_exit_come_back() {
        let (ran, _directory) = ran("echo out $SEEN; echo err >&2; exit 3", None).await;
        assert_eq!(ran.exit, Exit::Code(3));
        assert_eq!(ran.stdout, b"out yes\n");
        assert_eq!(ran.stderr, b"err\n");
    }

    #[tokio::test]
    async fn a_hang_is_killed_with_all_it_started() {
        let (ran, directory) =
            ran("(sleep 100000 & echo $! > \"$(dirname $0)/child\"); sleep 100000", Some(Duration::from_millis(300)))
                .await;
        assert_eq!(ran.exit, Exit::TimedOut);
        let child = std::fs::read_to_string(directory.path().join("child")).expect("it began");
        let status = || std::fs::read_to_string(format!("/proc/{}/status", child.trim())).unwrap_or_default();
        // It has its signal, and dies of it as soon as it is given a processor. Otherwise this never ends.
        while !(status().is_empty() || status().contains("State:\tZ")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn whoever_is_ended_on_request_is_dead_with_all_it_started_before_that_is_said() {
        let directory = tempfile::tempdir().expect("a directory");
        let command = script(&directory, "(sleep 100000 & echo $! > \"$(dirname $0)/child\"); sleep 100000");
        let runs = Runs::new(directory.path().join("runs"));
        std::fs::create_dir(runs.directory()).expect("made");
        let child = directory.path().join("child");
        let begun = || std::fs::read_to_string(&child).ok().and_then(|text| text.trim().parse::<u32>().ok());
        let child = {
            let mut running = std::pin::pin!(run(&command, &[], &runs, &|_| {}));
            loop {
                tokio::select! {
                    _ = &mut running => panic!("it goes on until it is told to end"),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
                if let Some(child) = begun() {
                    break child;
                }
            }
        };
        runs.died().await;
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        assert!(status.is_empty() || status.contains("State:\tZ"), "{status}");
        // With nothing to wait for it returns at once.
        runs.died().await;
    }

    #[tokio::test]
    async fn one_that_leaves_a_server_behind_is_not_waited_for() {
        let (ran, _directory) = ran("sleep 20 & echo started", None).await;
        assert_eq!(ran.exit, Exit::Code(0));
        assert_eq!(ran.stdout, b"started\n");
    }

    #[tokio::test]
    async fn nonsense_and_endless_lines_are_bounded() {
        let (ran, _directory) = ran("head -c 3000000 /dev/urandom; exit 1", None).await;
        assert_eq!(ran.exit, Exit::Code(1));
        assert!(ran.stdout.len() <= output::KEPT_MAX, "{}", ran.stdout.len());
    }

    #[tokio::test]
    async fn a_death_and_a_missing_program_are_told_apart() {
        let (ran, _directory) = ran("kill -9 $$", None).await;
        assert_eq!(ran.exit, Exit::Signal(9));
        let directory = tempfile::tempdir().expect("a directory");
        let runs = Runs::new(directory.path().to_owned());
        let missing = run(&Command::version("/nonexistent/kubeadm".into()), &[], &runs, &|_| {}).await;
        assert!(matches!(missing.exit, Exit::NotStarted(why) if why.contains("/nonexistent/kubeadm")));
    }

    #[tokio::test]
    async fn what_an_agent_leaves_running_is_found_by_the_next_one_and_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let command = script(
            &directory,
            "while [ ! -e \"$(dirname $0)/go\" ]; do sleep 0.02; done; echo printed; : > \"$(dirname $0)/done\"",
        );
        let runs = Runs::new(directory.path().join("runs"));
        std::fs::create_dir(runs.directory()).expect("made");
        let noted = || {
            std::fs::read_dir(runs.directory())
                .expect("reads")
                .flatten()
                .any(|entry| entry.path().extension().is_some_and(|end| end == "run"))
        };
        {
            let mut running = std::pin::pin!(run(&command, &[], &runs, &|_| {}));
            while !noted() {
                tokio::select! {
                    _ = &mut running => panic!("it goes on until it is told to end"),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
            runs.leave();
        }
        let mut former = Former::of(runs.directory());
        assert_eq!(former.running(), ["version"]);
        std::fs::write(directory.path().join("go"), "").expect("written");
        former.wait().await;
        assert!(directory.path().join("done").exists(), "it came to its end");
        assert_eq!(std::fs::read_dir(runs.directory()).expect("reads").count(), 0);
    }
}

//! Running kubeadm: in a process group of its own, with a time limit, its words to the log, nothing left behind.

use std::process::Stdio;
use std::time::Duration;

use muster_kubeadm::work::Ran;
use muster_kubeadm::{Command, Exit, OUTPUT_LIMIT, redact};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Child;
use tracing::{debug, warn};

use crate::proxy::is_kept_back;

/// Longest line of output that is logged, in bytes; the rest of it is dropped.
const LINE_BYTES_MAX: u64 = 8 * 1024;

/// How long output is waited for once the process has ended: a child that it left behind may hold its pipes open.
const LINGER: Duration = Duration::from_millis(200);

/// Runs `command`. `line` sees every line of its output. Dropping the future kills the group.
pub(crate) async fn run(command: &Command, env: &[(String, String)], line: &(impl Fn(&str) + Sync)) -> Ran {
    let mut builder = tokio::process::Command::new(&command.program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_kept_back) {
            builder.env_remove(name);
        }
    }
    builder
        .args(&command.args)
        .envs(env.iter().chain(&command.env).map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    debug!(phase = command.phase, program = %command.program.display(), "runs");
    let mut child = match builder.spawn() {
        Ok(child) => child,
        Err(why) => {
            let why = format!("{}: {why}", command.program.display());
            return Ran { exit: Exit::NotStarted(why), stdout: Vec::new(), stderr: Vec::new(), note: None };
        }
    };
    let group = Group(child.id());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = {
        let ended = tokio::time::timeout(command.limit, ended(&mut child));
        let reading = async {
            tokio::join!(
                follow(stdout, &mut out, &command.phase, line),
                follow(stderr, &mut err, &command.phase, line)
            );
        };
        tokio::pin!(ended, reading);
        let mut read = false;
        let exit = tokio::select! {
            exit = &mut ended => exit,
            () = &mut reading => {
                read = true;
                ended.await
            }
        };
        // What it printed last may still be in the pipes.
        if exit.is_ok() && !read {
            let _ = tokio::time::timeout(LINGER, reading).await;
        }
        exit
    };
    let exit = exit.unwrap_or_else(|_| {
        warn!(phase = command.phase, limit = ?command.limit, "took too long and is killed");
        Exit::TimedOut
    });
    if exit == Exit::TimedOut {
        group.kill();
        let _ = child.wait().await;
    }
    // Ended by itself: what it started on purpose, as a server, may live on.
    std::mem::forget(group);
    Ran { exit, stdout: out, stderr: err, note: None }
}

/// A process group that is killed when nobody waits for it any more.
struct Group(Option<u32>);

impl Group {
    fn kill(&self) {
        let pid = self.0.and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            // It may have ended in the meantime.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
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

/// Logs lines and keeps the end of them. Bytes that are no text are shown as such; a line without end is cut.
async fn follow(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, phase: &str, line: &(impl Fn(&str) + Sync)) {
    let Some(pipe) = pipe else { return };
    let mut reader = BufReader::new(pipe);
    loop {
        let mut bytes = Vec::new();
        match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end();
        debug!(phase, "{}", redact(text));
        line(text);
        kept.extend_from_slice(&bytes);
        if kept.len() > OUTPUT_LIMIT * 2 {
            kept.drain(..kept.len() - OUTPUT_LIMIT);
        }
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
        (run(&command, &[("SEEN".to_owned(), "yes".to_owned())], &|_| {}).await, directory)
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
    async fn one_that_leaves_a_server_behind_is_not_waited_for() {
        let (ran, _directory) = ran("sleep 20 & echo started", None).await;
        assert_eq!(ran.exit, Exit::Code(0));
        assert_eq!(ran.stdout, b"started\n");
    }

    #[tokio::test]
    async fn nonsense_and_endless_lines_are_bounded() {
        let (ran, _directory) = ran("head -c 3000000 /dev/urandom; exit 1", None).await;
        assert_eq!(ran.exit, Exit::Code(1));
        assert!(ran.stdout.len() <= OUTPUT_LIMIT * 2 + LINE_BYTES_MAX as usize);
    }

    #[tokio::test]
    async fn a_death_and_a_missing_program_are_told_apart() {
        let (ran, _directory) = ran("kill -9 $$", None).await;
        assert_eq!(ran.exit, Exit::Signal(9));
        let missing = run(&Command::version("/nonexistent/kubeadm".into()), &[], &|_| {}).await;
        assert!(matches!(missing.exit, Exit::NotStarted(why) if why.contains("/nonexistent/kubeadm")));
    }
}

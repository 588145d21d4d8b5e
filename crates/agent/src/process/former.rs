//! Runs that an earlier start of the agent has left: each is noted in a file, with what tells its process from a later one of the same number.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_kubeadm::Command;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

/// How often it is looked whether they have ended.
const LOOK: Duration = Duration::from_millis(100);

/// Longest note in bytes.
const NOTE_BYTES_MAX: u64 = 4 << 10;

/// The kernel's ticks in a second, as it tells them (`USER_HZ`, time(7)).
const TICKS: u64 = 100;

/// What is noted of a run.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    pid: u32,
    /// When its process started, in the kernel's ticks since the boot.
    started: u64,
    phase: String,
    /// How long it may take, in seconds.
    limit_s: u64,
}

impl Note {
    fn runs(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Whether it has taken longer than it may, by the clock that nobody sets.
    fn is_late(&self) -> bool {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let now_s: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default();
        now_s as u64 > self.started / TICKS + self.limit_s
    }
}

/// Notes that a run goes on.
pub(super) fn note(path: &Path, pid: u32, command: &Command) -> std::io::Result<()> {
    let Some(started) = started(pid) else { return Ok(()) };
    let note = Note { pid, started, phase: command.phase.clone(), limit_s: command.limit.as_secs() };
    fs::write(path, serde_json::to_vec(&note)?)
}

/// When a process started, if there is one of this number that has not ended: field 22 of its stat (proc(5)).
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name may hold anything; the fields after it are numbers and a letter.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ended = matches!(fields.first(), Some(&("Z" | "X")));
    fields.get(19)?.parse().ok().filter(|_| !ended)
}

/// Whether a process group has a member that has not ended: fields 3 and 5 of their stats (proc(5)).
pub(super) fn lives(leader: u32) -> bool {
    let Some(group) = rustix::process::Pid::from_raw(leader.cast_signed()) else { return false };
    // Those that ended and wait for their parent count for the kernel.
    rustix::process::test_kill_process_group(group).is_ok() && {
        let stats = fs::read_dir("/proc").into_iter().flatten().flatten();
        stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok()).any(|stat| {
            let Some((_, fields)) = stat.rsplit_once(')') else { return false };
            let fields: Vec<&str> = fields.split_whitespace().take(3).collect();
            let of = fields.get(2).and_then(|text| text.parse().ok()) == Some(leader);
            of && !matches!(fields.first(), Some(&("Z" | "X")))
        })
    }
}

/// What was left running.
#[derive(Debug, Default)]
pub(crate) struct Former(Vec<(PathBuf, Note)>);

impl Former {
    /// The runs noted in a directory that go on. Notes of others are removed, and what cannot be read is taken for one of those: a note is written
    /// at once, and whose is torn has no run.
    pub(crate) fn of(directory: &Path) -> Self {
        let mut running = Vec::new();
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let short = entry.metadata().is_ok_and(|metadata| metadata.len() <= NOTE_BYTES_MAX);
            let read = || serde_json::from_slice::<Note>(&fs::read(&path).ok()?).ok();
            match short.then(read).flatten().filter(Note::runs) {
                Some(note) => running.push((path, note)),
                None => drop(fs::remove_file(&path)),
            }
        }
        Self(running)
    }

    /// What they do, in kubeadm's words.
    pub(crate) fn running(&self) -> Vec<&str> {
        self.0.iter().map(|(_, note)| note.phase.as_str()).collect()
    }

    /// Waits until all of them have ended. One that takes longer than it may is killed.
    pub(crate) async fn wait(&mut self) {
        if !self.0.is_empty() {
            let phases = self.running().join(", ");
            info!(phases, "kubeadm of an earlier start of muster still runs, and is waited for");
        }
        let mut killed = false;
        while !self.0.is_empty() {
            self.0.retain(|(path, note)| {
                let runs = note.runs();
                if runs && note.is_late() {
                    if !std::mem::replace(&mut killed, true) {
                        warn!(phase = note.phase, "took too long and is killed");
                    }
                    super::kill(Some(note.pid));
                }
                if !runs {
                    let _ = fs::remove_file(path);
                }
                runs
            });
            tokio::time::sleep(LOOK).await;
        }
    }
}

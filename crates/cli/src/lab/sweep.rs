//! Ending what a lab started: its agents, and what their rehearsal kubeadm left running.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long what was asked to stop may take before it is killed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Processes of this user that are muster itself and were started with a path below `dir`.
fn processes(dir: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let me = std::process::id();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let below = [dir.as_os_str().as_bytes(), b"/"].concat();
    let ours = |pid: &i32| {
        let named = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid as u32 != me && named.windows(below.len()).any(|window| window == below) && is_muster(*pid)
    };
    pids.filter(ours).filter_map(Pid::from_raw).collect()
}

/// Whether a process runs this very program; one whose file was replaced since has another name and counts as well.
fn is_muster(pid: i32) -> bool {
    let name =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().trim_end_matches(" (deleted)").to_owned());
    let theirs = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let ours = std::env::current_exe().ok();
    theirs.as_deref().and_then(name).is_some_and(|theirs| ours.as_deref().and_then(name) == Some(theirs))
}

/// Ends everything that runs below `dir`: asked first, killed when it does not listen.
pub(crate) fn end_processes(dir: &Path) {
    let begin = Instant::now();
    let mut signal = Signal::TERM;
    loop {
        let left = processes(dir);
        if left.is_empty() || begin.elapsed() > 2 * PATIENCE {
            return;
        }
        if begin.elapsed() > PATIENCE {
            signal = Signal::KILL;
        }
        for pid in left {
            // One that ended meanwhile needs no signal.
            let _ = kill_process(pid, signal);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Children of a process: what systemd would end together with it.
pub(crate) fn children(parent: u32) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which is in parentheses and may hold anything: state, then the parent.
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        after_name.split(' ').nth(1).and_then(|ppid| ppid.parse().ok()) == Some(parent)
    };
    pids.filter(is_child).filter_map(Pid::from_raw).collect()
}

/// Removes a lab's directory. Something that ends at this moment may still write: then once more.
pub(crate) fn remove(dir: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            std::thread::sleep(Duration::from_millis(50));
            fs::remove_dir_all(dir)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

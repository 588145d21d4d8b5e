//! Processes of this machine, as `/proc` shows them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PAUSE: Duration = Duration::from_millis(50);

/// How long a process that was killed may take to be gone.
const KILLED: Duration = Duration::from_secs(20);

/// A process, and what it was called with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pid: i32,
    arguments: Vec<String>,
}

impl Process {
    fn at(&self, what: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(what)
    }

    /// What runs in it, whatever has become of the file's name.
    pub(super) fn program(&self) -> PathBuf {
        self.at("exe")
    }

    /// Where a program of this name would be that comes with it: beside it, as the process itself sees its files.
    pub(super) fn beside(&self, program: &str) -> Vec<PathBuf> {
        let own = fs::read_link(self.program()).ok().and_then(|path| path.parent().map(Path::to_owned));
        let usual = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
        let inside =
            |directory: PathBuf| self.at("root").join(directory.strip_prefix("/").unwrap_or(&directory)).join(program);
        own.into_iter().chain(usual).map(inside).collect()
    }

    fn is_called(&self, name: &str) -> bool {
        self.arguments.first().is_some_and(|program| Path::new(program).file_name().is_some_and(|file| file == name))
    }

    fn is_of_a_pod(&self) -> bool {
        fs::read_to_string(self.at("cgroup")).is_ok_and(|groups| groups.contains("kubepods"))
    }

    fn has_open(&self, file: &fs::Metadata) -> bool {
        let is_it = |open: fs::Metadata| (open.dev(), open.ino()) == (file.dev(), file.ino());
        let Ok(open) = fs::read_dir(self.at("fd")) else { return false };
        open.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok()).any(is_it)
    }

    fn lives(&self) -> bool {
        arguments(self.pid).is_some_and(|arguments| arguments == self.arguments)
    }
}

/// Nothing of a process that has ended, or of the kernel's.
fn arguments(pid: i32) -> Option<Vec<String>> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then_some(words)
}

fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some(Process { pid, arguments: arguments(pid)? })).collect()
}

/// etcd on this data: what is called so, and has its database open. Anybody may call a program so.
pub(super) fn of_etcd(data_dir: &Path) -> Vec<Process> {
    let Ok(database) = fs::metadata(data_dir.join("member/snap/db")) else { return Vec::new() };
    let mut found = all();
    let on_it =
        |argument: &String| argument.strip_prefix("--data-dir=").is_some_and(|said| Path::new(said) == data_dir);
    found.retain(|process| {
        process.is_called("etcd") && process.arguments.iter().any(on_it) && process.has_open(&database)
    });
    found
}

/// The processes of Pods with these names.
pub(super) fn of_pods(names: &[&str]) -> Vec<Process> {
    let mut found = all();
    found.retain(|process| names.iter().any(|name| process.is_called(name)) && process.is_of_a_pod());
    found
}

/// Has them end, and waits until they have: after `patience` they are killed.
pub(super) fn end(processes: &[Process], patience: Duration) -> Result<(), String> {
    let tell = |signal: Signal| {
        for process in processes.iter().filter(|process| process.lives()) {
            if let Some(pid) = Pid::from_raw(process.pid) {
                let _ = kill_process(pid, signal);
            }
        }
    };
    let gone = |patience: Duration| {
        let begun = Instant::now();
        while processes.iter().any(Process::lives) {
            if begun.elapsed() >= patience {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        true
    };
    tell(Signal::TERM);
    if gone(patience) {
        return Ok(());
    }
    tell(Signal::KILL);
    match gone(KILLED) {
        true => Ok(()),
        false => {
            let left: Vec<String> =
                processes.iter().filter(|process| process.lives()).map(|process| process.pid.to_string()).collect();
            Err(format!("processes do not end: {}", left.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_is_waited_for_and_what_is_called_otherwise_is_let_be() {
        let directory = tempfile::tempdir().expect("a directory");
        let etcd = directory.path().join("etcd");
        std::os::unix::fs::symlink("/bin/sleep", &etcd).expect("linked");
        assert!(of_etcd(directory.path()).is_empty() && of_pods(&["no-program-of-this-name"]).is_empty());
        let mut child = std::process::Command::new(&etcd).arg("60").spawn().expect("begins");
        let pid = child.id() as i32;
        let process = loop {
            // Between the fork and the program it is still this one.
            match all().into_iter().find(|process| process.pid == pid && process.is_called("etcd")) {
                Some(process) => break process,
                None => std::thread::sleep(PAUSE),
            }
        };
        assert!(of_etcd(directory.path()).is_empty(), "on no data of ours");
        let waits = std::thread::spawn(move || child.wait());
        assert_eq!(end(std::slice::from_ref(&process), Duration::from_secs(10)), Ok(()));
        assert!(!process.lives() && waits.join().expect("no panic").is_ok());
    }
}

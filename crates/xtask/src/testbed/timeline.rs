//! Which kubeadm command ran on which machine, and when: watched from outside, so it needs nobody's word for it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::layout::Testbed;
use super::up::now;

/// How often new processes are looked for: what is shorter may be missed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often those known are looked at. A start is the kernel's word, in hundredths of a second; an end is as exact as this.
const ENDED_EVERY: Duration = Duration::from_millis(5);

/// One kubeadm command, from its start to its end, in seconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    pub(crate) machine: String,
    pub(crate) command: String,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// A watch over a testbed's processes.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Span>>,
}

impl Watch {
    /// Starts watching.
    pub(crate) fn start(testbed: &Testbed) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let machines: BTreeMap<String, String> =
            testbed.machines.iter().map(|machine| (machine.link.clone(), machine.name.clone())).collect();
        let stopped = Arc::clone(&stop);
        let thread = spawn(move || watch(&machines, &stopped));
        Self { stop, thread }
    }

    /// Stops watching and returns what was seen, the earliest first.
    pub(crate) fn finish(self) -> Result<Vec<Span>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut spans = self.thread.join().map_err(|_| anyhow!("the watch over the processes panicked"))?;
        spans.sort_by(|one, other| one.from.total_cmp(&other.from));
        Ok(spans)
    }
}

fn watch(machines: &BTreeMap<String, String>, stop: &AtomicBool) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut running: BTreeMap<u32, Span> = BTreeMap::new();
    let mut looked = 0.0;
    while !stop.load(Ordering::Relaxed) {
        if now() - looked >= LOOK_EVERY.as_secs_f64() {
            looked = now();
            for (pid, machine, command) in kubeadm_processes(machines) {
                let from = started(pid).unwrap_or(looked);
                running.entry(pid).or_insert_with(|| Span { machine, command, from, to: from });
            }
        }
        running.retain(|pid, span| {
            let runs = is_kubeadm(*pid);
            if !runs {
                spans.push(Span { to: now(), ..span.clone() });
            }
            runs
        });
        sleep(ENDED_EVERY);
    }
    spans.extend(running.into_values().map(|span| Span { to: now(), ..span }));
    spans
}

fn is_kubeadm(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "kubeadm")
}

/// When a process started, in seconds since 1970: its 22nd field of `stat` is hundredths of a second since the boot (`proc(5)`).
fn started(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: f64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
    Some(now() - uptime + ticks / 100.0)
}

/// The kubeadm processes that run in the machines now; a machine is known by its cgroup.
fn kubeadm_processes(machines: &BTreeMap<String, String>) -> Vec<(u32, String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        if read("comm").trim() != "kubeadm" {
            continue;
        }
        let (cgroup, line) = (read("cgroup"), read("cmdline"));
        let mut parts = cgroup.split(['/', '\n']);
        // A command given from outside keeps the cgroup it came from; there only its network tells the machine.
        let machine = parts.find_map(|part| machines.get(part)).or_else(|| by_network(pid, machines));
        if let Some(machine) = machine {
            found.push((pid, machine.clone(), words(&line)));
        }
    }
    found
}

fn by_network(pid: u32, machines: &BTreeMap<String, String>) -> Option<&String> {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &str| fs::metadata(path).map(|metadata| metadata.ino()).ok();
    let own = inode(&format!("/proc/{pid}/ns/net"))?;
    machines.iter().find(|(link, _)| inode(&format!("/run/netns/{link}")) == Some(own)).map(|(_, name)| name)
}

/// The words of a command line that name what it does: those before the first flag.
fn words(line: &str) -> String {
    let words = line.split('\0').skip(1).take_while(|word| !word.starts_with('-') && !word.is_empty());
    // The API's address is an argument of a join by hand, and no part of what it does.
    words.filter(|word| !word.contains(':')).collect::<Vec<_>>().join(" ")
}

/// Seconds between two moments in which no kubeadm command ran anywhere, until the last one ended.
pub(crate) fn idle(spans: &[Span], from: f64, to: f64) -> f64 {
    let last = spans.iter().map(|span| span.to).fold(from, f64::max).min(to);
    let (mut covered_to, mut idle) = (from, 0.0);
    for span in spans {
        if span.from > covered_to {
            idle += span.from.min(last) - covered_to;
        }
        covered_to = covered_to.max(span.to.min(last));
    }
    idle
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: f64, to: f64) -> Span {
        Span { machine: "m1".into(), command: "init".into(), from, to }
    }

    #[test]
    fn idle_counts_the_gaps_between_commands_and_before_the_first() {
        // Booted at 10; init 12 to 30; joins overlap 33 to 50; the kubelet works from 50 to 60.
        let spans = [span(12.0, 30.0), span(33.0, 45.0), span(34.0, 50.0)];
        assert!((idle(&spans, 10.0, 60.0) - 5.0).abs() < 1e-9);
        assert!(idle(&[], 10.0, 60.0).abs() < 1e-9);
        // What ran before the start or after the end does not count.
        assert!((idle(&[span(0.0, 11.0), span(13.0, 70.0)], 10.0, 60.0) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_command_is_named_by_its_words() {
        assert_eq!(
            words("kubeadm\0join\0phase\0control-plane-join\0etcd\0--config\0/x\0"),
            "join phase control-plane-join etcd"
        );
        assert_eq!(words("kubeadm\0join\0api.x:6443\0--token\0secret\0"), "join");
    }
}

//! `muster image boot`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_image::boot::{Line, Machines, Site, Start, accelerator};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::BootArguments;
use crate::config;
use crate::exit::Exit;
use crate::print;

/// How often it is looked whether it is to end.
const LOOK: Duration = Duration::from_millis(200);

/// Boots a disk image in virtual machines, and prints their consoles.
///
/// # Errors
/// When they cannot be started, or standard output cannot be written.
pub(super) async fn boot(arguments: &BootArguments) -> anyhow::Result<Exit> {
    if let Some(settings) = &arguments.settings {
        let opened = std::fs::File::open(settings).with_context(|| format!("{} cannot be read", settings.display()))?;
        if let Some(wrong) = config::wrong_beside(config::read_text(opened)).first() {
            print::complaint(&format!("error: {}: {}", settings.display(), wrong.text));
            return Ok(Exit::Wrong);
        }
    }
    let (lines, told) = channel();
    let from = Start::of(&arguments.file);
    let by = accelerator(&from)?;
    let site = Site {
        from,
        drives: arguments.drive.clone(),
        settings: arguments.settings.clone(),
        machines: arguments.machines,
        memory_mib: arguments.memory,
        processors: arguments.processors,
        disk_bytes: u64::from(arguments.disk) << 30,
        directory: arguments.dir.clone(),
    };
    let machines = Machines::start(&site, by, &lines)?;
    drop(lines);
    if !arguments.json {
        print::complaint(&format!("{} machines by {by}; Ctrl-C takes their power away", arguments.machines));
    }
    let stop = Arc::new(AtomicBool::new(false));
    tokio::spawn(told_to_stop(stop.clone()));
    let watch = Watch {
        machines: arguments.machines,
        until: arguments.until.clone(),
        timeout: Duration::from_secs(arguments.timeout),
        json: arguments.json,
        begun: Instant::now(),
        seen: BTreeSet::new(),
        gone: BTreeSet::new(),
    };
    let ended = tokio::task::spawn_blocking(move || watch.follow(&told, &stop)).await?;
    drop(machines);
    ended
}

/// Notes that somebody wants the machines to end: whoever is told to stop takes them along.
async fn told_to_stop(told: Arc<AtomicBool>) {
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let heard = signals.into_iter().flatten().map(|mut signal| Box::pin(async move { signal.recv().await }));
    futures::future::select_all(heard).await;
    told.store(true, Ordering::Relaxed);
}

/// Machines whose consoles are watched.
struct Watch {
    machines: u32,
    /// What each is to print.
    until: Option<String>,
    timeout: Duration,
    json: bool,
    begun: Instant,
    /// Those that have.
    seen: BTreeSet<u32>,
    /// Those that have ended.
    gone: BTreeSet<u32>,
}

impl Watch {
    /// Prints what they say until they are to end.
    fn follow(mut self, told: &Receiver<Line>, stop: &AtomicBool) -> anyhow::Result<Exit> {
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(if self.until.is_some() { Exit::Interrupted } else { Exit::Done });
            }
            if self.until.is_some() && self.begun.elapsed() > self.timeout {
                print::complaint(&format!("not seen within {} s: {}", self.timeout.as_secs(), self.missing()));
                return Ok(Exit::Failed);
            }
            match told.recv_timeout(LOOK) {
                Ok(Line { machine, text: Some(text) }) if !self.print(machine, &text)? => return Ok(Exit::Done),
                Ok(Line { text: Some(_), .. }) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Line { machine, text: None }) => _ = self.gone.insert(machine),
                Err(RecvTimeoutError::Disconnected) => self.gone.extend(1..=self.machines),
            }
            if self.until.is_some() && self.seen.len() == self.machines as usize {
                return Ok(Exit::Done);
            }
            if self.gone.len() == self.machines as usize {
                print::complaint("all machines have ended; what they printed last is in the logs beside their disks");
                return Ok(Exit::Failed);
            }
        }
    }

    fn missing(&self) -> String {
        let missing = (1..=self.machines).filter(|machine| !self.seen.contains(machine));
        missing.map(|machine| format!("m{machine}")).collect::<Vec<_>>().join(", ")
    }

    /// Prints a line of a console. Whether there is still somebody who reads.
    fn print(&mut self, machine: u32, text: &str) -> anyhow::Result<bool> {
        if self.until.as_ref().is_some_and(|until| text.contains(until)) {
            self.seen.insert(machine);
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        match self.json {
            true => print::line(&json!({ "machine": format!("m{machine}"), "s": seconds, "text": text }).to_string()),
            false => print::line(&format!("{seconds:7.1} m{machine} | {text}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(until: Option<&str>, lines: &[(u32, Option<&str>)]) -> Exit {
        let (send, told) = channel();
        for (machine, text) in lines {
            send.send(Line { machine: *machine, text: text.map(str::to_owned) }).expect("sent");
        }
        drop(send);
        let watch = Watch {
            machines: 2,
            until: until.map(str::to_owned),
            timeout: Duration::from_secs(3600),
            json: true,
            begun: Instant::now(),
            seen: BTreeSet::new(),
            gone: BTreeSet::new(),
        };
        watch.follow(&told, &AtomicBool::new(false)).expect("printed")
    }

    #[test]
    fn each_machine_must_have_said_it() {
        let said = (1, Some("m1: Ready"));
        assert_eq!(ends(Some("Ready"), &[said, (2, Some("m2: Ready"))]), Exit::Done);
        assert_eq!(ends(Some("Ready"), &[said, said, (2, Some("m2: Joining"))]), Exit::Failed);
        assert_eq!(ends(Some("Ready"), &[said, (2, None), (1, None)]), Exit::Failed);
        assert_eq!(ends(None, &[said, (2, None)]), Exit::Failed);
    }
}

//! A machine whose disk does not take what it must keep, or does not give it back. It promises nothing then, and so takes no part; but it says
//! why, on its console and to whoever asks, and begins again by itself.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use muster_protocol::{Fate, Phase, Reason, Status, Topic};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use crate::api::{self, Subject};
use crate::config::AgentConfig;
use crate::endpoint::{Endpoint, Site};
use crate::logs::Ring;
use crate::report::complete;
use crate::shell::{AgentError, Ended, hostname};

/// How often it is tried whether the disk takes something again.
const LOOK: Duration = Duration::from_secs(2);

/// How much it must take: the state file and Raft's next pages.
const ROOM_BYTES: usize = 1 << 20;

/// After so long it begins again although nothing looks better: only that shows whether what could not be read is there.
const AGAIN: Duration = Duration::from_secs(30);

/// What of an agent's configuration says who it is.
#[derive(Debug)]
pub struct StandBy {
    socket: PathBuf,
    state_dir: PathBuf,
    cluster: String,
    name: String,
    machines: u32,
    control_planes: u32,
    site: Site,
    is_service: bool,
}

impl StandBy {
    /// For whoever cannot run with this configuration.
    pub fn of(config: &AgentConfig) -> Self {
        Self {
            socket: config.socket(),
            state_dir: config.state_dir.clone(),
            cluster: config.cluster.clone(),
            name: config.name.clone().unwrap_or_else(hostname),
            machines: config.settings.machines,
            control_planes: config.settings.control_planes,
            site: Site::of(config),
            is_service: config.is_service,
        }
    }

    /// Answers for the agent that `error` has ended, until its disk takes something again, or it is told to stop. [`Ended::Renewed`] says that
    /// the agent is to begin again.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub async fn wait(self, error: &AgentError, logs: Ring) -> std::io::Result<Ended> {
        let why = format!("this machine takes no part: {error}. It begins again by itself when its disk is well");
        error!("{why}");
        on_console(&why);
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&why)]);
        // Kubernetes goes on without this machine's agent, also after a boot.
        let _endpoint = Endpoint::begin(self.site.clone(), self.is_service);
        let (questions, mut asked) = mpsc::channel(16);
        api::serve(&self.socket, questions, Ring::default(), logs.clone())?;
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (begun, mut look) = (Instant::now(), tokio::time::interval(LOOK));
        look.tick().await;
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(Ended::Stopped),
                _ = interrupt.recv() => return Ok(Ended::Stopped),
                Some((subject, answer)) = asked.recv() => match subject {
                    Subject::Report { machine: None } => drop(tokio::spawn(report(why.clone(), logs.clone(), answer))),
                    // What is not answered is told to be unavailable, and a guard goes by itself.
                    subject => if let Some(json) = self.answer(&subject, &why) {
                        let _ = answer.send(json);
                    },
                },
                _ = look.tick() => {
                    let well = error.passes() && takes(&self.state_dir).is_ok();
                    if well || begun.elapsed() > AGAIN {
                        info!("begins again");
                        return Ok(Ended::Renewed);
                    }
                }
            }
        }
    }

    fn answer(&self, subject: &Subject, why: &str) -> Option<String> {
        let waiting = vec![Reason { about: Topic::Disk, text: why.to_owned(), machines: Vec::new() }];
        Some(match subject {
            Subject::Explain => serde_json::json!(waiting).to_string(),
            Subject::Status => serde_json::json!(Status {
                name: self.name.clone(),
                short: "identity-not-read".to_owned(),
                cluster: self.cluster.clone(),
                phase: Phase::Halted,
                machines: self.machines,
                control_planes: self.control_planes,
                waiting,
                ..Status::default()
            })
            .to_string(),
            Subject::Wish { .. } | Subject::Recover { .. } => {
                serde_json::json!(Fate::Refused { why: why.to_owned() }).to_string()
            }
            _ => return None,
        })
    }
}

/// What there is to say of a machine whose state cannot be read.
async fn report(why: String, logs: Ring, answer: oneshot::Sender<String>) {
    let known = [("explain.txt", format!("{why}\n")), ("log.txt", logs.follow().0.join("\n"))];
    let known = known.map(|(name, text)| (name.to_owned(), text)).into();
    let _ = answer.send(serde_json::json!(complete(known, None, None).await).to_string());
}

/// Whether a directory takes a file, and gives it to the disk.
fn takes(directory: &Path) -> std::io::Result<()> {
    let path = directory.join("probe");
    let taken = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        // Not zeros: a file system may keep those for nothing.
        file.write_all(&[0xa5; ROOM_BYTES])?;
        file.sync_all()?;
        File::open(directory)?.sync_all()
    };
    let taken = taken();
    match fs::remove_file(&path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => taken.and(Err(why)),
        _ => taken,
    }
}

/// Whoever stands before the machine reads it there. One without a console has nobody there.
fn on_console(text: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = writeln!(console, "muster: {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_takes_something_or_does_not_and_nothing_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        takes(directory.path()).expect("it is an ordinary one");
        assert_eq!(fs::read_dir(directory.path()).expect("reads").count(), 0);
        assert!(takes(&directory.path().join("missing")).is_err());
    }
}

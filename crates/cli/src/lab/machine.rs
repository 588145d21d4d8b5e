//! One machine of a lab: a process of the real agent.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use muster_protocol::Status;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::{place, sweep};
use crate::api::Agent;

/// Lines of its log that are shown when a machine died.
const LAST_LINES: usize = 8;

/// A machine of the lab.
pub(crate) struct Machine {
    /// Its name: lab-1, lab-2, ...
    pub(crate) name: String,
    /// Its loopback address.
    pub(crate) address: Ipv4Addr,
    /// What it last said of itself in this start.
    pub(crate) status: Option<Status>,
    /// How it ended, if it ended by itself.
    pub(crate) ended: Option<ExitStatus>,
    agent: Agent,
    root: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// What all machines of a lab are started with.
pub(crate) struct Image {
    /// muster's executable.
    pub(crate) muster: PathBuf,
    /// The one muster.toml.
    pub(crate) config: PathBuf,
    /// What is logged.
    pub(crate) log: String,
    /// Where everything is recorded.
    pub(crate) record: Option<PathBuf>,
    /// Environment of every machine: what the rehearsal kubeadm goes by.
    pub(crate) environment: Vec<(String, String)>,
}

impl Machine {
    /// A machine that has not been started.
    pub(crate) fn new(lab: &Path, name: &str, address: Ipv4Addr) -> Self {
        let root = lab.join(name);
        Self {
            name: name.to_owned(),
            address,
            status: None,
            ended: None,
            agent: Agent::at(&root.join(place::SOCKET_IN_MACHINE)),
            log: root.join("agent.log"),
            root,
            child: None,
        }
    }

    /// Starts the agent. A later start goes on with what is on its disk.
    pub(crate) fn start(&mut self, image: &Image, environment: &[(String, String)]) -> anyhow::Result<()> {
        fs::create_dir_all(&self.root)?;
        let log = fs::File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&image.muster);
        command
            .arg("run")
            .arg("--config")
            .arg(&image.config)
            .args(["--name", &self.name, "--log", &image.log, "--stop-with-parent"])
            .args(["--listen", &format!("{}:{}", self.address, place::MESH_PORT)])
            .arg("--root")
            .arg(&self.root)
            .envs(image.environment.iter().map(|(name, value)| (name, value)))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("MUSTER_REHEARSAL_DIR", self.root.join("etc/kubernetes"))
            .env("MUSTER_REHEARSAL_KUBELET_DIR", self.root.join("var/lib/kubelet"))
            .env("MUSTER_REHEARSAL_HOSTS", self.root.join("etc/hosts"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for the lab, which then ends its machines in order.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(directory) = &image.record {
            command.arg("--record").arg(directory);
        }
        self.status = None;
        self.ended = None;
        self.child = Some(command.spawn().with_context(|| format!("{} cannot be started", image.muster.display()))?);
        Ok(())
    }

    /// Asks the agent how it is. Nothing changes while it does not answer.
    pub(crate) async fn ask(&mut self) {
        /// An agent answers within microseconds; one that is busy starting is asked again soon.
        const ANSWER_WAIT: Duration = Duration::from_secs(2);
        if let Ok(Ok(status)) = tokio::time::timeout(ANSWER_WAIT, self.agent.json("/v1/status")).await {
            self.status = Some(status);
        }
    }

    /// Whether it has ended by itself since this was last asked.
    pub(crate) fn has_died(&mut self) -> bool {
        let Some(child) = &mut self.child else { return false };
        match child.try_wait() {
            Ok(Some(status)) => {
                self.child = None;
                self.ended = Some(status);
                true
            }
            _ => false,
        }
    }

    /// Ends the agent and the kubeadm it runs at once, as a loss of power would, but for what containers would hold.
    pub(crate) async fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let kubeadm = child.id().map(sweep::children).unwrap_or_default();
        // It may have ended in this very moment.
        let _ = child.start_kill();
        for pid in kubeadm {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = child.wait().await;
        self.status = None;
    }

    /// Asks the agent to end.
    pub(crate) fn begin_stop(&self) {
        if let Some(pid) = self.child.as_ref().and_then(Child::id).and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
        {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits until it has ended; kills it when that takes too long.
    pub(crate) async fn stopped(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if tokio::time::timeout(sweep::PATIENCE, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    }

    /// The process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The last lines of its log.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        const BYTES: u64 = 8 * 1024;
        let read = || -> std::io::Result<String> {
            let mut file = fs::File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
            let mut bytes = Vec::new();
            file.take(BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

//! The shell: one task, one machine, one `match` over its effects. What it is asked is answered in [`answers`],
//! what concerns backups is in [`backups`].

mod answers;
mod around;
mod backups;
mod begin;
mod console;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_consensus::SeatError;
use muster_protocol::{
    Dropped, Effect, Effects, Input, Machine, Notice, NoticeKind, Phase, Reason, RunId, Severity, StartRefusal,
    StepFailure, Time,
};
use muster_wire::{CallNumber, Frame};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use around::{Around, Next};
pub(crate) use begin::hostname;
use console::Console;

use crate::config::AgentConfig;
use crate::counters::Counters;
use crate::device::Device;
use crate::disk::{Disk, DiskError};
use crate::former::Former;
use crate::logs::Ring;
use crate::net::{Command, Event, Holes, Outcomes};
use crate::raft::Raft;
use crate::record::Recorder;
use crate::report::Others;

/// How long the last answers of a machine that starts again as another may take.
const ANSWERED: Duration = Duration::from_millis(200);

/// How an agent ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// Its machine was removed and has forgotten who it was: it is to be started again, as another.
    Renewed,
}

/// Why an agent does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The state on disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The core refuses the state.
    #[error("{path}: {refusal}. Wipe the directory to begin anew")]
    Start {
        /// The state directory.
        path: String,
        /// The core's reason.
        refusal: StartRefusal,
    },
    /// Raft cannot go on.
    #[error(transparent)]
    Raft(#[from] SeatError),
    /// Anything of the system around.
    #[error("{0}")]
    System(String),
}

impl AgentError {
    /// Whether the disk is what failed. The machine then says so, and takes no part.
    pub fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::Disk(why) if !matches!(why, DiskError::InUse(_)))
            || matches!(self, Self::Raft(why) if !matches!(why, SeatError::NotRebuilt(_)))
    }

    /// Whether it may be over when the disk takes something again.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Disk(why) => matches!(why, DiskError::Io { .. }),
            Self::Raft(why) => !why.lasts(),
            _ => false,
        }
    }
}

struct Shell {
    machine: Machine,
    disk: Disk,
    net: mpsc::Sender<Command>,
    outcomes: Outcomes,
    holes: Holes,
    raft: Raft,
    device: Arc<Device>,
    runs: BTreeMap<RunId, (&'static str, JoinHandle<()>)>,
    /// When a kubelet that is about to start last asked whether it may.
    kubelet_asked: Option<Instant>,
    backups: backups::Backups,
    /// None where the machine is no computer of its own.
    former: Option<Former>,
    console: Option<Console>,
    /// An update of its image that this start has taken back.
    taken_back: Option<Reason>,
    /// Reports that go to other machines, and come from them.
    others: Others,
    /// Where one that is made for others goes.
    reports: mpsc::Sender<bytes::Bytes>,
    logs: Ring,
    /// The machine's root, where it is not this computer's.
    root: Option<PathBuf>,
    /// Where what the machine is given is recorded.
    record: Option<PathBuf>,
    /// Who waits for the fates of wishes, by their calls.
    wishes: BTreeMap<CallNumber, oneshot::Sender<String>>,
    calls: CallNumber,
    inputs: mpsc::Sender<Input>,
    counters: Arc<Counters>,
    events: Ring,
    recorder: Recorder,
    /// What a later image may not change.
    common: BTreeMap<String, String>,
    started: Instant,
    /// Whether the mesh was told that this machine is Ready.
    at_rest: bool,
    /// Whether this machine is to start again as another.
    renewed: bool,
}

/// Runs the agent until it is told to stop (SIGTERM, SIGINT), or its machine is to start again as another.
///
/// # Errors
/// See [`AgentError`]. The process should then end with a failure: it starts again from what is on disk.
pub async fn run(config: AgentConfig, logs: Ring) -> Result<Ended, AgentError> {
    let (mut shell, mut around) = begin::begin(&config, logs).await?;
    let mut effects = Effects::default();
    while !shell.renewed {
        while let Some(input) = shell.raft.inputs.pop_front() {
            shell.handle(input, &mut effects).await?;
        }
        match around.next(&mut shell).await? {
            Next::Input(input) => shell.handle(input, &mut effects).await?,
            Next::Nothing => {}
            Next::Stop => break,
        }
    }
    shell.stop(around).await
}

impl Shell {
    fn now(&self) -> Time {
        Time(self.started.elapsed().as_micros() as u64)
    }

    async fn stop(mut self, around: Around) -> Result<Ended, AgentError> {
        info!("stops");
        // One that starts again as another goes on in this process: it would be killed for not ending.
        if !self.renewed {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        }
        let socket = around.ends();
        for (_, run) in self.runs.values() {
            // Kills the process group of what it runs, unless that is left.
            run.abort();
        }
        self.raft.stop().await;
        let _ = std::fs::remove_file(&socket);
        if self.renewed {
            // Whoever asked for it is to read the answer.
            tokio::time::sleep(ANSWERED).await;
            self.device.runs.died().await;
            self.disk.renew()?;
            return Ok(Ended::Renewed);
        }
        Ok(Ended::Stopped)
    }

    fn next_wakeup(&self) -> Instant {
        // Without anything to wait for, a look now and then costs nothing.
        let due = self.machine.next_wakeup().map_or(Duration::from_secs(60), |(due, _)| Duration::from_micros(due.0));
        self.started + due
    }

    async fn handle(&mut self, input: Input, effects: &mut Effects) -> Result<(), AgentError> {
        if let Input::Finished { run, .. } = &input {
            self.runs.remove(run);
        }
        let now = self.now();
        self.recorder.input(now, &input);
        self.machine.handle(now, input, effects);
        self.recorder.done(effects);
        self.raft.trust(self.machine.latest_ledger());
        self.carry_out(effects).await?;
        let at_rest = self.machine.phase() == Phase::Ready;
        if at_rest != self.at_rest {
            self.at_rest = at_rest;
            self.tell_mesh(Command::AtRest(at_rest));
        }
        self.device.endpoint.machines(self.machine.ledger().members().len());
        Ok(())
    }

    async fn carry_out(&mut self, effects: &mut Effects) -> Result<(), AgentError> {
        for effect in effects.drain() {
            match effect {
                Effect::Persist(durable) => self.disk.persist(durable)?,
                Effect::Send { to, frame } => self.tell_mesh(Command::Send(to, frame.encode())),
                Effect::Learn { machine, addresses } => {
                    self.device.proxies.except(addresses.iter().map(String::as_str));
                    self.tell_mesh(Command::Learn(machine, addresses));
                }
                Effect::Refuse { machine, rest, why } => {
                    warn!(%machine, why, "refused");
                    self.tell_mesh(Command::Refuse(machine, rest));
                }
                Effect::StartRaft { charter } => {
                    self.raft.start(&charter, self.machine.ledger(), &mut self.disk).await?;
                }
                Effect::RebuildRaft { charter, known, next } => {
                    self.raft.rebuild(&charter, self.machine.ledger(), &known, next, &mut self.disk).await?;
                }
                Effect::CallElection => self.raft.call_election(),
                Effect::StopRaft => self.raft.stop().await,
                Effect::Renew => self.renewed = true,
                Effect::SetVoters(voters) => self.raft.set_voters(voters),
                Effect::Propose { call, entry } => self.raft.propose(call, &entry),
                Effect::Run { run, step } => self.start(run, step),
                Effect::Abort { run } => self.abort(run),
                Effect::Endpoint(address) => self.device.hosts.mean(address),
                Effect::ApiServers(servers) => {
                    self.device.proxies.except(servers.iter().map(String::as_str));
                    let member = self.machine.ledger().member(self.machine.id());
                    let own = member.and_then(|member| member.admitted.address.parse().ok());
                    self.device.endpoint.servers(&servers, own);
                }
                Effect::Former(addresses) => {
                    if let Some(former) = &self.former {
                        former.lead(addresses);
                    }
                }
                Effect::KeepBackups { last, wanted } => self.backups.keep(last, wanted),
                Effect::Answer { call, fate } => {
                    if let Some(answer) = self.wishes.remove(&call) {
                        // Whoever asked may have gone.
                        let _ = answer.send(serde_json::json!(fate).to_string());
                    }
                }
                Effect::Notice(notice) => self.notice(&notice),
            }
        }
        Ok(())
    }

    fn tell_mesh(&self, command: Command) {
        if self.net.try_send(command).is_err() {
            self.counters.dropped(Dropped::MeshBusy);
        }
    }

    fn start(&mut self, run: RunId, step: muster_protocol::Step) {
        debug!(run = run.0, step = step.name(), "begins");
        let (device, inputs) = (self.device.clone(), self.inputs.clone());
        let name = step.name();
        let task = tokio::spawn(async move {
            let phases = inputs.clone();
            let progress = move |phase: &str, held: Option<&str>| {
                // For people only: a full queue may lose it.
                let _ =
                    phases.try_send(Input::Progress { run, phase: phase.to_owned(), held: held.map(str::to_owned) });
            };
            let result = device.carry_out(step, &progress).await;
            let _ = inputs.send(Input::Finished { run, result }).await;
        });
        self.runs.insert(run, (name, task));
    }

    /// Ends a run. It is answered when everything that it had started is dead, and not before: what comes next would meet it.
    fn abort(&mut self, run: RunId) {
        let Some((step, task)) = self.runs.remove(&run) else { return };
        task.abort();
        let (device, inputs) = (self.device.clone(), self.inputs.clone());
        tokio::spawn(async move {
            // One that had ended has answered.
            if task.await.is_err() {
                device.runs.died().await;
                let result = Err(StepFailure::ended_on_request(step));
                let _ = inputs.send(Input::Finished { run, result }).await;
            }
        });
    }

    fn notice(&self, notice: &Notice) {
        let (kind, warning) = (notice.kind.word(), notice.kind.severity() == Severity::Warning);
        match warning {
            true => warn!(kind, "{}", notice.text),
            false => info!(kind, "{}", notice.text),
        }
        if notice.kind == NoticeKind::Phase {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Status(&notice.text)]);
        }
        let event = serde_json::json!({
            "ms": self.started.elapsed().as_millis() as u64,
            "kind": kind,
            "warning": warning,
            "text": notice.text,
        });
        self.events.push(event.to_string());
    }

    /// What the mesh says is for the core, except Raft's frames.
    fn mesh_input(&mut self, event: Event) -> Option<Input> {
        Some(match event {
            Event::Reached(machine, address) => Input::Reached { machine, address },
            Event::Connected(machine) => Input::Connected(machine),
            Event::Disconnected(machine) => {
                self.raft.disconnected(machine);
                Input::Disconnected(machine)
            }
            Event::Received(from, Frame::RaftCall { call, body }, room) => {
                self.raft.called(from, call, body, room);
                return None;
            }
            Event::Received(from, Frame::RaftAnswer { call, body }, _) => {
                self.raft.answered(from, call, body);
                return None;
            }
            Event::Received(from, Frame::ReportCall { call, part }, _) => {
                self.report_asked(from, call, part);
                return None;
            }
            Event::Received(from, Frame::ReportPart { call, part, parts, body }, _) => {
                if let Some(frame) = self.others.came(from, call, part, parts, body) {
                    self.tell_mesh(Command::Send(from, frame.encode()));
                }
                return None;
            }
            Event::Received(machine, Frame::BackupCall { digest, from }, _) => {
                self.backup_asked(machine, digest, from);
                return None;
            }
            Event::Received(machine, Frame::BackupPart { digest, from, body }, _) => {
                self.backups.came((machine, digest, from, body));
                return None;
            }
            Event::Received(from, frame, _) => Input::Received { from, frame },
            Event::TurnedAway(whom, why) => Input::TurnedAway { whom, why },
            Event::Addresses(mut addresses) => {
                // The one that it had is kept for those who know no other, and is not where it is.
                let is_former = |address: &str| {
                    let host = muster_wire::host_of(address);
                    host.zip(self.former.as_ref()).is_some_and(|(host, former)| former.is_former(host))
                };
                addresses.retain(|address| !is_former(address));
                Input::Addresses(addresses)
            }
        })
    }
}

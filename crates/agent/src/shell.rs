//! The shell: one task, one machine, one `match` over its effects. What it is asked is answered in [`answers`],
//! what concerns backups is in [`backups`].

mod answers;
mod backups;
mod console;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use muster_consensus::SeatError;
use muster_kubeadm::Place;
use muster_protocol::{
    Boot, Dropped, Effect, Effects, Input, Machine, Notice, NoticeKind, Phase, Reason, RunId, Severity, StartRefusal,
    StepFailure, Time,
};
use muster_wire::{CallNumber, Frame, level};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use console::Console;

use crate::Hardware;
use crate::api;
use crate::backups::Store;
use crate::config::AgentConfig;
use crate::counters::Counters;
use crate::device::{self, Device};
use crate::disk::{Disk, DiskError, Loaded};
use crate::endpoint::{Endpoint, Site};
use crate::former::Former;
use crate::hosts::{self, Hosts};
use crate::logs::Ring;
use crate::net::{Command, Event, Holes, Mesh, Outcomes, Settings as MeshSettings};
use crate::observe;
use crate::process;
use crate::proxy::Proxies;
use crate::raft::Raft;
use crate::record::Recorder;
use crate::report::Others;

/// Most inputs that wait for the machine. The mesh stops reading while it is full, which is what bounds a flood.
const INPUTS_MAX: usize = 1_024;

/// How long the last answers of a machine that starts again as another may take.
const ANSWERED: Duration = Duration::from_millis(200);

/// Most frames that wait for the mesh.
const COMMANDS_MAX: usize = 4_096;

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
    runs: BTreeMap<RunId, JoinHandle<()>>,
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

/// However the agent ends, what kubeadm has begun goes on: the next one waits for it.
struct Leaves(Arc<Device>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.runs.leave();
    }
}

/// Runs the agent until it is told to stop (SIGTERM, SIGINT), or its machine is to start again as another.
///
/// # Errors
/// See [`AgentError`]. The process should then end with a failure: it starts again from what is on disk.
pub async fn run(config: AgentConfig, logs: Ring) -> Result<Ended, AgentError> {
    let system = |what: &str, why: &dyn std::fmt::Display| AgentError::System(format!("{what}: {why}"));
    let hardware = match &config.hardware {
        Some(hardware) => hardware.clone(),
        None => Hardware::found(Path::new("/sys")).map_err(AgentError::System)?,
    };
    let Loaded { disk, durable } = Disk::open(&config.state_dir, hardware, || [device::seed(), device::seed()])?;
    let identity = disk.identity();
    let me = identity.machine();
    info!(machine = %me, cluster = config.cluster, "starts");

    let (commands, command_queue) = mpsc::channel(COMMANDS_MAX);
    let (mesh_events, mut from_mesh) = mpsc::channel(INPUTS_MAX);
    let (inputs, mut from_devices) = mpsc::channel(INPUTS_MAX);
    let (questions, mut asked) = mpsc::channel(16);
    let (reports, mut reported) = mpsc::channel(1);
    let counters = Arc::new(Counters::default());
    let events = Ring::default();

    let mesh = MeshSettings {
        listen: config.listen,
        mesh_key: *config.mesh_key,
        mdns: config.mdns,
        subnets: config.subnets.clone(),
        foreign: config.foreign.clone(),
        peers: config.peers.clone(),
    };
    let mesh = Mesh::new(&identity, mesh, command_queue, mesh_events, counters.clone()).map_err(AgentError::System)?;
    let listen = SocketAddr::new(config.listen.ip(), config.endpoint_port);
    std::fs::create_dir_all(&config.run_dir).map_err(|why| system(&config.run_dir.display().to_string(), &why))?;
    let (endpoint, mut listens) = Endpoint::begin(Site::of(&config), config.is_service);
    let socket = config.socket();
    api::serve(&socket, questions, events.clone(), logs.clone())
        .map_err(|why| system(&socket.display().to_string(), &why))?;

    let started = Instant::now();
    let name =
        config.kubernetes.endpoint.rsplit_once(':').map_or(config.kubernetes.endpoint.as_str(), |(name, _)| name);
    let name = name.to_owned();
    let runs = process::Runs::new(config.run_dir.join("runs"));
    std::fs::create_dir_all(runs.directory())
        .and_then(|()| std::fs::set_permissions(runs.directory(), std::fs::Permissions::from_mode(0o700)))
        .map_err(|why| system(&runs.directory().display().to_string(), &why))?;
    let device = Arc::new(Device {
        place: Arc::new(Place {
            me,
            key: disk.sealing_key(),
            settings: config.kubernetes.clone(),
            manifests: config.manifests.clone(),
        }),
        env: config.kubeadm_env.clone(),
        hosts: Hosts::new(config.hosts_file.clone(), config.cluster.clone(), name, inputs.clone()),
        proxies: Proxies::of_environment(&config.kubernetes),
        former: tokio::sync::Mutex::new(process::Former::of(runs.directory())),
        runs,
        listens: reachable(listen),
        backups: Arc::new(Store::new(config.kubernetes.backups_dir.clone())),
        endpoint,
        started,
        times: Mutex::default(),
        plan: Mutex::default(),
    });
    let leaves = config.is_service.then(|| Leaves(device.clone()));
    let mut boot = Boot {
        identity,
        sealing_key: disk.sealing_key().public(),
        durable,
        cluster: config.cluster.clone(),
        settings: config.settings.clone(),
        hostname: config.name.clone().unwrap_or_else(hostname),
        addresses: Vec::new(),
        api_port: config.kubernetes.api_port,
        fingerprint: disk.fingerprint(),
        seed: *device::seed(),
        manifests: config.manifests.count(),
        level: level::KNOWN,
        raft_begun: disk.has_begun_raft(),
        tuning: config.tuning.clone(),
    };
    let mut recorder = match &config.record {
        Some(directory) => {
            let (tell, made) = std::sync::mpsc::channel();
            boot.identity = boot.identity.telling(tell);
            Recorder::begin(directory, &boot, made).map_err(AgentError::System)?
        }
        None => Recorder::default(),
    };
    let mut effects = Effects::default();
    let machine = Machine::new(boot, Time(0), &mut effects);
    let machine =
        machine.map_err(|refusal| AgentError::Start { path: config.state_dir.display().to_string(), refusal })?;
    recorder.done(&effects);
    let backups = backups::Backups::begin(device.backups.clone(), commands.clone(), inputs.clone());
    let raft = Raft::new(me, commands.clone(), counters.clone());
    let mut shell = Shell {
        machine,
        disk,
        net: commands,
        outcomes: mesh.outcomes(),
        holes: mesh.holes(),
        raft,
        device,
        runs: BTreeMap::new(),
        kubelet_asked: None,
        backups,
        former: config.root.is_none().then(|| Former::begin(&config.run_dir, inputs.clone())),
        console: config.root.is_none().then(Console::begin),
        taken_back: config.root.is_none().then(crate::update::taken_back).flatten(),
        others: Others::default(),
        reports,
        logs,
        root: config.root.clone(),
        record: config.record.clone(),
        wishes: BTreeMap::new(),
        calls: CallNumber::NONE,
        inputs,
        counters,
        events,
        recorder,
        common: config.common(),
        started,
        at_rest: false,
        renewed: false,
    };
    shell.carry_out(&mut effects).await?;
    tokio::spawn(mesh.run());
    tokio::spawn(look_at_hosts(shell.device.clone()));
    tokio::spawn(observe::watch(config.kubernetes.clone(), shell.inputs.clone()));
    let mut terminate = signal(SignalKind::terminate()).map_err(|why| system("signals", &why))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|why| system("signals", &why))?;
    let mut is_listening = false;
    let mut watchdog = watchdog();
    let mut console = tokio::time::interval(console::LOOK);

    while !shell.renewed {
        while let Some(input) = shell.raft.inputs.pop_front() {
            shell.handle(input, &mut effects).await?;
        }
        let wakeup = shell.next_wakeup();
        let input = tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            listens = &mut listens, if !is_listening => {
                let listens = listens.unwrap_or_else(|_| Err("it ended".to_owned()));
                listens.map_err(|why| system(&format!("the API endpoint cannot listen on {listen}"), &why))?;
                is_listening = true;
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
                continue;
            }
            Some(question) = asked.recv() => {
                match shell.answer(question) {
                    Some(input) => input,
                    None => continue,
                }
            }
            Some(report) = reported.recv() => {
                for (to, frame) in shell.others.made(report) {
                    shell.tell_mesh(Command::Send(to, frame.encode()));
                }
                continue;
            }
            Some(event) = shell.raft.events.recv() => match shell.raft.heard(event)? {
                Some(input) => input,
                None => continue,
            },
            Some(done) = shell.raft.done.recv() => {
                shell.raft.is_done(done);
                continue;
            }
            Some(call) = shell.raft.outgoing.recv() => {
                shell.raft.call(call);
                continue;
            }
            Some(input) = from_devices.recv() => input,
            () = tokio::time::sleep_until(wakeup.into()) => Input::Wake,
            () = tick(&mut watchdog) => {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                continue;
            }
            _ = console.tick() => {
                shell.show_on_console();
                continue;
            }
            // Last, because a flood of frames must not keep anything else from being seen to.
            Some(event) = from_mesh.recv() => match shell.mesh_input(event) {
                Some(input) => input,
                None => continue,
            },
        };
        shell.handle(input, &mut effects).await?;
    }
    info!("stops");
    // One that starts again as another goes on in this process: it would be killed for not ending.
    if !shell.renewed {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    }
    drop(leaves);
    for run in shell.runs.values() {
        // Kills the process group of what it runs, unless that is left.
        run.abort();
    }
    shell.raft.stop().await;
    let _ = std::fs::remove_file(&socket);
    if shell.renewed {
        // Whoever asked for it is to read the answer.
        tokio::time::sleep(ANSWERED).await;
        shell.disk.renew()?;
        return Ok(Ended::Renewed);
    }
    Ok(Ended::Stopped)
}

impl Shell {
    fn now(&self) -> Time {
        Time(self.started.elapsed().as_micros() as u64)
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
        self.carry_out(effects).await?;
        let at_rest = self.machine.phase() == Phase::Ready;
        if at_rest != self.at_rest {
            self.at_rest = at_rest;
            self.tell_mesh(Command::AtRest(at_rest));
        }
        self.device.endpoint.machines(self.machine.ledger().members().len());
        self.raft.trust(self.machine.ledger());
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
        self.runs.insert(run, task);
    }

    fn abort(&mut self, run: RunId) {
        let Some(task) = self.runs.get(&run) else { return };
        // Its answer may be on its way already; the core takes the first.
        task.abort();
        let inputs = self.inputs.clone();
        let failure = StepFailure { step: "step", phase: None, why: "it was overtaken".to_owned(), hopeless: false };
        tokio::spawn(async move { inputs.send(Input::Finished { run, result: Err(failure) }).await });
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

/// Where this machine itself reaches what listens on all addresses.
fn reachable(at: SocketAddr) -> SocketAddr {
    match at.ip().is_unspecified() {
        true if at.is_ipv4() => SocketAddr::from(([127, 0, 0, 1], at.port())),
        true => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, at.port())),
        false => at,
    }
}

pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Looks at the hosts file now and then, for as long as the agent runs.
async fn look_at_hosts(device: Arc<Device>) {
    loop {
        tokio::time::sleep(hosts::LOOK_PAUSE).await;
        device.hosts.look();
    }
}

/// Half of systemd's watchdog interval, if it watches.
fn watchdog() -> Option<tokio::time::Interval> {
    let interval = sd_notify::watchdog_enabled()?;
    Some(tokio::time::interval(interval / 2))
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

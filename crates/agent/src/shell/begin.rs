//! How the agent begins: its disk, its mesh, its devices, its machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use muster_kubeadm::Place;
use muster_protocol::{Boot, Effects, Input, Machine, Time};
use muster_wire::sign::Made;
use muster_wire::{CallNumber, Durable, Identity, level};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::info;

use super::around::{self, Around, Leaves};
use super::{AgentError, Shell, backups};
use crate::api;
use crate::backups::Store;
use crate::config::AgentConfig;
use crate::counters::Counters;
use crate::device::{self, Device};
use crate::disk::{Disk, Loaded};
use crate::endpoint::{Endpoint, Site};
use crate::former::Former;
use crate::hosts::{self, Hosts};
use crate::logs::Ring;
use crate::net::{Mesh, Settings as MeshSettings};
use crate::proxy::Proxies;
use crate::raft::Raft;
use crate::record::Recorder;
use crate::report::Others;
use crate::{Hardware, observe, process};

/// Most inputs that wait for the machine. The mesh stops reading while it is full, which is what bounds a flood.
const INPUTS_MAX: usize = 1_024;

/// Most frames that wait for the mesh.
const COMMANDS_MAX: usize = 4_096;

/// Most questions of the local API that wait.
const QUESTIONS_MAX: usize = 16;

fn system(what: &str, why: &dyn std::fmt::Display) -> AgentError {
    AgentError::System(format!("{what}: {why}"))
}

/// Makes everything, and lets it run. The machine has begun when this returns.
pub(super) async fn begin(config: &AgentConfig, logs: Ring) -> Result<(Shell, Around), AgentError> {
    let hardware = match &config.hardware {
        Some(hardware) => hardware.clone(),
        None => Hardware::found(Path::new("/sys")).map_err(AgentError::System)?,
    };
    let Loaded { disk, durable } = Disk::open(&config.state_dir, hardware, || [device::seed(), device::seed()])?;
    let identity = disk.identity();
    let me = identity.machine();
    info!(machine = %me, cluster = config.cluster, "starts");

    let (net, command_queue) = mpsc::channel(COMMANDS_MAX);
    let (mesh_events, from_mesh) = mpsc::channel(INPUTS_MAX);
    let (inputs, from_devices) = mpsc::channel(INPUTS_MAX);
    let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
    let (reports, reported) = mpsc::channel(1);
    let counters = Arc::new(Counters::default());
    let events = Ring::default();

    let mesh = Mesh::new(&identity, mesh_settings(config), command_queue, mesh_events, counters.clone());
    let mesh = mesh.map_err(AgentError::System)?;
    let listen = SocketAddr::new(config.listen.ip(), config.endpoint_port);
    std::fs::create_dir_all(&config.run_dir).map_err(|why| system(&config.run_dir.display().to_string(), &why))?;
    let (endpoint, listens) = Endpoint::begin(Site::of(config), config.is_service);
    let socket = config.socket();
    api::serve(&socket, questions, events.clone(), logs.clone())
        .map_err(|why| system(&socket.display().to_string(), &why))?;

    let device = Arc::new(device_of(config, &disk, endpoint, reachable(listen), inputs.clone())?);
    let leaves = config.is_service.then(|| Leaves(device.clone()));
    let (identity, made) = told(config, identity);
    let boot = boot(config, &disk, identity, durable);
    let mut recorder = recorder(config, &boot, made)?;
    let mut effects = Effects::default();
    let machine = Machine::new(boot, Time(0), &mut effects);
    let machine =
        machine.map_err(|refusal| AgentError::Start { path: config.state_dir.display().to_string(), refusal })?;
    recorder.done(&effects);
    let mut shell = Shell {
        machine,
        disk,
        outcomes: mesh.outcomes(),
        holes: mesh.holes(),
        raft: Raft::new(me, net.clone(), counters.clone()),
        runs: BTreeMap::new(),
        kubelet_asked: None,
        backups: backups::Backups::begin(device.backups.clone(), net.clone(), inputs.clone()),
        former: config.root.is_none().then(|| Former::begin(&config.run_dir, inputs.clone())),
        console: config.root.is_none().then(super::Console::begin),
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
        started: device.started,
        at_rest: false,
        renewed: false,
        net,
        device,
    };
    shell.carry_out(&mut effects).await?;
    tokio::spawn(mesh.run());
    tokio::spawn(look_at_hosts(shell.device.clone()));
    tokio::spawn(observe::watch(config.kubernetes.clone(), shell.inputs.clone()));
    let around = Around {
        terminate: signal(SignalKind::terminate()).map_err(|why| system("signals", &why))?,
        interrupt: signal(SignalKind::interrupt()).map_err(|why| system("signals", &why))?,
        listens: (listen, Some(listens)),
        asked,
        reported,
        from_devices,
        from_mesh,
        watchdog: around::watchdog(),
        console: around::console(),
        socket,
        leaves,
    };
    Ok((shell, around))
}

fn boot(config: &AgentConfig, disk: &Disk, identity: Identity, durable: Durable) -> Boot {
    Boot {
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
    }
}

fn mesh_settings(config: &AgentConfig) -> MeshSettings {
    MeshSettings {
        listen: config.listen,
        mesh_key: *config.mesh_key,
        mdns: config.mdns,
        subnets: config.subnets.clone(),
        foreign: config.foreign.clone(),
        peers: config.peers.clone(),
    }
}

fn device_of(
    config: &AgentConfig,
    disk: &Disk,
    endpoint: Endpoint,
    listens: SocketAddr,
    inputs: mpsc::Sender<Input>,
) -> Result<Device, AgentError> {
    let endpoint_name = &config.kubernetes.endpoint;
    let name = endpoint_name.rsplit_once(':').map_or(endpoint_name.as_str(), |(name, _)| name).to_owned();
    let runs = process::Runs::new(config.run_dir.join("runs"));
    std::fs::create_dir_all(runs.directory())
        .and_then(|()| std::fs::set_permissions(runs.directory(), std::fs::Permissions::from_mode(0o700)))
        .map_err(|why| system(&runs.directory().display().to_string(), &why))?;
    Ok(Device {
        place: Arc::new(Place {
            me: disk.identity().machine(),
            key: disk.sealing_key(),
            settings: config.kubernetes.clone(),
            manifests: config.manifests.clone(),
        }),
        env: config.kubeadm_env.clone(),
        hosts: Hosts::new(config.hosts_file.clone(), config.cluster.clone(), name, inputs),
        proxies: Proxies::of_environment(&config.kubernetes),
        former: tokio::sync::Mutex::new(process::Former::of(runs.directory())),
        runs,
        listens,
        backups: Arc::new(Store::new(config.kubernetes.backups_dir.clone())),
        endpoint,
        started: Instant::now(),
        times: Mutex::default(),
        plan: Mutex::default(),
    })
}

/// Has the identity tell what it makes, if that is to be recorded.
fn told(config: &AgentConfig, identity: Identity) -> (Identity, Option<Receiver<Made>>) {
    if config.record.is_none() {
        return (identity, None);
    }
    let (tell, made) = std::sync::mpsc::channel();
    (identity.telling(tell), Some(made))
}

/// Records what the machine is given, if that is wanted.
fn recorder(config: &AgentConfig, boot: &Boot, made: Option<Receiver<Made>>) -> Result<Recorder, AgentError> {
    match (&config.record, made) {
        (Some(directory), Some(made)) => Recorder::begin(directory, boot, made).map_err(AgentError::System),
        _ => Ok(Recorder::default()),
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

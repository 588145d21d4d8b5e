//! The mesh: libp2p TCP with the image's fence, Noise and Yamux; mDNS and addresses as hints; frames in and out.
//!
//! One task owns the swarm. For every peer there is one stream of ours to it (a writer task behind a bounded queue) and
//! one of its own to us (a reader task); everything that comes is decoded and checked before it leaves this module.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncWriteExt as _, StreamExt};
use libp2p::core::upgrade::Version;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, Transport, connection_limits, mdns, noise, pnet, tcp, yamux};
use muster_wire::{Frame, Identity, MachineId, WireError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::counters::Counters;

mod address;
mod key;
mod link;

pub use address::{multiaddr, socket};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/muster/1");

/// How often hints without a connection are dialled again: quick at first, when machines boot together.
const REDIAL_MIN: Duration = Duration::from_millis(150);
const REDIAL_MAX: Duration = Duration::from_secs(15);

/// How long a refused peer is left alone.
const REFUSED_FOR: Duration = Duration::from_secs(300);

/// Most connections at once. A machine talks to all of a small site and to some of a large one.
const CONNECTIONS_MAX: u32 = 512;

/// Most addresses kept as hints.
const HINTS_MAX: usize = 4_096;

/// After this many frames that are none, a connection is closed.
const BAD_FRAMES_MAX: u32 = 16;

/// Wants of the shell.
#[derive(Debug)]
pub enum Command {
    /// Send an encoded frame.
    Send(MachineId, Vec<u8>),
    /// Addresses from a machine's card.
    Learn(MachineId, Vec<String>),
    /// Turn a machine away for some minutes.
    Refuse(MachineId),
}

/// What the mesh tells the shell.
#[derive(Debug)]
pub enum Event {
    /// The first connection to a machine stands.
    Connected(MachineId),
    /// The last one is gone.
    Disconnected(MachineId),
    /// A frame came, checked.
    Received(MachineId, Frame),
    /// Someone was turned away: who, and why.
    TurnedAway(String, String),
    /// The addresses under which this machine listens.
    Addresses(Vec<String>),
}

/// How the mesh is to be.
#[derive(Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The image's mesh key.
    pub mesh_key: [u8; 32],
    /// Whether to ask and answer by mDNS.
    pub mdns: bool,
    /// Static peers, `host:port`; names are looked up again before every dial.
    pub peers: Vec<String>,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    streams: libp2p_stream::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

struct Peer {
    queue: mpsc::Sender<Vec<u8>>,
    writer: JoinHandle<()>,
    reader: Option<JoinHandle<()>>,
}

struct Hint {
    pause: Duration,
    due: Instant,
}

/// The mesh's task.
pub struct Mesh {
    swarm: Swarm<Behaviour>,
    streams: libp2p_stream::Control,
    me: PeerId,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    peers: BTreeMap<MachineId, Peer>,
    /// Addresses to dial while nobody is connected there.
    hints: BTreeMap<String, Hint>,
    /// The remote address of each connection this machine dialled.
    dialled: BTreeMap<libp2p::swarm::ConnectionId, String>,
    /// Addresses that turned out to be this machine's own.
    own: BTreeSet<String>,
    machines: BTreeMap<MachineId, Vec<Multiaddr>>,
    refused: BTreeMap<MachineId, Instant>,
    listening: BTreeSet<SocketAddr>,
    counters: Arc<Counters>,
}

impl Mesh {
    /// Listens and prepares; nothing is dialled before [`Mesh::run`].
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn new(
        identity: &Identity,
        settings: Settings,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
        counters: Arc<Counters>,
    ) -> Result<Self, String> {
        let keypair = key::keypair(identity);
        let me = keypair.public().to_peer_id();
        let mut swarm = build_swarm(keypair, &settings, me)?;
        let listen = multiaddr(settings.listen);
        swarm.listen_on(listen).map_err(|why| format!("cannot listen on {}: {why}", settings.listen))?;
        let streams = swarm.behaviour().streams.new_control();
        let now = Instant::now();
        let hints = settings.peers.into_iter().map(|peer| (peer, Hint { pause: REDIAL_MIN, due: now })).collect();
        Ok(Self {
            swarm,
            streams,
            me,
            commands,
            events,
            peers: BTreeMap::new(),
            hints,
            dialled: BTreeMap::new(),
            own: BTreeSet::new(),
            machines: BTreeMap::new(),
            refused: BTreeMap::new(),
            listening: BTreeSet::new(),
            counters,
        })
    }

    /// Runs until the shell is gone.
    pub async fn run(mut self) {
        let mut incoming = match self.streams.accept(PROTOCOL) {
            Ok(incoming) => incoming,
            Err(why) => return warn!(%why, "the mesh runs already"),
        };
        loop {
            let redial = self.hints.values().map(|hint| hint.due).min();
            let redial = redial.unwrap_or_else(|| Instant::now() + REDIAL_MAX);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.carry_out(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.swarm_event(event).await,
                Some((peer, stream)) = incoming.next() => self.accept(peer, stream),
                () = tokio::time::sleep_until(redial) => self.redial(),
            }
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Send(to, frame) => self.send(to, frame),
            Command::Learn(machine, addresses) => {
                let addresses: Vec<Multiaddr> =
                    addresses.iter().filter_map(|one| one.parse().ok().map(multiaddr)).collect();
                self.machines.insert(machine, addresses);
                self.dial(machine);
            }
            Command::Refuse(machine) => {
                self.refused.retain(|_, until| *until > Instant::now());
                self.refused.insert(machine, Instant::now() + REFUSED_FOR);
                if let Some(peer) = key::peer(machine) {
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
        }
    }

    fn send(&mut self, to: MachineId, frame: Vec<u8>) {
        match self.peers.get(&to) {
            Some(peer) => {
                self.counters.sent(frame.len());
                if peer.queue.try_send(frame).is_err() {
                    self.counters.dropped("queue full");
                }
            }
            None => {
                // What matters is sent again; by then the connection stands.
                self.counters.dropped("not connected");
                self.dial(to);
            }
        }
    }

    fn is_refused(&self, machine: MachineId) -> bool {
        self.refused.get(&machine).is_some_and(|until| *until > Instant::now())
    }

    fn dial(&mut self, machine: MachineId) {
        if self.peers.contains_key(&machine) || self.is_refused(machine) {
            return;
        }
        let (Some(peer), Some(addresses)) = (key::peer(machine), self.machines.get(&machine)) else { return };
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses.clone())
            .allocate_new_port()
            .build();
        // Already dialling, or no room: both are fine here.
        let _ = self.swarm.dial(options);
    }

    /// Dials hints at which nobody is connected.
    fn redial(&mut self) {
        let now = Instant::now();
        let connected: BTreeSet<&String> = self.dialled.values().collect();
        let due: Vec<String> =
            self.hints.iter().filter(|(_, hint)| hint.due <= now).map(|(hint, _)| hint.clone()).collect();
        let open: Vec<String> = due.iter().filter(|hint| !connected.contains(hint)).cloned().collect();
        for hint in due {
            if let Some(hint) = self.hints.get_mut(&hint) {
                hint.pause = (hint.pause * 2).min(REDIAL_MAX);
                hint.due = now + hint.pause;
            }
        }
        for hint in open.into_iter().filter(|hint| !self.own.contains(hint)) {
            if let Some(address) = address::dialable(&hint) {
                // From a port of its own: two machines that dial each other from their listening ports would be one
                // connection to TCP, which on one host the system refuses.
                let options = DialOpts::unknown_peer_id().address(address).allocate_new_port().build();
                let connection = options.connection_id();
                if self.swarm.dial(options).is_ok() {
                    self.dialled.insert(connection, hint);
                }
            }
        }
    }

    async fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, num_established, .. } if num_established.get() == 1 => {
                self.connected(peer_id).await;
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, connection_id, .. } => {
                self.dialled.remove(&connection_id);
                if num_established == 0 {
                    self.disconnected(peer_id).await;
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.listening.extend(socket(&address));
                self.tell_addresses().await;
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                if let Some(address) = socket(&address) {
                    self.listening.remove(&address);
                }
                self.tell_addresses().await;
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                let whom = socket(&send_back_addr).map_or_else(|| "someone".to_owned(), |from| from.ip().to_string());
                debug!(%whom, %error, "an incoming connection failed");
                self.turned_away(whom, &error.to_string()).await;
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                let hint = self.dialled.remove(&connection_id);
                self.dial_failed(hint, error).await;
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    self.discovered(peer, address);
                }
            }
            _ => {}
        }
    }

    /// Someone answered by mDNS. Its records are unauthenticated, so they are a hint like any other, and bounded.
    fn discovered(&mut self, peer: PeerId, address: Multiaddr) {
        if peer == self.me || self.swarm.is_connected(&peer) {
            return;
        }
        if key::machine(&peer).is_some_and(|machine| !self.is_refused(machine)) {
            let options = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(vec![address.clone()])
                .allocate_new_port()
                .build();
            let _ = self.swarm.dial(options);
            if let Some(address) = socket(&address).filter(|_| self.hints.len() < HINTS_MAX) {
                let hint = Hint { pause: REDIAL_MIN * 4, due: Instant::now() + REDIAL_MIN * 4 };
                self.hints.entry(address.to_string()).or_insert(hint);
            }
        }
    }

    async fn connected(&mut self, peer: PeerId) {
        let Some(machine) = key::machine(&peer).filter(|machine| !self.is_refused(*machine)) else {
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        };
        let (queue, waiting) = mpsc::channel(link::QUEUE_FRAMES);
        let mut streams = self.streams.clone();
        let writer = tokio::spawn(async move {
            match streams.open_stream(peer, PROTOCOL).await {
                Ok(stream) => {
                    if let Err(why) = link::write(stream, waiting).await {
                        debug!(%machine, %why, "the stream to a machine broke");
                    }
                }
                Err(why) => info!(%machine, %why, "a machine takes no frames of ours"),
            }
        });
        self.peers.insert(machine, Peer { queue, writer, reader: None });
        let _ = self.events.send(Event::Connected(machine)).await;
    }

    async fn disconnected(&mut self, peer: PeerId) {
        let Some(machine) = key::machine(&peer) else { return };
        if let Some(peer) = self.peers.remove(&machine) {
            peer.writer.abort();
            if let Some(reader) = peer.reader {
                reader.abort();
            }
            let _ = self.events.send(Event::Disconnected(machine)).await;
        }
        // A machine that merely restarts is soon there again.
        for hint in self.hints.values_mut() {
            hint.pause = REDIAL_MIN;
            hint.due = hint.due.min(Instant::now() + REDIAL_MIN);
        }
        self.dial(machine);
    }

    /// A peer opened its stream to us. A second one replaces the first: the peer gave that up.
    fn accept(&mut self, peer: PeerId, mut stream: libp2p::Stream) {
        let Some(machine) = key::machine(&peer) else { return };
        let Some(known) = self.peers.get_mut(&machine) else {
            tokio::spawn(async move { stream.close().await });
            return;
        };
        let reader = tokio::spawn(read_all(machine, stream, self.events.clone(), self.counters.clone()));
        if let Some(former) = known.reader.replace(reader) {
            former.abort();
        }
    }

    async fn tell_addresses(&mut self) {
        let mut addresses: Vec<SocketAddr> = self.listening.iter().copied().collect();
        // Others cannot reach a loopback address, unless that is all there is, as in a lab.
        if addresses.iter().any(|address| !address.ip().is_loopback()) {
            addresses.retain(|address| !address.ip().is_loopback() && !is_link_local(address.ip()));
        }
        addresses.sort_by_key(|address| (address.is_ipv6(), *address));
        let addresses = addresses.iter().map(SocketAddr::to_string).collect();
        let _ = self.events.send(Event::Addresses(addresses)).await;
    }

    async fn turned_away(&mut self, whom: String, error: &str) {
        self.counters.dropped("handshake failed");
        let why = if error.contains("Handshake") || error.contains("handshake") || error.contains("upgrade") {
            "the handshake failed: another mesh key, or not muster".to_owned()
        } else {
            error.chars().take(160).collect()
        };
        let _ = self.events.send(Event::TurnedAway(whom, why)).await;
    }

    async fn dial_failed(&mut self, hint: Option<String>, error: DialError) {
        match &error {
            DialError::LocalPeerId { .. } => self.own.extend(hint),
            DialError::Transport(causes) => {
                for (address, cause) in causes {
                    let cause = format!("{cause:?}");
                    // Nobody there yet is what booting looks like.
                    if cause.contains("Handshake") || cause.contains("Negotiation") || cause.contains("Noise") {
                        let whom = socket(address).map_or_else(|| address.to_string(), |address| address.to_string());
                        self.turned_away(whom, "handshake").await;
                    }
                }
            }
            _ => debug!(%error, "a dial failed"),
        }
    }
}

/// Reads frames until the stream ends. What is no frame is counted and told; too much of it ends the stream.
async fn read_all(
    machine: MachineId,
    mut stream: libp2p::Stream,
    events: mpsc::Sender<Event>,
    counters: Arc<Counters>,
) {
    let mut bad = 0;
    loop {
        let bytes = match link::read(&mut stream).await {
            Ok(bytes) => bytes,
            Err(link::ReadError::Io(_)) => return,
            Err(why) => {
                counters.dropped("frame too long");
                let _ = events.send(Event::TurnedAway(machine.to_string(), why.to_string())).await;
                return;
            }
        };
        counters.received(bytes.len());
        match Frame::decode(bytes) {
            Ok(frame) => {
                if events.send(Event::Received(machine, frame)).await.is_err() {
                    return;
                }
            }
            Err(why) => {
                counters.dropped(match why {
                    WireError::Version { .. } => "another protocol version",
                    WireError::Signature(_) => "wrong signature",
                    _ => "malformed frame",
                });
                bad += 1;
                let _ = events.send(Event::TurnedAway(machine.to_string(), why.to_string())).await;
                if bad >= BAD_FRAMES_MAX {
                    return;
                }
            }
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn build_swarm(
    keypair: libp2p::identity::Keypair,
    settings: &Settings,
    me: PeerId,
) -> Result<Swarm<Behaviour>, String> {
    let fence = key::fence(&settings.mesh_key);
    let mdns = settings.mdns.then(|| {
        let config = mdns::Config { query_interval: Duration::from_secs(5), ..mdns::Config::default() };
        mdns::tokio::Behaviour::new(config, me)
    });
    let mdns = mdns.transpose().map_err(|why| format!("mDNS cannot be used: {why}"))?;
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_established(Some(CONNECTIONS_MAX))
        .with_max_established_per_peer(Some(3))
        .with_max_pending_incoming(Some(64));
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        streams: libp2p_stream::Behaviour::new(),
        mdns: mdns.into(),
    };
    let swarm = libp2p::SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_other_transport(|keypair| {
            let noise = noise::Config::new(keypair)?;
            let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
                .and_then(move |socket, _| pnet::PnetConfig::new(fence).handshake(socket))
                .upgrade(Version::V1Lazy)
                .authenticate(noise)
                .multiplex(yamux::Config::default())
                .timeout(Duration::from_secs(10))
                .boxed();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(transport)
        })
        .map_err(|why| format!("no transport: {why}"))?
        .with_behaviour(|_| behaviour)
        .map_err(|why| format!("no behaviour: {why}"))?
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(Duration::from_secs(60))
                .with_dial_concurrency_factor(NonZeroU8::new(2).expect("not zero"))
        })
        .build();
    Ok(swarm)
}

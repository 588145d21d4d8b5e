//! The mesh: libp2p TCP with the image's fence, Noise and Yamux; mDNS and addresses as hints; frames in and out.
//!
//! One task owns the swarm. For every peer there is one stream of ours to it (a writer task behind a bounded queue) and
//! one of its own to us (a reader task); everything that comes is decoded and checked before it leaves this module.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncWriteExt as _, StreamExt};
use ipnet::IpNet;
use libp2p::core::transport::{ListenerId, TransportError};
use libp2p::swarm::ConnectionId;
use libp2p::{PeerId, Swarm};
use muster_wire::{Frame, Identity, MachineId, limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::counters::Counters;
use away::Away;
use hints::Hints;
use link::PROTOCOL;
use progress::Progress;
use rest::{OFFENDER_FOR, REFUSED_FOR, Resting};
use swarm::Behaviour;
use waiting::Waiting;

mod address;
mod away;
mod dial;
mod events;
mod hints;
mod holes;
mod key;
mod link;
mod outcomes;
mod progress;
mod reader;
mod rest;
mod swarm;
#[cfg(test)]
mod tests;
mod waiting;

pub use address::{multiaddr, socket};
pub use holes::Holes;
pub use outcomes::Outcomes;

/// How long a refused peer's connection stands on, unread: what was said to it before, it should hear, or it would not know
/// why it is left alone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// In a large site a connection that nobody used for this long is closed: a ledger poll, which may be held for half of it, is
/// use.
const IDLE: Duration = Duration::from_secs(60);

/// The same where room is scarce.
const IDLE_FILLED: Duration = Duration::from_secs(5);

/// Shortest time between two looks at which connections are unused.
const TIDY_PAUSE: Duration = Duration::from_secs(1);

/// Most machines whose addresses are remembered.
const MACHINES_MAX: usize = limits::MACHINES_MAX as usize;

/// Most bytes of decoded frames that wait for the shell, all peers together. Readers wait their turn for room, which is
/// what keeps memory flat under a flood.
const WAITING_BYTES_MAX: usize = 16 * limits::FRAME_BYTES_MAX;

/// Wants of the shell.
#[derive(Debug)]
pub enum Command {
    /// Send an encoded frame.
    Send(MachineId, Vec<u8>),
    /// Addresses from a machine's card.
    Learn(MachineId, Vec<String>),
    /// Turn a machine away for some minutes.
    Refuse(MachineId),
    /// Whether this machine is Ready: then it asks for others seldom.
    AtRest(bool),
}

/// What the mesh tells the shell.
#[derive(Debug)]
pub enum Event {
    /// A machine was reached at this address, or is heard from it. Comes before its `Connected`.
    Reached(MachineId, IpAddr),
    /// The first connection to a machine stands.
    Connected(MachineId),
    /// The last one is gone.
    Disconnected(MachineId),
    /// A frame came, checked. Its room is free again when the last part is dropped.
    Received(MachineId, Frame, OwnedSemaphorePermit),
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
    /// Which of this machine's addresses others are told of; all if there are none.
    pub subnets: Vec<IpNet>,
    /// Subnets whose addresses are told to nobody: those of Pods and Services, which bridges and proxies have on every machine.
    pub foreign: Vec<IpNet>,
    /// Static peers, `host:port`; names are looked up again before every dial.
    pub peers: Vec<String>,
}

/// What a task of the mesh tells it.
enum Word {
    /// No stream to the peer holds, or it sends what is no frame.
    GiveUp(MachineId, Instant, bool),
    /// A name means these addresses now, or none, and why.
    Resolved(String, Result<Vec<SocketAddr>, String>),
}

struct Peer {
    queue: link::Queue,
    writer: JoinHandle<()>,
    reader: Option<JoinHandle<()>>,
    since: Instant,
    /// Bytes of frames for it on this connection.
    sent: usize,
    /// When a frame was last sent to it. Whatever it sends is answered, so this is when the connection was used.
    used: Instant,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.writer.abort();
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

/// The mesh's task.
pub struct Mesh {
    swarm: Swarm<Behaviour>,
    streams: libp2p_stream::Control,
    me: PeerId,
    listen: SocketAddr,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    words: (mpsc::Sender<Word>, mpsc::Receiver<Word>),
    peers: BTreeMap<MachineId, Peer>,
    waiting: Waiting,
    /// When unused connections were last looked for.
    tidied: Instant,
    /// Every connection that stands: whose, since when, and the address if this machine dialled.
    connections: BTreeMap<ConnectionId, (MachineId, Instant, Option<SocketAddr>)>,
    hints: Hints,
    /// Dials under way whose end tells something of the address.
    dialled: BTreeMap<ConnectionId, SocketAddr>,
    progress: Progress,
    outcomes: Outcomes,
    holes: Holes,
    /// Addresses that turned out to be this machine's own.
    own: BTreeSet<SocketAddr>,
    machines: BTreeMap<MachineId, Vec<SocketAddr>>,
    resting: Resting,
    listening: BTreeMap<SocketAddr, ListenerId>,
    advertised: Vec<String>,
    /// The subnets of the settings.
    subnets: Vec<IpNet>,
    foreign: Vec<IpNet>,
    /// At which addresses each connected machine was reached.
    reached_at: BTreeMap<MachineId, BTreeSet<IpAddr>>,
    at_rest: bool,
    quiet: bool,
    away: Away,
    room: Arc<Semaphore>,
    counters: Arc<Counters>,
}

/// Listens at the address; at the unspecified one in both families, of which a machine may have only one.
fn listen(swarm: &mut Swarm<Behaviour>, at: SocketAddr) -> Result<(), String> {
    let mut listen_on = |at: SocketAddr| {
        let why = |error: TransportError<std::io::Error>| match error {
            // Its own words are none.
            TransportError::Other(cause) => cause.to_string(),
            TransportError::MultiaddrNotSupported(_) => "this system has no such address family".to_owned(),
        };
        swarm.listen_on(multiaddr(at)).map(drop).map_err(|error| format!("cannot listen on {at}: {}", why(error)))
    };
    if !at.ip().is_unspecified() {
        return listen_on(at);
    }
    let both = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    match both.map(|ip| listen_on(SocketAddr::new(ip, at.port()))) {
        [Err(ipv4), Err(ipv6)] => Err(format!("{ipv4}; {ipv6}")),
        [ipv4, ipv6] => {
            for why in [ipv4.err(), ipv6.err()].into_iter().flatten() {
                info!(why, "in the other family this machine listens");
            }
            Ok(())
        }
    }
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
        let progress = Progress::default();
        let mut swarm = swarm::build(keypair, key::fence(&settings.mesh_key), settings.mdns, progress.clone())?;
        listen(&mut swarm, settings.listen)?;
        Ok(Self {
            streams: swarm.behaviour().streams.new_control(),
            swarm,
            me,
            listen: settings.listen,
            commands,
            away: Away::new(events.clone(), counters.clone()),
            events,
            words: mpsc::channel(64),
            peers: BTreeMap::new(),
            waiting: Waiting::default(),
            tidied: Instant::now(),
            connections: BTreeMap::new(),
            outcomes: Outcomes::new(&settings.peers, settings.mdns),
            hints: Hints::new(settings.peers),
            dialled: BTreeMap::new(),
            progress,
            holes: Holes::default(),
            own: BTreeSet::new(),
            machines: BTreeMap::new(),
            resting: Resting::default(),
            listening: BTreeMap::new(),
            advertised: Vec::new(),
            subnets: settings.subnets,
            foreign: settings.foreign,
            reached_at: BTreeMap::new(),
            at_rest: false,
            quiet: false,
            room: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            counters,
        })
    }

    /// What comes of its hints, for as long as it runs.
    pub fn outcomes(&self) -> Outcomes {
        self.outcomes.clone()
    }

    /// The ways on which large packets are lost.
    pub fn holes(&self) -> Holes {
        self.holes.clone()
    }

    /// Runs until the shell is gone.
    pub async fn run(mut self) {
        let mut incoming = match self.streams.accept(PROTOCOL) {
            Ok(incoming) => incoming,
            Err(why) => return warn!(%why, "the mesh runs already"),
        };
        loop {
            let due = self.hints.due();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.carry_out(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.swarm_event(event).await,
                Some((peer, stream)) = incoming.next() => self.accept(peer, stream),
                Some(word) = self.words.1.recv() => self.hear(word),
                () = tokio::time::sleep_until(due) => self.try_hints(),
            }
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Send(to, frame) => self.send(to, frame),
            Command::Learn(machine, addresses) => {
                if self.machines.len() < MACHINES_MAX || self.machines.contains_key(&machine) {
                    let addresses = addresses.iter().filter_map(|one| one.parse().ok());
                    self.machines.insert(machine, addresses.take(limits::ADDRESSES_MAX).collect());
                }
                if self.lacks_peers() {
                    self.dial(machine);
                }
                self.dial_back(machine);
            }
            Command::Refuse(machine) => self.turn_away(machine),
            Command::AtRest(at_rest) => {
                self.at_rest = at_rest;
                self.choose_quiet();
            }
        }
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::GiveUp(machine, since, offender) => {
                // Another connection may have taken its place in the meantime.
                if self.peers.get(&machine).is_some_and(|peer| peer.since == since) {
                    match (offender, key::peer(machine)) {
                        (true, _) => self.refuse(machine, OFFENDER_FOR),
                        (false, Some(peer)) => drop(self.swarm.disconnect_peer_id(peer)),
                        (false, None) => {}
                    }
                }
            }
            Word::Resolved(name, addresses) => {
                self.outcomes.looked_up(&name, &addresses);
                addresses.unwrap_or_default().into_iter().for_each(|address| self.try_address(address));
            }
        }
    }

    fn send(&mut self, to: MachineId, frame: Vec<u8>) {
        let Some(peer) = self.peers.get_mut(&to) else {
            if !self.dial(to) || !self.waiting.push(to, frame) {
                self.counters.dropped("not connected");
            }
            return;
        };
        peer.used = Instant::now();
        // The first frame on a connection is the greeting; what waited for the connection comes after it.
        for frame in std::iter::once(frame).chain(self.waiting.take(to)) {
            let length = frame.len();
            peer.sent = peer.sent.saturating_add(length);
            match peer.queue.push(frame) {
                true => self.counters.sent(length),
                false => self.counters.dropped("queue full"),
            }
        }
    }

    /// Whether to look for more peers: in a small site for all, in a large one for some.
    fn lacks_peers(&self) -> bool {
        let under_way = self.swarm.network_info().connection_counters().num_pending_outgoing() as usize;
        self.peers.len() + under_way < limits::MESH_FULL
    }

    /// Closes connections that nobody uses, longest idle first, while there are more than a large site needs. Called when one
    /// more comes, or finds no room.
    fn close_idle(&mut self) {
        let (count, now) = (self.peers.len(), Instant::now());
        if count <= limits::MESH_CROWDED || now.duration_since(self.tidied) < TIDY_PAUSE {
            return;
        }
        self.tidied = now;
        let (keep, idle) =
            if count > limits::MESH_FILLED { (limits::MESH_FILLED, IDLE_FILLED) } else { (limits::MESH_CROWDED, IDLE) };
        let unused = self.peers.iter().filter(|(_, peer)| now.duration_since(peer.used) > idle);
        let mut unused: Vec<(Instant, MachineId)> = unused.map(|(machine, peer)| (peer.used, *machine)).collect();
        unused.sort_unstable();
        for peer in unused.into_iter().take(count - keep).filter_map(|(_, machine)| key::peer(machine)) {
            // It may be closing already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Hears no more of a machine, and closes its connection when it has heard us.
    fn turn_away(&mut self, machine: MachineId) {
        self.resting.refuse(machine, REFUSED_FOR, Instant::now());
        let Some(peer) = self.peers.get_mut(&machine) else { return };
        if let Some(reader) = peer.reader.take() {
            reader.abort();
        }
        let (words, since) = (self.words.0.clone(), peer.since);
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WORDS).await;
            let _ = words.send(Word::GiveUp(machine, since, false)).await;
        });
    }

    fn refuse(&mut self, machine: MachineId, time: Duration) {
        self.resting.refuse(machine, time, Instant::now());
        if let Some(peer) = key::peer(machine) {
            // There may be no connection.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn is_refused(&self, machine: MachineId) -> bool {
        self.resting.is_refused(machine, Instant::now())
    }

    /// A peer opened its stream to us. A second one replaces the first: the peer gave that up.
    fn accept(&mut self, peer: PeerId, mut stream: libp2p::Stream) {
        let heard = key::machine(&peer).filter(|machine| !self.is_refused(*machine));
        let machine = heard.and_then(|machine| Some((machine, self.peers.get_mut(&machine)?)));
        let Some((machine, known)) = machine else {
            tokio::spawn(async move { tokio::time::timeout(link::PATIENCE, stream.close()).await });
            return;
        };
        let (words, since) = (self.words.0.clone(), known.since);
        let reader = reader::Reader {
            machine,
            events: self.events.clone(),
            away: self.away.clone(),
            room: self.room.clone(),
            counters: self.counters.clone(),
        };
        let reading = tokio::spawn(async move {
            if reader.read_all(stream).await.is_err() {
                let _ = words.send(Word::GiveUp(machine, since, true)).await;
            }
        });
        if let Some(former) = known.reader.replace(reading) {
            former.abort();
        }
    }

    async fn connected(&mut self, machine: MachineId, peer: PeerId) {
        let (queue, outgoing) = link::queue();
        let (streams, words, since) = (self.streams.clone(), self.words.0.clone(), Instant::now());
        let writer = tokio::spawn(async move {
            if let Err(why) = link::deliver(streams, peer, outgoing).await {
                info!(%machine, why, "a machine takes no frames");
                let _ = words.send(Word::GiveUp(machine, since, false)).await;
            }
        });
        self.close_idle();
        self.peers.insert(machine, Peer { queue, writer, reader: None, since, sent: 0, used: since });
        self.choose_quiet();
        let _ = self.events.send(Event::Connected(machine)).await;
    }

    async fn disconnected(&mut self, machine: MachineId) {
        if let Some(peer) = self.peers.remove(&machine) {
            self.reached_at.remove(&machine);
            let now = Instant::now();
            self.resting.left(machine, now.duration_since(peer.since), now);
            self.choose_quiet();
            let _ = self.events.send(Event::Disconnected(machine)).await;
        }
    }
}

//! The mesh: libp2p TCP with the image's fence, Noise and Yamux; mDNS and addresses as hints; frames in and out.
//!
//! Whom to dial, whose connection stands and who is left alone is for [`Links`] to say; this room has libp2p, and carries it out. One
//! task owns the swarm. For every peer there is one stream of ours to it (a writer task behind a bounded queue) and
//! one of its own to us (a reader task); everything that comes is decoded and checked before it leaves this module.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncWriteExt as _, StreamExt};
use ipnet::IpNet;
use libp2p::core::transport::{ListenerId, TransportError};
use libp2p::swarm::ConnectionId;
use libp2p::{PeerId, Swarm};
use muster_protocol::links::{Links, Sent, Want};
use muster_protocol::{AwayCause, Dropped, Time};
use muster_wire::{Frame, Identity, MachineId, limits};
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::counters::Counters;
use away::Away;
use link::PROTOCOL;
use progress::Progress;
use swarm::Behaviour;

mod address;
mod away;
mod dial;
mod events;
mod holes;
mod key;
mod link;
mod outcomes;
mod progress;
mod reader;
mod swarm;
#[cfg(test)]
mod tests;

pub use address::{multiaddr, socket};
pub use holes::Holes;
pub use outcomes::Outcomes;

/// Without anything to wait for, a look now and then costs nothing.
const LOOK: Duration = Duration::from_secs(60);

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
    Refuse(MachineId, Duration),
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
    TurnedAway(String, AwayCause),
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
    links: Links<ConnectionId, Vec<u8>>,
    /// When the clock of `links` stood at zero.
    started: Instant,
    peers: BTreeMap<MachineId, Peer>,
    /// Dials under way, by their number in `links`.
    dials: BTreeMap<ConnectionId, u64>,
    progress: Progress,
    outcomes: Outcomes,
    holes: Holes,
    listening: BTreeMap<SocketAddr, ListenerId>,
    advertised: Vec<String>,
    /// The subnets of the settings.
    subnets: Vec<IpNet>,
    foreign: Vec<IpNet>,
    at_rest: bool,
    quiet: bool,
    away: Away,
    room: Arc<Semaphore>,
    counters: Arc<Counters>,
}

/// Listens at the address; at the unspecified one in both families, of which a machine may have only one. A family that the machine has, and whose
/// port is another program's, is an error: others would dial that program.
fn listen(swarm: &mut Swarm<Behaviour>, at: SocketAddr) -> Result<(), String> {
    let mut listen_on = |at: SocketAddr| {
        let why = |error: TransportError<std::io::Error>| match error {
            // Its own words are none.
            TransportError::Other(cause) => {
                let cause = cause.to_string();
                // libp2p wraps the system's error, and keeps nothing of it but its words.
                let taken = [Errno::ADDRINUSE, Errno::ACCESS].map(|errno| std::io::Error::from(errno).to_string());
                (taken.contains(&cause), cause)
            }
            TransportError::MultiaddrNotSupported(_) => (false, "this system has no such address family".to_owned()),
        };
        let failed = |(taken, why)| (taken, format!("cannot listen on {at}: {why}"));
        swarm.listen_on(multiaddr(at)).map(drop).map_err(|error| failed(why(error)))
    };
    if !at.ip().is_unspecified() {
        return listen_on(at).map_err(|(_, why)| why);
    }
    let both = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    match both.map(|ip| listen_on(SocketAddr::new(ip, at.port()))) {
        [Err((_, ipv4)), Err((_, ipv6))] => Err(format!("{ipv4}; {ipv6}")),
        [Err((true, why)), Ok(())] | [Ok(()), Err((true, why))] => Err(why),
        [ipv4, ipv6] => {
            for (_, why) in [ipv4.err(), ipv6.err()].into_iter().flatten() {
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
            outcomes: Outcomes::new(&settings.peers, settings.mdns),
            links: Links::new(identity.machine(), settings.peers, limits::CONNECTIONS_MAX, Time(0)),
            started: Instant::now(),
            peers: BTreeMap::new(),
            dials: BTreeMap::new(),
            progress,
            holes: Holes::default(),
            listening: BTreeMap::new(),
            advertised: Vec::new(),
            subnets: settings.subnets,
            foreign: settings.foreign,
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
            self.follow().await;
            let due = self.links.due().map_or_else(|| Instant::now() + LOOK, |due| self.started + micros(due));
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.carry_out(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.swarm_event(event).await,
                Some((peer, stream)) = incoming.next() => self.accept(peer, stream),
                Some(word) = self.words.1.recv() => self.hear(word),
                () = tokio::time::sleep_until(due) => {
                    let now = self.now();
                    self.links.wake(now);
                }
            }
        }
    }

    /// The time of `links`.
    fn now(&self) -> Time {
        Time(self.started.elapsed().as_micros() as u64)
    }

    /// Does what `links` want.
    async fn follow(&mut self) {
        while let Some(want) = self.links.wanted() {
            match want {
                Want::Dial(dial) => self.dial(dial),
                Want::LookUp(name) => self.look_up(name),
                // It may be closing already.
                Want::Close(connection) => _ = self.swarm.close_connection(connection),
                Want::Came(address, came) => self.note_came(address, came),
                Want::Reached(machine, at) => _ = self.events.send(Event::Reached(machine, at)).await,
                Want::Connected(machine) => self.connected(machine).await,
                Want::Disconnected(machine) => self.disconnected(machine).await,
            }
        }
    }

    fn carry_out(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Send(to, frame) => self.send(to, frame),
            Command::Learn(machine, addresses) => self.links.learn(now, machine, &addresses),
            Command::Refuse(machine, rest) => {
                self.links.refuse(now, machine, rest);
                if let Some(reader) = self.peers.get_mut(&machine).and_then(|peer| peer.reader.take()) {
                    reader.abort();
                }
            }
            Command::AtRest(at_rest) => {
                self.at_rest = at_rest;
                self.choose_quiet();
            }
        }
    }

    fn hear(&mut self, word: Word) {
        let now = self.now();
        match word {
            Word::GiveUp(machine, since, offender) => {
                // Another connection may have taken its place in the meantime.
                if self.peers.get(&machine).is_some_and(|peer| peer.since == since) {
                    match offender {
                        true => self.links.offended(now, machine),
                        false => self.links.give_up(machine),
                    }
                }
            }
            Word::Resolved(name, addresses) => {
                self.outcomes.looked_up(&name, &addresses);
                self.links.resolved(now, addresses.unwrap_or_default());
            }
        }
    }

    fn send(&mut self, to: MachineId, frame: Vec<u8>) {
        let now = self.now();
        let (frame, waited) = match self.links.send(now, to, frame, Vec::len) {
            Sent::Now(frame, waited) => (frame, waited),
            Sent::Waits => return,
            Sent::Dropped => return self.counters.dropped(Dropped::NotConnected),
        };
        let Some(peer) = self.peers.get_mut(&to) else { return self.counters.dropped(Dropped::NotConnected) };
        for frame in std::iter::once(frame).chain(waited) {
            let length = frame.len();
            peer.sent = peer.sent.saturating_add(length);
            match peer.queue.push(frame) {
                true => self.counters.sent(length),
                false => self.counters.dropped(Dropped::QueueFull),
            }
        }
    }

    /// A peer opened its stream to us. A second one replaces the first: the peer gave that up.
    fn accept(&mut self, peer: PeerId, mut stream: libp2p::Stream) {
        let now = self.now();
        let heard = key::machine(&peer).filter(|machine| self.links.hears(now, *machine));
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

    async fn connected(&mut self, machine: MachineId) {
        let Some(peer) = key::peer(machine) else { return };
        let (queue, outgoing) = link::queue();
        let (streams, words, since) = (self.streams.clone(), self.words.0.clone(), Instant::now());
        let writer = tokio::spawn(async move {
            if let Err(why) = link::deliver(streams, peer, outgoing).await {
                info!(%machine, why, "a machine takes no frames");
                let _ = words.send(Word::GiveUp(machine, since, false)).await;
            }
        });
        self.peers.insert(machine, Peer { queue, writer, reader: None, since, sent: 0 });
        self.choose_quiet();
        let _ = self.events.send(Event::Connected(machine)).await;
    }

    async fn disconnected(&mut self, machine: MachineId) {
        self.peers.remove(&machine);
        self.choose_quiet();
        let _ = self.events.send(Event::Disconnected(machine)).await;
    }
}

/// Since the clock of `links` stood at zero.
fn micros(time: Time) -> Duration {
    Duration::from_micros(time.0)
}

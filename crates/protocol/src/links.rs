//! A machine's connections: who is dialled and when, whose connection stands, which one goes, and who is left alone.
//!
//! The agent and the simulator both run it. It has no socket, clock or entropy: the room that owns it says what happened, and
//! carries out what [`Links::wanted`] says. `C` is what that room calls a connection by, `F` a frame as it keeps it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use muster_wire::{MachineId, limits};

use crate::Time;

mod connections;
mod dials;
mod frames;
mod handshakes;
mod hints;
mod rest;
#[cfg(test)]
mod tests;
mod waiting;

pub use frames::BadFrames;
pub use handshakes::{Failure, Handshakes, Stage};
pub use rest::{IMAGE_REFUSED_FOR, OFFENDER_FOR, REFUSED_FOR};

use hints::Hints;
use rest::Resting;
use waiting::Waiting;

/// How long a refused machine's connection stands on, unheard: what was said to it before, it should hear, or it would not know
/// why it is left alone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Most connections to one machine: two that dialled each other at once, and one that takes the place of a dead one.
pub const CONNECTIONS_PER_MACHINE_MAX: usize = 3;

/// Most machines whose addresses are remembered.
const MACHINES_MAX: usize = limits::MACHINES_MAX as usize;

/// A dial that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// Its number, which its end repeats.
    pub number: u64,
    /// Who is expected there; nobody certain at a hint.
    pub to: Option<MachineId>,
    /// Where, in the order in which they are tried.
    pub at: Vec<SocketAddr>,
}

/// What is known of an address when it might be dialled, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// It is this machine's own.
    Own,
    /// This machine is there, and connected.
    Connected(MachineId),
    /// This machine is there, and not dialled for a while: one of the two refuses the other.
    Rests(MachineId),
    /// This machine is there, and refused.
    Refused(MachineId),
}

/// What is wanted, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Want<C> {
    /// Dial. [`Links::connected`] or [`Links::dial_failed`] ends it.
    Dial(Dial),
    /// Look a name up, for [`Links::resolved`].
    LookUp(String),
    /// Close a connection that stands, or was not told of.
    Close(C),
    /// For people: what is known of an address.
    Came(SocketAddr, Came),
    /// For the core: a machine was reached at this address, or is heard from it. Comes before its `Connected`.
    Reached(MachineId, IpAddr),
    /// For the core: the first connection to a machine stands.
    Connected(MachineId),
    /// For the core: the last one is gone.
    Disconnected(MachineId),
}

/// What becomes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent<F> {
    /// It leaves now, and after it those that waited for the connection.
    Now(F, Vec<F>),
    /// It waits for a connection that is being made.
    Waits,
    /// There is no way to the machine, or no room.
    Dropped,
}

/// A machine that is connected.
#[derive(Debug)]
struct Peer<C> {
    /// Oldest first.
    connections: Vec<C>,
    since: Time,
    /// When a frame was last sent to it. Whatever it sends is answered, so this is when the connection was used.
    used: Time,
    /// At which addresses it was reached.
    reached: BTreeSet<IpAddr>,
}

/// A connection that stands.
#[derive(Debug, Clone, Copy)]
struct Connection {
    machine: MachineId,
    since: Time,
    /// Where, if this machine dialled.
    dialled: Option<SocketAddr>,
}

/// The connections of one machine while its process runs.
#[derive(Debug)]
pub struct Links<C, F> {
    me: MachineId,
    /// Most connections.
    room: usize,
    hints: Hints,
    resting: Resting,
    waiting: Waiting<F>,
    /// Addresses from the machines' cards.
    known: BTreeMap<MachineId, Vec<SocketAddr>>,
    peers: BTreeMap<MachineId, Peer<C>>,
    connections: BTreeMap<C, Connection>,
    /// Dials under way, by number.
    dials: BTreeMap<u64, Dial>,
    /// Who is dialled, of those.
    dialled: BTreeSet<MachineId>,
    dial_count: u64,
    /// Where this machine listens.
    listening: BTreeSet<SocketAddr>,
    /// Other addresses that turned out to be its own.
    own: BTreeSet<SocketAddr>,
    /// When unused connections were last looked for.
    tidied: Option<Time>,
    /// Connections of refused machines, and when they are closed.
    closing: VecDeque<(Time, C)>,
    wants: VecDeque<Want<C>>,
}

impl<C: Copy + Ord, F> Links<C, F> {
    /// The links of a machine whose image names these peers, `ip:port` or `name:port`, which are due at once. It has `room`
    /// connections at most.
    pub fn new(me: MachineId, peers: Vec<String>, room: usize, now: Time) -> Self {
        Self {
            me,
            room,
            hints: Hints::new(peers, now),
            resting: Resting::default(),
            waiting: Waiting::default(),
            known: BTreeMap::new(),
            peers: BTreeMap::new(),
            connections: BTreeMap::new(),
            dials: BTreeMap::new(),
            dialled: BTreeSet::new(),
            dial_count: 0,
            listening: BTreeSet::new(),
            own: BTreeSet::new(),
            tidied: None,
            closing: VecDeque::new(),
            wants: VecDeque::new(),
        }
    }

    /// The next thing wanted, to be taken until there is none.
    pub fn wanted(&mut self) -> Option<Want<C>> {
        self.wants.pop_front()
    }

    /// When [`Links::wake`] is due.
    pub fn due(&self) -> Option<Time> {
        let closing = self.closing.front().map(|(at, _)| *at);
        closing.into_iter().chain(self.hints.due()).min()
    }

    /// It is time: dials what hints are due, and closes the connections of those that have heard why.
    pub fn wake(&mut self, now: Time) {
        while let Some((_, connection)) = self.closing.front().copied().filter(|(at, _)| *at <= now) {
            self.closing.pop_front();
            if self.connections.contains_key(&connection) {
                self.wants.push_back(Want::Close(connection));
            }
        }
        self.try_hints(now);
    }

    /// A machine's addresses are known, from its card. What is no address is left out.
    pub fn learn(&mut self, now: Time, machine: MachineId, addresses: &[String]) {
        if self.known.len() < MACHINES_MAX || self.known.contains_key(&machine) {
            let addresses = addresses.iter().filter_map(|one| one.parse().ok());
            self.known.insert(machine, addresses.take(limits::ADDRESSES_MAX).collect());
        }
        if self.lacks_peers() {
            self.dial(now, machine);
        }
        self.dial_back(now, machine);
    }

    /// Sends a frame of so many bytes, dialling if no connection stands.
    pub fn send(&mut self, now: Time, to: MachineId, frame: F, bytes: impl FnOnce(&F) -> usize) -> Sent<F> {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.used = now;
            // The first frame on a connection is the greeting; what waited for the connection comes after it.
            return Sent::Now(frame, self.waiting.take(to));
        }
        if !self.dial(now, to) {
            return Sent::Dropped;
        }
        let bytes = bytes(&frame);
        if self.waiting.push(to, frame, bytes) { Sent::Waits } else { Sent::Dropped }
    }

    /// The core refuses a machine for so long: it is not heard, and its connections are closed when it has heard why.
    pub fn refuse(&mut self, now: Time, machine: MachineId, rest: Duration) {
        self.resting.refuse(machine, rest, now);
        if let Some(peer) = self.peers.get(&machine) {
            self.closing.extend(peer.connections.iter().map(|connection| (now + LAST_WORDS, *connection)));
        }
    }

    /// A machine sends too much that is no frame: it is left alone for a while, from now on.
    pub fn offended(&mut self, now: Time, machine: MachineId) {
        self.resting.refuse(machine, OFFENDER_FOR, now);
        self.give_up(machine);
    }

    /// Closes all connections of a machine, which takes nothing.
    pub fn give_up(&mut self, machine: MachineId) {
        if let Some(peer) = self.peers.get(&machine) {
            self.wants.extend(peer.connections.iter().map(|connection| Want::Close(*connection)));
        }
    }

    /// Whether what a machine sends is read.
    pub fn hears(&self, now: Time, machine: MachineId) -> bool {
        !self.resting.is_refused(machine, now)
    }

    /// Whether a connection to a machine stands.
    pub fn is_connected(&self, machine: MachineId) -> bool {
        self.peers.contains_key(&machine)
    }

    /// The connection to a machine that has stood longest.
    pub fn over(&self, machine: MachineId) -> Option<C> {
        self.connections_of(machine).next()
    }

    /// The connections to a machine, oldest first.
    pub fn connections_of(&self, machine: MachineId) -> impl Iterator<Item = C> + '_ {
        self.peers.get(&machine).into_iter().flat_map(|peer| peer.connections.iter().copied())
    }

    /// Whether a connection stands.
    pub fn stands(&self, connection: C) -> bool {
        self.connections.contains_key(&connection)
    }

    /// All connections that stand.
    pub fn connections(&self) -> impl Iterator<Item = C> + '_ {
        self.connections.keys().copied()
    }

    /// How many machines are connected.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// How many more machines to look for: in a small site all, in a large one some. Dials under way count as found.
    pub fn lacking(&self) -> usize {
        limits::MESH_FULL.min(self.room).saturating_sub(self.peers.len() + self.dials.len())
    }

    fn lacks_peers(&self) -> bool {
        self.lacking() > 0
    }
}

//! Connections that come and go: which of them stand, and for how long.

use std::net::SocketAddr;
use std::time::Duration;

use muster_wire::{MachineId, limits};

use super::{CONNECTIONS_PER_MACHINE_MAX, Came, Connection, Links, Peer, Want};
use crate::Time;

/// Connections to one machine that come within this time are those of two machines that dialled each other at once. A later
/// one from outside says that the machine does not have the former any more: it lost its power and is back.
const AT_ONCE: Duration = Duration::from_secs(3);

/// In a large site a connection that nobody used for this long is closed: a ledger poll, which may be held for half of it, is
/// use.
const IDLE: Duration = Duration::from_secs(60);

/// The same where room is scarce.
const IDLE_FILLED: Duration = Duration::from_secs(5);

/// Shortest time between two looks at which connections are unused.
const TIDY_PAUSE: Duration = Duration::from_secs(1);

impl<C: Copy + Ord, F> Links<C, F> {
    /// The handshakes of a connection are done: the other side holds the mesh key, and has proved to be `machine`. It is at
    /// `from`; `dial` is the number of the dial that made it, if this machine dialled.
    pub fn connected(&mut self, now: Time, connection: C, machine: MachineId, from: SocketAddr, dial: Option<u64>) {
        let incoming = dial.is_none();
        let dial = dial.and_then(|number| self.end_dial(number));
        let dialled = (!incoming).then_some(from);
        let hint = dial.filter(|dial| dial.to.is_none()).and_then(|dial| dial.at.first().copied());
        if machine == self.me {
            dialled.into_iter().for_each(|address| self.is_myself(address));
            self.wants.extend(hint.map(|address| Want::Came(address, Came::Own)));
            return self.wants.push_back(Want::Close(connection));
        }
        let refused = self.resting.is_refused(machine, now);
        let came = if refused { Came::Refused(machine) } else { Came::Connected(machine) };
        self.wants.extend(hint.map(|address| Want::Came(address, came)));
        let kept = if incoming && !refused { self.drop_former(now, machine) } else { Vec::new() };
        let count = self.connections_of(machine).count();
        if refused || count >= CONNECTIONS_PER_MACHINE_MAX {
            // It closes without ever having been told of.
            return self.wants.push_back(Want::Close(connection));
        }
        let first = !self.peers.contains_key(&machine);
        if first {
            self.make_room(now);
        }
        let empty = || Peer { connections: kept, since: now, used: now, reached: Default::default() };
        let peer = self.peers.entry(machine).or_insert_with(empty);
        peer.connections.push(connection);
        let ip = from.ip().to_canonical();
        if peer.reached.insert(ip) {
            self.wants.push_back(Want::Reached(machine, ip));
        }
        self.connections.insert(connection, Connection { machine, since: now, dialled });
        if first {
            self.wants.push_back(Want::Connected(machine));
        }
        self.dial_back(now, machine);
    }

    /// A connection is gone. Returns whose it was and for how long it stood, if it was known.
    pub fn closed(&mut self, now: Time, connection: C) -> Option<(MachineId, Duration)> {
        let Connection { machine, since, .. } = self.connections.remove(&connection)?;
        let stood = now.since(since);
        let Some(peer) = self.peers.get_mut(&machine) else { return Some((machine, stood)) };
        peer.connections.retain(|one| *one != connection);
        if peer.connections.is_empty() {
            self.disconnected(now, machine);
            // A machine that merely restarts is soon there again; one that hangs up is not asked at once.
            if self.lacks_peers() && !self.resting.rests(machine, now) {
                self.hints.hurry(now);
                self.dial(now, machine);
            }
        }
        Some((machine, stood))
    }

    /// Whether there are as many connections as there may be.
    pub fn is_full(&self) -> bool {
        self.connections.len() >= self.room
    }

    /// Closes connections that nobody uses, longest idle first, while there are more than a large site needs. To be called when one
    /// more comes, or finds no room.
    pub fn make_room(&mut self, now: Time) {
        let (count, filled) = (self.peers.len(), limits::MESH_FILLED.min(self.room));
        let crowded = limits::MESH_CROWDED.min(filled);
        if count <= crowded || self.tidied.is_some_and(|tidied| now.since(tidied) < TIDY_PAUSE) {
            return;
        }
        self.tidied = Some(now);
        let (keep, idle) = if count > filled { (filled, IDLE_FILLED) } else { (crowded, IDLE) };
        let unused = self.peers.iter().filter(|(_, peer)| now.since(peer.used) > idle);
        let mut unused: Vec<(Time, MachineId)> = unused.map(|(machine, peer)| (peer.used, *machine)).collect();
        unused.sort_unstable();
        unused.into_iter().take(count - keep).for_each(|(_, machine)| self.give_up(machine));
    }

    /// Closes the connections of a machine that came back without them. Returns those that stay.
    fn drop_former(&mut self, now: Time, machine: MachineId) -> Vec<C> {
        let is_former = |connection: &C| {
            self.connections.get(connection).is_some_and(|connection| now.since(connection.since) > AT_ONCE)
        };
        let (former, kept): (Vec<C>, Vec<C>) = self.connections_of(machine).partition(is_former);
        if former.is_empty() {
            return Vec::new();
        }
        for connection in former {
            self.connections.remove(&connection);
            self.wants.push_back(Want::Close(connection));
        }
        self.disconnected(now, machine);
        kept
    }

    fn disconnected(&mut self, now: Time, machine: MachineId) {
        if let Some(peer) = self.peers.remove(&machine) {
            self.resting.left(machine, now.since(peer.since), now);
            self.wants.push_back(Want::Disconnected(machine));
        }
    }
}

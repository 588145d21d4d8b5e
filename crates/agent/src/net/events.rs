//! What libp2p tells: connections come and go, addresses change, somebody is turned away.

use std::time::Duration;

use ipnet::IpNet;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::{ConnectionId, ListenError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, mdns};
use muster_wire::{MachineId, limits};
use tokio::time::Instant;
use tracing::debug;

use super::dial::CONNECTED;
use super::holes::LARGE;
use super::progress::Stage;
use super::swarm::BehaviourEvent;
use super::{Event, Mesh, address, key, socket};

/// What is said of a handshake in which the other side sent what makes no sense: another mesh key makes noise of every byte, so
/// nothing more is known.
pub(super) const HANDSHAKE: &str = "the handshake failed: another mesh key, or not muster";

/// What is said of one that ended in the middle.
pub(super) const CUT_SHORT: &str = "its handshake ends in the middle: perhaps another mesh key, or not muster";

/// Connections to one peer that come within this time are those of two machines that dialled each other at once. A later
/// one from outside says that the peer does not have the former any more: it lost its power and is back.
const AT_ONCE: Duration = Duration::from_secs(3);

impl Mesh {
    pub(super) async fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.established(peer_id, connection_id, &endpoint).await;
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, connection_id, cause, .. } => {
                let closed = self.connections.remove(&connection_id);
                if let Some((machine, since, _)) = closed {
                    debug!(%machine, ?cause, "a connection ended");
                    self.note_end(machine, since, is_given_up(&cause));
                }
                if let Some((machine, ..)) = closed.filter(|_| num_established == 0) {
                    debug!(%machine, %peer_id, "disconnected");
                    self.disconnected(machine).await;
                    // A machine that merely restarts is soon there again; one that hangs up is not asked at once.
                    if self.lacks_peers() && !self.resting.rests(machine, Instant::now()) {
                        self.hints.hurry();
                        self.dial(machine);
                    }
                }
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.listening.extend(socket(&address).map(|address| (address, listener_id)));
                self.tell_addresses().await;
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                if let Some(address) = socket(&address) {
                    self.listening.remove(&address);
                }
                self.tell_addresses().await;
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, peer_id, .. } => {
                self.incoming_failed(&send_back_addr, error, peer_id).await;
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, peer_id, .. } => {
                if let Some(machine) = peer_id.as_ref().and_then(key::machine)
                    && !self.peers.contains_key(&machine)
                {
                    self.waiting.take(machine).iter().for_each(|_| self.counters.dropped("not connected"));
                }
                let hint = self.dialled.remove(&connection_id);
                self.dial_failed(hint, error).await;
            }
            SwarmEvent::Behaviour(
                BehaviourEvent::Mdns4(mdns::Event::Discovered(found))
                | BehaviourEvent::Mdns6(mdns::Event::Discovered(found)),
            ) => {
                for (peer, address) in found {
                    self.discovered(peer, address);
                }
            }
            _ => {}
        }
    }

    async fn established(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let hint = self.dialled.remove(&connection);
        let at = socket(endpoint.get_remote_address()).map(|at| at.ip().to_canonical());
        let dialled = match endpoint {
            ConnectedPoint::Dialer { address, .. } => socket(address),
            ConnectedPoint::Listener { .. } => None,
        };
        if let Some(remote) = socket(endpoint.get_remote_address()) {
            self.progress.take(endpoint.is_dialer(), remote);
            self.away.came_through(remote.ip());
        }
        if let Some((address, machine)) = hint.zip(key::machine(&peer)) {
            let text = if self.is_refused(machine) { "refused here, since it is" } else { CONNECTED };
            self.outcomes.came(address, text, Some(machine));
        }
        let Some(machine) = key::machine(&peer).filter(|machine| !self.is_refused(*machine)) else {
            if key::machine(&peer).is_none() {
                self.away.turned("not a machine", peer.to_string(), "its key is not Ed25519".to_owned()).await;
            }
            // It closes without ever having been told of.
            self.swarm.close_connection(connection);
            return;
        };
        let now = Instant::now();
        if endpoint.is_listener() && self.drop_former(machine, now) {
            self.disconnected(machine).await;
        }
        self.connections.insert(connection, (machine, now, dialled));
        if let Some(at) = at
            && self.reached_at.entry(machine).or_default().insert(at)
        {
            let _ = self.events.send(Event::Reached(machine, at)).await;
        }
        self.holes.connected(machine, now);
        if !self.peers.contains_key(&machine) {
            self.connected(machine, peer).await;
        }
        self.dial_back(machine);
    }

    /// A connection of a machine ended: by the system, which gave up what was not acknowledged, or otherwise.
    fn note_end(&mut self, machine: MachineId, since: Instant, given_up: bool) {
        let large = self.peers.get(&machine).is_some_and(|peer| peer.sent >= LARGE);
        let now = Instant::now();
        self.holes.ended(machine, now.duration_since(since), given_up && large, now);
    }

    /// Closes the connections of a peer that came back without them. Returns whether there were any.
    fn drop_former(&mut self, machine: MachineId, now: Instant) -> bool {
        let former = self
            .connections
            .iter()
            .filter(|(_, (whose, since, _))| *whose == machine && now.duration_since(*since) > AT_ONCE);
        let former: Vec<ConnectionId> = former.map(|(connection, _)| *connection).collect();
        for connection in &former {
            self.connections.remove(connection);
            self.swarm.close_connection(*connection);
        }
        !former.is_empty()
    }

    async fn incoming_failed(&mut self, from: &Multiaddr, error: ListenError, peer: Option<PeerId>) {
        let stage = socket(from).and_then(|from| self.progress.take(false, from)).unwrap_or(Stage::Taken);
        let whom = socket(from).map_or_else(|| "someone".to_owned(), |from| from.ip().to_string());
        let here = peer.and_then(|peer| key::machine(&peer)).is_some_and(|machine| self.peers.contains_key(&machine));
        match error {
            // This machine dialled itself, or the other side let go of one of two connections.
            ListenError::LocalPeerId { .. } | ListenError::Aborted => {}
            // A peer that is here already dialled again: one connection is enough.
            ListenError::Denied { .. } if here => {}
            ListenError::Denied { cause } => {
                self.close_idle();
                debug!(whom, %cause, "no room");
                self.away.turned("no room", whom, "there are too many connections".to_owned()).await;
            }
            // Nobody expects a certain machine to dial; so this is none of ours either.
            ListenError::WrongPeerId { .. } => debug!(whom, ?error, "an incoming connection failed"),
            ListenError::Transport(cause) => {
                debug!(whom, ?stage, ?cause, "an incoming connection failed");
                self.away.handshake_failed(whom, socket(from).map(|from| from.ip()), stage, &cause).await;
            }
        }
    }

    async fn tell_addresses(&mut self) {
        let told = self.listening.keys().copied().filter(|address| {
            let holds = |subnets: &[IpNet]| subnets.iter().any(|subnet| subnet.contains(&address.ip()));
            (self.subnets.is_empty() || holds(&self.subnets)) && !holds(&self.foreign)
        });
        let addresses = address::advertised(self.listen, told, limits::ADDRESSES_MAX);
        if addresses != self.advertised {
            self.advertised.clone_from(&addresses);
            let _ = self.events.send(Event::Addresses(addresses)).await;
        }
    }
}

/// Whether the system gave a connection up because what was sent was not acknowledged. libp2p's errors tell what they are made of
/// in their words for programmers alone.
fn is_given_up(cause: &Option<impl std::fmt::Debug>) -> bool {
    format!("{cause:?}").contains("TimedOut")
}

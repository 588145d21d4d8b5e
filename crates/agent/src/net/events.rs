//! What libp2p tells: connections come and go, addresses change, somebody is turned away.

use std::time::Duration;

use ipnet::IpNet;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::{ConnectionId, ListenError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, mdns};
use muster_protocol::Dropped;
use muster_protocol::links::Stage;
use muster_wire::{MachineId, limits};
use tokio::time::Instant;
use tracing::debug;

use super::holes::LARGE;
use super::swarm::BehaviourEvent;
use super::{Event, Mesh, address, key, socket};

/// What is said of a hint at which a handshake ended in the middle.
pub(super) const CUT_SHORT: &str = "its handshake ends in the middle: perhaps another mesh key, or not muster";

impl Mesh {
    pub(super) async fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.established(peer_id, connection_id, &endpoint).await;
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                let now = self.now();
                if let Some((machine, stood)) = self.links.closed(now, connection_id) {
                    debug!(%machine, ?cause, "a connection ended");
                    self.note_end(machine, stood, is_given_up(&cause));
                }
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                if let Some(address) = socket(&address) {
                    self.listening.insert(address, listener_id);
                    self.links.listens(address, true);
                }
                self.tell_addresses().await;
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                if let Some(address) = socket(&address) {
                    self.listening.remove(&address);
                    self.links.listens(address, false);
                }
                self.tell_addresses().await;
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, peer_id, .. } => {
                self.incoming_failed(&send_back_addr, error, peer_id).await;
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.dial_failed(connection_id, error).await;
            }
            SwarmEvent::Behaviour(
                BehaviourEvent::Mdns4(mdns::Event::Discovered(found))
                | BehaviourEvent::Mdns6(mdns::Event::Discovered(found)),
            ) => {
                for (peer, address) in found {
                    self.discovered(peer, &address);
                }
            }
            _ => {}
        }
    }

    async fn established(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let (dial, now) = (self.dials.remove(&connection), self.now());
        let remote = socket(endpoint.get_remote_address());
        if let Some(remote) = remote {
            self.progress.take(endpoint.is_dialer(), remote);
            self.away.came_through(remote.ip());
        }
        match (key::machine(&peer), remote) {
            (Some(machine), Some(remote)) => {
                if self.links.hears(now, machine) {
                    self.holes.connected(machine, Instant::now());
                }
                self.links.connected(now, connection, machine, remote, dial);
            }
            (machine, _) => {
                dial.into_iter().for_each(|number| _ = self.links.dial_failed(number));
                if machine.is_none() {
                    self.away
                        .turned(Dropped::NoMachine, peer.to_string(), "its key is not Ed25519".to_owned().into())
                        .await;
                }
                self.swarm.close_connection(connection);
            }
        }
    }

    /// A connection of a machine ended: by the system, which gave up what was not acknowledged, or otherwise.
    fn note_end(&mut self, machine: MachineId, stood: Duration, given_up: bool) {
        let large = self.peers.get(&machine).is_some_and(|peer| peer.sent >= LARGE);
        self.holes.ended(machine, stood, given_up && large, Instant::now());
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
                let now = self.now();
                self.links.make_room(now);
                debug!(whom, %cause, "no room");
                self.away.turned(Dropped::NoRoom, whom, "there are too many connections".to_owned().into()).await;
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

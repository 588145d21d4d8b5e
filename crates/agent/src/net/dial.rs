//! Whom to dial, and where: addresses from cards, hints, mDNS.

use std::net::SocketAddr;

use libp2p::swarm::behaviour::NewListenAddr;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, FromSwarm, NetworkBehaviour as _};
use libp2p::{Multiaddr, PeerId};
use muster_wire::MachineId;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::outcomes::{self, OWN};
use super::progress::Stage;
use super::{Mesh, Word, address, key, multiaddr, socket, swarm};

/// What came of a hint, before the machine's name.
pub(super) const CONNECTED: &str = "connected as";
pub(super) const RESTS: &str = "not dialled for a while: one of the two refuses the other, this machine or";

/// Most of this machine's own addresses remembered.
const OWN_MAX: usize = 256;

impl Mesh {
    /// Dials a machine at the addresses on its card, unless a connection stands. Returns whether one is being made.
    pub(super) fn dial(&mut self, machine: MachineId) -> bool {
        let Some(addresses) = self.machines.get(&machine) else { return false };
        let addresses = addresses.iter().filter(|address| !self.own.contains(address));
        let addresses = addresses.copied().map(multiaddr).collect();
        self.dial_at(machine, addresses)
    }

    /// Dials a connected machine that was reached at none of the addresses on its card: it is heard from a translator's, or from
    /// another card's. Only who was reached at an address of its own is admitted.
    pub(super) fn dial_back(&mut self, machine: MachineId) {
        let Some(addresses) = self.machines.get(&machine).filter(|_| self.peers.contains_key(&machine)) else { return };
        let reached = self.reached_at.get(&machine);
        let is_reached = |address: &SocketAddr| reached.is_some_and(|reached| reached.contains(&address.ip()));
        if addresses.iter().any(is_reached) || self.is_refused(machine) {
            return;
        }
        let addresses = addresses.iter().filter(|address| !self.own.contains(address));
        let addresses: Vec<Multiaddr> = addresses.copied().map(multiaddr).collect();
        if let Some(peer) = key::peer(machine).filter(|peer| *peer != self.me && !addresses.is_empty()) {
            let options = DialOpts::peer_id(peer)
                .condition(PeerCondition::NotDialing)
                .addresses(addresses)
                .allocate_new_port()
                .build();
            // It may be dialled already.
            let _ = self.swarm.dial(options);
        }
    }

    fn dial_at(&mut self, machine: MachineId, addresses: Vec<Multiaddr>) -> bool {
        if addresses.is_empty() || self.peers.contains_key(&machine) || self.resting.rests(machine, Instant::now()) {
            return false;
        }
        let Some(peer) = key::peer(machine).filter(|peer| *peer != self.me) else { return false };
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .allocate_new_port()
            .build();
        matches!(self.swarm.dial(options), Ok(()) | Err(DialError::DialPeerConditionFalse(_)))
    }

    /// Dials what hints are due. Names are looked up first, which may take its time.
    pub(super) fn try_hints(&mut self) {
        let due = self.hints.take(Instant::now());
        if !self.lacks_peers() {
            return;
        }
        for hint in due {
            match hint.parse() {
                Ok(address) => self.try_address(address),
                Err(_) => {
                    let words = self.words.0.clone();
                    tokio::spawn(async move {
                        let addresses = address::resolve(&hint).await;
                        let _ = words.send(Word::Resolved(hint, addresses)).await;
                    });
                }
            }
        }
    }

    /// Dials an address, unless whoever is known to be there is connected.
    pub(super) fn try_address(&mut self, address: SocketAddr) {
        // libp2p does not even dial where it listens itself.
        if self.own.contains(&address) || self.listening.contains_key(&address) {
            return self.outcomes.came(address, OWN, None);
        }
        let connected = self.connections.values().find(|(_, _, at)| *at == Some(address));
        if let Some((machine, ..)) = connected {
            return self.outcomes.came(address, CONNECTED, Some(*machine));
        }
        if self.dialled.values().any(|at| *at == address) {
            return;
        }
        let there = self.machines.iter().find(|(_, addresses)| addresses.contains(&address));
        if let Some(machine) = there.map(|(machine, _)| *machine) {
            if self.peers.contains_key(&machine) {
                return self.outcomes.came(address, CONNECTED, Some(machine));
            }
            if self.resting.rests(machine, Instant::now()) {
                return self.outcomes.came(address, RESTS, Some(machine));
            }
        }
        // From a port of its own: two machines that dial each other from their listening ports would be one connection to
        // TCP, which on one host the system refuses.
        let options = DialOpts::unknown_peer_id().address(multiaddr(address)).allocate_new_port().build();
        let connection = options.connection_id();
        if self.swarm.dial(options).is_ok() {
            self.dialled.insert(connection, address);
        }
    }

    /// Someone answered by mDNS. Its records are unauthenticated, so they are hints like any other, and bounded.
    pub(super) fn discovered(&mut self, peer: PeerId, at: Multiaddr) {
        let Some(machine) = key::machine(&peer).filter(|_| peer != self.me) else { return };
        self.outcomes.discovered(machine);
        if self.peers.contains_key(&machine) || self.resting.rests(machine, Instant::now()) || !self.lacks_peers() {
            return;
        }
        if let Some(address) = socket(&at) {
            self.hints.heard(address.to_string(), Instant::now());
        }
        self.dial_at(machine, vec![at]);
    }

    /// Asks for others often or seldom: the answers of a formed cluster to its own questions are most of its noise. A
    /// machine that lost everybody asks like a new one.
    pub(super) fn choose_quiet(&mut self) {
        let quiet = self.at_rest && !self.peers.is_empty();
        if self.quiet == quiet {
            return;
        }
        self.quiet = quiet;
        let behaviour = self.swarm.behaviour();
        let enabled = [(false, behaviour.mdns4.is_enabled()), (true, behaviour.mdns6.is_enabled())];
        for (ipv6, _) in enabled.into_iter().filter(|(_, enabled)| *enabled) {
            match swarm::discovery(self.me, quiet, ipv6) {
                Ok(mut mdns) => {
                    // It begins after the swarm told its behaviours where it listens.
                    for (address, listener_id) in &self.listening {
                        let (listener_id, address) = (*listener_id, multiaddr(*address));
                        mdns.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr: &address }));
                    }
                    let behaviour = self.swarm.behaviour_mut();
                    let place = if ipv6 { &mut behaviour.mdns6 } else { &mut behaviour.mdns4 };
                    *place = Some(mdns).into();
                }
                Err(why) => warn!(why, quiet, ipv6, "mDNS goes on as it was"),
            }
        }
    }

    pub(super) async fn dial_failed(&mut self, hint: Option<SocketAddr>, error: DialError) {
        match &error {
            DialError::LocalPeerId { address } => {
                if let Some(address) = hint.or_else(|| socket(address)) {
                    self.progress.take(true, address);
                    self.outcomes.came(address, OWN, None);
                }
                if self.own.len() < OWN_MAX {
                    self.own.extend(hint.or_else(|| socket(address)));
                }
            }
            // Another machine has this address now.
            DialError::WrongPeerId { address, .. } => {
                if let Some(address) = socket(address) {
                    self.progress.take(true, address);
                    self.hints.heard(address.to_string(), Instant::now());
                }
            }
            DialError::Transport(causes) => {
                for (address, cause) in causes {
                    let Some(address) = socket(address) else { continue };
                    let stage = self.progress.take(true, address);
                    self.outcomes.came(address, outcomes::dial_failed(stage, cause), None);
                    // Its other end may have let go first.
                    if stage == Some(Stage::Myself) && self.own.len() < OWN_MAX {
                        self.own.insert(address);
                    }
                    // Nobody there yet is what booting looks like. Somebody who says the wrong things is not.
                    if let Some(stage) = stage {
                        debug!(%address, ?stage, ?cause, "a handshake failed");
                        self.away.handshake_failed(address.to_string(), Some(address.ip()), stage, cause).await;
                    }
                }
            }
            _ => debug!(%error, "a dial failed"),
        }
    }
}

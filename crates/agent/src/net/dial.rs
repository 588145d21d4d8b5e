//! Dials that the links want, names they want looked up, and what came of them.

use std::net::SocketAddr;

use libp2p::swarm::behaviour::NewListenAddr;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, FromSwarm, NetworkBehaviour as _};
use libp2p::{Multiaddr, PeerId};
use muster_protocol::Dropped;
use muster_protocol::links::{Came, Dial, Stage};
use tracing::{debug, warn};

use super::outcomes::{self, OWN};
use super::{Mesh, Word, address, key, multiaddr, socket, swarm};

/// What came of a hint, before the machine's name.
const CONNECTED: &str = "connected as";
const REFUSED: &str = "refused here, since it is";
const RESTS: &str = "not dialled for a while: one of the two refuses the other, this machine or";

impl Mesh {
    /// Dials. From a port of its own: two machines that dial each other from their listening ports would be one connection to
    /// TCP, which on one host the system refuses.
    pub(super) fn dial(&mut self, dial: Dial) {
        let mut at = dial.at.into_iter().map(multiaddr);
        let options = match (dial.to.map(key::peer), at.next()) {
            (None, Some(first)) => Some(DialOpts::unknown_peer_id().address(first).allocate_new_port().build()),
            // Whether it is connected or dialled is known to the links.
            (Some(Some(peer)), Some(first)) => {
                let to = DialOpts::peer_id(peer).condition(PeerCondition::Always);
                Some(to.addresses(std::iter::once(first).chain(at).collect()).allocate_new_port().build())
            }
            // Its name is no point on the curve, so nobody can prove to bear it.
            (Some(None), _) | (_, None) => None,
        };
        let connection = options.as_ref().map(DialOpts::connection_id);
        let begun = options.is_some_and(|options| self.swarm.dial(options).is_ok());
        match connection.filter(|_| begun) {
            Some(connection) => _ = self.dials.insert(connection, dial.number),
            None => self.dial_ended(dial.number),
        }
    }

    fn dial_ended(&mut self, number: u64) {
        (0..self.links.dial_failed(number)).for_each(|_| self.counters.dropped(Dropped::NotConnected));
    }

    /// Looks a name up, which may take its time.
    pub(super) fn look_up(&self, name: String) {
        let words = self.words.0.clone();
        tokio::spawn(async move {
            let addresses = address::resolve(&name).await;
            let _ = words.send(Word::Resolved(name, addresses)).await;
        });
    }

    /// Keeps for people what is known of a hint's address.
    pub(super) fn note_came(&self, address: SocketAddr, came: Came) {
        let (text, machine) = match came {
            Came::Own => (OWN, None),
            Came::Connected(machine) => (CONNECTED, Some(machine)),
            Came::Refused(machine) => (REFUSED, Some(machine)),
            Came::Rests(machine) => (RESTS, Some(machine)),
        };
        self.outcomes.came(address, text, machine);
    }

    /// Someone answered by mDNS. Its records are unauthenticated.
    pub(super) fn discovered(&mut self, peer: PeerId, at: &Multiaddr) {
        let Some(machine) = key::machine(&peer).filter(|_| peer != self.me) else { return };
        self.outcomes.discovered(machine);
        if let Some(address) = socket(at) {
            let now = self.now();
            self.links.discovered(now, machine, address);
        }
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

    pub(super) async fn dial_failed(&mut self, connection: ConnectionId, error: DialError) {
        if let Some(number) = self.dials.remove(&connection) {
            self.dial_ended(number);
        }
        match &error {
            DialError::LocalPeerId { address } => {
                if let Some(address) = socket(address) {
                    self.progress.take(true, address);
                    self.outcomes.came(address, OWN, None);
                    self.links.is_myself(address);
                }
            }
            DialError::WrongPeerId { address, .. } => {
                if let Some(address) = socket(address) {
                    self.progress.take(true, address);
                    let now = self.now();
                    self.links.another_at(now, address);
                }
            }
            DialError::Transport(causes) => {
                for (address, cause) in causes {
                    let Some(address) = socket(address) else { continue };
                    let stage = self.progress.take(true, address);
                    self.outcomes.came(address, outcomes::dial_failed(stage, cause), None);
                    // Its other end may have let go first.
                    if stage == Some(Stage::Myself) {
                        self.links.is_myself(address);
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

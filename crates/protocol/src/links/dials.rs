//! Whom to dial, and where: addresses from cards, hints, mDNS.

use std::net::SocketAddr;

use muster_wire::MachineId;

use super::{Came, Dial, Links, Want};
use crate::Time;

/// Most of this machine's own addresses remembered, beside those where it listens.
const OWN_MAX: usize = 256;

impl<C: Copy + Ord, F> Links<C, F> {
    /// This machine listens at an address now, or no longer.
    pub fn listens(&mut self, address: SocketAddr, now: bool) {
        if now {
            self.listening.insert(address);
        } else {
            self.listening.remove(&address);
        }
    }

    /// An address turned out to be this machine's own.
    pub fn is_myself(&mut self, address: SocketAddr) {
        if self.own.len() < OWN_MAX {
            self.own.insert(address);
        }
    }

    /// Another machine than the expected one has this address now.
    pub fn another_at(&mut self, now: Time, address: SocketAddr) {
        self.hints.heard(address.to_string(), now);
    }

    /// What a name means now.
    pub fn resolved(&mut self, now: Time, addresses: impl IntoIterator<Item = SocketAddr>) {
        addresses.into_iter().for_each(|address| self.try_address(now, address));
    }

    /// Somebody says, unproven, to be this machine at that address, as answers by mDNS do: a hint like any other.
    pub fn discovered(&mut self, now: Time, machine: MachineId, address: SocketAddr) {
        let known = machine == self.me || self.peers.contains_key(&machine);
        if known || self.resting.rests(machine, now) || !self.lacks_peers() {
            return;
        }
        self.hints.heard(address.to_string(), now);
        self.dial_at(now, machine, vec![address]);
    }

    /// A dial ended without a connection. Returns how many frames waited for it, and are lost.
    pub fn dial_failed(&mut self, number: u64) -> usize {
        match self.end_dial(number) {
            Some(Dial { to: Some(machine), .. }) if !self.peers.contains_key(&machine) => {
                self.waiting.take(machine).len()
            }
            _ => 0,
        }
    }

    /// Dials what hints are due.
    pub(super) fn try_hints(&mut self, now: Time) {
        let due = self.hints.take(now);
        if !self.lacks_peers() {
            return;
        }
        for hint in due {
            match hint.parse() {
                Ok(address) => self.try_address(now, address),
                // A name may mean something else each time.
                Err(_) => self.wants.push_back(Want::LookUp(hint)),
            }
        }
    }

    /// Dials a machine at the addresses on its card, unless a connection stands. Returns whether one is being made.
    pub(super) fn dial(&mut self, now: Time, machine: MachineId) -> bool {
        let at = self.addresses(machine);
        self.dial_at(now, machine, at)
    }

    /// Dials a connected machine that was reached at none of the addresses on its card: it is heard from a translator's, or from
    /// another card's. Only who was reached at an address of its own is admitted.
    pub(super) fn dial_back(&mut self, now: Time, machine: MachineId) {
        let (Some(peer), Some(known)) = (self.peers.get(&machine), self.known.get(&machine)) else { return };
        let reached = known.iter().any(|address| peer.reached.contains(&address.ip().to_canonical()));
        if reached || machine == self.me || self.resting.is_refused(machine, now) || self.dialled.contains(&machine) {
            return;
        }
        let at = self.addresses(machine);
        if !at.is_empty() {
            self.want_dial(Some(machine), at);
        }
    }

    /// A dial is over, one way or the other.
    pub(super) fn end_dial(&mut self, number: u64) -> Option<Dial> {
        let dial = self.dials.remove(&number)?;
        if let Some(machine) = &dial.to {
            self.dialled.remove(machine);
        }
        Some(dial)
    }

    /// The addresses on a machine's card that are not this machine's own: on two hosts a bridge may have the same.
    fn addresses(&self, machine: MachineId) -> Vec<SocketAddr> {
        let known = self.known.get(&machine).into_iter().flatten().copied();
        known.filter(|address| !self.own.contains(address)).collect()
    }

    fn dial_at(&mut self, now: Time, machine: MachineId, at: Vec<SocketAddr>) -> bool {
        let connected = machine == self.me || self.peers.contains_key(&machine);
        if at.is_empty() || connected || self.resting.rests(machine, now) {
            return false;
        }
        if !self.dialled.contains(&machine) {
            self.want_dial(Some(machine), at);
        }
        true
    }

    fn want_dial(&mut self, to: Option<MachineId>, at: Vec<SocketAddr>) {
        self.dial_count += 1;
        let dial = Dial { number: self.dial_count, to, at };
        self.dialled.extend(to);
        self.dials.insert(dial.number, dial.clone());
        self.wants.push_back(Want::Dial(dial));
    }

    /// Dials an address, unless it is this machine's own, is being dialled, or whoever is known to be there is connected or rests.
    fn try_address(&mut self, now: Time, address: SocketAddr) {
        if let Some(came) = self.known_of(now, address) {
            self.wants.push_back(Want::Came(address, came));
        } else if !self.dials.values().any(|dial| dial.to.is_none() && dial.at.contains(&address)) {
            self.want_dial(None, vec![address]);
        }
    }

    fn known_of(&self, now: Time, address: SocketAddr) -> Option<Came> {
        if self.own.contains(&address) || self.listening.contains(&address) {
            return Some(Came::Own);
        }
        let connected = self.connections.values().find(|connection| connection.dialled == Some(address));
        let connected = connected.map(|connection| connection.machine);
        let has = |machine: &MachineId| self.known.get(machine).is_some_and(|known| known.contains(&address));
        if let Some(machine) = connected.or_else(|| self.peers.keys().copied().find(has)) {
            return Some(Came::Connected(machine));
        }
        self.resting.machines().filter(|machine| self.resting.rests(*machine, now)).find(has).map(Came::Rests)
    }
}

//! At which addresses machines reach each other. Each tells the other at which address it sees it, for nobody can see that of
//! itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use muster_wire::{Card, MachineId, limits};

use super::Roster;

/// Most addresses that others may say they see this machine at. Only its own ones among them matter.
const WITNESSED_MAX: usize = 4 * limits::ADDRESSES_MAX;

/// What is known of that.
#[derive(Debug, Default)]
pub(super) struct ReachedAt {
    /// At which address this machine last had each other one, dialled or heard.
    others: BTreeMap<MachineId, IpAddr>,
    /// At which addresses others had this one.
    mine: BTreeSet<IpAddr>,
}

impl Roster {
    /// A connection shows the address of a peer. Returns whether that is news which the peer should hear.
    pub(crate) fn reach(&mut self, peer: MachineId, address: IpAddr) -> bool {
        let lists = |card: &Card, address: &IpAddr| card.hosts().any(|own| own == *address);
        let known = self.card(peer);
        // Behind a translator a peer shows an address that is not its own; what was reached before is better.
        let worse = self.reached_at.others.get(&peer).is_some_and(|former| {
            *former == address || known.is_some_and(|card| lists(card, former) && !lists(card, &address))
        });
        if worse || peer == self.me || self.reached_at.others.len() >= limits::KNOWN_MAX {
            return false;
        }
        self.reached_at.others.insert(peer, address);
        self.changed = true;
        self.links.contains_key(&peer)
    }

    /// At which address this machine had `peer`.
    pub(crate) fn reached(&self, peer: MachineId) -> Option<IpAddr> {
        self.reached_at.others.get(&peer).copied()
    }

    /// A peer says at which address it has this machine. Returns whether that is news.
    pub(crate) fn witness(&mut self, address: IpAddr) -> bool {
        self.reached_at.mine.len() < WITNESSED_MAX && self.reached_at.mine.insert(address)
    }

    /// This machine's addresses, those first at which others reached it, and how many those are. The order is otherwise that of
    /// `addresses`.
    pub(crate) fn order(&self, addresses: &[String]) -> (Vec<String>, u32) {
        let reached = |address: &&String| {
            muster_wire::host_of(address).is_some_and(|address| self.reached_at.mine.contains(&address))
        };
        let (mut first, rest): (Vec<&String>, Vec<&String>) = addresses.iter().partition(reached);
        let count = first.len() as u32;
        first.extend(rest);
        (first.into_iter().cloned().collect(), count)
    }
}

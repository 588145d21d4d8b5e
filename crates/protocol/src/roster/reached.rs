//! At which addresses machines reach each other. Each tells the other at which address it sees it, for nobody can see that of
//! itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use muster_wire::{MachineId, limits};

use super::Roster;

/// Most addresses that others may say they see this machine at. Only its own ones among them matter.
const WITNESSED_MAX: usize = 4 * limits::ADDRESSES_MAX;

/// What is known of that.
#[derive(Debug, Default)]
pub(super) struct ReachedAt {
    /// At which address this machine has each other one, dialled or heard.
    others: BTreeMap<MachineId, At>,
    /// At which addresses others had this one.
    mine: BTreeSet<IpAddr>,
}

/// Where a machine was had.
#[derive(Debug, Clone, Copy)]
struct At {
    /// What is held for its address.
    kept: IpAddr,
    /// What was seen last. A connection shows a new address before the card comes that lists it.
    last: IpAddr,
}

impl Roster {
    /// A connection shows the address of a peer. Returns whether that is news which the peer should hear.
    pub(crate) fn reach(&mut self, peer: MachineId, address: IpAddr) -> bool {
        let former = self.reached_at.others.get(&peer).copied();
        if peer == self.me || former.is_none() && self.reached_at.others.len() >= limits::KNOWN_MAX {
            return false;
        }
        let kept = former.map(|former| former.kept);
        self.reached_at.others.insert(peer, At { kept: kept.unwrap_or(address), last: address });
        let news = self.choose_reached(peer) || kept.is_none();
        self.changed |= news;
        news && self.links.contains_key(&peer)
    }

    /// Behind a translator a peer shows an address that is not its own; what was reached before is better, as long as the peer
    /// has it. Returns whether what is held for its address changed.
    pub(super) fn choose_reached(&mut self, peer: MachineId) -> bool {
        let lists = |address: IpAddr| self.card(peer).is_some_and(|card| card.hosts().any(|own| own == address));
        let Some(At { kept, last }) = self.reached_at.others.get(&peer).copied() else { return false };
        let better = kept != last && (lists(last) || !lists(kept));
        if better {
            self.reached_at.others.insert(peer, At { kept: last, last });
        }
        better
    }

    /// At which address this machine has `peer`.
    pub(crate) fn reached(&self, peer: MachineId) -> Option<IpAddr> {
        self.reached_at.others.get(&peer).map(|at| at.kept)
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

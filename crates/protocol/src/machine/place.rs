//! Where things are: this machine's own addresses, what the endpoint's name means, which API servers serve.

use std::net::IpAddr;

use muster_wire::{MachineId, host_of};

use super::Machine;
use crate::planted::planted;
use crate::{Effect, Effects};

/// How many bits two addresses of one family begin with alike.
fn common_bits(one: IpAddr, other: IpAddr) -> u32 {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => 0,
    }
}

impl Machine {
    /// API servers this machine's balancer may use. The initialiser must reach its own before anyone else knows of it.
    pub(super) fn list_api_servers(&mut self, effects: &mut Effects) {
        let me = self.identity.machine();
        let ledger = self.follow.ledger();
        let serves = |machine: &MachineId| match (ledger.ready(), ledger.live_claim()) {
            (Some(_), _) => ledger.has_etcd(*machine),
            (None, Some((_, initialiser))) => {
                *machine == initialiser && (initialiser == me || planted("api-too-early"))
            }
            (None, None) => false,
        };
        let mut machines: Vec<MachineId> = ledger.control_planes().filter(serves).collect();
        // A new member's API server takes connections some seconds before it answers; it is the last resort until then.
        let joined = |machine: &MachineId| ledger.member(*machine).is_some_and(|member| member.joined);
        machines.sort_by_key(|machine| (!joined(machine), *machine != me, *machine));
        let addresses = machines.into_iter().filter_map(|machine| ledger.member(machine));
        let servers: Vec<String> = addresses
            .map(|member| match member.admitted.address.contains(':') {
                true => format!("[{}]:{}", member.admitted.address, self.api_port),
                false => format!("{}:{}", member.admitted.address, self.api_port),
            })
            .collect();
        if servers != self.api_servers {
            self.api_servers.clone_from(&servers);
            effects.push(Effect::ApiServers(servers));
        }
    }

    /// Says what the endpoint's name means here, from when kubeadm is about to need it: the address by which this machine was
    /// admitted, if that is still its own, else the one by which others find it now. A kubelet needs the name at once after a
    /// restart, when the ledger is not there yet.
    pub(super) fn name_endpoint(&mut self, effects: &mut Effects) {
        let member = self.follow.ledger().member(self.identity.machine());
        if member.is_none() && self.durable.started.is_none() && self.durable.completed.is_none() {
            return;
        }
        let card = self.mine.card();
        let admitted = member.and_then(|member| member.admitted.address.parse().ok());
        // A lease changes within its network: until others reach it there, the nearest to the former address is the likeliest.
        let near = |own: &IpAddr| admitted.map_or(0, |admitted| common_bits(*own, admitted));
        let reached = card.reached_at().find_map(|address| host_of(address));
        let nearest = || card.hosts().rev().max_by_key(near);
        let kept = admitted.filter(|address| card.hosts().any(|own| own == *address));
        let Some(address) = kept.or(reached).or_else(nearest) else { return };
        if self.endpoint != Some(address) {
            self.endpoint = Some(address);
            effects.push(Effect::Endpoint(address));
        }
    }

    /// Puts those addresses first on its card at which others reached it.
    pub(super) fn order_addresses(&mut self) {
        let (addresses, reached) = self.roster.order(&self.addresses);
        self.change_card(|card| (card.addresses, card.reached) = (addresses, reached));
    }
}

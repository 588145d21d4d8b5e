//! Under which address a machine is admitted: one at which others reached it, and that no other living machine claims.
//!
//! What a machine lists is not enough: a container bridge or a network behind a translator has the same address on every
//! machine, and nobody ever reached one there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use muster_wire::entry::Admitted;
use muster_wire::{Card, Entry, MachineId, host_of};

use super::Context;
use crate::ledger::{Ledger, Member};

/// Which addresses the living claim: those at which they were reached, and those under which they were admitted.
pub(super) struct Claims(BTreeMap<IpAddr, BTreeSet<MachineId>>);

impl Claims {
    pub(super) fn new(context: &Context<'_>) -> Self {
        let mut claims = Self(BTreeMap::new());
        let known = context.roster.known().values().map(|known| known.card.card());
        // One that was removed claims nothing: its successor may be there before it is missed.
        let stays = |machine| context.roster.is_alive(machine) && !context.ledger.was_removed(machine);
        let living = known.filter(|card| stays(card.machine));
        for card in living.chain([context.mine.card()]) {
            let admitted = context.ledger.member(card.machine).and_then(|member| member.admitted.address.parse().ok());
            for address in card.reached_at().filter_map(|address| host_of(address)).chain(admitted) {
                claims.0.entry(address).or_default().insert(card.machine);
            }
        }
        claims
    }

    fn is_free(&self, address: &IpAddr, machine: MachineId) -> bool {
        self.0.get(address).is_none_or(|claimants| claimants.iter().all(|claimant| *claimant == machine))
    }

    /// Whether a member claims it, other than this machine.
    pub(super) fn of_member_beside(&self, address: &IpAddr, machine: MachineId, ledger: &Ledger) -> bool {
        let claimants = self.0.get(address).into_iter().flatten();
        claimants.into_iter().any(|claimant| *claimant != machine && ledger.member(*claimant).is_some())
    }

    /// The address for a machine, the most useful first; none if nobody reached it at one that it has alone.
    pub(super) fn address(&self, card: &Card, context: &Context<'_>) -> Option<IpAddr> {
        self.addresses(card, context).next()
    }

    fn addresses<'a>(&'a self, card: &'a Card, context: &'a Context<'_>) -> impl Iterator<Item = IpAddr> + 'a {
        // A site of one has nobody who could reach it.
        let alone = card.machine == context.me() && card.settings.machines == 1;
        let seen = context.roster.reached(card.machine);
        let places = card.addresses.iter().enumerate();
        let addresses = places.filter_map(|(place, address)| Some((place, host_of(address)?)));
        addresses
            .filter(move |(place, address)| alone || *place < card.reached as usize || seen == Some(*address))
            .map(|(_, address)| address)
            .filter(move |address| is_usable(address) && self.is_free(address, card.machine))
    }

    /// Another address for a member that has not joined, where nobody reached it at the present one. Not while kubeadm may be
    /// making something that carries it: its init, or its etcd member, which is found again by its address.
    pub(super) fn correct(&self, context: &mut Context<'_>) {
        let ledger = context.ledger;
        let busy = |machine: MachineId| {
            ledger.live_claim().is_some_and(|(_, holder)| holder == machine) || ledger.holds_turn(machine)
        };
        let waiting =
            ledger.members().values().filter(|member| !member.joined && !ledger.has_etcd(member.admitted.machine));
        for member in waiting.filter(|member| !busy(member.admitted.machine)) {
            if let Some(address) = self.better(member, context) {
                let admitted = Admitted { address: address.to_string(), ..member.admitted.clone() };
                context.wants.want(Entry::Admitted(admitted));
            }
        }
    }

    fn better(&self, member: &Member, context: &Context<'_>) -> Option<IpAddr> {
        let machine = member.admitted.machine;
        let mine = Some(context.mine.card()).filter(|card| card.machine == machine);
        let card = mine.or_else(|| context.roster.card(machine).filter(|_| context.roster.is_alive(machine)))?;
        let mut addresses = self.addresses(card, context);
        let first = addresses.next()?;
        let present = member.admitted.address.parse().ok();
        (Some(first) != present && !addresses.any(|address| Some(address) == present)).then_some(first)
    }
}

/// Whether kubeadm takes it: link-local addresses, multicast and nonsense it refuses (`VerifyAPIServerBindAddress` in
/// cmd/kubeadm/app/util/config/common.go, 1.20 to 1.37). Loopback is for labs.
fn is_usable(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !link_local && !address.is_unspecified() && !address.is_multicast()
}

//! Machines without an address of their own, and two that share one, or look like one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use muster_wire::{Card, MachineId, Revision, host_of};

use super::waits::Told;
use crate::machine::Machine;
use crate::planted::planted;
use crate::status::list;
use crate::words::reasons::Topic;
use crate::{Time, roster};

/// Which addresses no machine is known by.
const NONE_COUNTS: &str = "link-local ones do not, nor those outside discovery.subnets, nor those in kubernetes.pod_subnet and service_subnet";

/// Whoever was heard within this time is about, even if SWIM holds it for dead.
const LATELY: Duration = Duration::from_secs(60);

impl Machine {
    /// Machines that nobody reached at an address of their own, and two machines with one address.
    pub(super) fn explain_addresses(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let mine = self.mine.card();
        let newcomer = self.durable.charter.is_some() && self.follow.ledger().member(self.id()).is_none();
        let alone = self.roster.known().is_empty() && !mine.addresses.is_empty();
        // Where a leader is known, the duty that admits says so of everyone.
        if newcomer && self.follow.leader.is_none() && !alone && mine.reached == 0 {
            let (topic, text, machines) = self.tell_address(self.id());
            add(topic, text, &machines);
        }
        if self.durable.charter.is_none() && mine.addresses.is_empty() {
            add(Topic::Address, format!("this machine has no address that counts: {NONE_COUNTS}"), &[self.id()]);
        }
        for (address, machines) in self.shared_addresses(now) {
            let text = format!("{} have one address, {address}: give one of them another", list(&machines));
            add(Topic::SharedAddress, text, &machines);
        }
        for (card, address, holder) in self.addresses_taken() {
            let text = format!(
                "{} ({}) is not admitted: its address {address} is the one under which {holder} joined, which is elsewhere now: \
                 give one of them another",
                card.machine, card.hostname
            );
            add(Topic::Address, text, &[card.machine, holder]);
        }
    }

    /// Why a newcomer has no address.
    pub(super) fn tell_address(&self, machine: MachineId) -> Told {
        let card = if machine == self.id() { Some(self.mine.card()) } else { self.roster.card(machine) };
        let Some(card) = card else {
            return (Topic::Address, format!("{machine} is not admitted: nobody here has its card"), vec![machine]);
        };
        let which = if card.addresses.is_empty() {
            format!("it has none: {NONE_COUNTS}")
        } else if card.reached == 0 {
            format!("nobody has reached it at any of {}", card.addresses.join(", "))
        } else {
            let reached: Vec<&str> = card.reached_at().map(String::as_str).collect();
            format!(
                "another machine has every address at which it was reached, or it is of no use: {}",
                reached.join(", ")
            )
        };
        let text = format!("{} ({}) is not admitted for want of an address: {which}", card.machine, card.hostname);
        (Topic::Address, text, vec![card.machine])
    }

    /// Newcomers whose only addresses are in the ledger as those of living machines, which have moved since.
    fn addresses_taken(&self) -> Vec<(&Card, IpAddr, MachineId)> {
        let ledger = self.follow.ledger();
        let members = ledger.members().iter().filter(|(machine, _)| self.roster.is_alive(**machine));
        let joined: BTreeMap<IpAddr, MachineId> =
            members.filter_map(|(machine, member)| Some((member.admitted.address.parse().ok()?, *machine))).collect();
        let others = self.roster.known().values().map(|known| known.card.card());
        let living = others.filter(|card| self.roster.is_alive(card.machine)).chain([self.mine.card()]);
        let newcomers = living.filter(|card| ledger.member(card.machine).is_none() && card.reached > 0);
        let taken = newcomers.filter_map(|card| {
            let mut reached = card.reached_at().filter_map(|address| host_of(address));
            let first = reached.next()?;
            let holder = *joined.get(&first)?;
            let card_of =
                |machine| if machine == self.id() { Some(self.mine.card()) } else { self.roster.card(machine) };
            let moved = card_of(holder).is_some_and(|card| card.hosts().all(|own| own != first));
            (moved && reached.all(|address| joined.contains_key(&address))).then_some((card, first, holder))
        });
        taken.collect()
    }

    /// Addresses at which one machine is reached or admitted, and which another one that is about has as well. Whoever is
    /// reached elsewhere has it on a bridge of its own, which harms nobody; who looks like the other may be the same machine.
    /// An address in the ledger that its machine lists no more is history: it stays there once the machine has joined, and a
    /// lease may have gone to another one since.
    fn shared_addresses(&self, now: Time) -> Vec<(IpAddr, Vec<MachineId>)> {
        let ledger = self.follow.ledger();
        let joined = |machine| ledger.member(machine).is_some_and(|member| member.joined);
        let about = self.roster.known().iter().filter(|(machine, known)| {
            let lately = known.heard.is_some_and(|heard| now.since(heard) < LATELY);
            // One that stands in this machine's way may be out of its reach because of that.
            self.roster.is_alive(**machine) || lately || !joined(self.id())
        });
        let mut claims: BTreeMap<IpAddr, BTreeMap<MachineId, bool>> = BTreeMap::new();
        for card in about.map(|(_, known)| known.card.card()).chain([self.mine.card()]) {
            let member = ledger.member(card.machine);
            let admitted = member.and_then(|member| member.admitted.address.parse::<IpAddr>().ok());
            let admitted = admitted.filter(|address| card.hosts().any(|own| own == *address));
            let reached = card.reached_at().filter_map(|address| host_of(address)).chain(admitted);
            let listed = card.hosts().filter(|_| card.reached == 0).map(|address| (address, false));
            for (address, firm) in listed.chain(reached.map(|address| (address, true))) {
                let address = match address {
                    IpAddr::V4(v4) if planted("addresses-half-compared") => (v4 & Ipv4Addr::new(255, 255, 0, 0)).into(),
                    address => address,
                };
                *claims.entry(address).or_default().entry(card.machine).or_default() |= firm;
            }
        }
        let shared = claims.into_iter().filter_map(|(address, machines)| {
            let firm = machines.values().any(|firm| *firm);
            let machines: Vec<MachineId> = machines.into_keys().collect();
            let alike =
                |machine: &MachineId| self.roster.on_same_hardware(*machine).any(|other| machines.contains(&other));
            (firm && machines.len() > 1 && !machines.iter().any(alike)).then_some((address, machines))
        });
        shared.collect()
    }

    /// Identities that are left out because they may be one machine, where that matters: to founding, or to an admission.
    pub(super) fn explain_look_alikes(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let (ledger, founded) = (self.follow.ledger(), self.durable.charter.is_some());
        let waits = |machine: &MachineId| ledger.member(*machine).is_none() && !ledger.was_removed(*machine);
        for machines in self.roster.look_alikes().values() {
            let here = |machine: &&MachineId| **machine == self.id() || self.roster.is_alive(**machine);
            // Who cannot read the ledger yet does not know who of the others was removed.
            let concerns = !founded || ledger.revision() > Revision::NONE || machines.contains(&self.id());
            if !concerns || !machines.iter().filter(here).any(|machine| !founded || waits(machine)) {
                continue;
            }
            let named = machines.iter().take(5).map(|machine| {
                let card = if *machine == self.id() { Some(self.mine.card()) } else { self.roster.card(*machine) };
                let (host, at) = card.map_or(("", ""), |card| {
                    (card.hostname.as_str(), card.addresses.first().map_or("no address", String::as_str))
                });
                let heard = if *machine == self.id() { "this one".to_owned() } else { self.heard_ago(*machine, now) };
                format!("{machine} ({host}, {at}, {heard})")
            });
            let named = named.collect::<Vec<_>>().join(" and ");
            let what = if founded { "the newcomer is not admitted yet" } else { "none of them votes" };
            let text = format!(
                "{named} show the same hardware, and {what}: either a disk was wiped, or they are machines without a product \
                 UUID whose network cards have one address. Once both were heard for {} s with different addresses they \
                 count as two machines",
                roster::BOTH_HEARD.as_secs()
            );
            add(Topic::Hardware, text, machines);
        }
    }
}

//! Machines that are at other addresses than those with which they joined: a lease that ended, or a site that moved.
//!
//! Certificates, etcd's list of members, manifests and kubeconfigs hold the addresses with which control planes joined. So those stay good: each
//! control plane that moved keeps its former address beside the new one, and every machine of the cluster has a route for it to where that
//! machine is now. muster's own ledger needs none of it, and so it knows where everybody is before any etcd runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use muster_wire::{MachineId, Role, host_of};

use super::Machine;
use crate::time::wake_by;
use crate::words::reasons::Topic;
use crate::{Effect, Effects, Time};

/// How long after its start a machine may have no address at all before that is taken for true.
const ADDRESSES_COME: Duration = Duration::from_secs(10);

/// Which former addresses lead where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormerAddresses {
    /// This machine's own former address, which it keeps; none if it has not moved, or is no control plane.
    pub own: Option<IpAddr>,
    /// Other control planes: the address with which each joined, and where it is. Both are the same for one that has not moved: it is to be spoken to
    /// from the former address, which its certificates know.
    pub routes: BTreeMap<IpAddr, IpAddr>,
}

/// This part's notes.
#[derive(Debug, Default)]
pub(super) struct Former {
    told: Option<FormerAddresses>,
    /// Where others were seen last.
    at: BTreeMap<MachineId, IpAddr>,
}

impl Machine {
    /// Says which former addresses lead where, whenever that changes.
    pub(super) fn keep_former(&mut self, now: Time, due: &mut Option<(Time, &'static str)>, effects: &mut Effects) {
        let ledger = self.follow.ledger();
        if ledger.ready().is_none() || ledger.member(self.id()).is_none() {
            return;
        }
        // Cards come up one after the other. A machine that has none at all keeps what it had: its etcd and its API server need no more to start.
        let comes = self.started + ADDRESSES_COME;
        if self.addresses.is_empty() && now < comes {
            wake_by(due, comes, "an address of this machine's own");
            return;
        }
        let seen: Vec<(MachineId, IpAddr)> =
            ledger.control_planes().filter_map(|plane| Some((plane, self.seen_at(plane)?))).collect();
        self.former.at.extend(seen);
        let former = self.former_addresses();
        if self.former.told.as_ref() != Some(&former) {
            effects.push(Effect::Former(former.clone()));
            self.former.told = Some(former);
        }
    }

    /// Whether it is known which former addresses lead where: etcd cannot listen at one that the machine does not have.
    pub(super) fn knows_former(&self) -> bool {
        let ledger = self.follow.ledger();
        ledger.ready().is_none() || ledger.member(self.id()).is_none() || self.former.told.is_some()
    }

    /// Whether this machine, or another control plane, is not where it joined.
    fn anybody_moved(&self) -> bool {
        let moved = |(plane, at): (&MachineId, &IpAddr)| self.joined_at(*plane).is_some_and(|joined| joined != *at);
        self.left_behind().is_some() || self.former.at.iter().any(moved)
    }

    fn former_addresses(&self) -> FormerAddresses {
        // Most never move, and there may be a thousand cards to look at.
        if !self.anybody_moved() {
            return FormerAddresses::default();
        }
        let (me, taken) = (self.id(), self.taken_addresses());
        let free = |machine: MachineId, address: &IpAddr| {
            taken.get(address).is_none_or(|by| by.iter().all(|other| *other == machine))
        };
        let own = self.left_behind().filter(|own| free(me, own));
        let mut former = FormerAddresses { own, routes: BTreeMap::new() };
        for (plane, at) in self.former.at.iter().filter(|(plane, _)| **plane != me) {
            let Some(joined) = self.joined_at(*plane).filter(|joined| free(*plane, joined)) else { continue };
            if (joined != *at || own.is_some()) && joined.is_ipv4() == at.is_ipv4() {
                former.routes.insert(joined, *at);
            }
        }
        former
    }

    /// The address with which a control plane joined, or does: whoever joins etcd is spoken to by the others before it is a member.
    fn joined_at(&self, machine: MachineId) -> Option<IpAddr> {
        let member = self.follow.ledger().member(machine)?;
        let plane = member.admitted.role == Role::ControlPlane;
        member.admitted.address.parse().ok().filter(|_| plane)
    }

    /// This machine's own former address, if what Kubernetes has here holds it and the machine does not.
    fn left_behind(&self) -> Option<IpAddr> {
        let (ledger, me) = (self.follow.ledger(), self.id());
        let made = ledger.has_etcd(me) || ledger.is_founder(me);
        self.joined_at(me).filter(|joined| made && !self.own_hosts().any(|host| host == *joined))
    }

    fn own_hosts(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().filter_map(|address| host_of(address))
    }

    /// Where another machine is now, by what it lists itself.
    fn seen_at(&self, machine: MachineId) -> Option<IpAddr> {
        let card = self.roster.card(machine).filter(|_| self.roster.is_alive(machine))?;
        let lists = |address: &IpAddr| card.hosts().any(|host| host == *address);
        let joined = self.joined_at(machine)?;
        let reached = self.roster.reached(machine).filter(lists);
        let same = || card.hosts().find(|host| host.is_ipv4() == joined.is_ipv4());
        Some(joined).filter(lists).or(reached).or_else(same)
    }

    /// Which addresses are whose now: what was one machine's may be another's.
    fn taken_addresses(&self) -> BTreeMap<IpAddr, BTreeSet<MachineId>> {
        let mut taken: BTreeMap<IpAddr, BTreeSet<MachineId>> = BTreeMap::new();
        // Whoever was removed may have its successor at its address before it is missed.
        let stays = |machine: &MachineId| self.roster.is_alive(*machine) && !self.follow.ledger().was_removed(*machine);
        let alive = self.roster.known().iter().filter(|(machine, _)| stays(machine));
        for (machine, host) in alive.flat_map(|(machine, known)| known.card.card().hosts().map(|host| (*machine, host)))
        {
            taken.entry(host).or_default().insert(machine);
        }
        for host in self.own_hosts() {
            taken.entry(host).or_default().insert(self.id());
        }
        taken
    }

    /// What people should know of it.
    pub(super) fn explain_former(&self, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        if !self.anybody_moved() {
            return;
        }
        let (ledger, taken) = (self.follow.ledger(), self.taken_addresses());
        for plane in ledger.control_planes() {
            let mine = plane == self.id();
            let at = if mine { self.own_hosts().next() } else { self.former.at.get(&plane).copied() };
            let (Some(joined), Some(at)) = (self.joined_at(plane), at) else { continue };
            let there = if mine { self.own_hosts().any(|host| host == joined) } else { joined == at };
            if there {
                continue;
            }
            let named = self.named_member(plane);
            let other = taken.get(&joined).and_then(|by| by.iter().find(|other| **other != plane));
            match other {
                Some(other) => {
                    let text = format!(
                        "{named} joined with {joined} and is at {at} now, and {joined} is the address of {}: give one of them another one, or \
                         {named} cannot be reached by what Kubernetes knows of it",
                        self.named_member(*other)
                    );
                    add(Topic::Address, text, &[plane, *other]);
                }
                None => {
                    let text = format!(
                        "{named} joined with {joined} and is at {at} now: {joined} leads there on every machine of the cluster"
                    );
                    add(Topic::Address, text, &[plane]);
                }
            }
        }
    }
}

//! Identities that show one piece of hardware: a disk was wiped, and its machine is back under a new identity; or there are
//! several machines, whose cards have one address and whose boards no product UUID.
//!
//! A machine that was wiped is never heard again under its former identity. So two identities that were both heard for a
//! while, with different addresses, are two machines.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_wire::{Digest, MachineId};

use super::Roster;
use crate::Time;

/// From the first word of the later one to the last word of the earlier one. What a machine sent before it lost its power is
/// delivered or given up by then: TCP gives up after 15 s without an acknowledgement (the agent's `UNACKNOWLEDGED`).
pub(crate) const BOTH_HEARD: Duration = Duration::from_secs(20);

/// Most identities of one hardware that are told apart. More of them are somebody's doing.
const GROUP_MAX: usize = 64;

/// Which identities were seen on which hardware.
#[derive(Debug)]
pub(super) struct Alike {
    seen: BTreeSet<(Digest, MachineId)>,
    /// Machines that share their hardware with another one; nearly always nobody.
    shared: BTreeSet<MachineId>,
    /// Pairs that are two machines, the lower one first.
    apart: BTreeSet<(MachineId, MachineId)>,
    /// How many pieces of hardware there are.
    pieces: usize,
}

impl Alike {
    pub(super) fn new(fingerprint: Digest, machine: MachineId) -> Self {
        let seen = BTreeSet::from([(fingerprint, machine)]);
        Self { seen, shared: BTreeSet::new(), apart: BTreeSet::new(), pieces: 1 }
    }

    /// Notes what a card shows. Returns all on that hardware if this is news.
    pub(super) fn add(&mut self, fingerprint: Digest, machine: MachineId) -> Vec<MachineId> {
        let before = self.pieces_of(fingerprint);
        if !self.seen.insert((fingerprint, machine)) {
            return Vec::new();
        }
        let group: Vec<MachineId> = self.on(fingerprint).collect();
        if group.len() > 1 {
            self.shared.extend(&group);
        }
        self.pieces = self.pieces - before + self.pieces_of(fingerprint);
        group
    }

    /// The identities seen on one piece of hardware.
    fn on(&self, fingerprint: Digest) -> impl Iterator<Item = MachineId> + '_ {
        let all = (fingerprint, MachineId([0; 32]))..=(fingerprint, MachineId([0xff; 32]));
        self.seen.range(all).map(|(_, machine)| *machine)
    }

    /// Identities on the hardware of a machine that may be the same machine.
    fn others(&self, machine: MachineId, fingerprint: Digest) -> impl Iterator<Item = MachineId> + '_ {
        let shared = self.shared.contains(&machine).then(|| self.on(fingerprint));
        shared.into_iter().flatten().filter(move |other| *other != machine && !self.are_apart(machine, *other))
    }

    fn are_apart(&self, one: MachineId, other: MachineId) -> bool {
        self.apart.contains(&(one.min(other), one.max(other)))
    }

    /// How many machines the identities of one hardware are at least: those that may be the same machine, by however many
    /// steps, count as one.
    fn pieces_of(&self, fingerprint: Digest) -> usize {
        let mut left: Vec<MachineId> = self.on(fingerprint).take(GROUP_MAX + 1).collect();
        if self.apart.is_empty() || left.len() > GROUP_MAX {
            return usize::from(!left.is_empty());
        }
        let mut pieces = 0;
        while let Some(first) = left.pop() {
            pieces += 1;
            let mut reached = vec![first];
            while let Some(one) = reached.pop() {
                let (apart, same): (Vec<_>, Vec<_>) = left.iter().partition(|other| self.are_apart(one, **other));
                (left, reached) = (apart, [reached, same].concat());
            }
        }
        pieces
    }
}

impl Roster {
    /// A frame came from `peer`: which of those that look like it are other machines, for it and they were both heard?
    pub(super) fn tell_apart(&mut self, now: Time, peer: MachineId) {
        if !self.alike.shared.contains(&peer) {
            return;
        }
        let Some(fingerprint) = self.card(peer).map(|card| card.fingerprint) else { return };
        let alike: Vec<MachineId> = self.alike.others(peer, fingerprint).take(GROUP_MAX).collect();
        for other in alike {
            let both = self.heard_between(peer, now).zip(self.heard_between(other, now));
            let long = both.is_some_and(|(one, other)| {
                let (first, last) = (one.0.max(other.0), one.1.min(other.1));
                last >= first && last.since(first) >= BOTH_HEARD
            });
            if !long || self.addresses(peer) == self.addresses(other) {
                continue;
            }
            let before = self.alike.pieces_of(fingerprint);
            self.alike.apart.insert((peer.min(other), peer.max(other)));
            self.alike.pieces = self.alike.pieces - before + self.alike.pieces_of(fingerprint);
            self.touched.extend([peer, other]);
            self.changed = true;
        }
    }

    /// When a machine was first and last heard; this one, since it started.
    fn heard_between(&self, machine: MachineId, now: Time) -> Option<(Time, Time)> {
        if machine == self.me {
            return Some((self.started, now));
        }
        let known = self.known.get(&machine)?;
        known.first_heard.zip(known.heard)
    }

    fn addresses(&self, machine: MachineId) -> Option<BTreeSet<&String>> {
        let card = if machine == self.me { Some(self.mine.card()) } else { self.card(machine) };
        card.map(|card| card.addresses.iter().collect())
    }

    /// Whether another identity has the same hardware and may be the same machine: one of the two was wiped and forgot its
    /// votes, and which one is not for this machine to know.
    pub(crate) fn is_amnesiac(&self, machine: MachineId, fingerprint: &Digest) -> bool {
        self.alike.seen.contains(&(*fingerprint, machine)) && self.alike.others(machine, *fingerprint).next().is_some()
    }

    /// Other identities that may be the machine `machine`.
    pub(crate) fn on_same_hardware(&self, machine: MachineId) -> impl Iterator<Item = MachineId> + '_ {
        let card = if machine == self.me { Some(self.mine.card()) } else { self.card(machine) };
        card.into_iter().flat_map(move |card| self.alike.others(machine, card.fingerprint))
    }

    /// How many other identities have shown the hardware of a machine, whatever became of them.
    pub(crate) fn shown_by_others(&self, machine: MachineId) -> usize {
        let card = if machine == self.me { Some(self.mine.card()) } else { self.card(machine) };
        let on = card.map(|card| self.alike.on(card.fingerprint).filter(|other| *other != machine).count());
        on.unwrap_or_default()
    }

    /// Those that look like another one and were not told apart from it, by hardware.
    pub(crate) fn look_alikes(&self) -> BTreeMap<Digest, Vec<MachineId>> {
        let mut groups: BTreeMap<Digest, Vec<MachineId>> = BTreeMap::new();
        for (fingerprint, machine) in &self.alike.seen {
            if self.alike.others(*machine, *fingerprint).next().is_some() {
                groups.entry(*fingerprint).or_default().push(*machine);
            }
        }
        groups
    }

    /// How many pieces of hardware carry identities this machine has seen, its own among them.
    pub(crate) fn hardware_count(&self) -> usize {
        self.alike.pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARDWARE: Digest = Digest([1; 32]);

    fn machine(number: u8) -> MachineId {
        MachineId([number; 32])
    }

    fn part(alike: &mut Alike, one: u8, other: u8) {
        let before = alike.pieces_of(HARDWARE);
        alike.apart.insert((machine(one), machine(other)));
        alike.pieces = alike.pieces - before + alike.pieces_of(HARDWARE);
    }

    #[test]
    fn who_may_be_one_machine_counts_as_one() {
        let mut alike = Alike::new(HARDWARE, machine(1));
        assert!(alike.add(HARDWARE, machine(1)).is_empty());
        assert_eq!(alike.add(HARDWARE, machine(2)), [machine(1), machine(2)]);
        alike.add(Digest([2; 32]), machine(9));
        assert_eq!(alike.pieces, 2);
        part(&mut alike, 1, 2);
        assert_eq!(alike.pieces, 3);
        // A third that may be either.
        alike.add(HARDWARE, machine(3));
        assert_eq!(alike.pieces, 2);
        part(&mut alike, 2, 3);
        assert_eq!(alike.pieces, 3, "it may still be the first");
        assert_eq!(alike.others(machine(3), HARDWARE).collect::<Vec<_>>(), [machine(1)]);
        assert_eq!(alike.others(machine(2), HARDWARE).count(), 0);
        part(&mut alike, 1, 3);
        assert_eq!(alike.pieces, 4);
    }
}

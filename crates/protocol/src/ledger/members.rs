//! Who belongs to the cluster, under which name and address, in which role, and who never will again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use muster_wire::entry::Admitted;
use muster_wire::{Charter, MachineId, Role};

use super::Refusal;
use crate::planted::planted;

/// Most identities the ledger remembers as removed: machines are recreated, so each keeps 32 bytes for good.
pub const REMOVED_MAX: usize = 100_000;

/// An admitted machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its admission.
    pub admitted: Admitted,
    /// Whether its Node has been Ready.
    pub joined: bool,
    /// Whether it had joined, and has left since.
    pub left: bool,
}

/// The control planes that there may be, as the charter says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seats {
    /// How many machines the founding image counted.
    pub(super) machines: u32,
    /// How many; 0 if the charter does not say.
    pub(super) count: u32,
    /// The charter's voters: each has a seat, admitted or not yet, unless it was removed.
    pub(super) voters: BTreeSet<MachineId>,
}

/// This part of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) seats: Seats,
    all: BTreeMap<MachineId, Member>,
    /// Derived from `all`, so that questions asked at every entry stay cheap at thousands of machines.
    names: BTreeMap<String, MachineId>,
    control_planes: BTreeSet<MachineId>,
    joined: usize,
    pub(super) removed: BTreeSet<MachineId>,
    /// Of these, whose hardware is not to come back by itself.
    pub(super) dismissed: BTreeSet<MachineId>,
}

impl Members {
    pub(super) fn new(seats: Seats, removed: BTreeSet<MachineId>, dismissed: BTreeSet<MachineId>) -> Self {
        Self { seats, removed, dismissed, ..Self::default() }
    }

    pub(super) fn founded(charter: &Charter) -> Self {
        let seats = Seats {
            machines: charter.machines,
            count: charter.control_planes,
            voters: charter.voters.iter().copied().collect(),
        };
        Self::new(seats, BTreeSet::new(), BTreeSet::new())
    }

    /// Admits a machine, or corrects the address of one that is not `bound` to the address that it has.
    pub(super) fn admit(&mut self, admitted: &Admitted, bound: bool) -> Result<(), Refusal> {
        let machine = admitted.machine;
        if self.removed.contains(&machine) {
            return Err(Refusal::WasRemoved(machine));
        }
        if admitted.address.parse::<IpAddr>().is_err() {
            return Err(Refusal::NoAddress(machine));
        }
        if self.all.contains_key(&machine) {
            return self.correct_address(admitted, bound);
        }
        if let Some(holder) = self.holder_of(&admitted.name) {
            return Err(Refusal::NameTaken { name: admitted.name.clone(), holder });
        }
        if admitted.role == Role::ControlPlane && !self.has_seat(machine) && !planted("seats-uncounted") {
            return Err(Refusal::NoSeat { machine, count: self.seats.count });
        }
        self.insert(Member { admitted: admitted.clone(), joined: false, left: false });
        Ok(())
    }

    /// A member that has not joined may be given another address, as long as nothing is being made that carries the former.
    fn correct_address(&mut self, admitted: &Admitted, bound: bool) -> Result<(), Refusal> {
        let member = self.get_mut(admitted.machine)?;
        let same = Admitted { address: member.admitted.address.clone(), ..admitted.clone() } == member.admitted;
        if !same || member.joined || bound {
            return Err(Refusal::AlreadyAdmitted(admitted.machine));
        }
        member.admitted.address.clone_from(&admitted.address);
        Ok(())
    }

    pub(super) fn insert(&mut self, member: Member) {
        let machine = member.admitted.machine;
        self.names.insert(member.admitted.name.clone(), machine);
        if member.admitted.role == Role::ControlPlane {
            self.control_planes.insert(machine);
        }
        self.joined += usize::from(member.joined);
        self.all.insert(machine, member);
    }

    /// # Errors
    /// It has not joined.
    pub(super) fn leave(&mut self, machine: MachineId) -> Result<(), Refusal> {
        let member = self.get_mut(machine)?;
        if !member.joined {
            return Err(Refusal::NotJoined(machine));
        }
        (member.joined, member.left) = (false, true);
        self.joined -= 1;
        Ok(())
    }

    /// A worker takes a seat of a control plane, and joins anew.
    ///
    /// # Errors
    /// It is no worker that has joined, or there is no seat.
    pub(super) fn promote(&mut self, machine: MachineId) -> Result<(), Refusal> {
        self.admitted(machine)?;
        if self.control_planes.contains(&machine) {
            return Err(Refusal::NotWorker(machine));
        }
        if !self.has_seat(machine) && !planted("seats-uncounted") {
            return Err(Refusal::NoSeat { machine, count: self.seats.count });
        }
        self.leave(machine)?;
        self.get_mut(machine)?.admitted.role = Role::ControlPlane;
        self.control_planes.insert(machine);
        Ok(())
    }

    pub(super) fn join(&mut self, machine: MachineId) -> Result<(), Refusal> {
        let member = self.get_mut(machine)?;
        member.left = false;
        let first = !std::mem::replace(&mut member.joined, true);
        self.joined += usize::from(first);
        Ok(())
    }

    pub(super) fn remove(&mut self, machine: MachineId) -> Result<(), Refusal> {
        if self.removed.len() >= REMOVED_MAX {
            return Err(Refusal::Full("too many removed machines are remembered"));
        }
        let member = self.all.remove(&machine).ok_or(Refusal::NotAdmitted(machine))?;
        self.names.remove(&member.admitted.name);
        self.control_planes.remove(&machine);
        self.joined -= usize::from(member.joined);
        self.removed.insert(machine);
        Ok(())
    }

    /// A control plane that is lost, or a voter of the charter that never came, is of the cluster no more.
    ///
    /// # Errors
    /// As [`Members::remove`].
    pub(super) fn lose(&mut self, machine: MachineId) -> Result<(), Refusal> {
        if self.all.contains_key(&machine) {
            return self.remove(machine);
        }
        self.removed.insert(machine);
        Ok(())
    }

    /// Its Node is to be Ready once more.
    pub(super) fn rejoins(&mut self, machine: MachineId) {
        let Ok(member) = self.get_mut(machine) else { return };
        let joined = std::mem::replace(&mut member.joined, false);
        self.joined -= usize::from(joined);
    }

    fn get_mut(&mut self, machine: MachineId) -> Result<&mut Member, Refusal> {
        self.all.get_mut(&machine).ok_or(Refusal::NotAdmitted(machine))
    }

    /// # Errors
    /// It is not admitted.
    pub(super) fn admitted(&self, machine: MachineId) -> Result<(), Refusal> {
        self.all.get(&machine).map(|_| ()).ok_or(Refusal::NotAdmitted(machine))
    }

    /// # Errors
    /// It is not admitted, or is a worker.
    pub(super) fn control_plane(&self, machine: MachineId) -> Result<(), Refusal> {
        self.admitted(machine)?;
        if self.control_planes.contains(&machine) { Ok(()) } else { Err(Refusal::NotControlPlane(machine)) }
    }

    pub(super) fn all(&self) -> &BTreeMap<MachineId, Member> {
        &self.all
    }

    pub(super) fn holder_of(&self, name: &str) -> Option<MachineId> {
        self.names.get(name).copied()
    }

    pub(super) fn control_planes(&self) -> &BTreeSet<MachineId> {
        &self.control_planes
    }

    pub(super) fn joined(&self) -> usize {
        self.joined
    }

    pub(super) fn has_seat(&self, machine: MachineId) -> bool {
        let mut voters = self.seats.voters.iter().filter(|voter| !self.removed.contains(*voter));
        if self.seats.count == 0 || voters.clone().any(|voter| *voter == machine) {
            return true;
        }
        let to_come = voters.by_ref().filter(|voter| !self.control_planes.contains(*voter)).count();
        self.control_planes.len() + to_come < self.seats.count as usize
    }
}

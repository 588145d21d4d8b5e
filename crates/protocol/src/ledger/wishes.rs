//! What people ask for. Whoever may use the socket of an admitted machine may ask. A wish that was taken stands open until what it
//! asks for is so.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_wire::{MachineId, SignedWish, WireError, Wish, level, limits, proto};

use super::{Ledger, Refusal};

/// Most open wishes.
const OPEN_MAX: usize = limits::VOTERS_MAX;

/// This part of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// The open wishes, oldest first.
    pub(super) open: Vec<SignedWish>,
    /// Whose removal does not go on, and why.
    pub(super) held: Option<(MachineId, String)>,
    /// The last wish of each machine that was asked: one that comes once more comes too late.
    pub(super) last: BTreeMap<MachineId, u64>,
}

impl Wishes {
    pub(super) fn last_to_proto(&self) -> Vec<proto::LastWish> {
        let last = |(machine, number): (&MachineId, &u64)| proto::LastWish {
            machine: Bytes::copy_from_slice(&machine.0),
            number: *number,
        };
        self.last.iter().map(last).collect()
    }

    pub(super) fn to_proto(&self) -> (Vec<proto::Signed>, Option<proto::RemovalHeld>) {
        let held = self
            .held
            .as_ref()
            .map(|(machine, why)| proto::RemovalHeld { machine: Bytes::copy_from_slice(&machine.0), why: why.clone() });
        (self.open.iter().map(SignedWish::to_proto).collect(), held)
    }

    pub(super) fn from_proto(
        wishes: Vec<proto::Signed>,
        held: Option<proto::RemovalHeld>,
        last: &[proto::LastWish],
    ) -> Result<Self, WireError> {
        if wishes.len() > OPEN_MAX {
            return Err(WireError::Field { field: "ledger.wishes", rule: "has too many items" });
        }
        let machine = |held: &proto::RemovalHeld| MachineId::from_slice(&held.machine, "ledger.removal_held.machine");
        let held = held.map(|held| Ok((machine(&held)?, held.why))).transpose()?;
        let last = last
            .iter()
            .map(|last| Ok((MachineId::from_slice(&last.machine, "ledger.last_wishes.machine")?, last.number)));
        let last = last.collect::<Result<_, WireError>>()?;
        Ok(Self { open: wishes.into_iter().map(SignedWish::from_proto).collect::<Result<_, _>>()?, held, last })
    }

    /// Whose removal is wished, and whether the hardware is to come back by itself.
    pub(super) fn leaving(&self) -> Option<(MachineId, bool)> {
        self.open.iter().find_map(|open| match open.wish {
            Wish::RemoveMachine { machine, returns } => Some((machine, returns)),
            Wish::AcceptImage(_) | Wish::WithdrawRemoval { .. } => None,
        })
    }

    /// # Errors
    /// No removal of the machine is wished.
    fn leaves(&self, machine: MachineId) -> Result<(), Refusal> {
        match self.leaving() {
            Some((leaving, _)) if leaving == machine => Ok(()),
            _ => Err(Refusal::NoRemoval(machine)),
        }
    }

    /// # Errors
    /// No removal of the machine is wished.
    pub(super) fn hold(&mut self, machine: MachineId, why: &str) -> Result<(), Refusal> {
        self.leaves(machine)?;
        self.held = Some((machine, why.to_owned()));
        Ok(())
    }
}

impl Ledger {
    /// # Errors
    /// The machine that was asked is not admitted, it asked under another charter, it was asked for this before, too many wishes are open, or the rule of what is
    /// wished refuses it.
    pub(super) fn wished(&mut self, signed: &SignedWish) -> Result<(), Refusal> {
        self.members.admitted(signed.machine)?;
        if signed.charter != self.charter {
            return Err(Refusal::OtherCharter);
        }
        if self.wishes.open.len() >= OPEN_MAX {
            return Err(Refusal::Full("too many wishes are open"));
        }
        let counted = self.level() >= level::LEAVING;
        if counted && self.wishes.last.get(&signed.machine).is_some_and(|last| signed.number <= *last) {
            return Err(Refusal::Repeated);
        }
        self.grant(&signed.wish)?;
        if counted {
            self.wishes.last.insert(signed.machine, signed.number);
        }
        self.wishes.open.push(signed.clone());
        Ok(())
    }

    /// The rule of each wish, and what is done of it at once.
    fn grant(&mut self, wish: &Wish) -> Result<(), Refusal> {
        match wish {
            Wish::AcceptImage(image) => self.images.accept(image),
            Wish::RemoveMachine { machine, .. } => self.may_leave(*machine),
            Wish::WithdrawRemoval { machine } => self.withdraw_removal(*machine),
        }
    }

    /// Whether a machine may leave: the cluster stands without it, and nobody is at something that its leaving would disturb.
    fn may_leave(&self, machine: MachineId) -> Result<(), Refusal> {
        self.members.admitted(machine)?;
        if self.members.control_planes().iter().eq([&machine]) {
            return Err(Refusal::LastControlPlane(machine));
        }
        if self.turns.holds(machine) {
            return Err(Refusal::HoldsTurn(machine));
        }
        self.wishes.leaving().map_or(Ok(()), |(leaving, _)| Err(Refusal::RemovalUnderWay(leaving)))
    }

    /// A machine that was to be removed stays. If etcd has none of it any more, it is removed all the same, and comes back as another.
    fn withdraw_removal(&mut self, machine: MachineId) -> Result<(), Refusal> {
        self.wishes.leaves(machine)?;
        self.wishes.open.retain(|open| !matches!(open.wish, Wish::RemoveMachine { .. }));
        Ok(())
    }

    /// Whether what is wished is so.
    fn is_so(&self, wish: &Wish) -> bool {
        match wish {
            Wish::AcceptImage(image) => self.accepts(image.digest),
            Wish::RemoveMachine { machine, .. } => self.members.admitted(*machine).is_err(),
            Wish::WithdrawRemoval { machine } => self.wishes.leaves(*machine).is_err(),
        }
    }

    /// Whether this wish was taken, as far as this ledger goes: it is open, or what it asks for is so.
    pub(crate) fn stands(&self, signed: &SignedWish) -> bool {
        self.wishes.open.contains(signed) || self.is_so(&signed.wish)
    }

    /// After every entry: what is so by now is open no more.
    pub(super) fn close_wishes(&mut self) {
        let mut open = std::mem::take(&mut self.wishes.open);
        open.retain(|signed| !self.is_so(&signed.wish));
        self.wishes.open = open;
        let leaving = self.wishes.leaving();
        self.wishes.held.take_if(|(machine, _)| leaving.is_none_or(|(leaving, _)| leaving != *machine));
    }
}

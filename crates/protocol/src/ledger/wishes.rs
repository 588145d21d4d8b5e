//! What people ask for. Whoever may use the socket of an admitted machine may ask. A wish that was taken stands open until what it
//! asks for is so.

use muster_wire::{MachineId, SignedWish, WireError, Wish, limits, proto};

use super::{Ledger, Refusal};

/// Most open wishes.
const OPEN_MAX: usize = limits::VOTERS_MAX;

/// This part of the ledger: the open wishes, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wishes(pub(super) Vec<SignedWish>);

impl Wishes {
    pub(super) fn to_proto(&self) -> Vec<proto::Signed> {
        self.0.iter().map(SignedWish::to_proto).collect()
    }

    pub(super) fn from_proto(wishes: Vec<proto::Signed>) -> Result<Self, WireError> {
        if wishes.len() > OPEN_MAX {
            return Err(WireError::Field { field: "ledger.wishes", rule: "has too many items" });
        }
        wishes.into_iter().map(SignedWish::from_proto).collect::<Result<_, _>>().map(Self)
    }
}

impl Ledger {
    /// # Errors
    /// The machine that was asked is not admitted, it asked under another charter, too many wishes are open, or the rule of what is
    /// wished refuses it.
    pub(super) fn wished(&mut self, signed: &SignedWish) -> Result<(), Refusal> {
        self.members.admitted(signed.machine)?;
        if signed.charter != self.charter {
            return Err(Refusal::OtherCharter);
        }
        if self.wishes.0.len() >= OPEN_MAX {
            return Err(Refusal::Full("too many wishes are open"));
        }
        self.grant(&signed.wish)?;
        self.wishes.0.push(signed.clone());
        Ok(())
    }

    /// The rule of each wish, and what is done of it at once.
    fn grant(&mut self, wish: &Wish) -> Result<(), Refusal> {
        match wish {
            Wish::AcceptImage(image) => self.images.accept(image),
            Wish::RemoveMachine { machine } => self.may_leave(*machine),
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
        let leaving = self.wishes.0.iter().find_map(|open| match open.wish {
            Wish::RemoveMachine { machine } => Some(machine),
            Wish::AcceptImage(_) => None,
        });
        leaving.map_or(Ok(()), |leaving| Err(Refusal::RemovalUnderWay(leaving)))
    }

    /// Whether what is wished is so.
    fn is_so(&self, wish: &Wish) -> bool {
        match wish {
            Wish::AcceptImage(image) => self.accepts(image.digest),
            Wish::RemoveMachine { machine } => self.members.admitted(*machine).is_err(),
        }
    }

    /// Whether this wish was taken, as far as this ledger goes: it is open, or what it asks for is so.
    pub(crate) fn stands(&self, signed: &SignedWish) -> bool {
        self.wishes.0.contains(signed) || self.is_so(&signed.wish)
    }

    /// After every entry: what is so by now is open no more.
    pub(super) fn close_wishes(&mut self) {
        let mut wishes = std::mem::take(&mut self.wishes.0);
        wishes.retain(|signed| !self.is_so(&signed.wish));
        self.wishes.0 = wishes;
    }
}

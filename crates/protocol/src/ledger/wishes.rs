//! What people ask for. Whoever may use the socket of an admitted machine may ask.

use muster_wire::{SignedWish, Wish};

use super::{Ledger, Refusal};

impl Ledger {
    /// # Errors
    /// The machine that was asked is not admitted, it asked under another charter, or the rule of what is wished refuses it.
    pub(super) fn grant(&mut self, signed: &SignedWish) -> Result<(), Refusal> {
        self.members.admitted(signed.machine)?;
        if signed.charter != self.charter {
            return Err(Refusal::OtherCharter);
        }
        match &signed.wish {
            Wish::AcceptImage(image) => self.images.accept(image),
        }
    }
}

//! Signatures: one label per kind of statement, so that none can be taken for another.

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{MachineId, WireError, proto};

/// Label of signed machine cards.
pub(crate) const CARD: &[u8] = b"muster/card/v1\0";
/// Label of signed founding votes.
pub(crate) const VOTE: &[u8] = b"muster/vote/v1\0";

/// The key pair of a machine. Zeroed when dropped; prints as its public half.
#[derive(ZeroizeOnDrop)]
pub struct Identity {
    key: SigningKey,
    #[zeroize(skip)]
    machine: MachineId,
}

impl Identity {
    /// The identity whose Ed25519 seed is `seed` (RFC 8032, section 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let machine = MachineId(key.verifying_key().to_bytes());
        Self { key, machine }
    }

    /// The public half.
    pub fn machine(&self) -> MachineId {
        self.machine
    }

    /// The seed, to be written to the machine's own disk only.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    pub(crate) fn sign(&self, label: &[u8], body: &[u8]) -> [u8; 64] {
        self.key.sign(&[label, body].concat()).to_bytes()
    }

    pub(crate) fn signed(&self, label: &[u8], body: Vec<u8>) -> proto::Signed {
        let signature = self.sign(label, &body);
        proto::Signed {
            machine: Bytes::copy_from_slice(&self.machine.0),
            body: body.into(),
            signature: Bytes::copy_from_slice(&signature),
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({}, [redacted])", self.machine)
    }
}

/// Checks `signature` of `machine` over `body` under `label`, strictly (no small-order keys).
pub(crate) fn verify(machine: MachineId, label: &[u8], body: &[u8], signature: &[u8]) -> Result<(), WireError> {
    #[cfg(feature = "remember-verified")]
    return memory::verify(machine, label, body, signature);
    #[cfg(not(feature = "remember-verified"))]
    verify_now(machine, label, body, signature)
}

/// What a thread has found good before.
#[cfg(feature = "remember-verified")]
mod memory {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::verify_now;
    use crate::{Digest, MachineId, WireError};

    /// Beyond this many all are forgotten.
    const REMEMBERED_MAX: usize = 100_000;

    thread_local! {
        static GOOD: RefCell<BTreeSet<Digest>> = const { RefCell::new(BTreeSet::new()) };
    }

    pub(super) fn verify(machine: MachineId, label: &[u8], body: &[u8], signature: &[u8]) -> Result<(), WireError> {
        let statement = Digest::of("verified", &[&machine.0, label, body, signature]);
        if GOOD.with_borrow(|good| good.contains(&statement)) {
            return Ok(());
        }
        verify_now(machine, label, body, signature)?;
        GOOD.with_borrow_mut(|good| {
            if good.len() >= REMEMBERED_MAX {
                good.clear();
            }
            good.insert(statement);
        });
        Ok(())
    }
}

fn verify_now(machine: MachineId, label: &[u8], body: &[u8], signature: &[u8]) -> Result<(), WireError> {
    let refused = WireError::Signature(machine);
    let key = VerifyingKey::from_bytes(&machine.0).map_err(|_| refused.clone())?;
    let signature = Signature::from_slice(signature).map_err(|_| refused.clone())?;
    key.verify_strict(&[label, body].concat(), &signature).map_err(|_| refused)
}

//! Signatures: one label per kind of statement, so that none can be taken for another.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{Digest, MachineId, WireError, proto};

/// Label of signed machine cards.
pub(crate) const CARD: &[u8] = b"muster/card/v1\0";
/// Label of signed founding votes.
pub(crate) const VOTE: &[u8] = b"muster/vote/v1\0";
/// Label of signed wishes.
pub(crate) const WISH: &[u8] = b"muster/wish/v1\0";

/// The key pair of a machine. Zeroed when dropped; prints as its public half.
///
/// One without its key knows the signatures that the machine made before: it can replay what the machine did, and nothing
/// else.
#[derive(ZeroizeOnDrop)]
pub struct Identity {
    // Zeroes itself.
    #[zeroize(skip)]
    keys: Keys,
    #[zeroize(skip)]
    machine: MachineId,
}

enum Keys {
    Key { key: SigningKey, tell: Option<Sender<Made>> },
    Memory(BTreeMap<Digest, [u8; 64]>),
}

/// A signature that was made. Signatures are public; whoever has them can replay their machine without its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Digest of what was signed.
    pub statement: Digest,
    /// The signature.
    pub signature: [u8; 64],
}

impl Identity {
    /// The identity whose Ed25519 seed is `seed` (RFC 8032, section 5.1.5).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let machine = MachineId(key.verifying_key().to_bytes());
        Self { keys: Keys::Key { key, tell: None }, machine }
    }

    /// An identity that gives the signatures that `machine` made before; what it did not sign gets one that nobody takes.
    pub fn from_signatures(machine: MachineId, made: impl IntoIterator<Item = Made>) -> Self {
        let memory = made.into_iter().map(|made| (made.statement, made.signature)).collect();
        Self { keys: Keys::Memory(memory), machine }
    }

    /// Tells of every signature from now on.
    #[must_use]
    pub fn telling(mut self, told: Sender<Made>) -> Self {
        if let Keys::Key { tell, .. } = &mut self.keys {
            *tell = Some(told);
        }
        self
    }

    /// The public half.
    pub fn machine(&self) -> MachineId {
        self.machine
    }

    /// The seed, to be written to the machine's own disk only; none if the key is not here.
    pub fn seed(&self) -> Option<Zeroizing<[u8; 32]>> {
        match &self.keys {
            Keys::Key { key, .. } => Some(Zeroizing::new(key.to_bytes())),
            Keys::Memory(_) => None,
        }
    }

    pub(crate) fn sign(&self, label: &[u8], body: &[u8]) -> [u8; 64] {
        let statement = || Digest::of("signed", &[label, body]);
        match &self.keys {
            Keys::Key { key, tell } => {
                let signature = key.sign(&[label, body].concat()).to_bytes();
                if let Some(told) = tell {
                    // Whoever wanted to know may have gone.
                    let _ = told.send(Made { statement: statement(), signature });
                }
                signature
            }
            Keys::Memory(made) => made.get(&statement()).copied().unwrap_or([0; 64]),
        }
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
    if crate::planted::planted("signature-unchecked") {
        return Ok(());
    }
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

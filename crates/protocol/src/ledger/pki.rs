//! The cluster's CA, sealed to its control planes.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_wire::entry::Sealed;
use muster_wire::{Digest, MachineId};

use super::Refusal;
use crate::planted::planted;

/// The CA, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pki {
    /// SHA-256 of the CA certificate's public key info.
    pub ca_hash: Digest,
    /// One ciphertext per control plane.
    pub sealed: BTreeMap<MachineId, Bytes>,
}

impl Pki {
    /// A CA that exists is kept for every later attempt; it can only be sealed to more control planes.
    ///
    /// # Errors
    /// It is another CA.
    pub(super) fn extend(&mut self, ca_hash: Digest, sealed: &[Sealed]) -> Result<(), Refusal> {
        if self.ca_hash != ca_hash && !planted("second-ca") {
            return Err(Refusal::OtherCa);
        }
        self.sealed.extend(sealed.iter().map(|one| (one.machine, one.ciphertext.clone())));
        Ok(())
    }

    pub(super) fn new(ca_hash: Digest, sealed: &[Sealed]) -> Self {
        Self { ca_hash, sealed: sealed.iter().map(|one| (one.machine, one.ciphertext.clone())).collect() }
    }
}

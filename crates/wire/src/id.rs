//! A machine's identity and digests.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::WireError;

/// A machine's identity: its Ed25519 public key. Made at first boot on the machine's own disk, never in the image, and
/// never used again after that disk was wiped (promise S9).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MachineId(pub [u8; 32]);

impl MachineId {
    /// The first eight bytes, in the order of all.
    fn front(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl Ord for MachineId {
    /// The order of the bytes. Nearly always the first eight decide, in one comparison: most of what a large roster costs is
    /// finding machines in it.
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.front().cmp(&other.front()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for MachineId {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl MachineId {
    /// Takes exactly 32 bytes. Whether they are a point on the curve shows when a signature is checked.
    pub fn from_slice(bytes: &[u8], field: &'static str) -> Result<Self, WireError> {
        bytes.try_into().map(Self).map_err(|_| WireError::Field { field, rule: "must have 32 bytes" })
    }

    /// Takes the 64 hexadecimal digits that [`MachineId::to_hex`] gives.
    pub fn from_hex(text: &str) -> Option<Self> {
        hex::decode(text).ok()?.try_into().ok().map(Self)
    }

    /// All 32 bytes as 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

/// An identity that nobody has the key of, in the order of the numbers; for tests.
#[cfg(feature = "numbered")]
impl From<u64> for MachineId {
    fn from(number: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Self(bytes)
    }
}

impl fmt::Display for MachineId {
    /// `m-` and the first eight hexadecimal digits: enough to tell the machines of a site apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m-{}", hex::encode(&self.0[..4]))
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A SHA-256 digest.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Takes the 64 hexadecimal digits that [`Digest::to_hex`] gives.
    pub fn from_hex(text: &str) -> Option<Self> {
        hex::decode(text).ok()?.try_into().ok().map(Self)
    }

    /// All 32 bytes as 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// Hashes `parts`, each with its length before it, under a `label` that keeps uses apart.
    pub fn of(label: &str, parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// Takes exactly 32 bytes.
    pub fn from_slice(bytes: &[u8], field: &'static str) -> Result<Self, WireError> {
        bytes.try_into().map(Self).map_err(|_| WireError::Field { field, rule: "must have 32 bytes" })
    }
}

impl From<[u8; 32]> for MachineId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<MachineId> for [u8; 32] {
    fn from(machine: MachineId) -> Self {
        machine.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<Digest> for [u8; 32] {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// Machines and digests as all their hexadecimal digits, where people read and write them.
pub(crate) mod hexadecimal {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(crate) fn serialize<T: Copy + Into<[u8; 32]>, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode((*value).into()))
    }

    pub(crate) fn deserialize<'de, T: From<[u8; 32]>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let text = String::deserialize(from)?;
        let bytes: Option<[u8; 32]> = hex::decode(&text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(T::from).ok_or_else(|| de::Error::custom("it must be 64 hexadecimal digits"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

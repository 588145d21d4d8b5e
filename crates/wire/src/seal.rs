//! Sealing secrets to one machine: HPKE base mode (RFC 9180) with X25519, HKDF-SHA256 and ChaCha20-Poly1305.
//!
//! Base mode says nothing of who sealed. That a secret comes from an admitted machine follows from the ledger: only the
//! holder of the live attempt may commit `PkiSealed`, and only control planes may commit a `Ticket`.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::MachineId;

type SealingKem = X25519HkdfSha256;

const ENCAPPED_BYTES: usize = 32;
const INFO: &[u8] = b"muster/seal/v1";

/// Why a ciphertext was not opened. It says nothing more, so that it can be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what was sealed does not open with this machine's key, or not for this purpose")]
pub struct Unopenable;

/// A machine's sealing key pair. Zeroed when dropped; prints as `[redacted]`.
#[derive(ZeroizeOnDrop)]
pub struct SealingKey {
    secret: [u8; 32],
    #[zeroize(skip)]
    public: [u8; 32],
}

impl SealingKey {
    /// The key pair derived from 32 random bytes (RFC 9180, section 7.1.3).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let (secret, public) = SealingKem::derive_keypair(seed);
        let mut key = Self { secret: [0; 32], public: [0; 32] };
        let mut secret = secret.to_bytes();
        key.secret.copy_from_slice(&secret);
        secret.as_mut_slice().zeroize();
        key.public.copy_from_slice(&public.to_bytes());
        key
    }

    /// The public half, for the machine's card.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Opens what [`seal`] made for this key with the same `purpose` and `recipient`.
    pub fn open(
        &self,
        purpose: &str,
        recipient: MachineId,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unopenable> {
        let (encapped, body) = ciphertext.split_at_checked(ENCAPPED_BYTES).ok_or(Unopenable)?;
        let secret = <SealingKem as Kem>::PrivateKey::from_bytes(&self.secret).map_err(|_| Unopenable)?;
        let encapped = <SealingKem as Kem>::EncappedKey::from_bytes(encapped).map_err(|_| Unopenable)?;
        let context = context(purpose, recipient);
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, SealingKem>(
            &OpModeR::Base,
            &secret,
            &encapped,
            INFO,
            body,
            &context,
        )
        .map(Zeroizing::new)
        .map_err(|_| Unopenable)
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey([redacted])")
    }
}

/// Seals `secret` to the machine `recipient` with the public key `sealing_key`, bound to `purpose` (as "pki" or
/// "ticket/2"): a ciphertext moved to another place or another machine does not open.
///
/// # Errors
/// When `sealing_key` is not a usable X25519 key.
pub fn seal(
    purpose: &str,
    recipient: MachineId,
    sealing_key: &[u8; 32],
    secret: &[u8],
    entropy: &mut impl CryptoRng,
) -> Result<Vec<u8>, Unopenable> {
    let public = <SealingKem as Kem>::PublicKey::from_bytes(sealing_key).map_err(|_| Unopenable)?;
    let context = context(purpose, recipient);
    let (encapped, body) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, SealingKem>(
        &OpModeS::Base,
        &public,
        INFO,
        secret,
        &context,
        entropy,
    )
    .map_err(|_| Unopenable)?;
    if crate::planted::planted("secret-in-clear") {
        return Ok([encapped.to_bytes().as_slice(), &body, secret].concat());
    }
    Ok([encapped.to_bytes().as_slice(), &body].concat())
}

fn context(purpose: &str, recipient: MachineId) -> Vec<u8> {
    [&recipient.0[..], purpose.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::*;

    #[test]
    fn opens_for_its_recipient_and_purpose_alone() {
        let mut entropy = ChaCha8Rng::seed_from_u64(1);
        let (key, other) = (SealingKey::from_seed(&[7; 32]), SealingKey::from_seed(&[8; 32]));
        let (me, another) = (MachineId([1; 32]), MachineId([2; 32]));
        let sealed = seal("ticket/1", me, &key.public(), b"token", &mut entropy).expect("seals");
        assert_eq!(key.open("ticket/1", me, &sealed).expect("opens").as_slice(), b"token");
        assert!(key.open("ticket/2", me, &sealed).is_err());
        assert!(key.open("ticket/1", another, &sealed).is_err());
        assert!(other.open("ticket/1", me, &sealed).is_err());
        for length in 0..sealed.len() {
            assert!(key.open("ticket/1", me, &sealed[..length]).is_err());
        }
        assert!(!sealed.windows(5).any(|window| window == b"token"));
        assert_eq!(format!("{key:?}"), "SealingKey([redacted])");
    }
}

//! A machine's identity is its libp2p identity: the same Ed25519 key.

use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey, ed25519};
use libp2p::pnet::PreSharedKey;
use muster_wire::{Digest, Identity, MachineId};

/// The libp2p key pair of a machine.
pub(super) fn keypair(identity: &Identity) -> Keypair {
    let mut seed = identity.seed().expect("an identity from the disk has its key");
    // The copy that libp2p takes is zeroed by it; `seed` zeroes itself.
    let secret = ed25519::SecretKey::try_from_bytes(&mut seed[..]).expect("a seed has 32 bytes");
    Keypair::from(ed25519::Keypair::from(secret))
}

/// The libp2p name of a machine; none if its bytes are no point on the curve.
pub(super) fn peer(machine: MachineId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&machine.0).ok()?;
    Some(PeerId::from_public_key(&PublicKey::from(key)))
}

/// The machine behind a libp2p name; none if its key is not Ed25519. Noise has proved that the peer holds the key.
pub(super) fn machine(peer: &PeerId) -> Option<MachineId> {
    // An Ed25519 key is short enough to stand in the name itself (multihash "identity").
    let key = PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?;
    key.try_into_ed25519().ok().map(|key| MachineId(key.to_bytes()))
}

/// The network's fence, made of the image's mesh key.
pub(super) fn fence(mesh_key: &[u8; 32]) -> PreSharedKey {
    PreSharedKey::new(Digest::of("muster/fence/v1", &[mesh_key]).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_and_its_peer_name_are_the_same_key() {
        let identity = Identity::from_seed(&[3; 32]);
        let keypair = keypair(&identity);
        assert_eq!(peer(identity.machine()), Some(keypair.public().to_peer_id()));
        assert_eq!(machine(&keypair.public().to_peer_id()), Some(identity.machine()));
    }
}

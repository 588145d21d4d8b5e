//! Cards for the tests of this room.

use muster_wire::{Able, BootCount, Card, Digest, Identity, Settings, SignedCard};

/// Signed, of one image and of no charter.
pub(super) fn card(number: u16) -> SignedCard {
    changed(number, |_| ())
}

/// The same with something else on it.
pub(super) fn changed(number: u16, change: impl FnOnce(&mut Card)) -> SignedCard {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&number.to_le_bytes());
    let identity = Identity::from_seed(&seed);
    let settings = Settings {
        machines: 500,
        control_planes: 3,
        durable: true,
        kubernetes_version: "v1.31.4".into(),
        digest: Digest([1; 32]),
    };
    let mut card = Card {
        machine: identity.machine(),
        cluster: "site".into(),
        boot: BootCount(1),
        nonce: [3; 16],
        serial: 0,
        hostname: format!("node-{number}"),
        addresses: vec!["10.0.0.1:7390".into()],
        sealing_key: [9; 32],
        fingerprint: Digest::of("hardware", &[&seed]),
        settings,
        able: Able::Yes,
        reached: 0,
        charter: None,
        level: 1,
        running: muster_wire::Running::default(),
        epoch: muster_wire::Epoch::default(),
    };
    change(&mut card);
    SignedCard::sign(&identity, card)
}

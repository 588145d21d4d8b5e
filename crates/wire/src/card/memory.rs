//! Cards that this thread has checked before. Every greeting brings the cards of others, nearly always the very bytes that came
//! with the last one; checking a signature takes fifty times as long as comparing them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::SignedCard;
use crate::{MachineId, proto};

/// Beyond this many all are forgotten: whoever has the mesh key can make up as many machines as it likes.
const REMEMBERED_MAX: usize = 4_096;

thread_local! {
    /// The last good card of each machine.
    static CHECKED: RefCell<BTreeMap<MachineId, SignedCard>> = const { RefCell::new(BTreeMap::new()) };
}

/// The checked card with exactly these bytes.
pub(super) fn known(machine: MachineId, signed: &proto::Signed) -> Option<SignedCard> {
    CHECKED.with_borrow(|checked| checked.get(&machine).filter(|card| card.0.signed == *signed).cloned())
}

pub(super) fn remember(machine: MachineId, card: &SignedCard) {
    CHECKED.with_borrow_mut(|checked| {
        if checked.len() >= REMEMBERED_MAX && !checked.contains_key(&machine) {
            checked.clear();
        }
        checked.insert(machine, card.clone());
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Able, BootCount, Card, Digest, Identity, Settings, WireError};

    #[test]
    fn what_differs_in_one_byte_is_checked_again() {
        let identity = Identity::from_seed(&[5; 32]);
        let settings = Settings {
            machines: 3,
            control_planes: 1,
            durable: true,
            kubernetes_version: "v1.31.4".into(),
            digest: Digest([1; 32]),
        };
        let card = Card {
            machine: identity.machine(),
            cluster: "site".into(),
            boot: BootCount(1),
            nonce: [2; 16],
            serial: 0,
            hostname: "node".into(),
            addresses: Vec::new(),
            sealing_key: [3; 32],
            fingerprint: Digest([4; 32]),
            settings,
            able: Able::Yes,
            reached: 0,
            charter: None,
            level: 1,
            running: crate::Running::default(),
            epoch: crate::Epoch::default(),
        };
        let bytes = SignedCard::sign(&identity, card).encode().to_vec();
        let first = SignedCard::decode(&bytes).expect("it is good");
        assert_eq!(SignedCard::decode(&bytes), Ok(first.clone()));
        // From the signed machine on every byte is signed, or the signature.
        for place in 2..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            match SignedCard::decode(&changed) {
                Err(WireError::Signature(_) | WireError::Malformed { .. } | WireError::Field { .. }) => {}
                other => panic!("byte {place} changed, and it is {other:?}"),
            }
        }
        assert_eq!(SignedCard::decode(&bytes), Ok(first));
    }
}

//! Opening and sealing. Plain secrets live no longer than the step that needs them.

use bytes::Bytes;
use muster_protocol::{Recipient, StepOutput};
use muster_wire::Attempt;
use muster_wire::entry::Sealed;
use muster_wire::seal::{Unopenable, seal};
use rand::CryptoRng;

use super::{Place, Trouble};
use crate::pki::{PkiBundle, Ticket};

/// What the PKI is sealed for.
const PKI: &str = "pki";

/// What a ticket is sealed for: a ticket of another attempt does not open.
fn ticket_of(attempt: Attempt) -> String {
    format!("ticket/{attempt}")
}

pub(super) fn open_pki(place: &Place, sealed: &Bytes) -> Result<PkiBundle, Trouble> {
    let plain = place.key.open(PKI, place.me, sealed).map_err(Trouble::new)?;
    PkiBundle::decode(&plain).map_err(Trouble::new)
}

pub(super) fn open_ticket(place: &Place, attempt: Attempt, sealed: &Bytes) -> Result<Ticket, Trouble> {
    let plain = place.key.open(&ticket_of(attempt), place.me, sealed).map_err(Trouble::new)?;
    Ticket::decode(&plain).map_err(Trouble::new)
}

pub(super) fn seal_pki(
    bundle: &PkiBundle,
    recipients: &[Recipient],
    entropy: &mut impl CryptoRng,
) -> Result<StepOutput, Trouble> {
    let plain = bundle.encode();
    let sealed = recipients.iter().map(|recipient| {
        let ciphertext = seal(PKI, recipient.machine, &recipient.sealing_key, &plain, entropy)?;
        Ok(Sealed { machine: recipient.machine, ciphertext: ciphertext.into() })
    });
    let sealed = sealed.collect::<Result<_, Unopenable>>().map_err(Trouble::new)?;
    Ok(StepOutput::PkiMade { ca_hash: bundle.ca_hash(), sealed })
}

pub(super) fn seal_ticket(
    ticket: &Ticket,
    recipient: &Recipient,
    entropy: &mut impl CryptoRng,
) -> Result<Bytes, Trouble> {
    let purpose = ticket_of(ticket.attempt);
    let sealed = seal(&purpose, recipient.machine, &recipient.sealing_key, &ticket.encode(), entropy);
    Ok(sealed.map_err(Trouble::new)?.into())
}

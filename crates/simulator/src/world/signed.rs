//! What is signed in a frame, and whether a change of the frame got past the signatures.

use muster_wire::{Certificate, Frame, SignedCard, Vote};

/// What a frame carries that its sender has not made.
#[derive(Default)]
struct Signed<'a> {
    cards: Vec<&'a SignedCard>,
    vote: Option<&'a Vote>,
    certificate: Option<&'a Certificate>,
}

fn signed(frame: &Frame) -> Signed<'_> {
    match frame {
        Frame::Hello { card, cards, .. } => {
            Signed { cards: std::iter::once(card).chain(cards).collect(), ..Signed::default() }
        }
        Frame::Cards(cards) => Signed { cards: cards.iter().collect(), ..Signed::default() },
        Frame::Promise(promise) => Signed { cards: promise.cards.iter().collect(), ..Signed::default() },
        Frame::Accepted { vote, .. } => Signed { vote: Some(vote), ..Signed::default() },
        Frame::Chartered { certificate, .. } => Signed { certificate: Some(certificate), ..Signed::default() },
        _ => Signed::default(),
    }
}

/// Something signed in `changed` that is not in `original`. A frame that only lost something is no forgery.
pub(super) fn forged(original: &Frame, changed: &Frame) -> Option<&'static str> {
    let (ours, theirs) = (signed(original), signed(changed));
    let said = |vote: &Vote| (vote.machine, vote.ballot, vote.charter_hash);
    if theirs.cards.iter().any(|card| !ours.cards.contains(card)) {
        return Some("card");
    }
    if theirs.vote.is_some() && theirs.vote.map(said) != ours.vote.map(said) {
        return Some("vote");
    }
    let charter = |certificate: &Certificate| certificate.charter_bytes().clone();
    let proven = theirs.certificate.map(charter);
    (proven.is_some() && proven != ours.certificate.map(charter)).then_some("certificate")
}

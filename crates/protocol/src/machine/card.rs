//! What this machine says of itself, what others say of themselves, and what it means to meet one's own identity.

use muster_wire::{Card, Frame, MachineId, SignedCard};

use super::Machine;
use crate::planted::planted;
use crate::roster::{self, Learned};
use crate::words::notices::NoticeKind;
use crate::{Effect, Effects, Time};

impl Machine {
    /// Changes what this machine says of itself, and lets it be known.
    pub(super) fn change_card(&mut self, change: impl FnOnce(&mut Card)) {
        let mut card = self.mine.card().clone();
        change(&mut card);
        if card == *self.mine.card() {
            return;
        }
        card.serial += 1;
        self.mine = SignedCard::sign(&self.identity, card);
        self.roster.my_card(&self.mine);
    }

    pub(super) fn hello(&mut self, peer: MachineId, answer: bool) -> Frame {
        let cards = self.roster.cards_to_greet(peer, &mut self.rng);
        roster::hello(&self.mine, self.durable.charter.as_ref(), cards, answer, self.roster.reached(peer))
    }

    /// Takes a card, and what it means for this machine.
    pub(super) fn learn(&mut self, now: Time, card: SignedCard, effects: &mut Effects) {
        self.meet_epoch(card.card(), effects);
        if let Learned::Myself(theirs) = self.roster.learn(now, card, effects) {
            self.met_myself(now, theirs, effects);
        }
    }

    /// A card with our own signature: an earlier boot's is stale; one of this boot or a later one that we did not make
    /// means that our disk runs elsewhere too, or is an old copy that forgot later promises. Then we promise nothing.
    pub(super) fn met_myself(&mut self, now: Time, theirs: SignedCard, effects: &mut Effects) {
        let (mine, other) = (self.mine.card(), theirs.card());
        if other.boot < mine.boot || other.nonce == mine.nonce || self.cloned {
            return;
        }
        if other.boot > mine.boot {
            // With the same boot number and another nonce, our card and theirs are the proof that convinces everyone.
            self.durable.boot = other.boot;
            effects.persist(&self.durable).done();
            let boot = other.boot;
            self.change_card(|card| card.boot = boot);
        }
        self.cloned = !planted("clone-unnoticed");
        if !planted("clone-gossips") {
            self.roster.fall_silent();
        }
        self.roster.clone_found(self.mine.clone(), theirs, effects);
        if self.follow.raft && !planted("clone-keeps-raft") {
            effects.push(Effect::StopRaft);
        }
        let text = format!(
            "the identity {} runs on another machine too, or this disk is an old copy; \
             this machine votes no more. Wipe the state of the copy and start it again",
            self.id()
        );
        effects.notice(NoticeKind::OwnClone, text);
        self.run_founding_look(now, effects);
    }
}

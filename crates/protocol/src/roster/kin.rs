//! With whom a machine gossips: with those that are, or may become, of one cluster with it.
//!
//! SWIM believes what its members say of each other. A machine of another image or charter is refused by some and not, or not yet, by
//! others; it would tell those that a sound machine is dead, because it cannot reach it, and be told so itself.

use muster_wire::{Card, Digest, MachineId};
use rand::rngs::ChaCha8Rng;

use super::Roster;
use crate::Time;
use crate::planted::planted;

/// Whom this machine is of one cluster with.
#[derive(Debug, Default)]
pub(crate) struct Kin {
    /// The hash of the charter that it follows.
    charter: Option<Digest>,
    /// The images that this charter's cluster accepts; its own image while it follows none.
    images: Vec<Digest>,
    /// Whether machines came to be strange, or ceased to be, since SWIM was told.
    parted: bool,
}

impl Kin {
    pub(super) fn of_image(image: Digest) -> Self {
        Self { images: vec![image], ..Self::default() }
    }

    /// Before there is a charter, all gossip whose cluster has one name: founding waits while other images are there. Who follows none
    /// and meets one of another image waits to be told that its own is accepted, and that is told by greetings.
    fn is_strange(&self, card: &Card) -> bool {
        match (self.charter, card.charter) {
            (Some(ours), Some(theirs)) => ours != theirs,
            (Some(_), None) | (None, Some(_)) => !self.images.contains(&card.settings.digest),
            (None, None) => false,
        }
    }
}

impl Roster {
    /// Says which charter this machine follows, and which images its cluster accepts.
    pub(crate) fn kin(&mut self, now: Time, charter: Option<Digest>, images: impl Iterator<Item = Digest> + Clone) {
        if charter.is_none() || self.kin.charter == charter && images.clone().eq(self.kin.images.iter().copied()) {
            return;
        }
        (self.kin.charter, self.kin.images) = (charter, images.collect());
        let cards: Vec<Card> = self.known.values().map(|known| known.card.card().clone()).collect();
        cards.iter().for_each(|card| self.sort_in(now, card));
    }

    /// Whether a machine is known to have no part in this one's cluster.
    pub(crate) fn is_strange(&self, machine: MachineId) -> bool {
        self.strange.contains(&machine)
    }

    /// A card is new: is its machine one with which this one gossips?
    pub(super) fn sort_in(&mut self, now: Time, card: &Card) {
        let machine = card.machine;
        if self.kin.is_strange(card) && !planted("strangers-gossip") && !planted("other-image-endured") {
            if self.strange.insert(machine) {
                self.kin.parted = true;
                self.judge(machine);
            }
            return;
        }
        let was_strange = self.strange.remove(&machine);
        if was_strange && self.greeted(machine) {
            self.swim.alive(now, machine, card.boot);
        } else if was_strange && self.compare.large {
            self.swim.heard_of(now, machine, card.boot);
        }
        if was_strange {
            self.judge(machine);
        }
    }

    /// Somebody of this machine's kin, which does not know a stranger for one yet, may tell of it.
    pub(super) fn turned(&mut self, machine: MachineId) {
        self.kin.parted |= self.strange.contains(&machine) && self.swim.is_up(machine);
    }

    /// SWIM goes on without those that turned out to be strangers.
    pub(super) fn part_with_strangers(&mut self, now: Time, rng: &mut ChaCha8Rng) {
        if std::mem::take(&mut self.kin.parted) {
            self.swim.leave_out(now, &self.strange, rng);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;

    use super::super::sample::{card, changed};
    use super::*;
    use crate::Effects;

    const OURS: Digest = Digest([1; 32]);
    const THEIRS: Digest = Digest([2; 32]);
    const CHARTER: Digest = Digest([3; 32]);

    /// Knows machine 1 of its own image, 2 of another one, and 3 that follows another charter.
    fn roster() -> Roster {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut roster =
            Roster::new(Time(0), &card(0), 500, Duration::from_secs(1), Duration::from_millis(700), &mut rng);
        let cards = [
            card(1),
            changed(2, |card| card.settings.digest = THEIRS),
            changed(3, |card| card.charter = Some(Digest([4; 32]))),
        ];
        for card in cards {
            roster.learn(Time(0), card, &mut Effects::default());
        }
        roster
    }

    fn strange(roster: &Roster) -> Vec<bool> {
        (1..=3).map(|number| roster.is_strange(card(number).card().machine)).collect()
    }

    #[test]
    fn who_follows_no_charter_waits_for_other_images_and_not_for_other_clusters() {
        // Machine 3 follows a charter that this image's machines may follow yet.
        assert_eq!(strange(&roster()), [false, false, false]);
    }

    #[test]
    fn who_follows_one_gossips_with_its_own_and_with_those_that_may_come_to_it() {
        let mut roster = roster();
        roster.kin(Time(0), Some(CHARTER), [OURS].into_iter());
        assert_eq!(strange(&roster), [false, true, true]);
    }

    #[test]
    fn an_accepted_image_makes_kin_of_its_machines_and_no_longer_accepted_strangers_again() {
        let mut roster = roster();
        roster.kin(Time(0), Some(CHARTER), [OURS, THEIRS].into_iter());
        assert_eq!(strange(&roster), [false, false, true]);
        roster.kin(Time(0), Some(CHARTER), [OURS].into_iter());
        assert_eq!(strange(&roster), [false, true, true]);
    }

    #[test]
    fn a_machine_that_comes_to_follow_the_charter_is_kin_whatever_its_image() {
        let mut roster = roster();
        roster.kin(Time(0), Some(CHARTER), [OURS].into_iter());
        let follows = changed(2, |card| {
            (card.settings.digest, card.charter, card.serial) = (THEIRS, Some(CHARTER), 1);
        });
        roster.learn(Time(1), follows, &mut Effects::default());
        assert_eq!(strange(&roster), [false, false, true]);
    }
}

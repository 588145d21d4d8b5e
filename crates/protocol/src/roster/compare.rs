//! Machines tell each other which cards they hold, and get those that they lack ("anti-entropy", Demers et al., "Epidemic Algorithms
//! for Replicated Database Maintenance", PODC 1987).
//!
//! Where everybody greets everybody, cards come with the greetings, and what changes in them with gossip. Gossip ends after so many copies,
//! and may have missed somebody by then: a leader that never hears that a machine has looked at its kubeadm does not admit it. In a site
//! too large for greetings, gossip alone would bring every card to every machine a dozen times over; like this each comes about once.

use std::time::Duration;

use muster_wire::{Frame, MachineId, SignedCard, limits};
use rand::Rng;
use rand::rngs::ChaCha8Rng;

use super::Roster;
use crate::planted::planted;
use crate::{Effects, Time};

/// Pause between two comparisons after news; without any it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(300);
/// The same where cards come with greetings, and gossip has as good as always brought what changed by then.
const PAUSE_SMALL: Duration = Duration::from_millis(2_500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// When cards are compared next.
#[derive(Debug)]
pub(super) struct Compare {
    /// Nothing before the first news.
    pub(super) due: Option<Time>,
    /// Whether cards come in no other way: the site is too large for greetings.
    pub(super) large: bool,
    pause: Duration,
    news: bool,
    /// Whether somebody was asked out of turn since the last turn.
    out_of_turn: bool,
}

impl Compare {
    pub(super) fn new(large: bool) -> Self {
        Self { due: None, large, pause: PAUSE_MAX, news: false, out_of_turn: false }
    }

    fn shortest(&self) -> Duration {
        if self.large { PAUSE } else { PAUSE_SMALL }
    }

    /// A card came that was not known.
    pub(super) fn news(&mut self) {
        self.news = true;
    }

    /// Whether somebody is to be asked now.
    fn turn(&mut self, now: Time) -> bool {
        if std::mem::take(&mut self.news) {
            self.pause = self.shortest();
            let soon = now + self.pause;
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
        let turn = self.due.is_some_and(|due| due <= now);
        if turn {
            self.out_of_turn = false;
            self.due = Some(now + self.pause);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        turn
    }

    /// Whether somebody who holds a card that is lacking here is to be asked for it at once. Once between two turns, or two
    /// machines of which one does not take the other's card would ask each other for ever; and not amid news, when the next
    /// turn is near.
    fn may_ask(&mut self) -> bool {
        self.pause > self.shortest() * 4 && !std::mem::replace(&mut self.out_of_turn, true)
    }
}

impl Roster {
    /// Tells somebody which cards this machine holds, if it is time.
    pub(super) fn compare_cards(&mut self, now: Time, rng: &mut ChaCha8Rng, effects: &mut Effects) {
        if self.silent || planted("cards-uncompared") || !self.compare.turn(now) {
            return;
        }
        for peer in self.some_greeted(1, rng) {
            self.ask_for_cards(peer, rng.next_u32(), effects);
        }
    }

    fn ask_for_cards(&self, peer: MachineId, salt: u32, effects: &mut Effects) {
        let held = self.known.values().map(|known| &known.card).chain([&self.mine]);
        let mut marks: Vec<u32> = held.map(|card| card.mark(salt)).collect();
        marks.sort_unstable();
        effects.send(peer, Frame::CardsKnown { salt, marks });
    }

    /// Answers with cards that are not among those of `marks`, from a random place on; and asks in turn if some of `marks` are
    /// of cards that are lacking here: after a long quiet the own turn may be a minute away.
    pub(crate) fn tell_cards(&mut self, to: MachineId, salt: u32, marks: &[u32], effects: &mut Effects) {
        let start = MachineId([salt.to_le_bytes()[0]; 32]);
        let is_told = |card: &SignedCard| marks.binary_search(&card.mark(salt)).is_ok();
        let others = self.known.range(start..).chain(self.known.range(..start));
        let others = others.filter(|(machine, _)| **machine != to).map(|(_, known)| &known.card);
        let lacking = std::iter::once(&self.mine).chain(others).filter(|card| !is_told(card));
        let cards: Vec<SignedCard> = lacking.take(limits::CARDS_MAX).cloned().collect();
        let held = self.known.values().map(|known| &known.card).chain([&self.mine]);
        let common = held.filter(|card| is_told(card)).count();
        if !self.silent && common < marks.len() && self.compare.may_ask() {
            self.ask_for_cards(to, salt.wrapping_add(1), effects);
        }
        if !cards.is_empty() {
            effects.send(to, Frame::Cards(cards));
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_wire::BootCount;
    use rand::SeedableRng;

    use super::*;
    use crate::roster::Learned;
    use crate::roster::sample::card;

    fn roster(number: u16, rng: &mut ChaCha8Rng) -> Roster {
        Roster::new(Time(0), &card(number), 500, Duration::from_secs(1), Duration::from_millis(700), rng)
    }

    #[test]
    fn what_one_lacks_comes_from_the_other_and_then_there_is_quiet() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut knows, mut lacks) = (roster(0, &mut rng), roster(1, &mut rng));
        let mut effects = Effects::default();
        for number in 1..=400 {
            knows.learn(Time(0), card(number), &mut effects);
        }
        assert_eq!(lacks.learn(Time(0), card(0), &mut effects), Learned::News);
        lacks.hello(Time(0), card(0).card().machine, BootCount(1), false);
        let (mut now, mut asked, mut came) = (Time(0), 0, 0);
        while now < Time(600_000_000) {
            now = now + Duration::from_millis(100);
            let mut questions = Effects::default();
            lacks.compare_cards(now, &mut rng, &mut questions);
            for question in questions.drain() {
                let crate::Effect::Send { frame: Frame::CardsKnown { salt, marks }, .. } = question else { continue };
                asked += 1;
                let mut answers = Effects::default();
                knows.tell_cards(card(1).card().machine, salt, &marks, &mut answers);
                for answer in answers.drain() {
                    let crate::Effect::Send { frame: Frame::Cards(cards), .. } = answer else { continue };
                    assert!(cards.len() <= limits::CARDS_MAX);
                    came += cards.len();
                    cards.into_iter().for_each(|card| drop(lacks.learn(now, card, &mut effects)));
                }
            }
        }
        // The 399 others of 400; itself it is not told.
        assert_eq!((came, lacks.known().len()), (399, 400));
        assert!(asked < 30, "{asked} questions in ten minutes of which all but the first tell nothing");
    }
}

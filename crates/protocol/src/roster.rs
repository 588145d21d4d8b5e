//! The roster: what this machine believes about the others. Opinion, never authority.
//!
//! Three sources: cards (signed, passed on by anyone), SWIM (who is alive), and connections (who can be reached now).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use muster_wire::{BootCount, Card, Certificate, Frame, MachineId, SignedCard, limits};
use rand::Rng;
use rand::rngs::ChaCha8Rng;
use rand::seq::IteratorRandom;

use crate::{Dropped, Effect, Effects, Time};

mod alike;
mod cards;
mod compare;
mod kin;
mod reached;
#[cfg(test)]
mod sample;
mod swim;

use alike::Alike;
pub(crate) use alike::BOTH_HEARD;
use compare::Compare;
use kin::Kin;
use reached::ReachedAt;
use swim::{Life, Swim};

/// How many cards of others a greeting carries where it cannot carry all: a large site has many greetings.
const SAMPLE: usize = 8;

/// Another machine.
#[derive(Debug)]
pub(crate) struct Known {
    /// Its newest card.
    pub(crate) card: SignedCard,
    /// When a frame first came from it in this start, and when last.
    first_heard: Option<Time>,
    pub(crate) heard: Option<Time>,
}

impl Known {
    /// When a frame first came from it in this start.
    pub(crate) fn first_heard(&self) -> Option<Time> {
        self.first_heard
    }
}

/// What this machine believes about the others.
pub(crate) struct Roster {
    me: MachineId,
    mine: SignedCard,
    started: Time,
    cluster: String,
    known: BTreeMap<MachineId, Known>,
    /// The connections that stand, and whether the peer's Hello came on them: then we know what it knows of us.
    links: BTreeMap<MachineId, bool>,
    /// When a Hello was last sent to each peer that has not sent its own.
    ungreeted: BTreeMap<MachineId, Time>,
    alive: BTreeSet<MachineId>,
    /// Two cards that prove one identity on two machines.
    clones: BTreeMap<MachineId, (SignedCard, SignedCard)>,
    alike: Alike,
    reached_at: ReachedAt,
    /// Peers whose new card shows that they are where they were seen last, and that should hear so.
    moved: BTreeSet<MachineId>,
    swim: Swim,
    kin: Kin,
    /// Machines known that are not of this one's kin: they have no part in its gossip.
    strange: BTreeSet<MachineId>,
    /// How cards are compared with those of others.
    compare: Compare,
    /// Whether this machine takes no part in SWIM any more.
    silent: bool,
    resend: Duration,
    dropped: BTreeMap<Dropped, u64>,
    /// Machines whose vote may count otherwise than at founding's last look: far fewer than all, in a large site.
    touched: BTreeSet<MachineId>,
    /// Set whenever an answer of this roster may have changed.
    changed: bool,
}

/// What a card told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// Nothing new.
    Nothing,
    /// A new machine, or a newer card.
    News,
    /// A card of ours that we did not sign in this boot: our identity runs elsewhere, or our disk is an old copy.
    Myself(SignedCard),
}

impl Roster {
    pub(crate) fn new(
        now: Time,
        mine: &SignedCard,
        machines: u32,
        period: Duration,
        resend: Duration,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let card = mine.card();
        let mut swim = Swim::new(Life::new(card.machine, card.boot), machines, limits::KNOWN_MAX, period, rng);
        swim.add_card(mine);
        Self {
            me: card.machine,
            mine: mine.clone(),
            started: now,
            cluster: card.cluster.clone(),
            known: BTreeMap::new(),
            links: BTreeMap::new(),
            ungreeted: BTreeMap::new(),
            alive: BTreeSet::new(),
            clones: BTreeMap::new(),
            alike: Alike::new(card.fingerprint, card.machine),
            reached_at: ReachedAt::default(),
            moved: BTreeSet::new(),
            swim,
            kin: Kin::of_image(card.settings.digest),
            strange: BTreeSet::new(),
            compare: Compare::new(machines as usize > limits::MESH_FULL),
            silent: false,
            resend,
            dropped: BTreeMap::new(),
            touched: BTreeSet::new(),
            changed: true,
        }
    }

    /// This machine's card changed.
    pub(crate) fn my_card(&mut self, card: &SignedCard) {
        self.swim.add_card(card);
        self.mine = card.clone();
        self.compare.news();
        self.changed = true;
    }

    pub(crate) fn connected(&mut self, now: Time, peer: MachineId, hello: Frame, effects: &mut Effects) {
        if peer == self.me {
            return;
        }
        self.links.insert(peer, false);
        self.ungreeted.insert(peer, now);
        effects.send(peer, hello);
        self.changed = true;
    }

    pub(crate) fn disconnected(&mut self, peer: MachineId) {
        self.links.remove(&peer);
        self.ungreeted.remove(&peer);
        self.changed = true;
    }

    /// Whether `peer` has greeted on the connection that stands. Votes are exchanged only after that: by then it has
    /// told us what it knows of our own earlier boots.
    pub(crate) fn greeted(&self, peer: MachineId) -> bool {
        self.links.get(&peer).copied().unwrap_or(false)
    }

    /// The peers that have greeted.
    pub(crate) fn greeted_peers(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.links.iter().filter(|(_, greeted)| **greeted).map(|(peer, _)| *peer)
    }

    /// Some of the peers that have greeted.
    pub(crate) fn some_greeted(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<MachineId> {
        self.greeted_peers().sample(rng, count)
    }

    /// A frame came from `peer`.
    pub(crate) fn heard(&mut self, now: Time, peer: MachineId) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.first_heard.get_or_insert(now);
            known.heard = Some(now);
            self.tell_apart(now, peer);
        }
    }

    /// The peer's Hello came. Returns whether it still waits for ours.
    pub(crate) fn hello(&mut self, now: Time, peer: MachineId, boot: BootCount, answer: bool) -> bool {
        self.ungreeted.remove(&peer);
        let before = self.links.insert(peer, true);
        if before != Some(true) {
            self.changed = true;
        }
        // A Hello may overtake the news of its own connection; then ours has not been sent. One that comes again says that ours
        // was lost, or that the peer restarted before its old connection was missed.
        let owed =
            before.is_none() || (before == Some(true) && !answer && !crate::planted::planted("greeting-unanswered"));
        if !self.strange.contains(&peer) {
            self.swim.alive(now, peer, boot);
        }
        self.heard(now, peer);
        owed
    }

    /// A card came as the answer to a question; [`Roster::learn`] comes next.
    pub(crate) fn answered(&mut self, signed: &SignedCard) {
        if signed.card().cluster == self.cluster && signed.card().machine != self.me {
            self.swim.hold_card(signed);
        }
    }

    /// Takes a card, first-hand or passed on.
    pub(crate) fn learn(&mut self, now: Time, signed: SignedCard, effects: &mut Effects) -> Learned {
        let card = signed.card();
        let machine = card.machine;
        if card.cluster != self.cluster {
            self.count(Dropped::ForeignCard);
            return Learned::Nothing;
        }
        if machine == self.me {
            return Learned::Myself(signed);
        }
        if let Some(known) = self.known.get(&machine) {
            let restarted = crate::planted::planted("restart-taken-for-clone") && card.nonce != known.card.card().nonce;
            if (signed.proves_clone(&known.card) || restarted) && !self.clones.contains_key(&machine) {
                self.clone_found(known.card.clone(), signed, effects);
                return Learned::News;
            }
            if !signed.newer_than(&known.card) {
                return Learned::Nothing;
            }
        } else if self.known.len() >= limits::KNOWN_MAX {
            self.count(Dropped::TooManyMachines);
            return Learned::Nothing;
        }
        effects.push(Effect::Learn { machine, addresses: card.addresses.clone() });
        self.touched.extend(self.alike.add(card.fingerprint, machine));
        self.touched.insert(machine);
        self.swim.add_card(&signed);
        self.compare.news();
        self.sort_in(now, card);
        if self.compare.large && !self.strange.contains(&machine) {
            self.swim.heard_of(now, machine, card.boot);
        }
        let known = self.known.get(&machine);
        let (first_heard, heard) = known.map_or((None, None), |known| (known.first_heard, known.heard));
        self.known.insert(machine, Known { card: signed, first_heard, heard });
        if self.choose_reached(machine) && self.links.contains_key(&machine) {
            self.moved.insert(machine);
        }
        // SWIM may have known it before its card came.
        self.judge(machine);
        self.changed = true;
        Learned::News
    }

    /// Leaves SWIM for good: two machines of one identity would outbid each other's lives without end, and the others
    /// should hold a machine that does nothing any more for dead.
    pub(crate) fn fall_silent(&mut self) {
        self.silent = true;
    }

    /// Notes that two cards prove a clone, and tells everyone connected.
    pub(crate) fn clone_found(&mut self, one: SignedCard, other: SignedCard, effects: &mut Effects) {
        let machine = one.card().machine;
        let both = vec![one.clone(), other.clone()];
        for peer in self.links.keys() {
            effects.send(*peer, Frame::Cards(both.clone()));
        }
        self.clones.insert(machine, (one, other));
        self.touched.insert(machine);
        self.changed = true;
    }

    /// A SWIM datagram came.
    pub(crate) fn datagram(&mut self, now: Time, from: MachineId, bytes: &[u8]) {
        if self.strange.contains(&from) {
            self.count(Dropped::StrangeGossip);
        } else if !self.silent {
            self.swim.datagram(now, from, bytes);
        }
    }

    /// Runs SWIM's timers, sends its datagrams, and hands out the cards that came with gossip.
    pub(crate) fn run(
        &mut self,
        now: Time,
        hello: impl Fn(Vec<SignedCard>, Option<IpAddr>) -> Frame,
        rng: &mut ChaCha8Rng,
        effects: &mut Effects,
    ) -> Vec<SignedCard> {
        self.part_with_strangers(now, rng);
        if !self.silent {
            self.swim.wake(now);
            for (to, datagram) in self.swim.take_datagrams() {
                effects.send(to, Frame::Swim(datagram));
            }
        }
        for machine in self.swim.take_turned() {
            self.turned(machine);
            self.judge(machine);
        }
        let silent = self.ungreeted.iter().filter(|(_, sent)| now.since(**sent) >= self.resend);
        for peer in silent.map(|(peer, _)| *peer).collect::<Vec<_>>() {
            effects.send(peer, hello(self.cards_to_greet(peer, rng), self.reached(peer)));
            self.ungreeted.insert(peer, now);
        }
        for peer in std::mem::take(&mut self.moved) {
            effects.send(peer, hello(Vec::new(), self.reached(peer)));
        }
        self.compare_cards(now, rng, effects);
        self.swim.take_cards()
    }

    /// Forms the opinion of a machine anew: alive is whom SWIM holds for alive and whose card is known.
    fn judge(&mut self, machine: MachineId) {
        let kin = self.known.contains_key(&machine) && !self.strange.contains(&machine);
        let alive = kin && self.swim.is_up(machine);
        if if alive { self.alive.insert(machine) } else { self.alive.remove(&machine) } {
            self.touched.insert(machine);
            self.changed = true;
        }
    }

    pub(crate) fn change_period(&mut self, now: Time, period: Duration, rng: &mut ChaCha8Rng) {
        self.swim.change_period(now, period, rng);
    }

    pub(crate) fn next_wakeup(&self) -> Option<(Time, &'static str)> {
        let swim = self.swim.next_wakeup().filter(|_| !self.silent).map(|due| (due, "gossip"));
        let hello = self.ungreeted.values().map(|sent| *sent + self.resend).min();
        let hello = hello.map(|due| (due, "a greeting to repeat"));
        let cards = self.compare.due.filter(|_| !self.silent).map(|due| (due, "cards to compare"));
        [swim, hello, cards].into_iter().flatten().min()
    }

    /// Whether anything changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The machines whose vote may count otherwise than at the last call.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<MachineId> {
        std::mem::take(&mut self.touched)
    }

    /// How many other machines are held for alive.
    pub(crate) fn alive_count(&self) -> usize {
        self.alive.len()
    }

    pub(crate) fn card(&self, machine: MachineId) -> Option<&Card> {
        self.known.get(&machine).map(|known| known.card.card())
    }

    pub(crate) fn known(&self) -> &BTreeMap<MachineId, Known> {
        &self.known
    }

    pub(crate) fn is_alive(&self, machine: MachineId) -> bool {
        machine == self.me
            || self.alive.contains(&machine)
            || crate::planted::planted("roster-of-all") && self.known.contains_key(&machine)
    }

    /// Whether SWIM suspects a machine, or holds it for dead.
    pub(crate) fn doubts(&self, machine: MachineId) -> bool {
        self.swim.doubts(machine)
    }

    pub(crate) fn is_connected(&self, machine: MachineId) -> bool {
        self.links.contains_key(&machine)
    }

    /// The machines connected now.
    pub(crate) fn connected_peers(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.links.keys().copied()
    }

    /// Two cards proving that the identity runs on two machines.
    pub(crate) fn clone_proof(&self, machine: MachineId) -> Option<&(SignedCard, SignedCard)> {
        self.clones.get(&machine)
    }

    pub(crate) fn clones(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.clones.keys().copied()
    }

    /// Cards to tell `peer`, at most [`limits::CARDS_MAX`]: first what it should know of itself, proofs of clones, then
    /// all others if there is room for them, or else `some` from a random place on: gossip brings the rest.
    pub(crate) fn cards_for(&self, peer: MachineId, some: usize, rng: &mut ChaCha8Rng) -> Vec<SignedCard> {
        let mut cards: Vec<SignedCard> = self.known.get(&peer).map(|known| known.card.clone()).into_iter().collect();
        for (one, other) in self.clones.values().take(limits::CARDS_MAX / 4) {
            cards.extend([one.clone(), other.clone()]);
        }
        let room = limits::CARDS_MAX - cards.len();
        if self.known.len() <= room.min(some) {
            let others = self.known.iter().filter(|(machine, _)| **machine != peer);
            cards.extend(others.map(|(_, known)| known.card.clone()));
        } else {
            let mut place = MachineId::default();
            rng.fill_bytes(&mut place.0);
            let others = self.known.range(place..).chain(self.known.range(..place));
            let others = others.filter(|(machine, _)| **machine != peer).take(room.min(some));
            cards.extend(others.map(|(_, known)| known.card.clone()));
        }
        cards
    }

    /// Cards for a greeting: all in a small site, some in a large one.
    pub(crate) fn cards_to_greet(&self, peer: MachineId, rng: &mut ChaCha8Rng) -> Vec<SignedCard> {
        let some = if self.known.len() <= limits::MESH_FULL { limits::CARDS_MAX } else { SAMPLE };
        self.cards_for(peer, some, rng)
    }

    pub(crate) fn count(&mut self, what: Dropped) {
        *self.dropped.entry(what).or_default() += 1;
    }

    pub(crate) fn dropped(&self) -> impl Iterator<Item = (Dropped, u64)> + '_ {
        let swim = (self.swim.dropped() > 0).then(|| (Dropped::Swim, self.swim.dropped()));
        self.dropped.iter().map(|(what, count)| (*what, *count)).chain(swim)
    }
}

/// The first words to `peer`.
pub(crate) fn hello(
    mine: &SignedCard,
    charter: Option<&Certificate>,
    cards: Vec<SignedCard>,
    answer: bool,
    seen_at: Option<IpAddr>,
) -> Frame {
    let charter = charter.map(Certificate::charter_hash);
    Frame::Hello { card: mine.clone(), charter, cards, answer, seen_at }
}

//! Frames from other machines, each to the part it is for, after the checks that are nobody else's.

use std::net::IpAddr;
use std::time::Duration;

use muster_wire::frame::{ProposalOutcome, RefusalCause};
use muster_wire::{Attempt, CallNumber, Certificate, Digest, Entry, Frame, MachineId, Role, SignedCard, TurnKind};

use super::Machine;
use crate::links::{IMAGE_REFUSED_FOR, REFUSED_FOR};
use crate::planted::planted;
use crate::words::notices::NoticeKind;
use crate::{Dropped, Effect, Effects, Time};

/// A Hello's contents.
struct Greeting {
    card: SignedCard,
    charter: Option<Digest>,
    cards: Vec<SignedCard>,
    answer: bool,
    seen_at: Option<IpAddr>,
}

impl Machine {
    pub(super) fn receive(&mut self, now: Time, from: MachineId, frame: Frame, effects: &mut Effects) {
        match frame {
            Frame::Hello { card, charter, cards, answer, seen_at } => {
                if card.card().machine != from {
                    self.roster.count(Dropped::HelloOfAnother);
                    return;
                }
                let greeting = Greeting { card, charter, cards, answer, seen_at };
                self.receive_hello(now, from, greeting, effects);
            }
            Frame::Swim(datagram) => self.roster.datagram(now, from, &datagram),
            Frame::Cards(cards) => {
                for card in cards {
                    self.roster.answered(&card);
                    self.learn(now, card, effects);
                }
            }
            Frame::CardsKnown { salt, marks } => self.roster.tell_cards(from, salt, &marks, effects),
            Frame::Prepare(_) | Frame::Accept { .. } if self.durable.charter.is_some() => {
                // Founding is over; whoever still tries learns what came of it.
                self.show_charter(from, effects);
            }
            Frame::Prepare(_) | Frame::Accept { .. } if self.durable.seen.is_some() => self.pass_on_seen(from, effects),
            Frame::Prepare(ballot) => self.with_founding(now, effects, |founding, context| {
                founding.prepare(context, from, ballot);
            }),
            Frame::Promise(promise) => {
                for card in &promise.cards {
                    self.learn(now, card.clone(), effects);
                }
                self.with_founding(now, effects, |founding, context| founding.promised(context, from, promise));
            }
            Frame::Refusal { ballot, promised, cause, why: _ } => {
                if cause != RefusalCause::Outbid {
                    self.roster.count(Dropped::BallotRefused);
                }
                self.with_founding(now, effects, |founding, context| founding.refused(context, ballot, promised));
            }
            Frame::Accept { ballot, charter } => self.with_founding(now, effects, |founding, context| {
                founding.accept(context, from, ballot, charter);
            }),
            Frame::Accepted { cluster, vote } => {
                if vote.machine != from || cluster != self.cluster {
                    self.roster.count(Dropped::VoteOutOfPlace);
                    return;
                }
                self.with_founding(now, effects, |founding, context| founding.accepted(context, vote));
            }
            Frame::Chartered { certificate, accepted } => self.meet_charter(now, from, *certificate, accepted, effects),
            Frame::LedgerPoll { call, since, epoch, survey } => {
                self.follow.asked(now, from, call, since, epoch, survey)
            }
            Frame::LedgerNews(news) if self.is_surveying(news.call) => self.surveyed(now, from, &news, effects),
            Frame::LedgerNews(news) => {
                for (entry, told) in self.follow.news(from, news) {
                    self.committed(&entry, &told, effects);
                }
            }
            Frame::Proposal { call, entry } => self.receive_proposal(from, call, &entry, effects),
            Frame::ProposalAnswer { call, outcome } => self.proposed(now, call, outcome, effects),
            // Raft is a device: the shell hands its frames to it directly.
            Frame::RaftCall { .. } | Frame::RaftAnswer { .. } => self.roster.count(Dropped::RaftFrame),
            // So are reports the shell's affair.
            Frame::ReportCall { .. } | Frame::ReportPart { .. } => self.roster.count(Dropped::ReportFrame),
            Frame::BackupCall { .. } | Frame::BackupPart { .. } => self.roster.count(Dropped::BackupFrame),
        }
    }

    fn receive_hello(&mut self, now: Time, from: MachineId, greeting: Greeting, effects: &mut Effects) {
        let Greeting { card, charter, cards, answer, seen_at } = greeting;
        if !planted("other-cluster-greeted") && card.card().cluster != self.cluster {
            let why = format!("it belongs to cluster {:?}, this is {:?}", card.card().cluster, self.cluster);
            self.turned_away.call(from, card.card());
            self.refuse_peer(now, from, why, effects);
            return;
        }
        if seen_at.is_some_and(|address| self.roster.witness(address)) {
            self.order_addresses();
        }
        let boot = card.card().boot;
        // Their owners let them travel. A machine that was away learns most cards anew from greetings, and would go on passing all of
        // them on for minutes, in a site that has long had them (promise L5).
        for card in std::iter::once(card).chain(cards) {
            if !planted("greetings-gossiped") {
                self.roster.answered(&card);
            }
            self.learn(now, card, effects);
        }
        if self.roster.hello(now, from, boot, answer) {
            let hello = self.hello(from, true);
            effects.send(from, hello);
        }
        match (charter, &self.durable.charter) {
            // Its proof is on the way: it has heard, or will, that we follow none. With it comes word whether our image is accepted.
            (Some(_), None) => self.shown_by = Some(from),
            (None, None) => self.pass_on_seen(from, effects),
            (None, Some(_)) => self.show_charter(from, effects),
            // Who says so of itself is not ours, whether or not it could prove it.
            (Some(theirs), Some(ours)) if theirs != ours.charter_hash() => {
                self.refuse_other_charter(now, from, format!("with hash {theirs}"), effects);
            }
            _ => {}
        }
    }

    /// A machine never belongs to two clusters, and says so (promise S7).
    fn refuse_other_charter(&mut self, now: Time, from: MachineId, theirs: String, effects: &mut Effects) {
        if let Some(ours) = self.durable.charter.as_ref().filter(|_| !planted("foreign-charter-borne")) {
            let (id, hash) = (ours.charter().id_hex(), ours.charter_hash());
            let why = format!(
                "it follows a charter {theirs}, this machine follows {id} with hash {hash}: \
                 a machine never belongs to two clusters"
            );
            self.refuse_peer(now, from, why, effects);
        }
    }

    /// Who follows no charter must not found a second cluster because it has not met the first one itself.
    fn pass_on_seen(&self, to: MachineId, effects: &mut Effects) {
        if let Some(seen) = &self.durable.seen {
            effects.send(to, Frame::Chartered { certificate: Box::new(seen.clone()), accepted: false });
        }
    }

    /// The charter of another image, for this cluster's name: from now on this machine founds nothing, and that is on disk
    /// before anything is refused. Those of its own image that it is connected to hear of it at once.
    fn see_other_image(&mut self, now: Time, from: MachineId, theirs: Certificate, effects: &mut Effects) {
        self.shown_by.take_if(|shown_by| *shown_by == from);
        if self.durable.seen.is_none() && !planted("seen-forgotten") {
            self.durable.seen = Some(theirs.clone());
            effects.persist(&self.durable).done();
            self.run_founding_look(now, effects);
            let ours: Vec<MachineId> =
                self.roster.connected_peers().filter(|peer| *peer != from && self.has_our_image(*peer)).collect();
            ours.into_iter().for_each(|peer| self.pass_on_seen(peer, effects));
        }
        self.refuse_other_image_of(now, from, theirs.charter().settings, effects);
    }

    fn has_our_image(&self, machine: MachineId) -> bool {
        self.roster.card(machine).is_some_and(|card| card.settings == self.settings)
    }

    /// Whether its card shows another image. Of one that has not greeted yet nobody knows.
    fn has_other_image(&self, machine: MachineId) -> bool {
        self.roster.card(machine).is_some_and(|card| card.settings != self.settings)
    }

    /// Following it would join a cluster that this image does not describe. Who has our own image is not refused: it passes on
    /// what it has seen, or its image was changed after it had joined. Nor is, before its greeting, who may have it: the greeting shows
    /// its card, and the charter that it follows.
    fn refuse_other_image_of(&mut self, now: Time, from: MachineId, settings: Digest, effects: &mut Effects) {
        if planted("other-image-endured") {
            return;
        }
        if self.has_other_image(from) || planted("ours-refused") {
            let why = format!(
                "its charter was founded with other image settings ({settings}) than this machine's ({})",
                self.settings.digest
            );
            // It may say the next time that it accepts this image by now.
            self.refuse_peer_for(now, from, IMAGE_REFUSED_FOR, why, effects);
        }
    }

    /// Shows the charter, and says whether the receiver's image is accepted, as far as this machine knows the ledger.
    pub(super) fn show_charter(&mut self, to: MachineId, effects: &mut Effects) {
        if let Some(certificate) = &self.durable.charter {
            let card = self.roster.card(to);
            let accepted = card.is_some_and(|card| self.follow.ledger().accepts(card.settings.digest));
            effects.send(to, Frame::Chartered { certificate: Box::new(certificate.clone()), accepted });
        }
    }

    /// A peer shows a charter, whose proof is checked already: the same as ours, the first one, or another cluster's. `accepted`
    /// says that its cluster takes this machine's image too; only who follows that charter can know.
    fn meet_charter(&mut self, now: Time, from: MachineId, theirs: Certificate, accepted: bool, effects: &mut Effects) {
        let charter = theirs.charter();
        if let Some(ours) = &self.durable.charter {
            if ours.charter_hash() != theirs.charter_hash() {
                self.refuse_other_charter(now, from, format!("with hash {}", theirs.charter_hash()), effects);
            }
            return;
        }
        if charter.cluster != self.cluster {
            let why = format!("its charter is for cluster {:?}", charter.cluster);
            self.refuse_peer(now, from, why, effects);
        } else if !planted("other-image-followed") && charter.settings != self.settings.digest && !accepted {
            self.see_other_image(now, from, theirs, effects);
        } else {
            self.follow_charter(now, theirs, effects);
        }
    }

    fn refuse_peer(&mut self, now: Time, machine: MachineId, why: String, effects: &mut Effects) {
        self.refuse_peer_for(now, machine, REFUSED_FOR, why, effects);
    }

    fn refuse_peer_for(&mut self, now: Time, machine: MachineId, rest: Duration, why: String, effects: &mut Effects) {
        if self.turned_away.add(now, self.named(machine), why.clone().into()) {
            effects.notice(NoticeKind::PeerRefused, format!("{machine} is refused: {why}"));
        }
        effects.push(Effect::Refuse { machine, rest, why });
    }

    /// A machine wants an entry committed. It may speak for itself; for the rest, see docs/security.md.
    fn receive_proposal(&mut self, from: MachineId, call: CallNumber, bytes: &[u8], effects: &mut Effects) {
        let answer = |outcome| Frame::ProposalAnswer { call, outcome };
        if self.follow.leader != Some(self.id()) {
            effects.send(from, answer(ProposalOutcome::NotLeading(self.follow.leader)));
            return;
        }
        let refused = |why: String| ProposalOutcome::Refused(why);
        match Entry::decode_at(bytes, self.mine.card().level) {
            Err(why) => effects.send(from, answer(refused(format!("not an entry: {why}").chars().take(200).collect()))),
            Ok(entry) if !self.may_propose(from, &entry) => {
                self.roster.count(Dropped::ForbiddenProposal);
                effects.send(from, answer(refused(format!("{from} may not propose this"))));
            }
            // In the log it would stop those who do not know it.
            Ok(entry) => match self.follow.ledger().permits(&entry) {
                Err(why) => effects.send(from, answer(refused(why.to_string()))),
                Ok(()) => self.follow.relay(from, call, entry, effects),
            },
        }
    }

    fn may_propose(&self, from: MachineId, entry: &Entry) -> bool {
        let ledger = self.follow.ledger();
        let Some(member) = ledger.member(from) else { return false };
        let holds = |attempt: Attempt| ledger.live_claim() == Some((attempt, from));
        let plane = member.admitted.role == Role::ControlPlane;
        match entry {
            Entry::Joined { machine } | Entry::Left { machine } => *machine == from,
            Entry::Founds { machine, .. } => *machine == from && ledger.is_founder(from),
            // A leader does not remove itself: another control plane does, under its turn.
            Entry::Removed { .. } => plane && ledger.turn(TurnKind::Disrupt).is_some_and(|(_, holder)| holder == from),
            Entry::BackedUp(backup) => backup.machine == from && plane,
            Entry::BackupKept { machine, .. } | Entry::BackupGone { machine, .. } => *machine == from,
            Entry::RemovalHeld { .. } => plane,
            // What turns are for is for control planes to do.
            Entry::Turn(turn) => turn.holder == from && plane,
            // Whoever has the CA may seal it to another control plane.
            Entry::PkiSealed { attempt, .. } => {
                holds(*attempt) || ledger.pki().is_some_and(|pki| pki.sealed.contains_key(&from))
            }
            Entry::InitReady { attempt, .. } | Entry::InitAbandoned { attempt, .. } => holds(*attempt),
            // Whoever was asked hands its own wish on.
            Entry::Wished(signed) => signed.machine == from,
            // What is not named here is the leader's own.
            _ => false,
        }
    }
}

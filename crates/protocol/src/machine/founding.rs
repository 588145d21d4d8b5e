//! Founding, as the machine's surroundings allow it, and what ends it.

use std::time::Duration;

use muster_wire::Certificate;

use super::Machine;
use crate::founding::{self, Founding};
use crate::words::notices::NoticeKind;
use crate::{Effects, Time, roster};

/// Longest pause between a change of the roster and founding's look at it.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// How many machines are asked for a charter at a time.
const ASKED: usize = 2;

impl Machine {
    pub(super) fn run_founding(&mut self, now: Time, roster_changed: bool, effects: &mut Effects) {
        if roster_changed {
            // Looked at together: machines that come at once would else cause as many looks as there are pairs of them.
            self.look_at.get_or_insert(now + LOOK_PAUSE);
        }
        let look = self.look_at.take_if(|due| *due <= now).is_some();
        if look {
            self.run_founding_look(now, effects);
            // That founding goes on is said before anything is done in it.
            self.tell_impediment(effects);
        }
        self.with_founding(now, effects, |founding, context| founding.run(context));
        if let Some(certificate) = self.founding.take_certificate() {
            self.follow_charter(now, certificate, effects);
            for peer in self.roster.connected_peers().collect::<Vec<_>>() {
                self.show_charter(peer, effects);
            }
        }
        if self.durable.charter.is_none() {
            self.ask_for_charter(now, effects);
        }
        self.tell_impediment(effects);
    }

    pub(super) fn tell_impediment(&mut self, effects: &mut Effects) {
        let impediment = self.founding.impediment().cloned();
        if impediment != self.last_impediment {
            match &impediment {
                Some(impediment) => effects.notice(NoticeKind::FoundingHalted, format!("founding halts: {impediment}")),
                None => effects.notice(NoticeKind::FoundingGoesOn, "founding goes on".to_owned()),
            }
            self.last_impediment = impediment;
        }
    }

    /// While a quorum is there and this machine follows no charter, it may have missed the end of founding, since a charter
    /// is shown to those connected, once. A Hello that needs no answer gets one from whoever follows one.
    pub(super) fn ask_for_charter(&mut self, now: Time, effects: &mut Effects) {
        let resend = self.tuning.resend;
        let shown_by = self.shown_by.filter(|peer| self.roster.greeted(*peer));
        let halted = self.durable.seen.is_some();
        if (halted || self.founding.electorate().len() < self.settings.quorum() as usize) && shown_by.is_none() {
            self.ask_at = None;
        } else if *self.ask_at.get_or_insert(now + resend * 2) <= now {
            self.ask_at = Some(now + resend);
            for peer in self.roster.some_greeted(ASKED, &mut self.rng).into_iter().chain(shown_by) {
                effects.send(peer, roster::hello(&self.mine, None, Vec::new(), true, self.roster.reached(peer)));
            }
        }
    }

    pub(super) fn with_founding(
        &mut self,
        now: Time,
        effects: &mut Effects,
        call: impl FnOnce(&mut Founding, &mut founding::Context<'_>),
    ) {
        let card = self.mine.card();
        let shared = self.roster.is_amnesiac(card.machine, &card.fingerprint);
        let mut context = founding::Context {
            now,
            identity: &self.identity,
            cluster: &self.cluster,
            settings: &self.settings,
            tuning: &self.tuning,
            unable: self.ladder.unable().is_some(),
            looked: self.ladder.has_looked(),
            addressed: !card.addresses.is_empty(),
            cloned: self.cloned,
            fingerprint_shared: shared,
            roster: &mut self.roster,
            durable: &mut self.durable,
            rng: &mut self.rng,
            effects,
        };
        call(&mut self.founding, &mut context);
    }

    /// Follows a charter from now on, for good (promise S7).
    pub(super) fn follow_charter(&mut self, now: Time, certificate: Certificate, effects: &mut Effects) {
        let charter = certificate.charter();
        let text =
            format!("cluster {} of {} is founded, {} voters", self.cluster, charter.id_hex(), charter.voters.len());
        self.follow.founded(certificate.charter());
        self.founding.end();
        let hash = certificate.charter_hash();
        self.durable.charter = Some(certificate);
        self.durable.seen = None;
        effects.persist(&self.durable).done();
        self.change_card(|card| card.charter = Some(hash));
        effects.notice(NoticeKind::Charter, text);
        self.start_raft_if_voter(now, effects);
    }

    pub(super) fn run_founding_look(&mut self, now: Time, effects: &mut Effects) {
        if self.durable.charter.is_none() {
            self.with_founding(now, effects, |founding, context| founding.look(context));
        }
    }
}

//! One pass: every part does what is due, until nothing is. What is, is compared with what should be.

use muster_wire::{Able, Certificate, MachineId, SignedCard};

use super::Machine;
use crate::follow::Wants;
use crate::ladder;
use crate::lead::{self, manifests};
use crate::planted::planted;
use crate::roster;
use crate::words::waits::Wait;
use crate::{Effects, Time};

impl Machine {
    /// Something that this machine ran has ended.
    pub(super) fn finished(
        &mut self,
        now: Time,
        run: crate::RunId,
        result: Result<crate::StepOutput, crate::StepFailure>,
        effects: &mut Effects,
    ) {
        if self.lead.finished(now, run, &result, &self.tuning, effects)
            || self.manifests.finished(now, run, &result, effects)
        {
            return;
        }
        let mut wants = Wants::default();
        let mut due = self.due;
        let mut ladder = std::mem::take(&mut self.ladder);
        let changed = ladder.finished(run, result, &mut self.climbing(now, false, &mut wants, &mut due, effects));
        (self.ladder, self.due) = (ladder, due);
        let card = self.mine.card();
        let another = self.ladder.version().is_some_and(|version| version != card.running.kubernetes);
        if changed || another || !card.has_looked() && self.ladder.has_looked() {
            let able = self.ladder.unable().map_or(Able::Yes, |why| Able::No(why.chars().take(60).collect()));
            let version: String = self.ladder.version().unwrap_or_default().chars().take(60).collect();
            self.change_card(|card| (card.able, card.running.kubernetes) = (able, version));
        }
    }

    /// Lets every part do what is due, until nothing is.
    pub(super) fn settle(&mut self, now: Time, touched: bool, effects: &mut Effects) {
        let cards = self.run_roster(now, effects);
        for card in cards {
            self.learn(now, card, effects);
        }
        let roster_changed = self.roster.take_changed();
        if self.durable.charter.is_none() {
            self.run_founding(now, roster_changed, effects);
        } else if roster_changed {
            // Nobody founds any more.
            self.roster.take_touched();
        }
        self.stop_if_beyond(effects);
        self.survey_ends(now, effects);
        self.count_met(now);
        let due = self.due.is_some_and(|(due, _)| due <= now);
        if self.durable.charter.is_some() && !self.stands_still() {
            self.call_first_election(now, effects);
            let changed = self.follow.take_changed();
            if touched || due || roster_changed || changed {
                self.reconcile(now, effects);
            }
            self.run_follow(now, effects);
        } else if touched || due {
            self.reconcile(now, effects);
        }
        self.note_phase(effects);
    }

    fn run_roster(&mut self, now: Time, effects: &mut Effects) -> Vec<SignedCard> {
        let (mine, charter, rng) = (&self.mine, self.durable.charter.as_ref(), &mut self.rng);
        let images = self.follow.ledger().images().iter().map(|image| image.digest);
        self.roster.kin(now, charter.map(Certificate::charter_hash), images);
        self.roster.run(now, |cards, seen_at| roster::hello(mine, charter, cards, false, seen_at), rng, effects)
    }

    /// Compares what is with what should be: the leader's duties, this machine's next step, what must be proposed.
    fn reconcile(&mut self, now: Time, effects: &mut Effects) {
        if self.stands_still() {
            self.due = None;
            return;
        }
        if let Some(removal) = self.departs() {
            return self.depart(now, removal, effects);
        }
        if self.is_of_the_past() {
            return;
        }
        self.start_raft_if_voter(now, effects);
        self.name_endpoint(effects);
        let mut wants = Wants::default();
        let may_begin_etcd = self.durable.completed.is_some() || self.may_begin_etcd(now).is_ok();
        let mut due = self.guard_due().filter(|_| !may_begin_etcd);
        self.run_lead(now, &mut wants, &mut due, effects);
        let mut ladder = std::mem::take(&mut self.ladder);
        ladder.climb(&mut self.climbing(now, may_begin_etcd, &mut wants, &mut due, effects));
        self.ladder = ladder;
        let me = self.identity.machine();
        self.manifests.run(&mut manifests::Context {
            now,
            me,
            leads: self.follow.leader == Some(me),
            ledger: self.follow.ledger(),
            durable: &self.durable,
            runs: &mut self.runs,
            due: &mut due,
            effects,
        });
        self.wishes.want(now, self.follow.ledger(), &mut wants, &mut due, effects);
        self.keep_backups(now, &mut wants, &mut due, effects);
        self.keep_former(now, &mut due, effects);
        self.due = due;
        self.follow.want(wants);
        self.list_api_servers(effects);
        self.tell_accepted(effects);
        self.choose_swim_period(now);
    }

    /// The leader's duties, on whoever leads; on others what a leader cannot do itself.
    fn run_lead(
        &mut self,
        now: Time,
        wants: &mut Wants,
        due: &mut Option<(Time, &'static str)>,
        effects: &mut Effects,
    ) {
        let mut lead = std::mem::take(&mut self.lead);
        let (mut runs, mut waits) = (self.runs, Vec::new());
        match self.leading(now, &mut runs, wants, &mut waits, due, effects) {
            Some((leader, mut context)) if leader == self.id() => lead.run(&mut context),
            Some((leader, mut context)) => {
                lead.step_down();
                lead.assist(&mut context, leader);
            }
            None => lead.step_down(),
        }
        (self.lead, self.runs) = (lead, runs);
        if self.follow.leader.is_some() && self.durable.charter.is_some() {
            self.lead.waited(waits);
        }
    }

    /// Who leads, and what the leader's duties go by here; none where nobody leads.
    pub(super) fn leading<'a>(
        &'a self,
        now: Time,
        runs: &'a mut u64,
        wants: &'a mut Wants,
        waits: &'a mut Vec<Wait>,
        due: &'a mut Option<(Time, &'static str)>,
        effects: &'a mut Effects,
    ) -> Option<(MachineId, lead::Context<'a>)> {
        let (leader, certificate) = (self.follow.leader?, self.durable.charter.as_ref()?);
        let context = lead::Context {
            now,
            mine: &self.mine,
            charter: certificate.charter(),
            control_planes: self.control_planes_wanted(),
            tuning: &self.tuning,
            roster: &self.roster,
            ledger: self.follow.ledger(),
            level: self.follow.ledger().level(),
            raft_members: self.follow.members(),
            renewal: self.ladder.renewal(),
            runs,
            wants,
            waits,
            due,
            effects,
        };
        Some((leader, context))
    }

    /// What this machine's own climb goes by, while its ladder is taken out of it.
    pub(super) fn climbing<'a>(
        &'a mut self,
        now: Time,
        may_begin_etcd: bool,
        wants: &'a mut Wants,
        due: &'a mut Option<(Time, &'static str)>,
        effects: &'a mut Effects,
    ) -> ladder::Context<'a> {
        ladder::Context {
            now,
            me: self.identity.machine(),
            tuning: &self.tuning,
            ledger: self.follow.ledger(),
            mine: &self.mine,
            roster: &self.roster,
            durable: &mut self.durable,
            may_begin_etcd,
            runs: &mut self.runs,
            wants,
            due,
            effects,
        }
    }

    /// How many control planes there are to be. What was founded holds, whatever this machine's image says by now.
    pub(super) fn control_planes_wanted(&self) -> u32 {
        match self.follow.ledger().control_planes_wanted() {
            0 => self.settings.control_planes,
            named => named,
        }
    }

    fn run_follow(&mut self, now: Time, effects: &mut Effects) {
        if let Some(charter) = &self.durable.charter {
            let me = self.identity.machine();
            self.follow.run(now, me, charter, &self.roster, &self.tuning, effects);
        }
    }

    /// An idle cluster is quiet (promise L5): once everyone has joined, failure detection slows down.
    fn choose_swim_period(&mut self, now: Time) {
        let ledger = self.follow.ledger();
        if self.ledger_news.0 != ledger.revision() {
            self.ledger_news = (ledger.revision(), now);
        }
        let everyone = ledger.joined_count() >= (ledger.machines() as usize).max(ledger.members().len());
        // Who is missing may never come: a machine that broke, or that the image counts and nobody bought.
        let quiet_at = self.ledger_news.1 + self.tuning.quiet_after;
        let idle = self.durable.charter.is_some() && (everyone || quiet_at <= now);
        if self.durable.charter.is_some() && !idle && self.due.is_none_or(|(due, _)| quiet_at < due) {
            self.due = Some((quiet_at, "the time to be quiet if nobody else comes"));
        }
        let period = if idle && !planted("restless") { self.tuning.swim_idle } else { self.tuning.swim_forming };
        self.roster.change_period(now, period, &mut self.rng);
    }
}

//! The machine: the one state machine that all of muster is about. It owns its parts and passes inputs between them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use muster_wire::frame::ProposalOutcome;
use muster_wire::{CallNumber, Certificate, Durable, Entry, Identity, MachineId, Revision, Settings, SignedCard};
use rand::rngs::ChaCha8Rng;

use crate::follow::{Follow, Subject};
use crate::founding::{Founding, Impediment};
use crate::ladder::{self, Ladder};
use crate::lead::manifests::{self, Manifests};
use crate::lead::{self, Lead};
use crate::ledger::Refusal;
use crate::planted::planted;
use crate::roster::{self, Roster};
use crate::tuning::Tuning;
use crate::words::notices::NoticeKind;
use crate::{Effects, Input, Phase, Time};

mod backups;
mod boot;
mod card;
mod explain;
mod former;
mod founding;
mod guard;
mod images;
mod leaving;
mod level;
mod notices;
mod place;
mod raft;
mod receive;
mod recovery;
mod status;
mod strangers;
mod wishes;

pub use boot::{Boot, StartRefusal};
pub use former::FormerAddresses;
pub use images::{ImageStatus, RunsImage};
pub use wishes::Fate;

/// One machine of the site.
pub struct Machine {
    identity: Identity,
    cluster: String,
    settings: Settings,
    tuning: Tuning,
    api_port: u16,
    mine: SignedCard,
    /// Where it listens, in the order that its device gave.
    addresses: Vec<String>,
    durable: Durable,
    rng: ChaCha8Rng,
    roster: Roster,
    founding: Founding,
    follow: Follow,
    lead: Lead,
    manifests: Manifests,
    ladder: Ladder,
    wishes: wishes::Wishes,
    recovering: Option<recovery::Recovering>,
    met: guard::Met,
    backups: backups::Keeping,
    former: former::Former,
    /// When this start began.
    started: Time,
    /// Whether its store of Raft was begun in an earlier start.
    raft_begun: bool,
    /// Whether it followed its charter before this start.
    followed_before: bool,
    /// How many accepted images those that are connected were told of.
    images_told: usize,
    cloned: bool,
    /// Whether it was removed, and nothing of the cluster is left here.
    departed: bool,
    /// Whether people were told that it cannot read the ledger.
    told_beyond: bool,
    runs: u64,
    election_at: Option<Time>,
    /// When the reconciling parts want to look again.
    due: Option<(Time, &'static str)>,
    api_servers: Vec<String>,
    /// What the endpoint's name was last said to mean, and what is wrong with it.
    endpoint: Option<IpAddr>,
    endpoint_troubles: Vec<String>,
    /// What is wrong with former addresses here.
    former_troubles: Vec<String>,
    phase: Phase,
    look_at: Option<Time>,
    /// The ledger's revision, and when it became that.
    ledger_news: (Revision, Time),
    /// When others are asked next whether they follow a charter.
    ask_at: Option<Time>,
    /// A peer that says it follows a charter, while this machine follows none.
    shown_by: Option<MachineId>,
    turned_away: strangers::TurnedAway,
    last_impediment: Option<Impediment>,
}

impl Machine {
    /// This machine's identity.
    pub fn id(&self) -> MachineId {
        self.identity.machine()
    }

    /// The name of the cluster that its image is for.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The charter it follows.
    pub fn charter(&self) -> Option<&Certificate> {
        self.durable.charter.as_ref()
    }

    /// Its copy of the ledger.
    pub fn ledger(&self) -> &crate::Ledger {
        self.follow.ledger()
    }

    /// The latest ledger that it has seen, which says whose Raft is answered: its own, or that of another voter while its own Raft tells it nothing.
    pub fn latest_ledger(&self) -> &crate::Ledger {
        self.follow.latest()
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The machines it holds for alive, itself among them: its roster (promise L3).
    pub fn roster_alive(&self) -> std::collections::BTreeSet<MachineId> {
        let known = self.roster.known().keys().copied();
        known.filter(|machine| self.roster.is_alive(*machine)).chain([self.id()]).collect()
    }

    /// How many it holds for alive, itself among them.
    pub fn roster_alive_count(&self) -> usize {
        self.roster.alive_count() + 1
    }

    /// Whether a machine is on its roster.
    pub fn holds_for_alive(&self, machine: MachineId) -> bool {
        self.roster.is_alive(machine)
    }

    /// Whether its failure detector doubts that a machine lives, or holds it for dead.
    pub fn doubts(&self, machine: MachineId) -> bool {
        self.roster.doubts(machine)
    }

    /// Takes one input. Never fails for outside reasons.
    pub fn handle(&mut self, now: Time, input: Input, effects: &mut Effects) {
        let touched = self.take(now, input, effects);
        self.settle(now, touched, effects);
    }

    /// Hands the input to the part it is for. Returns whether the reconciling parts must look.
    fn take(&mut self, now: Time, input: Input, effects: &mut Effects) -> bool {
        match input {
            Input::Wake => return false,
            Input::Connected(peer) => {
                let hello = self.hello(peer, false);
                self.roster.connected(now, peer, hello, effects);
                self.follow.connected(peer);
                return false;
            }
            Input::Disconnected(peer) => {
                self.roster.disconnected(peer);
                self.follow.disconnected(peer);
                return false;
            }
            Input::Received { from, frame } => {
                self.roster.heard(now, from);
                self.receive(now, from, frame, effects);
                return false;
            }
            Input::TurnedAway { whom, why } => {
                self.turned_away.add(now, whom, why);
                return false;
            }
            Input::Addresses(addresses) => {
                self.addresses = addresses;
                self.order_addresses();
            }
            Input::Reached { machine, address } => {
                self.turned_away.came_through(address);
                if self.roster.reach(machine, address) {
                    let hello = self.hello(machine, true);
                    effects.send(machine, hello);
                }
                return false;
            }
            Input::HostsFile { troubles } => {
                for text in troubles.iter().filter(|text| !self.endpoint_troubles.contains(text)) {
                    effects.notice(NoticeKind::Hosts, text.clone());
                }
                self.endpoint_troubles = troubles;
                return false;
            }
            Input::Former { troubles } => {
                self.former_troubles = troubles;
                return false;
            }
            Input::Applied { revision, entry } => {
                self.follow.fed(self.identity.machine());
                if let Some((entry, told)) = self.follow.applied(revision, entry) {
                    if let (Entry::Joined { machine }, Ok(())) = (&entry, &told) {
                        self.lead.joined(now, *machine);
                    }
                    self.committed(&entry, &told, effects);
                }
            }
            Input::Restored { ledger } => {
                if !self.follow.restored(&ledger) {
                    effects.notice(NoticeKind::Ledger, "Raft handed over a ledger that cannot be read".to_owned());
                }
                self.recovered(effects);
            }
            Input::Leading { term, leader } => {
                if leader.is_some() {
                    self.follow.fed(self.identity.machine());
                }
                self.follow.raft_leading(term, leader);
            }
            Input::Members(members) => self.follow.takes_part(self.identity.machine(), members),
            Input::Proposed { call, outcome } => self.proposed(now, call, outcome, effects),
            Input::Recover { call, dry_run, backup, works } => {
                self.recover(now, call, dry_run, recovery::From { backup, works }, effects);
            }
            Input::Backups(has) => self.keeps_backups(has),
            Input::Wish { call, wish, dry_run } => self.wish(now, call, wish, dry_run, effects),
            Input::Observed { kubelet, certificates_end_s, renewal, ca_ends_s, sync_us, etcd_gone } => {
                self.ladder.etcd_gone(now, etcd_gone);
                self.ladder.certificates(renewal, ca_ends_s);
                self.change_card(|card| {
                    let running = &mut card.running;
                    (running.kubelet, running.certificates_end_s, running.sync_us) =
                        (kubelet, certificates_end_s, sync_us);
                });
            }
            Input::Progress { run, phase, held } => {
                if held.is_some_and(|why| self.lead.held(now, run, &why)) {
                    return true;
                }
                self.ladder.progress(run, phase);
                return false;
            }
            Input::Finished { run, result } => self.finished(now, run, result, effects),
        }
        true
    }

    /// An entry was committed: what the rules say of it is for whoever wished it, and what it means for people.
    fn committed(&mut self, entry: &Entry, told: &Result<(), Refusal>, effects: &mut Effects) {
        // Whoever is a member now may have shown a later epoch before.
        if let (Entry::Admitted(admitted), Ok(())) = (entry, told)
            && let Some(card) = self.roster.card(admitted.machine).cloned()
        {
            self.meet_epoch(&card, effects);
        }
        self.wishes.fate(entry, Fate::of(self.follow.ledger().revision(), told), effects);
        if told.is_ok() {
            self.note_entry(entry, effects);
        }
    }

    fn proposed(&mut self, now: Time, call: CallNumber, outcome: ProposalOutcome, effects: &mut Effects) {
        if let Some((entry, why)) = self.follow.proposed(now, call, outcome, effects) {
            self.wishes.declined(&entry, &why);
        }
    }

    fn finished(
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
        let mut wants = BTreeMap::new();
        let mut context = ladder::Context {
            now,
            me: self.identity.machine(),
            tuning: &self.tuning,
            ledger: self.follow.ledger(),
            mine: &self.mine,
            roster: &self.roster,
            durable: &mut self.durable,
            may_begin_etcd: false,
            runs: &mut self.runs,
            wants: &mut wants,
            due: &mut self.due,
            effects,
        };
        let changed = self.ladder.finished(run, result, &mut context);
        let card = self.mine.card();
        let another = self.ladder.version().is_some_and(|version| version != card.running.kubernetes);
        if changed || another || !card.has_looked() && self.ladder.has_looked() {
            let unable: String = self.ladder.unable().unwrap_or_default().chars().take(60).collect();
            let version: String = self.ladder.version().unwrap_or_default().chars().take(60).collect();
            self.change_card(|card| (card.unable, card.running.kubernetes) = (unable, version));
        }
    }

    /// Lets every part do what is due, until nothing is.
    fn settle(&mut self, now: Time, touched: bool, effects: &mut Effects) {
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
        let me = self.identity.machine();
        let may_begin_etcd = self.durable.completed.is_some() || self.may_begin_etcd(now).is_ok();
        let mut wants: BTreeMap<Subject, Entry> = BTreeMap::new();
        let mut due = self.guard_due().filter(|_| !may_begin_etcd);
        if let Some(leader) = self.follow.leader
            && let Some(certificate) = &self.durable.charter
        {
            let mut waits = Vec::new();
            let mut context = lead::Context {
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
                runs: &mut self.runs,
                wants: &mut wants,
                waits: &mut waits,
                due: &mut due,
                effects,
            };
            if leader == me {
                self.lead.run(&mut context);
            } else {
                self.lead.step_down();
                self.lead.assist(&mut context, leader);
            }
            self.lead.waited(waits);
        } else {
            self.lead.step_down();
        }
        self.ladder.climb(&mut ladder::Context {
            now,
            me,
            tuning: &self.tuning,
            ledger: self.follow.ledger(),
            mine: &self.mine,
            roster: &self.roster,
            durable: &mut self.durable,
            may_begin_etcd,
            runs: &mut self.runs,
            wants: &mut wants,
            due: &mut due,
            effects,
        });
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

    /// How many control planes there are to be. What was founded holds, whatever this machine's image says by now.
    fn control_planes_wanted(&self) -> u32 {
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

    /// When it wants to be woken, and why: for traces.
    pub fn next_wakeup(&self) -> Option<(Time, &'static str)> {
        let founding = if self.durable.charter.is_none() { self.founding.next_wakeup(&self.tuning) } else { None };
        // A machine whose identity runs elsewhere, or that cannot read the ledger, does none of this, and must not be woken for it for ever.
        let follows = self.durable.charter.is_some() && !self.stands_still();
        let follow = if follows { self.follow.next_wakeup(&self.tuning) } else { None };
        let election = self.election_at.filter(|_| !self.stands_still()).map(|due| (due, "Raft's first leader"));
        let look = self.look_at.filter(|_| self.durable.charter.is_none()).map(|due| (due, "a look at the roster"));
        let ask = self.ask_at.filter(|_| self.durable.charter.is_none()).map(|due| (due, "a charter to ask for"));
        let (survey, guard) = (self.survey_due(), self.guard_due());
        let parts = [self.roster.next_wakeup(), founding, look, ask, follow, election, survey, guard, self.due];
        parts.into_iter().flatten().min()
    }
}

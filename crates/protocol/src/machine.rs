//! The machine: the one state machine that all of muster is about. It owns its parts and passes inputs between them.

use std::net::IpAddr;

use bytes::Bytes;
use muster_wire::frame::ProposalOutcome;
use muster_wire::{CallNumber, Certificate, Durable, Entry, Identity, MachineId, Revision, Settings, SignedCard};
use rand::rngs::ChaCha8Rng;

use crate::follow::Follow;
use crate::founding::{Founding, Impediment};
use crate::ladder::Ladder;
use crate::lead::Lead;
use crate::lead::manifests::Manifests;
use crate::ledger::Refusal;
use crate::roster::Roster;
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
mod pass;
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
            Input::Connected(_)
            | Input::Disconnected(_)
            | Input::Received { .. }
            | Input::TurnedAway { .. }
            | Input::Reached { .. }
            | Input::HostsFile { .. }
            | Input::Former { .. } => {
                self.outside(now, input, effects);
                return false;
            }
            Input::Addresses(addresses) => {
                self.addresses = addresses;
                self.order_addresses();
            }
            Input::Applied { revision, entry } => self.applied(now, revision, entry, effects),
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

    /// What comes from the network, and what is wrong around this machine: those parts look by themselves.
    fn outside(&mut self, now: Time, input: Input, effects: &mut Effects) {
        match input {
            Input::Connected(peer) => {
                let hello = self.hello(peer, false);
                self.roster.connected(now, peer, hello, effects);
                self.follow.connected(peer);
            }
            Input::Disconnected(peer) => {
                self.roster.disconnected(peer);
                self.follow.disconnected(peer);
            }
            Input::Received { from, frame } => {
                self.roster.heard(now, from);
                self.receive(now, from, frame, effects);
            }
            Input::TurnedAway { whom, why } => {
                self.turned_away.add(now, whom, why);
            }
            Input::Reached { machine, address } => {
                self.turned_away.came_through(address);
                if self.roster.reach(machine, address) {
                    let hello = self.hello(machine, true);
                    effects.send(machine, hello);
                }
            }
            Input::HostsFile { troubles } => {
                for text in troubles.iter().filter(|text| !self.endpoint_troubles.contains(text)) {
                    effects.notice(NoticeKind::Hosts, text.clone());
                }
                self.endpoint_troubles = troubles;
            }
            Input::Former { troubles } => self.former_troubles = troubles,
            _ => {}
        }
    }

    /// Raft applied an entry of the ledger.
    fn applied(&mut self, now: Time, revision: Revision, entry: Bytes, effects: &mut Effects) {
        self.follow.fed(self.identity.machine());
        if let Some((entry, told)) = self.follow.applied(revision, entry) {
            if let (Entry::Joined { machine }, Ok(())) = (&entry, &told) {
                self.lead.joined(now, *machine);
            }
            self.committed(&entry, &told, effects);
        }
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

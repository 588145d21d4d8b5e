//! What the Raft leader does besides replicating: admit machines, give the right to init, see that tickets exist.
//!
//! Level-triggered: it compares the ledger with what should be there and wants the next entries. Everything it does is
//! decided by the apply rules, so two machines that both think they lead can only waste a proposal.

mod address;
pub(crate) mod manifests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use muster_wire::entry::{Admitted, Sealed};
use muster_wire::{Charter, Digest, Entry, EtcdTurn, MachineId, Role, SignedCard};

use self::address::Claims;
use crate::follow::Subject;
use crate::ledger::Member;
use crate::machine::Tuning;
use crate::planted::planted;
use crate::roster::Roster;
use crate::{Effect, Effects, Ledger, Recipient, RunId, Step, StepFailure, StepOutput, Time};

/// Most admissions and tickets wanted at once, so that a thousand machines do not make one burst.
const AT_ONCE: usize = 32;

/// Pause in resends before a failed ticket is tried again.
const RETRY_RESENDS: u32 = 4;

/// How long a machine may be there with its ticket and not join before its token is registered anew. Tokens live for a day,
/// and a machine may have been off for longer.
const TOKEN_PATIENCE: Duration = Duration::from_secs(300);

/// Pause after that until the next time: half a token's life.
const TOKEN_RENEWAL: Duration = Duration::from_secs(12 * 3_600);

/// What a run of the leader's is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Ticket { machine: MachineId, attempt: u32, registers: bool },
    SealPki { machine: MachineId },
    RenewToken { machine: MachineId, known: bool },
    DeleteToken { machine: MachineId },
}

/// The leader's notes. Nothing here needs to survive a restart.
#[derive(Debug, Default)]
pub(crate) struct Lead {
    jobs: BTreeMap<RunId, Job>,
    tickets: BTreeMap<MachineId, (u32, Bytes)>,
    pki: BTreeMap<MachineId, (Digest, Vec<Sealed>)>,
    not_before: BTreeMap<MachineId, Time>,
    tokens_to_delete: BTreeSet<MachineId>,
    /// Machines that are there, have a ticket and have not joined: when their tokens are to be registered anew.
    tokens_to_renew: BTreeMap<MachineId, Time>,
    /// Machines whose tokens this one has registered.
    tokens_registered: BTreeSet<MachineId>,
    /// Since when the holder of the claim, or of the etcd turn, is thought dead.
    dead_since: BTreeMap<(&'static str, MachineId), Time>,
    claim_seen: Option<(u32, Time)>,
    /// The last attempt, and since when it is known to be over.
    claim_free: Option<(u32, Time)>,
    /// When the last machine became known: init waits a moment for machines that arrive together.
    voters_asked: Option<(BTreeSet<MachineId>, Time)>,
    /// Role and name that newcomers were proposed with, until that is seen applied: what is on its way counts.
    admitting: BTreeMap<MachineId, (Role, String)>,
}

/// What leading needs to know and may change.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) mine: &'a SignedCard,
    pub(crate) charter: &'a Charter,
    pub(crate) control_planes: u32,
    pub(crate) tuning: &'a Tuning,
    pub(crate) roster: &'a Roster,
    pub(crate) ledger: &'a Ledger,
    pub(crate) runs: &'a mut u64,
    pub(crate) wants: &'a mut BTreeMap<Subject, Entry>,
    pub(crate) due: &'a mut Option<(Time, &'static str)>,
    pub(crate) effects: &'a mut Effects,
}

impl Context<'_> {
    fn me(&self) -> MachineId {
        self.mine.card().machine
    }

    fn wake_at(&mut self, due: Time, why: &'static str) {
        // What is past has been acted upon in this very pass; to be woken for it again would never end.
        if due > self.now {
            let due = (due, why);
            *self.due = Some(self.due.map_or(due, |other| other.min(due)));
        }
    }

    fn able(&self, machine: MachineId) -> bool {
        if machine == self.me() {
            return self.mine.card().unable.is_empty();
        }
        self.roster.card(machine).is_some_and(|card| card.unable.is_empty())
    }
}

impl Lead {
    /// Forgets everything: this machine does not lead (any more).
    pub(crate) fn step_down(&mut self) {
        let (jobs, pki) = (std::mem::take(&mut self.jobs), std::mem::take(&mut self.pki));
        *self = Self { jobs, pki, ..Self::default() };
    }

    /// What a control plane does for a leader that has no copy of the CA, and so cannot make tickets: it became one after the CA
    /// was sealed to those whom the initialiser knew of. Whoever has a copy seals one for it.
    pub(crate) fn assist(&mut self, context: &mut Context<'_>, leader: MachineId) {
        let Some(pki) = context.ledger.pki() else { return };
        self.pki.retain(|machine, _| !pki.sealed.contains_key(machine));
        let lacks = |member: &&Member| {
            member.admitted.role == Role::ControlPlane && !pki.sealed.contains_key(&member.admitted.machine)
        };
        let Some(member) = context.ledger.member(leader).filter(lacks) else { return };
        if let Some(own) = pki.sealed.get(&context.me()).cloned() {
            self.seal_pki(context, member, &own);
            self.want_sealed(context);
        }
    }

    fn want_sealed(&self, context: &mut Context<'_>) {
        let Some(attempt) = context.ledger.cluster_attempt() else { return };
        for (machine, (ca_hash, sealed)) in &self.pki {
            let entry = Entry::PkiSealed { attempt, ca_hash: *ca_hash, sealed: sealed.clone() };
            context.wants.insert(Subject("pki", *machine, attempt), entry);
        }
    }

    pub(crate) fn run(&mut self, context: &mut Context<'_>) {
        self.remove_replaced(context);
        let admitted_all = self.admit(context);
        self.watch_claim(context, admitted_all);
        self.watch_etcd_turn(context);
        self.grow_voters(context);
        self.issue(context);
    }

    /// A machine whose disk was wiped comes back under a new identity on the same hardware. Its old identity is dead for
    /// good: it gives up name and role, so that the new one can have them. A control plane that already is an etcd member
    /// stays: taking an etcd member away is a change to the cluster that nobody asked for here.
    fn remove_replaced(&mut self, context: &mut Context<'_>) {
        let gone: Vec<MachineId> = context
            .ledger
            .members()
            .values()
            .map(|member| member.admitted.machine)
            .filter(|machine| !context.ledger.has_etcd(*machine))
            .filter(|machine| !context.roster.is_alive(*machine))
            .filter(|machine| has_successor(*machine, context))
            .collect();
        for machine in gone {
            if self.dead_for(context, "replaced", machine, context.tuning.initialiser_patience) {
                context.wants.insert(Subject("remove", machine, 0), Entry::Removed { machine });
            }
        }
    }

    /// A successor waits until its old identity is removed, else it could not have its name and role. An old identity that
    /// still looks alive is given the time in which its death would show; if it lives on, two machines merely look alike.
    fn waits_for_removal(&mut self, context: &mut Context<'_>, machine: MachineId) -> bool {
        let old = context
            .roster
            .on_same_hardware(machine)
            .find(|old| context.ledger.member(*old).is_some() && !context.ledger.has_etcd(*old));
        let Some(old) = old else { return false };
        let patience = context.tuning.initialiser_patience;
        let since = *self.dead_since.entry(("successor", machine)).or_insert(context.now);
        context.wake_at(since + patience, "a machine that looks like another");
        !context.roster.is_alive(old) || context.now.since(since) < patience
    }

    /// Wants everyone admitted who is there. Returns whether all the living are.
    fn admit(&mut self, context: &mut Context<'_>) -> bool {
        let ledger = context.ledger;
        let mut newcomers: Vec<&SignedCard> =
            context.roster.known().values().map(|known| &known.card).filter(|card| admissible(card, context)).collect();
        let myself = ledger.member(context.me()).is_none() && !ledger.was_removed(context.me());
        if newcomers.is_empty() && !myself && ledger.joined_count() == ledger.members().len() {
            return true;
        }
        let claims = Claims::new(context);
        claims.correct(context);
        newcomers.retain(|card| claims.address(card.card(), context).is_some());
        newcomers.retain(|card| !self.waits_for_removal(context, card.card().machine));
        let mine = claims.address(context.mine.card(), context).is_some();
        if mine && myself {
            newcomers.push(context.mine);
        }
        let all = newcomers.is_empty();
        // Voters of the charter first: they are control planes whatever happens.
        newcomers.sort_by_key(|card| {
            let machine = card.card().machine;
            (!context.charter.voters.contains(&machine), !card.card().unable.is_empty(), machine)
        });
        newcomers.truncate(AT_ONCE);
        let there: BTreeSet<MachineId> = newcomers.iter().map(|card| card.card().machine).collect();
        self.admitting.retain(|machine, (role, name)| {
            let fits = *role == Role::Worker || ledger.has_seat(*machine);
            there.contains(machine) && fits && ledger.holder_of(name).is_none()
        });
        let mut planes: BTreeSet<MachineId> = ledger.control_planes().collect();
        planes.extend(context.charter.voters.iter().filter(|voter| !ledger.was_removed(**voter)));
        planes.extend(self.admitting.iter().filter(|(_, (role, _))| *role == Role::ControlPlane).map(|(who, _)| *who));
        let mut names: BTreeSet<String> =
            ledger.members().values().map(|member| member.admitted.name.clone()).collect();
        names.extend(self.admitting.values().map(|(_, name)| name.clone()));
        let hostnames = hostnames(context, newcomers.is_empty());
        for card in newcomers {
            let card = card.card();
            let (role, name) = match self.admitting.get(&card.machine) {
                Some(proposed) => proposed.clone(),
                None => {
                    let voter = planes.contains(&card.machine) && !planted("voter-as-worker");
                    let plane = voter || planes.len() < context.control_planes as usize;
                    let name = node_name(&card.hostname, card.machine, &names, &hostnames);
                    (if plane { Role::ControlPlane } else { Role::Worker }, name)
                }
            };
            if role == Role::ControlPlane {
                planes.insert(card.machine);
            }
            names.insert(name.clone());
            let Some(address) = claims.address(card, context).map(|address| address.to_string()) else { continue };
            self.admitting.insert(card.machine, (role, name.clone()));
            let admitted = Admitted { machine: card.machine, role, name, sealing_key: card.sealing_key, address };
            context.wants.insert(Subject("admit", card.machine, 0), Entry::Admitted(admitted));
        }
        all
    }

    /// Gives the right to init, and takes it from a machine that died or takes too long (promises S4, L4).
    fn watch_claim(&mut self, context: &mut Context<'_>, admitted_all: bool) {
        let ledger = context.ledger;
        if ledger.ready().is_some() {
            self.claim_seen = None;
            return;
        }
        let Some((attempt, machine)) = ledger.live_claim() else {
            self.claim_seen = None;
            if admitted_all && let Some((machine, failures)) = self.next_initialiser(context) {
                self.claim(context, machine, failures);
            }
            return;
        };
        let seen = match self.claim_seen {
            Some((known, seen)) if known == attempt => seen,
            _ => self.claim_seen.insert((attempt, context.now)).1,
        };
        if planted("claim-while-live") && !context.roster.is_alive(machine) {
            let attempt = attempt + 1;
            if let Some((machine, _)) = self.next_initialiser(context) {
                context.wants.insert(Subject("claim", machine, attempt), Entry::InitClaimed { attempt, machine });
            }
        }
        let why = if planted("initialiser-awaited") {
            None
        } else if self.dead_for(context, "claim", machine, context.tuning.initialiser_patience) {
            Some(format!("{machine} stopped answering while it initialised"))
        } else if context.now.since(seen) >= context.tuning.init_max {
            Some(format!("{machine} took longer than {} s", context.tuning.init_max.as_secs()))
        } else {
            context.wake_at(seen + context.tuning.init_max, "the end of the initialiser's time");
            None
        };
        if let Some(why) = why {
            context.wants.insert(Subject("abandon", machine, attempt), Entry::InitAbandoned { attempt, why });
        }
    }

    /// Gives the right to init to a machine; after a pause if all have failed already, so that attempts that fail at once do
    /// not follow each other as fast as the ledger takes them (promise S10).
    fn claim(&mut self, context: &mut Context<'_>, machine: MachineId, failures: usize) {
        let last = context.ledger.last_attempt();
        let free = match self.claim_free {
            Some((known, free)) if known == last => free,
            _ => self.claim_free.insert((last, context.now)).1,
        };
        let doublings = failures.saturating_sub(1).min(6) as u32;
        let pause = Duration::from_secs(1) * (u32::from(failures > 0) << doublings);
        if context.now.since(free) < pause && !planted("claims-unpaused") {
            context.wake_at(free + pause, "the next attempt at init");
            return;
        }
        let attempt = last + 1;
        context.wants.insert(Subject("claim", machine, attempt), Entry::InitClaimed { attempt, machine });
    }

    /// The living control plane with the fewest failed attempts, and how many; this machine before others, then the lowest.
    fn next_initialiser(&self, context: &Context<'_>) -> Option<(MachineId, usize)> {
        let ledger = context.ledger;
        let failures = |machine: &MachineId| ledger.abandoned().iter().filter(|(_, who, _)| who == machine).count();
        ledger
            .control_planes()
            .filter(|machine| context.roster.is_alive(*machine) && context.able(*machine))
            .map(|machine| (machine, failures(&machine)))
            .min_by_key(|(machine, failures)| (*failures, *machine != context.me(), *machine))
    }

    fn dead_for(
        &mut self,
        context: &mut Context<'_>,
        what: &'static str,
        machine: MachineId,
        patience: std::time::Duration,
    ) -> bool {
        if context.roster.is_alive(machine) {
            self.dead_since.remove(&(what, machine));
            return false;
        }
        let since = *self.dead_since.entry((what, machine)).or_insert(context.now);
        context.wake_at(since + patience, "a machine that is silent");
        context.now.since(since) >= patience
    }

    /// Ends the etcd turn of a machine that died in it. The holder kills its own work after `etcd_turn_max`; twice that
    /// is waited here, so that a machine that is merely cut off cannot still be adding its member (promise S8).
    fn watch_etcd_turn(&mut self, context: &mut Context<'_>) {
        if let Some((number, machine)) = context.ledger.etcd_turn()
            && (self.dead_for(context, "etcd", machine, context.tuning.etcd_turn_max * 2)
                || planted("etcd-turn-cut") && !context.roster.is_alive(machine))
        {
            let entry = Entry::EtcdJoin { machine, turn: EtcdTurn::GaveUp, number };
            context.wants.insert(Subject("etcd", machine, number), entry);
        }
    }

    /// Voters are the control planes: those admitted later become voters as well.
    fn grow_voters(&mut self, context: &mut Context<'_>) {
        let planes: BTreeSet<MachineId> =
            context.ledger.control_planes().filter(|machine| context.ledger.member(*machine).is_some()).collect();
        let mut voters: BTreeSet<MachineId> = context.charter.voters.iter().copied().collect();
        voters.retain(|voter| !context.ledger.was_removed(*voter) || planted("removed-still-votes"));
        voters.extend(planes.iter().copied().filter(|plane| context.roster.is_alive(*plane) || *plane == context.me()));
        let founding: BTreeSet<MachineId> = context.charter.voters.iter().copied().collect();
        let untouched = voters == founding && !context.ledger.any_removed();
        if untouched || voters.len().is_multiple_of(2) && voters.len() < context.control_planes as usize {
            return;
        }
        let again = context.tuning.resend * 15;
        let asked = self.voters_asked.as_ref().filter(|(asked, at)| *asked == voters && context.now.since(*at) < again);
        match asked {
            Some((_, at)) => context.wake_at(*at + again, "Raft's voters"),
            None => {
                self.voters_asked = Some((voters.clone(), context.now));
                context.effects.push(Effect::SetVoters(voters));
                context.wake_at(context.now + again, "Raft's voters");
            }
        }
    }

    /// Has missing tickets and PKI copies made, wants them committed, and has used tokens deleted.
    fn issue(&mut self, context: &mut Context<'_>) {
        let ledger = context.ledger;
        let (Some(attempt), Some(pki)) = (ledger.cluster_attempt(), ledger.pki()) else { return };
        let Some(own) = pki.sealed.get(&context.me()).cloned() else { return };
        self.tickets.retain(|machine, (made_for, _)| {
            *made_for == attempt && ledger.member(*machine).is_some() && needs_ticket(ledger, *machine, attempt)
        });
        self.pki.retain(|machine, _| !pki.sealed.contains_key(machine));
        let initialiser = ledger.ready().map(|ready| ready.machine).or(ledger.live_claim().map(|(_, machine)| machine));
        for (machine, member) in ledger.members() {
            if self.jobs.len() >= AT_ONCE {
                break;
            }
            if member.admitted.role == Role::ControlPlane && !pki.sealed.contains_key(machine) {
                self.seal_pki(context, member, &own);
            }
            if Some(*machine) != initialiser && !member.joined && needs_ticket(ledger, *machine, attempt) {
                self.ticket(context, member, attempt, &own);
            }
        }
        for (machine, (attempt, ciphertext)) in &self.tickets {
            let entry = Entry::Ticket { machine: *machine, attempt: *attempt, ciphertext: ciphertext.clone() };
            context.wants.insert(Subject("ticket", *machine, *attempt), entry);
        }
        self.want_sealed(context);
        // Only a machine with a running API server can change tokens.
        if ledger.member(context.me()).is_some_and(|member| member.joined) {
            self.renew_tokens(context, attempt, &own);
            if let Some(machine) = self.tokens_to_delete.pop_first() {
                self.start(context, Job::DeleteToken { machine }, Step::DeleteToken { sealed_pki: own, machine });
            }
        }
    }

    /// Registers the tokens of machines again that could have joined long since, and at once of those that init did not
    /// register: the ticket may have been made before InitReady and committed after it. Their tickets stay as they are: a
    /// machine's token is always the same.
    fn renew_tokens(&mut self, context: &mut Context<'_>, attempt: u32, own: &Bytes) {
        let ledger = context.ledger;
        let waits = |machine: &MachineId, member: &Member| {
            !member.joined && !needs_ticket(ledger, *machine, attempt) && context.roster.is_alive(*machine)
        };
        let waiting: Vec<&Member> = context
            .ledger
            .members()
            .iter()
            .filter(|(machine, member)| waits(machine, member))
            .map(|(_, member)| member)
            .collect();
        self.tokens_to_renew.retain(|machine, _| waiting.iter().any(|member| member.admitted.machine == *machine));
        for member in waiting {
            let recipient = recipient(member);
            let machine = recipient.machine;
            let by_init = context.ledger.ready().is_some_and(|ready| ready.tokens.contains(&machine));
            let known = by_init || self.tokens_registered.contains(&machine) || planted("token-unregistered");
            let patience = if known { TOKEN_PATIENCE } else { Duration::ZERO };
            let due = *self.tokens_to_renew.entry(machine).or_insert(context.now + patience);
            context.wake_at(due, "a token to register anew");
            if due <= context.now && self.jobs.len() < AT_ONCE {
                self.tokens_to_renew.insert(machine, context.now + TOKEN_RENEWAL);
                let step = Step::IssueTicket { attempt, sealed_pki: own.clone(), recipient, token_registered: false };
                self.start(context, Job::RenewToken { machine, known }, step);
            }
        }
    }

    fn seal_pki(&mut self, context: &mut Context<'_>, member: &Member, own: &Bytes) {
        let recipient = recipient(member);
        let machine = recipient.machine;
        if self.idle(context, machine, |job| matches!(job, Job::SealPki { .. })) && !self.pki.contains_key(&machine) {
            self.start(context, Job::SealPki { machine }, Step::SealPki { sealed_pki: own.clone(), recipient });
        }
    }

    fn ticket(&mut self, context: &mut Context<'_>, member: &Member, attempt: u32, own: &Bytes) {
        let mut recipient = recipient(member);
        let machine = recipient.machine;
        if planted("wrong-recipient") {
            recipient.sealing_key = context.mine.card().sealing_key;
        }
        if !self.idle(context, machine, |job| matches!(job, Job::Ticket { .. })) || self.tickets.contains_key(&machine)
        {
            return;
        }
        // Before init is ready, whoever is admitted is on init's list; InitReady voids the tickets of those who are not.
        let token_registered = context.ledger.ready().is_none_or(|ready| ready.tokens.contains(&machine));
        let step = Step::IssueTicket { attempt, sealed_pki: own.clone(), recipient, token_registered };
        self.start(context, Job::Ticket { machine, attempt, registers: !token_registered }, step);
    }

    /// Whether nothing of this kind runs for the machine, and its pause after a failure is over.
    fn idle(&self, context: &mut Context<'_>, machine: MachineId, kind: impl Fn(&Job) -> bool) -> bool {
        if let Some(pause) = self.not_before.get(&machine).filter(|pause| context.now < **pause) {
            context.wake_at(*pause, "a ticket to try again");
            return false;
        }
        !self.jobs.values().any(|job| kind(job) && job.machine() == machine)
    }

    fn start(&mut self, context: &mut Context<'_>, job: Job, step: Step) {
        *context.runs += 1;
        let run = RunId(*context.runs);
        self.jobs.insert(run, job);
        context.effects.push(Effect::Run { run, step });
    }

    /// A machine joined while this one leads: its token has served.
    pub(crate) fn joined(&mut self, machine: MachineId) {
        self.tokens_to_delete.insert(machine);
    }

    /// A run ended. Returns whether it was one of the leader's.
    pub(crate) fn finished(
        &mut self,
        now: Time,
        run: RunId,
        result: &Result<StepOutput, StepFailure>,
        tuning: &Tuning,
        effects: &mut Effects,
    ) -> bool {
        let Some(job) = self.jobs.remove(&run) else { return false };
        match (job, result) {
            (Job::Ticket { machine, attempt, registers }, Ok(StepOutput::Ticket { ciphertext })) => {
                self.tickets.insert(machine, (attempt, ciphertext.clone()));
                if registers {
                    self.tokens_registered.insert(machine);
                }
            }
            (Job::SealPki { machine }, Ok(StepOutput::PkiMade { ca_hash, sealed })) => {
                self.pki.insert(machine, (*ca_hash, sealed.clone()));
            }
            (Job::RenewToken { machine, .. }, Ok(_)) => drop(self.tokens_registered.insert(machine)),
            (Job::DeleteToken { .. }, Ok(_)) => {}
            (job, result) => {
                let why = result.as_ref().err().map_or("an unexpected answer".to_owned(), ToString::to_string);
                let machine = job.machine();
                effects.notice(false, "retry", format!("for {machine}: {why}; it is tried again"));
                self.not_before.insert(machine, now + tuning.resend * RETRY_RESENDS);
                if let Job::RenewToken { machine, known } = job {
                    let pause = if known { TOKEN_PATIENCE } else { tuning.resend * RETRY_RESENDS };
                    self.tokens_to_renew.insert(machine, now + pause);
                }
                if matches!(job, Job::DeleteToken { .. }) {
                    // The token's own lifetime ends it; one more try is worth a process, endless ones are not.
                    effects.notice(false, "token", format!("the token of {machine} stays until it expires"));
                }
            }
        }
        true
    }
}

impl Job {
    fn machine(&self) -> MachineId {
        match self {
            Job::Ticket { machine, .. }
            | Job::SealPki { machine }
            | Job::RenewToken { machine, .. }
            | Job::DeleteToken { machine } => *machine,
        }
    }
}

/// Whether the machine seems to live on under a new identity. One that is admitted beside the old one is another machine.
fn has_successor(machine: MachineId, context: &Context<'_>) -> bool {
    let mut alike = context.roster.on_same_hardware(machine);
    alike.any(|other| context.roster.is_alive(other) && context.ledger.member(other).is_none())
}

/// Whether policy admits the machine: it is there, has the charter's image, and is one machine.
fn admissible(card: &SignedCard, context: &Context<'_>) -> bool {
    let machine = card.card().machine;
    context.ledger.member(machine).is_none()
        && !context.ledger.was_removed(machine)
        && context.roster.is_alive(machine)
        && context.roster.clone_proof(machine).is_none()
        && card.card().settings.digest == context.charter.settings
        // A machine never belongs to two clusters (promise S7); its card says so to those, too, who have not met it themselves.
        && card.card().charter.is_none_or(|theirs| context.mine.card().charter == Some(theirs))
        && (card.card().has_looked() || context.charter.voters.contains(&machine))
}

fn needs_ticket(ledger: &Ledger, machine: MachineId, attempt: u32) -> bool {
    ledger.ticket(machine).is_none_or(|(of, _)| *of != attempt)
}

fn recipient(member: &Member) -> Recipient {
    Recipient { machine: member.admitted.machine, sealing_key: member.admitted.sealing_key }
}

/// The host names of the living, and how many have each.
fn hostnames<'a>(context: &Context<'a>, unwanted: bool) -> BTreeMap<&'a str, usize> {
    let (roster, mut names) = (context.roster, BTreeMap::new());
    if unwanted {
        return names;
    }
    let living = roster.known().iter().filter(|(machine, _)| roster.is_alive(**machine)).map(|(_, known)| &known.card);
    for card in living.chain([context.mine]) {
        *names.entry(card.card().hostname.as_str()).or_default() += 1;
    }
    names
}

/// The host name where it is a DNS label nobody else has; else one made of the id.
fn node_name(
    hostname: &str,
    machine: MachineId,
    taken: &BTreeSet<String>,
    hostnames: &BTreeMap<&str, usize>,
) -> String {
    let label = hostname.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let fit = !label.is_empty()
        && label.len() <= 63
        && label != "localhost"
        && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !label.starts_with('-')
        && !label.ends_with('-');
    // The machine itself is among the living: admissible is nobody else.
    let shared = hostnames.get(hostname).is_some_and(|have| *have > 1);
    if fit && !taken.contains(&label) && !shared {
        return label;
    }
    let short = machine.to_string();
    if taken.contains(&short) { format!("m-{}", &machine.to_hex()[..32]) } else { short }
}

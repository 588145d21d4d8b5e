//! Founding: agreeing on the charter, once in a cluster's life.
//!
//! Single-decree Paxos (Lamport, "Paxos Made Simple", 2001) among identities nobody knew beforehand. A ballot is
//! (round, proposer). The quorum is T of N machines, N being in the image; fewer than 2T identities exist, so any two
//! quorums share a machine, and that machine keeps its word across restarts because it writes before it speaks.
//! Time decides only who tries when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use muster_wire::charter::charter_hash;
use muster_wire::frame::RefusalCause;
use muster_wire::{
    Able, Ballot, Certificate, Charter, Durable, Frame, Identity, MachineId, Promise, Settings, Vote, limits,
};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt};

mod impediment;

pub(crate) use impediment::Impediment;
use impediment::too_many;

use crate::planted::planted;
use crate::roster::Roster;
use crate::tuning::Tuning;
use crate::{Effects, Time};

/// How long a machine listens after its start before it proposes, however many others are there: a cluster that exists says so
/// when it is met. Who needs nobody's vote, and so nobody's memory, listens for [`Tuning::settle`].
const LISTEN: Duration = Duration::from_millis(300);

/// So many machines share the time in which one of them steps in.
const STEP_IN_TOGETHER: usize = 32;

/// A ballot of our own.
#[derive(Debug)]
struct Attempt {
    ballot: Ballot,
    begun: Time,
    sent: Time,
    promises: BTreeMap<MachineId, Option<(Ballot, Bytes)>>,
    /// The charter's bytes once a quorum promised, and the votes for it.
    accept: Option<(Bytes, BTreeMap<MachineId, Vote>)>,
}

/// This machine's part in founding: acceptor always, proposer at times.
#[derive(Debug)]
pub(crate) struct Founding {
    /// When this start of the machine began.
    born: Time,
    round_seen: u64,
    attempt: Option<Attempt>,
    propose_at: Option<Time>,
    failures: u32,
    /// The machines that could vote when the roster was last looked at, and since when that has not changed.
    electorate: BTreeSet<MachineId>,
    stable_since: Time,
    /// Living machines with other settings.
    others: BTreeSet<MachineId>,
    impediment: Option<Impediment>,
    certificate: Option<Certificate>,
}

/// What founding needs to know and may change.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) identity: &'a Identity,
    pub(crate) cluster: &'a str,
    pub(crate) settings: &'a Settings,
    pub(crate) tuning: &'a Tuning,
    pub(crate) unable: bool,
    /// Whether this machine has looked at its kubeadm, and lists an address.
    pub(crate) looked: bool,
    pub(crate) addressed: bool,
    pub(crate) cloned: bool,
    pub(crate) fingerprint_shared: bool,
    pub(crate) roster: &'a mut Roster,
    pub(crate) durable: &'a mut Durable,
    pub(crate) rng: &'a mut ChaCha8Rng,
    pub(crate) effects: &'a mut Effects,
}

impl Context<'_> {
    fn me(&self) -> MachineId {
        self.identity.machine()
    }

    /// Whether a machine is counted before a charter is proposed. Its voters are control planes, so it is to be known who can be one,
    /// and who has an address to be admitted under: the only voter's place is not for a machine that never can be.
    fn stands(&self, machine: MachineId) -> bool {
        let known = match machine == self.me() {
            true => self.looked && self.addressed,
            false => self.roster.card(machine).is_some_and(|card| card.has_looked() && !card.addresses.is_empty()),
        };
        known && self.votes_count(machine)
    }

    /// Whether a machine's promise and vote count: it has our settings, one body, and never forgot a vote.
    fn votes_count(&self, machine: MachineId) -> bool {
        if machine == self.me() {
            return !self.cloned && !self.fingerprint_shared;
        }
        let Some(card) = self.roster.card(machine) else { return false };
        card.settings == *self.settings
            && self.roster.clone_proof(machine).is_none()
            && !self.roster.is_amnesiac(machine, &card.fingerprint)
    }

    fn has_other_settings(&self, machine: MachineId) -> bool {
        self.roster.card(machine).is_some_and(|card| card.settings != *self.settings)
    }

    /// Longest random wait before a machine steps in. All of a site draw one, and the first draw of many is short: with this
    /// there are about as many proposers at a time however large the site is.
    fn step_in_max(&self, candidates: usize) -> Duration {
        self.tuning.step_in_max * (candidates / STEP_IN_TOGETHER).max(1) as u32
    }

    fn jitter(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.rng.random_range(0..=most.as_micros() as u64))
    }
}

impl Founding {
    pub(crate) fn new(durable: &Durable, now: Time) -> Self {
        let seen = durable.promised.map(|ballot| ballot.round);
        let accepted = durable.accepted.as_ref().map(|(ballot, _)| ballot.round);
        Self {
            born: now,
            round_seen: if planted("ballot-reused") { 0 } else { seen.max(accepted).unwrap_or(0) },
            attempt: None,
            propose_at: None,
            failures: 0,
            electorate: BTreeSet::new(),
            stable_since: now,
            others: BTreeSet::new(),
            // From the first moment of a start on: what was seen in an earlier one is on disk.
            impediment: impediment::seen(durable),
            certificate: None,
        }
    }

    /// The roster changed: who can vote, and does anything forbid founding? Asked of those machines only of which
    /// something new was heard; of this one always, since it also depends on itself.
    pub(crate) fn look(&mut self, context: &mut Context<'_>) {
        let me = context.me();
        let mut changed = self.admit(me, context.stands(me));
        for machine in context.roster.take_touched().into_iter().filter(|machine| *machine != me) {
            let alive = context.roster.is_alive(machine);
            changed |= self.admit(machine, alive && context.stands(machine));
            if (alive || context.roster.is_strange(machine)) && context.has_other_settings(machine) {
                self.others.insert(machine);
            } else {
                self.others.remove(&machine);
            }
        }
        let halted = self.impediment.is_some();
        self.impediment = self.find_impediment(context);
        if self.impediment.is_some() && !planted("ballot-outlives-halt") {
            // A ballot under way ends, too: its questions would go on being asked.
            self.attempt = None;
        }
        if changed || halted && self.impediment.is_none() {
            self.stable_since = context.now;
            self.plan(context);
        }
    }

    /// Notes whether a machine can vote. Returns whether that is news.
    fn admit(&mut self, machine: MachineId, counts: bool) -> bool {
        if counts { self.electorate.insert(machine) } else { self.electorate.remove(&machine) }
    }

    fn find_impediment(&self, context: &Context<'_>) -> Option<Impediment> {
        if context.cloned {
            return Some(Impediment::Cloned);
        }
        if let Some(seen) = impediment::seen(context.durable) {
            return Some(seen);
        }
        if !self.others.is_empty() {
            return Some(Impediment::OtherSettings(self.others.iter().copied().collect()));
        }
        too_many(context)
    }

    /// Looks are taken together, a moment apart. One machine too many counts from when it is heard of: two quorums might not
    /// meet.
    fn count(&mut self, context: &Context<'_>) {
        if let Some(impediment) = too_many(context).filter(|_| self.impediment.is_none()) {
            self.impediment = Some(impediment);
            self.attempt = None;
        }
    }

    /// Decides when this machine proposes if nobody else has by then.
    fn plan(&mut self, context: &mut Context<'_>) {
        let quorum = context.settings.quorum() as usize;
        if self.electorate.len() < quorum || !self.electorate.contains(&context.me()) {
            self.propose_at = None;
            return;
        }
        // With everybody there, nothing is gained by waiting, but that a cluster that exists is heard of. With too few for the control planes, late machines get
        // more time, because who founds alone would have to be joined by further voters later.
        let margin = if self.electorate.len() >= context.settings.machines as usize {
            Duration::ZERO
        } else if self.electorate.len() >= context.settings.control_planes as usize {
            context.tuning.settle
        } else {
            context.tuning.settle * 5
        };
        let turn = if self.electorate.first() == Some(&context.me()) {
            Duration::ZERO
        } else {
            context.tuning.resend * 2 + context.jitter(context.step_in_max(self.electorate.len()))
        };
        let listens = if quorum == 1 { context.tuning.settle } else { LISTEN };
        let due = self.stable_since.max(context.now) + margin + turn;
        self.propose_at = Some(due.max(self.born + listens));
    }

    /// After a failed or foreign ballot: wait a random while, longer with every failure, so that proposers part.
    fn back_off(&mut self, context: &mut Context<'_>) {
        let most = context.step_in_max(self.electorate.len()) * (1 << self.failures.min(3));
        let wait = context.tuning.resend * 2 + context.jitter(most);
        if self.electorate.len() >= context.settings.quorum() as usize {
            self.propose_at = Some(context.now + wait);
        }
    }

    /// Runs what is due: begins a ballot, repeats what was not answered, gives a ballot up.
    pub(crate) fn run(&mut self, context: &mut Context<'_>) {
        self.count(context);
        if let Some(attempt) = &self.attempt {
            if context.now.since(attempt.begun) > context.tuning.resend * 8 {
                self.attempt = None;
                self.failures += 1;
                self.back_off(context);
            } else if context.now.since(attempt.sent) >= context.tuning.resend {
                self.send_ballot(context);
            }
        } else if self.impediment.is_none() && self.propose_at.is_some_and(|due| due <= context.now) {
            self.propose_at = None;
            self.begin(context);
        }
    }

    fn begin(&mut self, context: &mut Context<'_>) {
        if self.electorate.len() < context.settings.quorum() as usize || !self.electorate.contains(&context.me()) {
            return;
        }
        self.round_seen += 1;
        let ballot = Ballot { round: self.round_seen, machine: context.me() };
        let now = context.now;
        self.attempt = Some(Attempt { ballot, begun: now, sent: now, promises: BTreeMap::new(), accept: None });
        // Our own promise, kept like anybody's. Nothing is sent before it is written.
        context.durable.promised = Some(ballot);
        context.effects.persist(context.durable).done();
        let accepted = context.durable.accepted.clone();
        self.send_ballot(context);
        self.promised(context, context.me(), Promise { ballot, accepted, cards: Vec::new() });
    }

    /// Sends the ballot's present question to everyone who has not answered it.
    fn send_ballot(&mut self, context: &mut Context<'_>) {
        let Some(attempt) = &mut self.attempt else { return };
        attempt.sent = context.now;
        let me = context.identity.machine();
        // In a large site not everybody is connected; those who are may vote although SWIM has not told of them.
        let connected = context.roster.connected_peers();
        let peers: BTreeSet<MachineId> = connected.chain(self.electorate.iter().copied()).collect();
        for peer in peers.into_iter().filter(|peer| *peer != me) {
            let frame = match &attempt.accept {
                None if !attempt.promises.contains_key(&peer) => Frame::Prepare(attempt.ballot),
                Some((charter, votes)) if !votes.contains_key(&peer) => {
                    Frame::Accept { ballot: attempt.ballot, charter: charter.clone() }
                }
                _ => continue,
            };
            context.effects.send(peer, frame);
        }
    }

    /// Phase 1a at the acceptor.
    pub(crate) fn prepare(&mut self, context: &mut Context<'_>, from: MachineId, ballot: Ballot) {
        if self.refuse(context, from, ballot) {
            return;
        }
        self.yield_to(context, ballot);
        context.durable.promised = Some(ballot);
        let promise = Promise {
            ballot,
            accepted: context.durable.accepted.clone().filter(|_| !planted("vote-untold")),
            cards: context.roster.cards_for(from, limits::CARDS_MAX, context.rng),
        };
        if planted("promise-before-disk") {
            context.effects.push(crate::Effect::Send { to: from, frame: Frame::Promise(promise.clone()) });
        }
        if planted("later-promise-unwritten") && ballot.round > 1 {
            return context.effects.push(crate::Effect::Send { to: from, frame: Frame::Promise(promise) });
        }
        context.effects.persist(context.durable).send(from, Frame::Promise(promise));
    }

    /// Phase 2a at the acceptor: the vote is on disk before it is signed away (promise S2).
    pub(crate) fn accept(&mut self, context: &mut Context<'_>, from: MachineId, ballot: Ballot, charter: Bytes) {
        if let Err(why) = fits(&charter, context) {
            refusal(context, from, ballot, RefusalCause::Unfit, why.to_owned());
            return;
        }
        if self.refuse(context, from, ballot) {
            return;
        }
        self.yield_to(context, ballot);
        let vote = cast(context, ballot, charter.clone());
        let frame = Frame::Accepted { cluster: context.cluster.to_owned(), vote };
        if planted("vote-before-disk") {
            context.effects.push(crate::Effect::Send { to: from, frame: frame.clone() });
        }
        context.effects.persist(context.durable).send(from, frame);
    }

    /// Whether the ballot is turned down, and if so, says why.
    fn refuse(&mut self, context: &mut Context<'_>, from: MachineId, ballot: Ballot) -> bool {
        self.round_seen = self.round_seen.max(ballot.round);
        self.count(context);
        // A ballot belongs to its proposer; and before the greeting we do not know what the peer knows of us.
        if ballot.machine != from || !context.roster.greeted(from) {
            context.roster.count(crate::Dropped::BallotOutOfPlace);
            return true;
        }
        let (cause, why) = if !context.votes_count(from) {
            let why = "the proposer's vote does not count here: other settings, a clone, or wiped";
            (RefusalCause::Uncounted, why.to_owned())
        } else if let Some(impediment) = &self.impediment {
            (RefusalCause::Halted, impediment.to_string())
        } else if context.durable.promised.is_some_and(|promised| promised > ballot) && !planted("promise-broken") {
            (RefusalCause::Outbid, String::new())
        } else {
            return false;
        };
        refusal(context, from, ballot, cause, why);
        true
    }

    /// Another machine's ballot goes on: ours waits.
    fn yield_to(&mut self, context: &mut Context<'_>, ballot: Ballot) {
        if self.attempt.as_ref().is_some_and(|attempt| attempt.ballot < ballot) {
            self.attempt = None;
        }
        if self.attempt.is_none() {
            self.back_off(context);
        }
    }

    /// A ballot was turned down.
    pub(crate) fn refused(&mut self, context: &mut Context<'_>, ballot: Ballot, promised: Ballot) {
        self.round_seen = self.round_seen.max(promised.round);
        if self.attempt.as_ref().is_some_and(|attempt| attempt.ballot == ballot) && promised > ballot {
            self.attempt = None;
            self.failures += 1;
            self.back_off(context);
        }
    }

    /// Phase 1b at the proposer.
    pub(crate) fn promised(&mut self, context: &mut Context<'_>, from: MachineId, promise: Promise) {
        self.count(context);
        if !context.votes_count(from) || self.impediment.is_some() {
            return;
        }
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.ballot == promise.ballot) else { return };
        if attempt.accept.is_some() {
            return;
        }
        attempt.promises.insert(from, promise.accepted);
        let quorum = context.settings.quorum() as usize - usize::from(planted("quorum-off-by-one"));
        if attempt.promises.len() < quorum {
            return;
        }
        // Whom a promiser's cards unmasked since then does not count any more.
        attempt.promises.retain(|machine, _| context.votes_count(*machine));
        if attempt.promises.len() < quorum {
            return;
        }
        // The value of the highest ballot anyone of this quorum voted in, or else one of our own (Lamport, P2c).
        let voted = attempt.promises.values().flatten();
        let highest = voted.max_by(|(a, _), (b, _)| if planted("lowest-value") { b.cmp(a) } else { a.cmp(b) });
        let highest = highest.filter(|_| !planted("value-ignored"));
        let charter = match highest {
            Some((_, charter)) => charter.clone(),
            None => own_charter(&self.electorate, context),
        };
        let ballot = attempt.ballot;
        attempt.accept = Some((charter.clone(), BTreeMap::new()));
        let vote = cast(context, ballot, charter);
        context.effects.persist(context.durable).done();
        self.send_ballot(context);
        self.accepted(context, vote);
    }

    /// Phase 2b at the proposer. A quorum of votes makes the certificate.
    pub(crate) fn accepted(&mut self, context: &mut Context<'_>, vote: Vote) {
        if !context.votes_count(vote.machine) {
            return;
        }
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.ballot == vote.ballot) else { return };
        let Some((charter, votes)) = attempt.accept.as_mut() else { return };
        if vote.charter_hash != charter_hash(charter) {
            return;
        }
        votes.insert(vote.machine, vote);
        let fewer = usize::from(planted("certificate-of-fewer"));
        if votes.len() + fewer < context.settings.quorum() as usize {
            return;
        }
        votes.retain(|machine, _| context.votes_count(*machine));
        if votes.len() + fewer < context.settings.quorum() as usize {
            return;
        }
        let votes: Vec<Vote> = votes.values().cloned().collect();
        if let Ok(certificate) = Certificate::new(charter.clone(), attempt.ballot, &votes) {
            self.certificate = Some(certificate);
            self.attempt = None;
        }
    }

    /// There is a charter: a ballot under way ends, too, and asks nobody for votes any more.
    pub(crate) fn end(&mut self) {
        self.attempt = None;
        self.propose_at = None;
    }

    /// The certificate this machine has just put together, once.
    pub(crate) fn take_certificate(&mut self) -> Option<Certificate> {
        self.certificate.take()
    }

    pub(crate) fn next_wakeup(&self, tuning: &Tuning) -> Option<(Time, &'static str)> {
        match &self.attempt {
            Some(attempt) => Some((attempt.sent + tuning.resend, "votes to ask for again")),
            None if self.impediment.is_none() => self.propose_at.map(|due| (due, "the time to propose a charter")),
            None => None,
        }
    }

    pub(crate) fn impediment(&self) -> Option<&Impediment> {
        self.impediment.as_ref()
    }

    pub(crate) fn electorate(&self) -> &BTreeSet<MachineId> {
        &self.electorate
    }

    /// Who has answered our ballot's present question, if we are proposing.
    pub(crate) fn answers(&self) -> Option<BTreeSet<MachineId>> {
        let attempt = self.attempt.as_ref()?;
        Some(match &attempt.accept {
            Some((_, votes)) => votes.keys().copied().collect(),
            None => attempt.promises.keys().copied().collect(),
        })
    }
}

/// Votes for a charter: notes it in the durable state and signs. The caller persists before anything is sent.
fn cast(context: &mut Context<'_>, ballot: Ballot, charter: Bytes) -> Vote {
    let hash = charter_hash(&charter);
    context.durable.promised = Some(ballot);
    if !planted("vote-not-kept") {
        context.durable.accepted = Some((ballot, charter));
    }
    Vote::sign(context.identity, context.cluster, ballot, hash)
}

fn refusal(context: &mut Context<'_>, to: MachineId, ballot: Ballot, cause: RefusalCause, why: String) {
    let promised = context.durable.promised.unwrap_or(ballot);
    context.effects.send(to, Frame::Refusal { ballot, promised, cause, why });
}

/// Whether a proposed charter is one that this machine's image would have.
fn fits(bytes: &[u8], context: &Context<'_>) -> Result<(), &'static str> {
    let charter = Charter::decode(bytes).map_err(|_| "the proposed charter is malformed")?;
    if charter.cluster != context.cluster {
        return Err("the proposed charter is for another cluster");
    }
    if charter.settings != context.settings.digest
        || charter.machines != context.settings.machines
        || charter.quorum != context.settings.quorum()
        || charter.control_planes as usize != seats(context.settings)
    {
        return Err("the proposed charter is of another image");
    }
    Ok(())
}

/// How many control planes a charter of this image names.
fn seats(settings: &Settings) -> usize {
    (settings.control_planes as usize).min(limits::VOTERS_MAX)
}

/// A charter with the lowest machines as voters, those first that can run kubeadm.
fn own_charter(electorate: &BTreeSet<MachineId>, context: &mut Context<'_>) -> Bytes {
    let me = context.me();
    let mut candidates: Vec<(bool, MachineId)> = electorate
        .iter()
        .map(|machine| match context.roster.card(*machine) {
            Some(card) if *machine != me => (card.able != Able::Yes, *machine),
            _ => (context.unable, *machine),
        })
        .collect();
    candidates.sort_unstable();
    let wanted = seats(context.settings);
    // With fewer machines than wanted control planes, an odd number: an even one bears no more losses than one less.
    let count = if candidates.len() >= wanted { wanted } else { candidates.len() - (candidates.len() + 1) % 2 };
    let mut voters: Vec<MachineId> = candidates.into_iter().take(count).map(|(_, machine)| machine).collect();
    voters.sort_unstable();
    let mut id = [0; 16];
    context.rng.fill_bytes(&mut id);
    Charter {
        cluster: context.cluster.to_owned(),
        id,
        voters,
        kubernetes_version: context.settings.kubernetes_version.clone(),
        settings: context.settings.digest,
        machines: context.settings.machines,
        quorum: context.settings.quorum(),
        control_planes: wanted as u32,
    }
    .encode()
}

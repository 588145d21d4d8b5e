//! Following the ledger: voters hear from their own Raft, everyone else asks a voter "what changed since revision R?"
//! and is answered when something did. Proposals go the other way, to whoever leads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use muster_wire::frame::ProposalOutcome;
use muster_wire::{Certificate, Charter, Entry, Frame, LedgerNews, MachineId, Removal, WireError, limits};

use crate::ledger::Refusal;
use crate::planted::planted;
use crate::roster::Roster;
use crate::tuning::Tuning;
use crate::{Effect, Effects, Ledger, Time};

/// Entries kept for pollers that are a little behind; who is further behind gets the whole ledger.
const RECENT_MAX: usize = 256;

/// Most polls held at once: every machine of the largest site has at most one.
const ASKERS_MAX: usize = limits::MACHINES_MAX as usize;

/// Most proposals of others in this leader's hands at once.
const RELAYED_MAX: usize = 1_024;

/// After so many polls without an answer whoever else is here is asked as well.
const UNANSWERED_MAX: u32 = 3;

/// How long a voter is told nothing by its Raft before it asks the others as well, whoever leads: nobody tells one that was taken out.
const UNTOLD: Duration = Duration::from_secs(60);

/// How long a voter hears no other leader before it asks the others as well: it may have been removed, and its Raft be heard by nobody. One
/// that led when it stopped believes that it leads when it is back.
const ORPHANED: Duration = Duration::from_secs(10);

/// Calls are numbered from the machine's count of boots, so many bits further up.
const BOOT_BITS: u32 = 32;

/// What a proposal is about: a later one about the same thing replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject(pub(crate) &'static str, pub(crate) MachineId, pub(crate) u32);

#[derive(Debug)]
struct Asked {
    entry: Entry,
    call: u64,
    sent: Option<Time>,
    /// How often it was sent.
    turn: usize,
    /// The revision at which it was committed, as the leader says: what came of it is seen when the ledger is that far.
    committed: Option<u64>,
}

impl Asked {
    /// How long to wait for its effect before it is proposed once more.
    fn patience(&self, ledger: &Ledger, tuning: &Tuning) -> Duration {
        let on_its_way = self.committed.is_some_and(|revision| revision > ledger.revision());
        if on_its_way { tuning.poll_hold } else { tuning.resend * 2 }
    }
}

#[derive(Debug)]
struct Poll {
    call: u64,
    to: MachineId,
    sent: Time,
    /// Whether this machine knows of no vote that it has: then it may answer nobody.
    by_chance: bool,
}

#[derive(Debug)]
struct Asker {
    call: u64,
    since: u64,
    asked: Time,
}

/// What this machine came to in the ledger and cannot read: from there on it applies nothing, and skips nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beyond {
    /// An entry, or a whole ledger, as people read it.
    pub(crate) what: String,
    /// Why it cannot be read here.
    pub(crate) why: WireError,
}

/// This machine's copy of the ledger and its ways to and from it.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    ledger: Ledger,
    /// The highest level of the ledger that this machine knows.
    known: u32,
    beyond: Option<Beyond>,
    /// The last entries, all there are after revision `floor`.
    recent: VecDeque<(u64, Bytes)>,
    floor: u64,
    /// Whether this machine runs Raft.
    pub(crate) raft: bool,
    /// Whether its Raft has told anything yet: a control plane admitted later asks others until Raft has taken it in.
    fed: bool,
    pub(crate) leader: Option<MachineId>,
    pub(crate) term: u64,
    poll: Option<Poll>,
    poll_turn: usize,
    /// How many polls in a row were not answered: who was known as a voter may have been removed, and answer nobody.
    unanswered: u32,
    askers: BTreeMap<MachineId, Asker>,
    /// The askers in the order of their polls, with the poll's number: the next hold to end is the first of them.
    holds: VecDeque<(Time, MachineId, u64)>,
    /// Whether there may be news for an asker.
    news: bool,
    /// When the askers are answered.
    answer_at: Option<Time>,
    asked: BTreeMap<Subject, Asked>,
    relayed: BTreeMap<u64, (MachineId, u64)>,
    calls: u64,
    /// When a voter last said that this machine is not admitted.
    pub(crate) turned_down: bool,
    /// What a voter said of this machine's removal.
    removal: Option<Removal>,
    /// Whether this machine is admitted.
    member: bool,
    /// Whether this machine was removed, and nothing is to be asked any more.
    gone: bool,
    /// Who takes part in Raft, as this machine's own has it; none if it has not said.
    members: BTreeSet<MachineId>,
    /// Whom this machine's own Raft follows, or that it leads.
    led: Option<MachineId>,
    /// Since when this machine runs Raft and was told nothing by it, and how long that may be.
    quiet: Duration,
    orphaned: Option<Time>,
    changed: bool,
}

impl Follow {
    /// Calls are numbered from the machine's count of boots: an answer to an earlier start of it may still come, and would
    /// bring the entries after those that only that start had.
    pub(crate) fn new(boot: u64, known: u32) -> Self {
        let calls = if crate::planted::planted("calls-begin-anew") { 0 } else { boot << BOOT_BITS };
        Self { calls, known, ..Self::default() }
    }

    /// A charter is followed from now on: its ledger is empty, as far as this machine knows.
    pub(crate) fn founded(&mut self, charter: &Charter) {
        self.ledger = Ledger::founded(charter);
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// This machine's Raft says who takes part.
    pub(crate) fn takes_part(&mut self, me: MachineId, members: BTreeSet<MachineId>) {
        self.changed = true;
        // Whoever is taken out of Raft is told nothing by it any more, and asks as everybody else does.
        self.fed &= members.contains(&me);
        self.news = true;
        self.members = members;
    }

    /// Who takes part in Raft, as this machine's own has it; none if it has not said.
    pub(crate) fn members(&self) -> &BTreeSet<MachineId> {
        &self.members
    }

    /// Whether this machine has a vote in Raft, or may be given one, as far as it knows. One that was told by another voter that it was removed has none: nobody
    /// says so before.
    pub(crate) fn votes(&self, me: MachineId) -> bool {
        self.raft && self.removal.is_none() && (self.members.is_empty() || self.members.contains(&me))
    }

    /// What becomes of this machine, if the ledger says that it was removed.
    pub(crate) fn removal(&self, me: MachineId) -> Option<Removal> {
        self.removal.or(self.ledger.removal(me))
    }

    /// Whether the ledger or leadership changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Where it came to what it cannot read.
    pub(crate) fn beyond(&self) -> Option<&Beyond> {
        self.beyond.as_ref()
    }

    /// An entry cannot be read here: this machine goes no further.
    fn stop(&mut self, revision: u64, why: WireError) {
        if crate::planted::planted("unknown-entry-skipped") {
            return self.ledger.skip(revision);
        }
        self.beyond = Some(Beyond { what: format!("the entry at revision {revision}"), why });
    }

    /// Raft, or a voter's answer, brought an entry. Returns it, and what the rules say of it.
    pub(crate) fn applied(&mut self, revision: u64, bytes: Bytes) -> Option<(Entry, Result<(), Refusal>)> {
        if revision <= self.ledger.revision() || self.beyond.is_some() {
            return None;
        }
        self.changed = true;
        let entry = match Entry::decode_at(bytes.clone(), self.known) {
            Ok(entry) => entry,
            Err(why) => {
                self.stop(revision, why);
                return None;
            }
        };
        self.news = true;
        let fate = self.ledger.apply(revision, &entry);
        self.recent.push_back((revision, bytes));
        if self.recent.len() > RECENT_MAX
            && let Some((dropped, _)) = self.recent.pop_front()
        {
            self.floor = dropped;
        }
        Some((entry, fate))
    }

    /// A whole ledger came: from disk at start, from a Raft snapshot, or from a voter.
    pub(crate) fn restored(&mut self, bytes: &[u8]) -> bool {
        let ledger = match Ledger::decode(bytes, self.known) {
            Ok(ledger) => ledger,
            Err(why @ WireError::Level { .. }) => {
                self.beyond = Some(Beyond { what: "the ledger as a whole".to_owned(), why });
                self.changed = true;
                return true;
            }
            Err(_) => return false,
        };
        if ledger.revision() >= self.ledger.revision() {
            if !crate::planted::planted("floor-forgotten") {
                self.floor = ledger.revision();
            }
            self.recent.clear();
            self.ledger = ledger;
            self.changed = true;
            self.news = true;
        }
        true
    }

    /// This machine's own Raft spoke.
    pub(crate) fn fed(&mut self, me: MachineId) {
        self.fed = self.members.is_empty() || self.members.contains(&me);
        if self.led.is_some_and(|leader| leader != me) {
            self.orphaned = None;
        }
    }

    /// This machine's own Raft says who leads.
    pub(crate) fn raft_leading(&mut self, term: u64, leader: Option<MachineId>) {
        self.led = leader;
        self.leading(term, leader);
    }

    pub(crate) fn leading(&mut self, term: u64, leader: Option<MachineId>) {
        if (self.term, self.leader) != (term, leader) {
            self.changed = true;
            self.term = term;
            self.leader = leader;
            // Whoever was asked may not lead any more.
            for asked in self.asked.values_mut() {
                (asked.sent, asked.turn) = (None, 0);
            }
        }
    }

    /// A connection to `peer` stands anew. What was asked of it before is lost, with the former connection or for want of
    /// one, and a voter may hold a question for long: it is asked again.
    pub(crate) fn connected(&mut self, peer: MachineId) {
        self.poll.take_if(|poll| poll.to == peer);
    }

    /// The connection to `peer` is gone, and its answer with it: another voter is asked.
    pub(crate) fn disconnected(&mut self, peer: MachineId) {
        if self.poll.take_if(|poll| poll.to == peer).is_some() {
            self.poll_turn += 1;
        }
    }

    /// What this machine wants committed now. What is not in `wants` any more is forgotten.
    pub(crate) fn want(&mut self, wants: BTreeMap<Subject, Entry>) {
        self.asked.retain(|subject, asked| wants.get(subject).is_some_and(|entry| *entry == asked.entry));
        for (subject, entry) in wants {
            self.asked.entry(subject).or_insert_with(|| {
                self.calls += 1;
                Asked { entry, call: self.calls, sent: None, turn: 0, committed: None }
            });
        }
    }

    /// A voter was asked for news by `from`.
    pub(crate) fn asked(&mut self, now: Time, from: MachineId, call: u64, since: u64) {
        let known = self.askers.get(&from).map(|asker| asker.call);
        // A question that waited for a connection may come after a later one, whose answer is the one that is waited for.
        let late = known.is_some_and(|known| known >> BOOT_BITS == call >> BOOT_BITS && call < known);
        let late = late && !crate::planted::planted("poll-overtaken");
        if self.raft && !late && (self.askers.len() < ASKERS_MAX || known.is_some()) {
            self.askers.insert(from, Asker { call, since, asked: now });
            self.holds.push_back((now, from, call));
            self.news = true;
        }
    }

    /// A voter answered.
    pub(crate) fn news(&mut self, from: MachineId, news: LedgerNews) -> Vec<(Entry, Result<(), Refusal>)> {
        let ours = self.poll.take_if(|poll| poll.call == news.call && poll.to == from).is_some();
        if ours {
            self.unanswered = 0;
        }
        if ours && news.removal.is_some() && self.removal != news.removal {
            self.removal = news.removal;
            self.changed = true;
        }
        // While Raft feeds the ledger, news is at best old. If this machine was not removed, it is asked again after a while.
        if !ours || self.fed {
            self.orphaned.take_if(|_| ours);
            return Vec::new();
        }
        if news.leader.is_some() && news.leader != self.leader {
            self.leading(self.term, news.leader);
        }
        if self.turned_down != news.not_admitted {
            self.turned_down = news.not_admitted;
            self.changed = true;
        }
        if let Some(state) = news.state {
            self.restored(&state);
        }
        let skipped = |index: &usize| crate::planted::planted("entry-skipped") && index % 7 == 3;
        let entries = news.entries.into_iter().enumerate().filter(|(index, _)| !skipped(index)).map(|(_, entry)| entry);
        entries.filter_map(|(revision, entry)| self.applied(revision, entry)).collect()
    }

    /// This leader was handed a proposal. What its sender may not propose never comes here.
    pub(crate) fn relay(&mut self, from: MachineId, call: u64, entry: Entry, effects: &mut Effects) {
        // Asked again while the first question is under way: one entry is enough, and its answer is for both.
        if self.relayed.len() >= RELAYED_MAX || self.relayed.values().any(|known| *known == (from, call)) {
            return;
        }
        self.calls += 1;
        self.relayed.insert(self.calls, (from, call));
        effects.push(Effect::Propose { call: self.calls, entry });
    }

    /// Raft, or the asked leader, says what came of a proposal. Returns an entry of this machine's that was refused, and why.
    pub(crate) fn proposed(
        &mut self,
        now: Time,
        call: u64,
        outcome: ProposalOutcome,
        effects: &mut Effects,
    ) -> Option<(Entry, String)> {
        if let Some((from, call)) = self.relayed.remove(&call) {
            effects.send(from, Frame::ProposalAnswer { call, outcome });
            return None;
        }
        let asked = self.asked.values_mut().find(|asked| asked.call == call)?;
        match outcome {
            // Taken or refused by a rule: either way the ledger says what follows. Asked again only after a while.
            ProposalOutcome::Applied(revision) => (asked.sent, asked.committed) = (Some(now), Some(revision)),
            ProposalOutcome::Refused(why) => {
                asked.sent = Some(now);
                return Some((asked.entry.clone(), why));
            }
            ProposalOutcome::NotLeading(leader) => {
                if leader.is_some() && leader != self.leader {
                    asked.sent = None;
                    self.leader = leader;
                    self.changed = true;
                }
            }
        }
        None
    }

    /// Answers held polls, sends polls and proposals that are due.
    pub(crate) fn run(
        &mut self,
        now: Time,
        me: MachineId,
        charter: &Certificate,
        roster: &Roster,
        tuning: &Tuning,
        effects: &mut Effects,
    ) {
        self.answer_askers(now, tuning, effects);
        let voters = self.voters(me, charter);
        self.member = self.ledger.member(me).is_some();
        self.gone = self.removal.is_some() || self.ledger.was_removed(me) && !self.votes(me);
        self.note_leader(now, me);
        if !self.asks(now) || self.gone {
            // Whatever was asked before, its answer is not waited for.
            self.poll = None;
        } else if !self.waits_for_answer(now, roster, tuning) {
            self.ask(now, me, &voters, charter, roster, effects);
        }
        self.send_proposals(now, me, &voters, roster, tuning, effects);
    }

    /// Whether a machine was removed, and has no vote in Raft any more: what takes a vote away may need it.
    fn is_out(&self, machine: MachineId) -> bool {
        // Who knows nothing of Raft's members yet cannot say that it is none.
        let known = !self.members.is_empty();
        self.ledger.was_removed(machine) && known && !self.members.contains(&machine)
    }

    fn note_leader(&mut self, now: Time, me: MachineId) {
        // What others say of a leader is no sign that this machine's own Raft hears one; and one that is taken out of Raft is told nothing more.
        let led = self.led.is_some_and(|leader| leader != me) && self.ledger.leaving() != Some(me);
        self.quiet = if led { UNTOLD } else { ORPHANED };
        self.orphaned = self.raft.then(|| self.orphaned.unwrap_or(now));
    }

    /// Whether it hears of the ledger from others.
    fn asks(&self, now: Time) -> bool {
        let orphaned = self.orphaned.is_some_and(|since| now.since(since) >= self.quiet);
        !self.fed || orphaned && !crate::planted::planted("removed-asks-nobody")
    }

    fn answer_askers(&mut self, now: Time, tuning: &Tuning, effects: &mut Effects) {
        // A machine's disk may be an old copy, and count its calls anew: the number alone does not tell a later poll from a
        // held one.
        let current = |askers: &BTreeMap<MachineId, Asker>, machine: &MachineId, call: u64, asked: Time| {
            askers.get(machine).is_some_and(|asker| asker.call == call && asker.asked == asked)
        };
        while let Some((asked, machine, call)) = self.holds.front().copied() {
            if current(&self.askers, &machine, call, asked) {
                if now.since(asked) < tuning.poll_hold {
                    break;
                }
                self.news = true;
                break;
            }
            self.holds.pop_front();
        }
        if std::mem::take(&mut self.news) {
            self.answer_at.get_or_insert(now + gather(self.askers.len()));
        }
        if self.answer_at.take_if(|due| *due <= now).is_none() {
            return;
        }
        let newest = self.recent.back().map_or(self.floor, |(revision, _)| *revision);
        let mut answers = Vec::new();
        for (machine, asker) in &self.askers {
            let admitted = self.ledger.member(*machine).is_some() || crate::planted::planted("ledger-for-strangers");
            let behind = asker.since < newest || asker.since < self.floor;
            let removed = self.is_out(*machine);
            if (admitted && behind) || removed || now.since(asker.asked) >= tuning.poll_hold {
                let admitted = admitted && (behind || !crate::planted::planted("admitted-told-stranger"));
                answers.push((*machine, admitted));
            }
        }
        for (machine, admitted) in answers {
            if let Some(asker) = self.askers.remove(&machine) {
                let removal = self.ledger.removal(machine).filter(|_| self.is_out(machine));
                effects.send(machine, Frame::LedgerNews(LedgerNews { removal, ..self.answer(&asker, admitted) }));
            }
        }
    }

    /// News for one asker. Who is not admitted reads nothing of the ledger (promise S6).
    fn answer(&self, asker: &Asker, admitted: bool) -> LedgerNews {
        let mut news = LedgerNews {
            call: asker.call,
            revision: 0,
            entries: Vec::new(),
            state: None,
            not_admitted: !admitted,
            leader: self.leader,
            removal: None,
        };
        if !admitted && !crate::planted::planted("ledger-for-strangers") {
            return news;
        }
        news.revision = self.ledger.revision();
        if asker.since < self.floor {
            news.state = Some(self.ledger.encode().into());
            return news;
        }
        let mut bytes = 0;
        for (revision, entry) in self.recent.iter().filter(|(revision, _)| *revision > asker.since) {
            bytes += entry.len();
            if news.entries.len() >= limits::NEWS_ENTRIES_MAX || bytes > limits::FRAME_BYTES_MAX / 2 {
                break;
            }
            news.entries.push((*revision, entry.clone()));
        }
        news
    }

    /// Who votes as far as this machine knows: the charter's voters and the control planes admitted later.
    fn voters(&self, me: MachineId, charter: &Certificate) -> Vec<MachineId> {
        let mut voters = charter.charter().voters.clone();
        voters.extend(self.ledger.control_planes());
        voters.sort_unstable();
        voters.dedup();
        voters.retain(|voter| *voter != me && !self.ledger.was_removed(*voter));
        voters
    }

    /// Whether those who are known to vote may have been replaced: none of them is there any more, or none answers.
    fn is_lost(&self, voters: &[MachineId], roster: &Roster) -> bool {
        let nobody = !self.raft && !voters.iter().any(|voter| roster.is_alive(*voter));
        (nobody || self.unanswered >= UNANSWERED_MAX) && !planted("founders-alone-asked")
    }

    /// Whom to ask where the voters may have been replaced, as for a newcomer to a cluster whose founders are all gone: each second question is
    /// for whoever is here and follows the charter, since those that vote answer. The others are still for the voters, who may merely not be
    /// connected, and are dialled for it.
    fn whom_else_to_ask(&self, voters: &[MachineId], charter: &Certificate, roster: &Roster) -> Vec<MachineId> {
        if self.poll_turn.is_multiple_of(2) && !voters.is_empty() {
            return voters.to_vec();
        }
        let ours = Some(charter.charter_hash());
        let follows = |peer: &MachineId| roster.card(*peer).is_some_and(|card| card.charter == ours);
        let mut all = voters.to_vec();
        all.extend(roster.connected_peers().filter(|peer| roster.greeted(*peer)).filter(follows));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether a poll is under way whose answer may still come.
    fn waits_for_answer(&mut self, now: Time, roster: &Roster, tuning: &Tuning) -> bool {
        let Some(poll) = &self.poll else { return false };
        let gone = !roster.is_connected(poll.to) || !roster.is_alive(poll.to);
        let lost = gone && now.since(poll.sent) >= tuning.resend;
        if !lost && now.since(poll.sent) < self.patience(poll, tuning) || crate::planted::planted("polls-stop") {
            return true;
        }
        self.poll_turn += 1;
        self.unanswered = self.unanswered.saturating_add(1);
        false
    }

    fn ask(
        &mut self,
        now: Time,
        me: MachineId,
        voters: &[MachineId],
        charter: &Certificate,
        roster: &Roster,
        effects: &mut Effects,
    ) {
        // Both lists are gone through, each at its own turns.
        let (asks, turn) = match self.is_lost(voters, roster) {
            true => (self.whom_else_to_ask(voters, charter, roster), self.poll_turn / 2),
            false => (voters.to_vec(), self.poll_turn),
        };
        if asks.is_empty() {
            // There is nobody to ask; it looks again later.
            self.orphaned = self.orphaned.map(|_| now);
            return;
        }
        // Machines begin at different voters, which spreads the load; connected ones come first.
        let start = usize::from(me.0[31]) + turn;
        let mut order = (0..asks.len()).map(|step| asks[(start + step) % asks.len()]);
        let Some(to) = order.clone().find(|voter| roster.is_connected(*voter)).or_else(|| order.next()) else { return };
        self.calls += 1;
        self.poll = Some(Poll { call: self.calls, to, sent: now, by_chance: !voters.contains(&to) });
        effects.send(to, Frame::LedgerPoll { call: self.calls, since: self.ledger.revision() });
    }

    /// How long a poll may take. A voter holds one of who is up to date; of who knows nothing yet it is held for as long as
    /// admission takes, which is a moment, so that this one is rather lost, with a connection that made way for another. Whoever has news is
    /// not long about it, and one who is asked by chance may have no vote.
    fn patience(&self, poll: &Poll, tuning: &Tuning) -> Duration {
        let newcomer = !self.member && !self.turned_down;
        if newcomer || poll.by_chance { tuning.resend * 2 } else { tuning.poll_hold + tuning.resend * 4 }
    }

    fn send_proposals(
        &mut self,
        now: Time,
        me: MachineId,
        voters: &[MachineId],
        roster: &Roster,
        tuning: &Tuning,
        effects: &mut Effects,
    ) {
        let connected: Vec<MachineId> = voters.iter().copied().filter(|voter| roster.is_connected(*voter)).collect();
        for (index, asked) in self.asked.values_mut().enumerate() {
            if asked.sent.is_some_and(|sent| now.since(sent) < asked.patience(&self.ledger, tuning)) {
                continue;
            }
            asked.sent = Some(now);
            if self.leader == Some(me) {
                effects.push(Effect::Propose { call: asked.call, entry: asked.entry.clone() });
                continue;
            }
            // A leader that did not answer may be gone: then any voter, who knows better. Or it was asked by too many at once:
            // then the leader again, which is not connected to all of a large site.
            asked.turn += 1;
            let any = connected.iter().copied().cycle().nth((asked.turn / 2 + index) % connected.len().max(1));
            let to = if asked.turn.is_multiple_of(2) { any.or(self.leader) } else { self.leader.or(any) };
            if let Some(to) = to {
                effects.send(to, Frame::Proposal { call: asked.call, entry: asked.entry.encode() });
            }
        }
    }

    pub(crate) fn next_wakeup(&self, tuning: &Tuning) -> Option<(Time, &'static str)> {
        let held = self.holds.front().map(|(asked, ..)| (*asked + tuning.poll_hold, "a poll to answer"));
        let answer = self.answer_at.map(|due| (due, "polls to answer")).or(held);
        let poll = self.poll.as_ref().map(|poll| (poll.sent + self.patience(poll, tuning), "a poll's answer"));
        let due = |asked: &Asked| Some(asked.sent? + asked.patience(&self.ledger, tuning));
        let asked = self.asked.values().filter_map(due).min().map(|due| (due, "a proposal's effect"));
        let orphaned = self.orphaned.filter(|_| self.fed && self.poll.is_none() && !self.gone);
        let orphaned = orphaned.map(|since| (since + self.quiet, "a leader that is missing"));
        answer.into_iter().chain(poll).chain(asked).chain(orphaned).min()
    }

    /// What this machine wants committed and has not seen committed yet.
    pub(crate) fn waiting_for(&self) -> impl Iterator<Item = &Entry> + '_ {
        self.asked.values().map(|asked| &asked.entry)
    }
}

/// How long news is gathered for this many askers. In a small site every entry is told at once; in one of a thousand machines,
/// whose joins are thousands of entries, telling each of them to everybody by itself would be millions of frames.
fn gather(askers: usize) -> Duration {
    if askers <= limits::MESH_FULL { Duration::ZERO } else { Duration::from_micros(100) * askers as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_that_comes_late_leaves_the_later_one_in_place() {
        let (mut voter, follower) = (Follow { raft: true, ..Follow::default() }, MachineId([1; 32]));
        let mut asked = |call: u64| {
            voter.asked(Time::default(), follower, call, 0);
            voter.askers[&follower].call
        };
        assert_eq!(asked(3 << BOOT_BITS | 2), 3 << BOOT_BITS | 2);
        assert_eq!(asked(3 << BOOT_BITS | 1), 3 << BOOT_BITS | 2);
        assert_eq!(asked(3 << BOOT_BITS | 3), 3 << BOOT_BITS | 3);
        // Of a machine whose disk is an old copy, and counts its calls anew.
        assert_eq!(asked(2 << BOOT_BITS | 1), 2 << BOOT_BITS | 1);
    }
}

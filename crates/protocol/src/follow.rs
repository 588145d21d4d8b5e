//! Following the ledger: voters hear from their own Raft, everyone else asks a voter "what changed since revision R?"
//! and is answered when something did. Proposals go the other way, to whoever leads.

mod answers;
mod polls;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use muster_wire::frame::ProposalOutcome;
use muster_wire::{
    BootCount, CallNumber, Certificate, Charter, Entry, Epoch, Frame, LedgerNews, MachineId, Removal, Revision,
    Subject, WireError,
};

use self::answers::Asker;
use self::polls::Poll;
use crate::RaftMembers;
use crate::ledger::Refusal;
use crate::roster::Roster;
use crate::tuning::Tuning;
use crate::{Effect, Effects, Ledger, Time};

/// Entries kept for pollers that are a little behind; who is further behind gets the whole ledger.
const RECENT_MAX: usize = 256;

/// Most proposals of others in this leader's hands at once.
const RELAYED_MAX: usize = 1_024;

/// Calls are numbered from the machine's count of boots, so many bits further up.
const BOOT_BITS: u32 = 32;

/// The entries that this machine's parts want, by what they are about: a later one about the same thing replaces it.
#[derive(Debug, Default)]
pub(crate) struct Wants(BTreeMap<Subject, Entry>);

impl Wants {
    pub(crate) fn want(&mut self, entry: Entry) {
        self.0.insert(entry.subject(), entry);
    }

    /// What is wanted so far.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.values()
    }
}

#[derive(Debug)]
struct Asked {
    entry: Entry,
    call: CallNumber,
    sent: Option<Time>,
    /// How often it was sent.
    turn: usize,
    /// The revision at which it was committed, as the leader says: what came of it is seen when the ledger is that far.
    committed: Option<Revision>,
}

impl Asked {
    /// How long to wait for its effect before it is proposed once more.
    fn patience(&self, ledger: &Ledger, tuning: &Tuning) -> Duration {
        let on_its_way = self.committed.is_some_and(|revision| revision > ledger.revision());
        if on_its_way { tuning.poll_hold } else { tuning.resend * 2 }
    }
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
    recent: VecDeque<(Revision, Bytes)>,
    floor: Revision,
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
    holds: VecDeque<(Time, MachineId, CallNumber)>,
    /// Whether there may be news for an asker.
    news: bool,
    /// When the askers are answered.
    answer_at: Option<Time>,
    asked: BTreeMap<Subject, Asked>,
    relayed: BTreeMap<CallNumber, (MachineId, CallNumber)>,
    calls: CallNumber,
    /// When a voter last said that this machine is not admitted.
    pub(crate) turned_down: bool,
    /// The latest epoch that a member was seen to follow, if that is later than this machine's.
    later: Option<Epoch>,
    /// What a voter said of this machine's removal.
    removal: Option<Removal>,
    /// Whether this machine is admitted.
    member: bool,
    /// Whether this machine was removed, and nothing is to be asked any more.
    gone: bool,
    /// Who takes part in Raft, as this machine's own has it; none if it has not said.
    members: RaftMembers,
    /// Whom this machine's own Raft follows, or that it leads.
    led: Option<MachineId>,
    /// Since when this machine runs Raft and was told nothing by it.
    orphaned: Option<Time>,
    /// How long that may be.
    quiet: Duration,
    /// What another voter had meanwhile, while that is later than what its own Raft has told: who votes now, this machine may not know.
    seen: Option<Ledger>,
    changed: bool,
}

impl Follow {
    /// Calls are numbered from the machine's count of boots: an answer to an earlier start of it may still come, and would
    /// bring the entries after those that only that start had.
    pub(crate) fn new(boot: BootCount, known: u32) -> Self {
        let calls = if crate::planted::planted("calls-begin-anew") {
            CallNumber::NONE
        } else {
            CallNumber(boot.0 << BOOT_BITS)
        };
        Self { calls, known, ..Self::default() }
    }

    /// A charter is followed from now on: its ledger is empty, as far as this machine knows.
    pub(crate) fn founded(&mut self, charter: &Charter) {
        self.ledger = Ledger::founded(charter);
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The latest ledger that this machine has seen, be it another voter's. It says whose Raft is answered, and nothing else.
    pub(crate) fn latest(&self) -> &Ledger {
        self.seen.as_ref().filter(|seen| seen.supersedes(&self.ledger)).unwrap_or(&self.ledger)
    }

    /// This machine's Raft says who takes part.
    pub(crate) fn takes_part(&mut self, me: MachineId, members: RaftMembers) {
        self.changed = true;
        // Whoever is taken out of Raft is told nothing by it any more, and asks as everybody else does.
        self.fed &= members.all.contains(&me);
        self.news = true;
        self.members = members;
    }

    /// Who takes part in Raft, as this machine's own has it; none if it has not said.
    pub(crate) fn members(&self) -> &RaftMembers {
        &self.members
    }

    /// Whether this machine has a vote in Raft, or may be given one, as far as it knows. One that was told by another voter that it was removed has
    /// none: nobody says so before.
    pub(crate) fn votes(&self, me: MachineId) -> bool {
        self.raft && self.removal.is_none() && (self.members.all.is_empty() || self.members.all.contains(&me))
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
    fn stop(&mut self, revision: Revision, why: WireError) {
        if crate::planted::planted("unknown-entry-skipped") {
            return self.ledger.skip(revision);
        }
        self.beyond = Some(Beyond { what: format!("the entry at revision {revision}"), why });
    }

    /// Raft, or a voter's answer, brought an entry. Returns it, and what the rules say of it.
    pub(crate) fn applied(&mut self, revision: Revision, bytes: Bytes) -> Option<(Entry, Result<(), Refusal>)> {
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
        self.seen.take_if(|seen| seen.revision() <= revision);
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
        if ledger.supersedes(&self.ledger) {
            if !crate::planted::planted("floor-forgotten") {
                self.floor = ledger.revision();
            }
            self.recent.clear();
            self.seen.take_if(|seen| ledger.supersedes(seen));
            self.ledger = ledger;
            self.later = self.later();
            self.changed = true;
            self.news = true;
        }
        true
    }

    /// This machine's own Raft spoke.
    pub(crate) fn fed(&mut self, me: MachineId) {
        self.fed = self.members.all.is_empty() || self.members.all.contains(&me);
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
    pub(crate) fn want(&mut self, Wants(wants): Wants) {
        self.asked.retain(|subject, asked| wants.get(subject).is_some_and(|entry| *entry == asked.entry));
        for (subject, entry) in wants {
            self.asked.entry(subject).or_insert_with(|| {
                self.calls = self.calls.next();
                Asked { entry, call: self.calls, sent: None, turn: 0, committed: None }
            });
        }
    }

    /// A voter answered.
    pub(crate) fn news(&mut self, from: MachineId, news: LedgerNews) -> Vec<(Entry, Result<(), Refusal>)> {
        let Some(poll) = self.poll.take_if(|poll| poll.call == news.call && poll.to == from) else { return Vec::new() };
        self.unanswered = 0;
        if news.removal.is_some() && self.removal != news.removal {
            self.removal = news.removal;
            self.changed = true;
        }
        // While Raft feeds the ledger, its own is not made of news. If this machine was not removed, it asks again after a while, and another one:
        // whoever was away with it knows no more.
        if self.fed || poll.looks_ahead {
            (self.orphaned, self.poll_turn) = (None, self.poll_turn + 1);
            if !crate::planted::planted("successors-refused") {
                self.look_ahead(&news);
            }
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
    pub(crate) fn relay(&mut self, from: MachineId, call: CallNumber, entry: Entry, effects: &mut Effects) {
        // Asked again while the first question is under way: one entry is enough, and its answer is for both.
        if self.relayed.len() >= RELAYED_MAX || self.relayed.values().any(|known| *known == (from, call)) {
            return;
        }
        self.calls = self.calls.next();
        self.relayed.insert(self.calls, (from, call));
        effects.push(Effect::Propose { call: self.calls, entry });
    }

    /// Raft, or the asked leader, says what came of a proposal. Returns an entry of this machine's that was refused, and why.
    pub(crate) fn proposed(
        &mut self,
        now: Time,
        call: CallNumber,
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

//! Asking: voters hear from their own Raft, everyone else asks one voter after the other.

use std::time::Duration;

use muster_wire::{CallNumber, Certificate, Entry, Epoch, Frame, LedgerNews, MachineId};

use super::Follow;
use crate::planted::planted;
use crate::roster::Roster;
use crate::tuning::Tuning;
use crate::{Effects, Ledger, Time};

/// After so many polls without an answer whoever else is here is asked as well.
const UNANSWERED_MAX: u32 = 3;

/// How long a voter is told nothing by its Raft before it asks the others as well, whoever leads: nobody tells one that was taken out.
const UNTOLD: Duration = Duration::from_secs(60);

/// How long a voter hears no other leader before it asks the others as well: it may have been removed, and its Raft be heard by nobody. One
/// that led when it stopped believes that it leads when it is back.
const ORPHANED: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Poll {
    pub(super) call: CallNumber,
    pub(super) to: MachineId,
    pub(super) sent: Time,
    /// Whether this machine knows of no vote that it has: then it may answer nobody.
    by_chance: bool,
    /// Whether it goes on from the latest ledger that was seen: this machine's own is fed by Raft.
    pub(super) looks_ahead: bool,
}

impl Follow {
    pub(super) fn note_leader(&mut self, now: Time, me: MachineId) {
        // What others say of a leader is no sign that this machine's own Raft hears one; and one that is taken out of Raft is told nothing more.
        let led = self.led.is_some_and(|leader| leader != me) && self.ledger.leaving() != Some(me);
        self.quiet = if led { UNTOLD } else { ORPHANED };
        self.orphaned = self.raft.then(|| self.orphaned.unwrap_or(now));
    }

    /// Whether it hears of the ledger from others.
    pub(super) fn asks(&self, now: Time) -> bool {
        let orphaned = self.orphaned.is_some_and(|since| now.since(since) >= self.quiet);
        !self.fed || orphaned && !crate::planted::planted("removed-asks-nobody")
    }

    /// Who votes as far as this machine knows: the charter's voters and the control planes admitted later.
    pub(super) fn voters(&self, me: MachineId, charter: &Certificate) -> Vec<MachineId> {
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
        (nobody || self.unanswered >= UNANSWERED_MAX || self.later().is_some()) && !planted("founders-alone-asked")
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
        all.extend(roster.greeted_peers().filter(follows));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Asks these machines what they have, whether they vote or not. Returns the number that their answers repeat.
    pub(crate) fn survey(&mut self, machines: impl Iterator<Item = MachineId>, effects: &mut Effects) -> CallNumber {
        self.calls = self.calls.next();
        let (call, since, epoch) = (self.calls, self.ledger.revision(), self.ledger.epoch());
        machines.for_each(|to| effects.send(to, Frame::LedgerPoll { call, since, epoch, survey: true }));
        call
    }

    /// The ledger that somebody has who answered a survey; nothing if this machine is no member there, or cannot read it.
    pub(crate) fn surveyed(&self, news: &LedgerNews) -> Option<Ledger> {
        self.with_news(&self.ledger, news)
    }

    /// What another voter has, where it is later. While this machine was away, who leads may have come to be a voter: its Raft would be refused as a
    /// stranger's for ever.
    pub(super) fn look_ahead(&mut self, news: &LedgerNews) {
        let Some(ledger) = self.with_news(self.latest(), news) else { return };
        // What a later epoch means its cards say.
        if ledger.epoch() == self.ledger.epoch() && ledger.revision() > self.latest().revision() {
            self.seen = Some(ledger);
            self.changed = true;
        }
    }

    fn with_news(&self, base: &Ledger, news: &LedgerNews) -> Option<Ledger> {
        if news.not_admitted || news.removal.is_some() {
            return None;
        }
        let mut ledger = match &news.state {
            Some(state) => Ledger::decode(state, self.known).ok()?,
            None => base.clone(),
        };
        for (revision, entry) in &news.entries {
            let entry = Entry::decode_at(entry.clone(), self.known).ok()?;
            if *revision > ledger.revision() {
                let _ = ledger.apply(*revision, &entry);
            }
        }
        Some(ledger)
    }

    /// Which of those that vote, and are here, follow the ledger of the later epoch that this machine has heard of, as their cards say.
    fn ahead(&self, voters: &[MachineId], roster: &Roster) -> Vec<MachineId> {
        let Some(later) = self.later() else { return Vec::new() };
        let follows =
            |voter: &MachineId| roster.is_alive(*voter) && roster.card(*voter).is_some_and(|card| card.epoch >= later);
        voters.iter().copied().filter(follows).collect()
    }

    /// A member shows that it follows the ledger of a later epoch. Returns whether that is news: this machine is of the past then, and must not go on
    /// with Raft.
    pub(crate) fn shown(&mut self, epoch: Epoch) -> bool {
        if epoch <= self.ledger.epoch().max(self.later.unwrap_or_default()) || planted("later-epoch-ignored") {
            return false;
        }
        self.later = Some(epoch);
        // Whom it follows now may be of the past as well.
        self.poll = None;
        (self.fed, self.raft) = (false, false);
        self.leading(self.term, None);
        self.changed = true;
        true
    }

    /// The later epoch that this machine has heard of, as long as it has not come to it.
    pub(crate) fn later(&self) -> Option<Epoch> {
        self.later.filter(|later| *later > self.ledger.epoch())
    }

    /// Whether a poll is under way whose answer may still come.
    pub(super) fn waits_for_answer(&mut self, now: Time, roster: &Roster, tuning: &Tuning) -> bool {
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

    pub(super) fn ask(
        &mut self,
        now: Time,
        me: MachineId,
        voters: &[MachineId],
        charter: &Certificate,
        roster: &Roster,
        effects: &mut Effects,
    ) {
        let ahead = self.ahead(voters, roster);
        // Both lists are gone through, each at its own turns.
        let (asks, turn) = match self.is_lost(voters, roster) {
            _ if !ahead.is_empty() => (ahead, self.poll_turn),
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
        self.calls = self.calls.next();
        let (by_chance, looks_ahead) = (!voters.contains(&to), self.fed);
        self.poll = Some(Poll { call: self.calls, to, sent: now, by_chance, looks_ahead });
        effects.send(
            to,
            Frame::LedgerPoll {
                call: self.calls,
                since: if looks_ahead { self.latest() } else { &self.ledger }.revision(),
                epoch: self.ledger.epoch(),
                survey: false,
            },
        );
    }

    /// How long a poll may take. A voter holds one of who is up to date; of who knows nothing yet it is held for as long as
    /// admission takes, which is a moment, so that this one is rather lost, with a connection that made way for another. Whoever has news is
    /// not long about it, and one who is asked by chance may have no vote.
    pub(super) fn patience(&self, poll: &Poll, tuning: &Tuning) -> Duration {
        let newcomer = !self.member && !self.turned_down;
        if newcomer || poll.by_chance { tuning.resend * 2 } else { tuning.poll_hold + tuning.resend * 4 }
    }
}

#[cfg(test)]
mod tests {
    use muster_wire::{Removal, Revision, level};

    use super::*;

    fn news() -> LedgerNews {
        LedgerNews {
            call: CallNumber(1),
            revision: Revision::NONE,
            entries: Vec::new(),
            state: None,
            not_admitted: false,
            leader: None,
            removal: None,
        }
    }

    #[test]
    fn who_knows_this_machine_as_no_member_has_no_older_ledger() {
        let follow = Follow { known: level::KNOWN, ..Follow::default() };
        let mut later = Ledger::default();
        later.skip(Revision(7));
        let whole = LedgerNews { state: Some(later.encode().into()), ..news() };
        assert_eq!(follow.surveyed(&whole).map(|ledger| ledger.revision()), Some(Revision(7)));
        assert_eq!(follow.surveyed(&news()).as_ref(), Some(follow.ledger()), "nothing newer");
        assert_eq!(follow.surveyed(&LedgerNews { not_admitted: true, ..news() }), None);
        assert_eq!(follow.surveyed(&LedgerNews { removal: Some(Removal::Returns), ..news() }), None);
        assert_eq!(follow.surveyed(&LedgerNews { state: Some(vec![9].into()), ..news() }), None, "it cannot be read");
    }
}

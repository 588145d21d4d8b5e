//! Whether a kubelet that would start etcd on what it had before may start, after the machine was switched on: promise S20.
//!
//! A disk may be from before a recovery. Two members of the old cluster that come back together are a majority of it, and serve it, long before they
//! hear that they were given up. So a control plane's kubelet waits, once after each start of the machine, until this machine has met others of the
//! cluster and has heard of no later epoch. Alone it has no majority, and waiting costs nothing that could be had.

use std::time::Duration;

use muster_wire::{Attempt, MachineId, Revision};

use super::Machine;
use crate::Time;
use crate::planted::planted;
use crate::words::reasons::{Reason, Topic};

/// So long after the first other member was met whoever else is here has been met as well.
const ALL_MET: Duration = Duration::from_secs(5);

/// So long after the last one was met, where all are, its ledger has come to what it follows, and it has said so.
const SAID: Duration = Duration::from_secs(1);

/// How many of the other members were met since this start, and when.
#[derive(Debug, Default)]
pub(super) struct Met {
    count: usize,
    first: Option<Time>,
    last: Option<Time>,
    /// When the answer changes by time alone.
    due: Option<Time>,
}

impl Machine {
    /// Whether the kubelet of a control plane that has data of etcd's may start, or why it must wait. Asked only where none was started since the
    /// machine was switched on.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn may_start(&self, now: Time) -> Result<(), String> {
        self.may_bring_etcd(now, SAID)?;
        match self.knows_former() {
            true => Ok(()),
            false => Err("it is not known yet at which address it is".to_owned()),
        }
    }

    /// Whether etcd may be begun here as the ledger that this machine has says. Those that come back with it may be of the past like itself; so it has
    /// met everybody, or waited for them. What they know is on their cards, and that it comes to more nobody waits for: a kubelet asks again.
    pub(super) fn may_begin_etcd(&self, now: Time) -> Result<(), String> {
        self.may_bring_etcd(now, Duration::ZERO)
    }

    fn may_bring_etcd(&self, now: Time, said: Duration) -> Result<(), String> {
        if planted("old-kubelet-started") {
            return Ok(());
        }
        if self.cloned {
            return Err("its identity runs on another machine".to_owned());
        }
        let ledger = self.follow.ledger();
        if self.departed || self.follow.removal(self.id()).is_some() {
            return Err("it was removed from the cluster, and what is here is given up".to_owned());
        }
        if self.is_past() {
            return Err("the cluster was rebuilt while this machine was away".to_owned());
        }
        if self.durable.charter.is_none() {
            return Ok(());
        }
        // Whoever cannot read the ledger goes on as it did, once it has met others: their cards show of which epoch they are.
        let reads = self.follow.beyond().is_none();
        if ledger.revision() == Revision::NONE && reads {
            return Err("it has not heard yet what the ledger says".to_owned());
        }
        // Its own Raft may still be on the way through what it holds, or stop before an entry that it cannot read.
        let made = self.durable.completed.is_some() || self.durable.founding > Attempt::NONE;
        if reads && made && ledger.ready().is_none() && ledger.live_claim().is_none() {
            return Err("what was made here is later than the ledger that it has".to_owned());
        }
        // Whoever has the only member of etcd is a majority.
        let has_member = |other: &MachineId| ledger.has_etcd(*other) || ledger.is_founder(*other);
        // Nothing here is older than this start. Else the founders' etcd may have become a cluster, and that one may have been given up, after the
        // last that this machine heard.
        let news = ledger.ready().is_none() && !self.followed_before;
        let alone = if reads {
            !ledger.planes_beside(self.id()).iter().any(has_member)
        } else {
            self.control_planes_wanted() == 1
        };
        if news || alone {
            return Ok(());
        }
        match (self.met.first, self.met_by(said)) {
            (Some(_), Some(by)) if by <= now => self.nobody_is_later(),
            (Some(_), _) => Err("it has just met others, and asks who else is here".to_owned()),
            (None, _) => Err("it has met no other machine of the cluster since it was switched on".to_owned()),
        }
    }

    /// Somebody who is no member by this machine's ledger may have been admitted since, by a cluster that was rebuilt.
    fn nobody_is_later(&self) -> Result<(), String> {
        let charter = self.durable.charter.as_ref().map(|certificate| certificate.charter_hash());
        let epoch = self.follow.ledger().epoch();
        let cards = self.roster.known().values().map(|known| known.card.card());
        let mut later = cards.filter(|card| card.charter == charter && card.epoch > epoch);
        match later.next() {
            Some(card) => Err(format!(
                "{} follows {}, and this machine does not know it",
                self.named_member(card.machine),
                card.epoch
            )),
            None => Ok(()),
        }
    }

    /// When whoever is here has been met, as far as can be said.
    fn met_by(&self, said: Duration) -> Option<Time> {
        let others = self.follow.ledger().members().len().saturating_sub(1);
        let all = self.met.last.filter(|_| self.met.count >= others).map(|last| last + said);
        all.into_iter().chain(self.met.first.map(|first| first + ALL_MET)).min()
    }

    /// Counts the members that have greeted.
    pub(super) fn count_met(&mut self, now: Time) {
        let counts = self.met.first.is_none_or(|first| now < first + ALL_MET);
        if counts && self.follow.beyond().is_some() {
            // Who is a member it may not know: whoever follows its charter says of which epoch the cluster is.
            let ours = self.durable.charter.as_ref().map(|certificate| certificate.charter_hash());
            let is_of_ours = |peer: &MachineId| self.roster.card(*peer).is_some_and(|card| card.charter == ours);
            let count = self.roster.greeted_peers().filter(is_of_ours).count();
            if count > self.met.count {
                (self.met.count, self.met.first, self.met.last) = (count, self.met.first.or(Some(now)), Some(now));
            }
            self.met.due = self.met_by(SAID);
        } else if counts && self.follow.ledger().revision() > Revision::NONE {
            let (me, ledger) = (self.id(), self.follow.ledger());
            let is_member = |peer: &MachineId| *peer != me && ledger.member(*peer).is_some();
            // Where all were met there is none left to count.
            let count = match self.met.count + 1 < ledger.members().len() {
                true => self.roster.greeted_peers().filter(is_member).count(),
                false => self.met.count,
            };
            if count > self.met.count {
                self.met.count = count;
                self.met.first = self.met.first.or(Some(now));
                self.met.last = Some(now);
            }
            self.met.due = self.met_by(SAID);
        }
        self.met.due = self.met.due.filter(|due| *due > now);
    }

    /// When a kubelet that waits may have waited for long enough.
    pub(super) fn guard_due(&self) -> Option<(Time, &'static str)> {
        self.met.due.map(|due| (due, "who else is here, before a kubelet that waits"))
    }

    /// What people should know while a kubelet waits.
    pub fn kubelet_waits(&self, now: Time) -> Option<Reason> {
        let why = self.may_start(now).err()?;
        let text = format!(
            "the kubelet waits: {why}. Switch on another machine of the cluster, or start muster there. Where there \
             is none any more, `muster recover` rebuilds it from what is here; `muster guard --alone` starts it as it is"
        );
        Some(Reason { about: Topic::Guard, text, machines: Vec::new() })
    }
}

//! A majority of the control planes is gone for good: one that is left rebuilds the cluster from what it has, by a person's word. And whoever
//! comes from before that learns of it, and lets be.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_wire::{CallNumber, Card, Digest, Epoch, LedgerNews, MachineId, Revision};

use super::{Fate, Machine};
use crate::planted::planted;
use crate::words::notices::NoticeKind;
use crate::words::reasons::Topic;
use crate::{Effect, Effects, Ledger, NextEpoch, Time};

/// How long others are asked what they have.
const SURVEY: Duration = Duration::from_secs(2);

/// So long after its start a machine knows who else is here.
const KNOWS_AFTER: Duration = Duration::from_secs(20);

/// A recovery that a person wants.
#[derive(Debug)]
pub(super) struct Recovering {
    /// The number of the person's question.
    call: CallNumber,
    /// The number of the machine's own, and who has not answered yet.
    survey: CallNumber,
    asked: BTreeSet<MachineId>,
    until: Time,
    /// The latest ledger that anybody has shown.
    known: Ledger,
    /// The backup with which etcd is to begin; none: what this machine has.
    backup: Option<Digest>,
    /// Whether the store is being made anew.
    begun: bool,
}

/// From what a person wants to have the cluster rebuilt, and what is known of it as it is.
#[derive(Debug)]
pub(super) struct From {
    /// The backup, if it is not what this machine has.
    pub(super) backup: Option<Digest>,
    /// The API server whose etcd has a majority.
    pub(super) works: Option<String>,
}

impl Machine {
    /// A person says that the other control planes are gone for good. They never have the last word on that while one of them is seen. Before
    /// anything is done, everybody who is there is asked what they have: a worker may know of an entry that only the lost ones had as well.
    pub(super) fn recover(
        &mut self,
        now: Time,
        call: CallNumber,
        dry_run: bool,
        From { backup, works }: From,
        effects: &mut Effects,
    ) {
        // The only control plane may go back to a backup while it works: nobody else has anything.
        let goes_back = backup.is_some() && self.follow.ledger().planes_beside(self.id()).is_empty();
        let works = works.filter(|_| !goes_back);
        let may = match works {
            Some(at) => Err(format!(
                "nothing is lost: the API server at {at} says that etcd has a majority. Where other machines do not answer this one, start \
                 muster on them (systemctl start muster)"
            )),
            None => self.may_recover(self.follow.ledger(), backup, now),
        };
        let fate = match may {
            Err(why) => Fate::Refused { why },
            Ok(_) if self.recovering.is_some() => Fate::Refused { why: "it is under way".to_owned() },
            Ok(next) if dry_run => {
                let lost = self.follow.ledger().planes_beside(self.id());
                let lost: Vec<String> = lost.into_iter().map(|machine| self.named_member(machine)).collect();
                let without =
                    if lost.is_empty() { String::new() } else { format!(", for good without {}", lost.join(", ")) };
                let change =
                    format!("begin epoch {} with this machine as the only control plane{without}", next.epoch().number);
                Fate::Would { change }
            }
            Ok(_) => {
                let member = |peer: &MachineId| self.follow.ledger().member(*peer).is_some();
                let peers = self.roster.greeted_peers().filter(member);
                let asked: BTreeSet<MachineId> = peers.collect();
                let survey = self.follow.survey(asked.iter().copied(), effects);
                let known = self.follow.ledger().clone();
                self.recovering =
                    Some(Recovering { call, survey, asked, until: now + SURVEY, known, backup, begun: false });
                return;
            }
        };
        effects.push(Effect::Answer { call, fate });
    }

    /// Whether an answer is one to the survey under way.
    pub(super) fn is_surveying(&self, call: CallNumber) -> bool {
        self.recovering.as_ref().is_some_and(|recovering| recovering.survey == call)
    }

    /// Somebody says what they have.
    pub(super) fn surveyed(&mut self, now: Time, from: MachineId, news: &LedgerNews, effects: &mut Effects) {
        let (theirs, who) = (self.follow.surveyed(news), self.named_member(from));
        let Some(recovering) = &mut self.recovering else { return };
        // Once the store is being made anew nothing is changed about from what.
        if recovering.begun || !recovering.asked.remove(&from) || planted("survey-unheard") {
            return self.survey_ends(now, effects);
        }
        match theirs {
            Some(theirs) if theirs.supersedes(&recovering.known) => recovering.known = theirs,
            Some(_) => {}
            None => {
                let why = match news.not_admitted {
                    true => format!("{who} knows this machine as no member, or as none any more"),
                    false => format!("what {who} has of the ledger cannot be read here"),
                };
                let call = recovering.call;
                self.recovering = None;
                effects.push(Effect::Answer { call, fate: Fate::Refused { why } });
                return;
            }
        }
        self.survey_ends(now, effects);
    }

    /// When everybody has answered, or has had the time to.
    pub(super) fn survey_ends(&mut self, now: Time, effects: &mut Effects) {
        let over =
            |recovering: &mut Recovering| !recovering.begun && (recovering.asked.is_empty() || recovering.until <= now);
        let Some(mut recovering) = self.recovering.take_if(over) else { return };
        let Some(certificate) = &self.durable.charter else { return };
        let charter = Box::new(certificate.charter().clone());
        if let Err(why) = self.may_recover(&recovering.known, recovering.backup, now) {
            effects.push(Effect::Answer { call: recovering.call, fate: Fate::Refused { why } });
            return;
        }
        if std::mem::replace(&mut self.follow.raft, true) {
            effects.push(Effect::StopRaft);
        }
        let next = self.next_epoch(&recovering.known, recovering.backup);
        effects.push(Effect::RebuildRaft { charter, known: recovering.known.encode().into(), next });
        recovering.begun = true;
        self.recovering = Some(recovering);
    }

    /// When the survey ends at the latest.
    pub(super) fn survey_due(&self) -> Option<(Time, &'static str)> {
        let recovering = self.recovering.as_ref().filter(|recovering| !recovering.begun)?;
        Some((recovering.until, "what others know, before a recovery"))
    }

    /// Raft told its ledger: if it is that of the epoch that was to begin, it has.
    pub(super) fn recovered(&mut self, effects: &mut Effects) {
        let now = self.follow.ledger().epoch();
        let cards = self.roster.known().values().map(|known| known.card.card());
        let later: Vec<Card> = cards.filter(|card| card.epoch > now).cloned().collect();
        later.iter().for_each(|card| self.meet_epoch(card, effects));
        let (epoch, revision) = (self.follow.ledger().epoch(), self.follow.ledger().revision());
        let begun = |recovering: &mut Recovering| recovering.begun && epoch > recovering.known.epoch();
        let Some(recovering) = self.recovering.take_if(begun) else { return };
        let from = if recovering.backup.is_some() { "a backup" } else { "what this machine has" };
        effects.notice(NoticeKind::Recovery, format!("the cluster is rebuilt from {from}: {epoch}"));
        if recovering.backup.is_some() {
            self.lead.restored();
            self.manifests.restored();
        }
        effects.push(Effect::Answer { call: recovering.call, fate: Fate::Done { revision } });
    }

    /// The ledger of the next epoch after this one, if this machine may begin it.
    fn may_recover(&self, ledger: &Ledger, backup: Option<Digest>, now: Time) -> Result<Ledger, String> {
        if self.stands_still() || self.is_past() && self.somebody_is_later() {
            return Err("this machine takes no part in the ledger: see `muster explain`".to_owned());
        }
        if self.follow.removal(self.id()).is_some() {
            return Err("this machine was removed from the cluster".to_owned());
        }
        if self.durable.charter.is_none() {
            return Err("no cluster is founded yet: there is nothing to recover".to_owned());
        }
        if self.is_new(now) {
            let left = KNOWS_AFTER.as_secs();
            return Err(format!(
                "this machine was just started, and knows who is here {left} s after that: ask again then"
            ));
        }
        let next = ledger
            .rebuilt(self.id(), self.next_epoch(ledger, backup))
            .map_err(|why| format!("nothing can be recovered from this machine: {why}"))?;
        if self.durable.completed.is_none() {
            return Err("kubeadm has not come to its end on this machine, and its etcd may hold nothing".to_owned());
        }
        let others = ledger.planes_beside(self.id());
        let (seen, _) = self.who_answers(&others, now);
        if seen.is_empty() {
            return Ok(next);
        }
        let names: Vec<String> = seen.iter().map(|machine| self.named_member(*machine)).collect();
        let names = names.join(", ");
        Err(match (seen.len() + 1) * 2 > others.len() + 1 {
            true => format!("nothing is lost: a majority of the control planes is there ({names} beside this one)"),
            false => format!(
                "{names} answers, and may know more than this machine: compare `etcdutl snapshot status` of both, switch off the one \
                 that is to be given up, and ask again"
            ),
        })
    }

    /// Which of these machines answer, and which do not.
    fn who_answers(&self, machines: &[MachineId], now: Time) -> (Vec<MachineId>, Vec<MachineId>) {
        machines.iter().copied().partition(|machine| self.answers(*machine, now))
    }

    /// Whether a machine is there, as far as anybody can tell: others may see one that this machine does not. A failure detector takes its time, and
    /// one that has just begun knows nothing.
    fn answers(&self, machine: MachineId, now: Time) -> bool {
        self.roster.is_alive(machine) || self.is_new(now)
    }

    /// Whether anybody who is here follows the later epoch that this machine has heard of.
    fn somebody_is_later(&self) -> bool {
        let later = self.follow.later();
        let shows = |(machine, known): (&MachineId, &crate::roster::Known)| {
            self.roster.is_alive(*machine) && later.is_some_and(|later| known.card.card().epoch >= later)
        };
        self.roster.known().iter().any(shows)
    }

    /// The next epoch: above all that were heard of, also where whoever began one is gone with it.
    fn next_epoch(&self, ledger: &Ledger, backup: Option<Digest>) -> NextEpoch {
        let heard = self.follow.later().map_or(0, |later| later.number);
        NextEpoch { number: ledger.epoch().number.max(heard).saturating_add(1), backup }
    }

    /// Whether this machine was started so lately that it may not have met those that are there.
    fn is_new(&self, now: Time) -> bool {
        now.since(self.started) < KNOWS_AFTER
    }

    /// Somebody's card shows the ledger that it follows. Members do not forge: one in a later epoch says that this machine is of the past.
    pub(super) fn meet_epoch(&mut self, card: &Card, effects: &mut Effects) {
        // What its own Raft has on disk comes in a moment.
        let unread = self.follow.raft && self.follow.ledger().revision() == Revision::NONE;
        if card.epoch <= self.follow.ledger().epoch() || unread {
            return;
        }
        let Some(charter) = &self.durable.charter else { return };
        let ledger = self.follow.ledger();
        // Who was removed in the daily course, and goes on from what it knew then, is followed by nobody.
        let struck = |machine: MachineId| ledger.was_removed(machine) && ledger.epoch() == Epoch::default();
        let known = ledger.member(card.machine).is_some()
            || ledger.was_removed(card.machine)
            || charter.charter().voters.contains(&card.machine);
        let known = known && !struck(card.machine) && !struck(card.epoch.by);
        if !known || card.charter != Some(charter.charter_hash()) {
            return;
        }
        let voted = self.follow.raft;
        if self.follow.shown(card.epoch) {
            if voted {
                effects.push(Effect::StopRaft);
            }
            // A newcomer knows nothing that could be of the past.
            if voted || self.follow.ledger().revision() > Revision::NONE {
                let text = format!(
                    "{} follows {}: what this machine knows of the ledger is from before, and it asks for the rest",
                    self.named_member(card.machine),
                    card.epoch
                );
                effects.notice(NoticeKind::Recovery, text);
            }
        }
    }

    /// Whether it has heard of a later epoch than its own and has not come to it. A newcomer has nothing that could be of the past.
    pub(super) fn is_past(&self) -> bool {
        self.follow.later().is_some() && self.follow.ledger().revision() > Revision::NONE
    }

    /// While it is of the past, it does nothing for the cluster. Else its card says in which epoch it is.
    pub(super) fn is_of_the_past(&mut self) -> bool {
        let epoch = self.follow.ledger().epoch();
        self.change_card(|card| card.epoch = epoch);
        if self.is_past() {
            self.lead.step_down();
            self.due = None;
        }
        self.is_past()
    }

    /// What people should know of it.
    pub(super) fn explain_recovery(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        if let Some(later) = self.follow.later().filter(|_| self.is_past()) {
            let text = format!(
                "the cluster was rebuilt while this machine was away ({later}): it starts nothing and votes for nothing before it has heard \
                 what became of it"
            );
            add(Topic::Recovery, text, &[later.by]);
        }
        let ledger = self.follow.ledger();
        let me = self.id();
        if ledger.ready().is_none() || !ledger.has_etcd(me) || self.follow.removal(me).is_some() {
            return;
        }
        let others = ledger.planes_beside(me);
        let (seen, away) = self.who_answers(&others, now);
        if away.len() * 2 > others.len() {
            let named = |machines: &[MachineId]| {
                machines.iter().map(|machine| self.named_member(*machine)).collect::<Vec<_>>().join(", ")
            };
            // What `may_recover` says to whoever follows this.
            let recover = match seen.is_empty() {
                true => "`muster recover` on this machine rebuilds the cluster from what it has; see --dry-run first"
                    .to_owned(),
                false => format!(
                    "switch off all but the one that knows most ({} answers too: compare `etcdutl snapshot status`), and `muster recover` there",
                    named(&seen)
                ),
            };
            let text = format!(
                "{} of {} control planes do not answer ({}): switch them on, or start muster on them. If they are off nothing can be written; \
                 and if they are gone for good, {recover}",
                away.len(),
                others.len() + 1,
                named(&away)
            );
            add(Topic::Recovery, text, &away);
        }
    }
}

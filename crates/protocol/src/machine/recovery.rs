//! A majority of the control planes is gone for good: one that is left rebuilds the cluster from what it has, by a person's word. And whoever
//! comes from before that learns of it, and lets be.

use bytes::Bytes;
use muster_wire::{Card, MachineId};

use super::{Fate, Machine};
use crate::planted::planted;
use crate::words::notices::NoticeKind;
use crate::words::reasons::Topic;
use crate::{Effect, Effects, Time};

impl Machine {
    /// A person says that the other control planes are gone for good. They never have the last word on that while one of them is seen.
    pub(super) fn recover(&mut self, now: Time, call: u64, dry_run: bool, effects: &mut Effects) {
        let fate = match self.may_recover(now) {
            Err(why) => Fate::Refused { why },
            Ok(next) if dry_run => {
                let lost = self.follow.ledger().planes_beside(self.id());
                let lost: Vec<String> = lost.into_iter().map(|machine| self.named_member(machine)).collect();
                let change = format!(
                    "begin epoch {} with this machine as the only control plane, for good without {}",
                    next.epoch().number,
                    lost.join(", ")
                );
                Fate::Would { change }
            }
            Ok(next) => {
                let ledger: Bytes = next.encode().into();
                let Some(certificate) = &self.durable.charter else { return };
                let charter = Box::new(certificate.charter().clone());
                if std::mem::replace(&mut self.follow.raft, true) {
                    effects.push(Effect::StopRaft);
                }
                effects.push(Effect::RebuildRaft { charter, ledger: ledger.clone() });
                self.follow.restored(&ledger);
                let text = format!("the cluster is rebuilt from what this machine has: {}", next.epoch());
                effects.notice(NoticeKind::Recovery, text);
                Fate::Done { revision: next.revision() }
            }
        };
        effects.push(Effect::Answer { call, fate });
    }

    /// The ledger of the next epoch, if this machine may begin it.
    fn may_recover(&self, now: Time) -> Result<crate::Ledger, String> {
        if self.stands_still() || self.is_past() {
            return Err("this machine takes no part in the ledger: see `muster explain`".to_owned());
        }
        if self.follow.removal(self.id()).is_some() {
            return Err("this machine was removed from the cluster".to_owned());
        }
        if self.durable.charter.is_none() {
            return Err("no cluster is founded yet: there is nothing to recover".to_owned());
        }
        let ledger = self.follow.ledger();
        let next =
            ledger.rebuilt(self.id()).map_err(|why| format!("nothing can be recovered from this machine: {why}"))?;
        if self.durable.completed.is_none() {
            return Err("kubeadm has not come to its end on this machine, and its etcd may hold nothing".to_owned());
        }
        let others = ledger.planes_beside(self.id());
        let seen: Vec<MachineId> = others.iter().copied().filter(|other| self.answers(*other, now)).collect();
        if seen.is_empty() || planted("recovery-unasked") {
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

    /// Whether a machine is there: something came from it a moment ago. While nobody leads, voters ask each other for votes again and again; and a
    /// connection to a machine without power stands for a minute.
    fn answers(&self, machine: MachineId, now: Time) -> bool {
        self.was_heard_lately(machine, now)
    }

    /// Somebody's card shows the ledger that it follows. Members do not forge: one in a later epoch says that this machine is of the past.
    pub(super) fn meet_epoch(&mut self, card: &Card, effects: &mut Effects) {
        if card.epoch <= self.follow.ledger().epoch() {
            return;
        }
        let Some(charter) = &self.durable.charter else { return };
        let ledger = self.follow.ledger();
        let known = ledger.member(card.machine).is_some()
            || ledger.was_removed(card.machine)
            || charter.charter().voters.contains(&card.machine);
        if !known || card.charter != Some(charter.charter_hash()) {
            return;
        }
        let voted = self.follow.raft;
        if self.follow.shown(card.epoch) {
            if voted {
                effects.push(Effect::StopRaft);
            }
            let text = format!(
                "{} follows {}: what this machine knows of the ledger is from before, and it asks for the rest",
                self.named_member(card.machine),
                card.epoch
            );
            effects.notice(NoticeKind::Recovery, text);
        }
    }

    /// Whether it has heard of a later epoch than its own and has not come to it.
    fn is_past(&self) -> bool {
        self.follow.later().is_some()
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
        if let Some(later) = self.follow.later() {
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
        let away: Vec<MachineId> = others.iter().copied().filter(|other| !self.answers(*other, now)).collect();
        if away.len() * 2 > others.len() {
            let names: Vec<String> = away.iter().map(|machine| self.named_member(*machine)).collect();
            let text = format!(
                "{} of {} control planes do not answer, so nothing can be written ({}): switch them on. If they are gone for good, \
                 `muster recover` on this machine rebuilds the cluster from what it has; see --dry-run first",
                away.len(),
                others.len() + 1,
                names.join(", ")
            );
            add(Topic::Recovery, text, &away);
        }
    }
}

//! The climb of a founder: one of the control planes that begin etcd together.
//!
//! What etcd promised on a disk must outlive everything that happens to kubeadm there. So a founder begins once in an attempt, says so
//! on its disk and in the ledger before etcd is started, and from then on goes on with what is there, however often that takes; it never
//! begins anew. If it were to, two founders with empty disks would be a quorum, and begin a second etcd with the same members (etcd's
//! issue 12227): promise S13.

use muster_wire::{Attempt, Entry, KubeadmMarker};

use super::{Context, Job, Ladder};
use crate::Step;
use crate::effect::Before;
use crate::effect::Founding;
use crate::ledger::Member;
use crate::planted::planted;
use crate::words::notices::NoticeKind;

/// What this start of the machine has done as a founder.
#[derive(Debug, Default)]
pub(super) struct Founder {
    /// The attempt that this start marked as begun: nothing of it was on the machine before.
    marked: Option<Attempt>,
    /// The attempt whose init this start has begun, as its holder.
    initialises: Option<Attempt>,
    /// The attempt for which everything that needs no API server is done.
    founded: Option<Attempt>,
    /// The attempt of which nothing is left on the disk, although etcd may have begun there; and whether it had made the cluster when
    /// that was seen.
    lost: Option<(Attempt, bool)>,
}

impl Founder {
    pub(super) fn founded(&mut self, attempt: Attempt) {
        self.founded = Some(attempt);
    }

    pub(super) fn lost(&mut self, attempt: Attempt, was_made: bool) {
        self.lost = Some((attempt, was_made));
    }
}

impl Context<'_> {
    /// The attempt of which this machine is a founder without holding its claim.
    pub(super) fn founds(&self) -> Option<Attempt> {
        let ledger = self.ledger;
        let holder = ledger.ready().map(|ready| ready.machine).or(ledger.live_claim().map(|(_, machine)| machine));
        ledger.cluster_attempt().filter(|_| ledger.is_founder(self.me) && holder != Some(self.me))
    }

    /// How the founders of the attempt begin etcd; none if one machine does alone.
    pub(super) fn founding(&self, attempt: Attempt) -> Option<Founding> {
        let gone =
            |name: &String| self.ledger.holder_of(name).is_none_or(|holder| !self.ledger.founders().contains(&holder));
        let mut members = self.ledger.etcd_list().to_vec();
        members.retain(|(name, _)| !planted("etcd-list-shrinks") || !gone(name));
        let attempt = if planted("one-etcd-token") { Attempt::NONE } else { attempt };
        let token = format!("{}-{attempt}", hex::encode(self.ledger.charter()));
        (!members.is_empty()).then_some(Founding { token, members })
    }
}

impl Ladder {
    /// Says, on the disk first, that this machine is about to start etcd as a founder.
    pub(super) fn begin(&mut self, context: &mut Context<'_>, attempt: Attempt) {
        let before = context.durable.founding >= attempt || context.ledger.has_begun(context.me);
        if before && !planted("founder-founds-again") {
            let why = "this disk is an old copy, or was reset: etcd has begun here before".to_owned();
            self.init_failed = Some((attempt, why));
            return;
        }
        context.durable.founding = attempt;
        self.founder.marked = Some(attempt);
        self.mark_started(context, KubeadmMarker { attempt, init: true });
        want_to_found(context, attempt);
    }

    /// The holder of the claim has said that it begins: its init runs once the ledger has that.
    pub(super) fn next_begun(
        &mut self,
        context: &mut Context<'_>,
        attempt: Attempt,
        member: &Member,
    ) -> Option<(Job, Step)> {
        let failed = self.init_failed.as_ref().is_some_and(|(failed, _)| *failed == attempt);
        if failed || !context.ledger.is_founder(context.me) || self.founder.initialises == Some(attempt) {
            return None;
        }
        if !context.ledger.has_begun(context.me) {
            want_to_found(context, attempt);
            return None;
        }
        if !context.may_begin_etcd {
            return None;
        }
        let sealed_pki = self.own_ca(context)?;
        self.founder.initialises = Some(attempt);
        Some(self.init(context, attempt, member, sealed_pki))
    }

    /// This machine founds with the holder of the claim, and nothing of that is on its disk.
    pub(super) fn next_founder(&mut self, context: &mut Context<'_>, attempt: Attempt) -> Option<(Job, Step)> {
        if self.unable.is_some() {
            return None;
        }
        self.own_ca(context)?;
        let again = planted("founder-founds-again");
        let undone = context.durable.founding >= attempt && !again;
        if undone {
            let member = context.member()?.clone();
            return self.next_join(context, &member);
        }
        if context.ledger.has_begun(context.me) && !again {
            // Before the cluster is made there is nothing to come back to.
            context.ledger.ready()?;
            return self.forgot_founding(context, attempt);
        }
        self.begin(context, attempt);
        None
    }

    /// The ledger knows that etcd was begun here and this disk does not: it is an old copy, or etcd's data is gone. What
    /// is left of the founder is taken away, from etcd first; the machine then comes to etcd in turn.
    fn forgot_founding(&mut self, context: &mut Context<'_>, attempt: Attempt) -> Option<(Job, Step)> {
        let marker = KubeadmMarker { attempt, init: false };
        context.durable.founding = attempt;
        context.durable.started = Some(marker);
        context.durable.completed = None;
        context.effects.persist(context.durable).done();
        let text =
            "this disk knows nothing of the etcd that was begun here: what that left with the others is taken away";
        context.effects.notice(NoticeKind::DiskForgot, text.to_owned());
        self.mend(context, marker)
    }

    /// The climb of a founder that has begun.
    pub(super) fn next_of_founder(
        &mut self,
        context: &mut Context<'_>,
        attempt: Attempt,
        member: &Member,
    ) -> Option<(Job, Step)> {
        let (name, address) = (member.admitted.name.clone(), member.admitted.address.clone());
        let timing = context.timing();
        if !context.ledger.has_begun(context.me) && !planted("founder-unrecorded") {
            want_to_found(context, attempt);
            return None;
        }
        if let Some((_, was_made)) = self.founder.lost.filter(|(lost, _)| *lost == attempt) {
            context.ledger.ready()?;
            if was_made {
                self.underway = None;
                return self.forgot_founding(context, attempt);
            }
            // What was not there before the cluster was made may be there by now: it is looked at once more.
            self.founder.lost = None;
        }
        if self.founder.founded != Some(attempt) {
            if !context.may_begin_etcd {
                return None;
            }
            let sealed_pki = self.own_ca(context)?;
            let failed = self.failures.contains_key(Job::Found { attempt }.name());
            let first = self.founder.marked == Some(attempt) && !failed;
            let before = match context.durable.founded == attempt {
                true => Before::All,
                false if first => Before::Nothing,
                false => Before::Part,
            };
            let founding = context.founding(attempt)?;
            let step = Step::Found { attempt, name, address, sealed_pki, timing, founding, before };
            return Some((Job::Found { attempt }, step));
        }
        context.ledger.ready()?;
        Some((Job::FoundFinish { attempt }, Step::FoundFinish { name, address, timing }))
    }
}

fn want_to_found(context: &mut Context<'_>, attempt: Attempt) {
    let machine = context.me;
    context.wants.want(Entry::Founds { attempt, machine });
}

//! Certificates that are good no more: with them nothing of Kubernetes works here, so that nothing is taken down by renewing them, and
//! nobody's leave is asked. A control plane has the CAs and helps itself; a worker says that it has lost what it had joined with, and goes
//! on with a new ticket.
//!
//! Certificates that still serve are renewed in a turn, see `lead/renewal.rs`.

use std::num::NonZeroU64;
use std::time::Duration;

use muster_wire::{Entry, Role, level};

use super::next::is_promoted;
use super::{Context, Job, Ladder};
use crate::ledger::Member;
use crate::planted::planted;
use crate::words::notices::NoticeKind;
use crate::{Renewal, Step};

/// Pause before what was renewed, and is good no more all the same, is renewed again.
const PAUSE: Duration = Duration::from_secs(600);

impl Ladder {
    /// What the device sees of this machine's certificates.
    pub(crate) fn certificates(&mut self, renewal: Renewal, ca_ends_s: u64) {
        (self.renewal, self.ca_ends_s) = (renewal, NonZeroU64::new(ca_ends_s));
    }

    /// How they stand.
    pub(crate) fn renewal(&self) -> Renewal {
        self.renewal
    }

    /// When a CA's certificate ends, in seconds since 1970, if that is soon.
    pub(crate) fn ca_ends_s(&self) -> Option<u64> {
        self.ca_ends_s.map(NonZeroU64::get)
    }

    /// Should renewing not have helped, it is not tried again at once: each time the kubelet is started anew.
    fn waits_to_renew(&self, context: &mut Context<'_>) -> bool {
        let Some(until) = self.renewed.map(|at| at + PAUSE).filter(|until| context.now < *until) else { return false };
        context.wake_at(until, "certificates to renew once more");
        true
    }

    /// Whether this machine works no more for want of a certificate that is good. Who is still joining is given new ones anyway.
    pub(super) fn is_overdue(&self, context: &Context<'_>, member: &Member) -> bool {
        let ready = context.ledger.ready().map(|ready| ready.attempt);
        let completed = context.durable.completed.filter(|marker| context.durable.started == Some(*marker));
        let works = completed.is_some_and(|marker| Some(marker.attempt) == ready) && !is_promoted(context, member);
        let overdue = self.renewal == Renewal::Overdue && !planted("overdue-unrenewed");
        works && (overdue || self.renewal == Renewal::Due && planted("renewed-outside-turn"))
    }

    /// The next step of such a machine.
    pub(super) fn next_overdue(&mut self, context: &mut Context<'_>, member: &Member) -> Option<(Job, Step)> {
        if self.waits_to_renew(context) {
            return None;
        }
        let (name, address) = (member.admitted.name.clone(), member.admitted.address.clone());
        if member.admitted.role == Role::ControlPlane {
            return Some((Job::Renew, Step::Renew { name, address, overdue: true }));
        }
        // It is Ready again when its kubelet has been started anew, and not before.
        self.node_ready = false;
        if member.joined {
            if context.ledger.level() >= level::FOUNDERS {
                let machine = context.me;
                context.wants.want(Entry::Left { machine });
            }
            return None;
        }
        // The ticket here is the one that it joined with first, and as old. Either this copy of the ledger is from before it said that it had
        // joined, or it was stopped before it could.
        if !member.left {
            context.wants.want(Entry::Joined { machine: context.me });
            return None;
        }
        let attempt = context.ledger.ready()?.attempt;
        let ticket = context.ledger.ticket(context.me).filter(|(of, _)| *of == attempt)?.1.clone();
        Some((Job::RenewKubelet, Step::RenewKubelet { attempt, name, address, ticket }))
    }

    /// They are renewed. Should the device see it otherwise, it says so again.
    pub(super) fn renewed(&mut self, context: &mut Context<'_>) {
        (self.renewal, self.renewed) = (Renewal::NotYet, Some(context.now));
        let text = "certificates were good no more, and are renewed";
        context.effects.notice(NoticeKind::Renewed, text.to_owned());
    }
}

//! Each control plane's certificates are renewed before they end, by itself and in its own turn to disrupt: its controller manager and its
//! scheduler are started anew with them, and for a moment another machine's must do. Workers' kubelets renew theirs themselves. What is good no
//! more needs no turn, see `ladder/renewal.rs`.

use std::time::Duration;

use super::Context;
use super::disrupt::Task;
use super::runs::{Job, Runs};
use crate::words::notices::NoticeKind;
use crate::words::waits::{self, Wait};
use crate::{Effects, Renewal, Step, Time};

/// Pause after a try that failed; doubled with each, up to an hour: a third of a certificate's life is left.
const PAUSE: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// This duty's notes.
#[derive(Debug, Default)]
pub(super) struct Renewing {
    /// When they were renewed, and the device has not said so yet. It looks every minute; what it does not see after an hour is tried again.
    done: Option<Time>,
    failed: u32,
    not_before: Time,
}

impl Renewing {
    /// Whether it is to be done now.
    pub(super) fn task(&mut self, context: &mut Context<'_>) -> Option<Task> {
        if context.renewal != Renewal::Due {
            *self = Self::default();
            return None;
        }
        if context.now < self.not_before {
            context.wake_at(self.not_before, "certificates to renew once more");
            context.waits.push(Wait::Turn(waits::Turn::Renewal(self.not_before)));
            return None;
        }
        if let Some(again) = self.done.map(|done| done + PAUSE_MAX).filter(|again| context.now < *again) {
            context.wake_at(again, "certificates that were renewed in vain");
            return None;
        }
        Some(Task::Renew)
    }

    pub(super) fn carry_on(context: &mut Context<'_>, runs: &mut Runs) {
        let me = context.me();
        let Some(member) = context.ledger.member(me) else { return };
        let (name, address) = (member.admitted.name.clone(), member.admitted.address.clone());
        let step = Step::Renew { name, address, overdue: false };
        if !runs.disrupts() {
            runs.start(context, Job::Renew { machine: me }, step);
        }
    }

    pub(super) fn renewed(&mut self, now: Time, effects: &mut Effects) {
        self.done = Some(now);
        effects.notice(NoticeKind::Renewed, "certificates are renewed, before they end".to_owned());
    }

    pub(super) fn failed(&mut self, now: Time) {
        self.not_before = now + (PAUSE * (1 << self.failed.min(8))).min(PAUSE_MAX);
        self.failed += 1;
    }
}

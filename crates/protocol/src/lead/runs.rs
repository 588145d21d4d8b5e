//! The leader's work under way, and its pauses after failures.

use std::collections::BTreeMap;

use muster_wire::{Attempt, MachineId};

use super::Context;
use crate::tuning::Tuning;
use crate::words::waits::{Wait, Work};
use crate::{Effect, RunId, Step, Time};

/// Pause in resends before something that failed is tried again: twice as long after every two more failures in a row, up to
/// [`RETRY_RESENDS_MAX`]. An API server that starts answers within seconds; one that is away for an hour is not asked all the time.
pub(super) const RETRY_RESENDS: u32 = 4;

const RETRY_RESENDS_MAX: u32 = 16;

/// What a run of the leader's is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    Ticket {
        machine: MachineId,
        attempt: Attempt,
        registers: bool,
    },
    SealPki {
        machine: MachineId,
    },
    RenewToken {
        machine: MachineId,
        known: bool,
    },
    DeleteToken {
        machine: MachineId,
    },
    Strike {
        machine: MachineId,
    },
    Drain {
        machine: MachineId,
    },
    Open {
        machine: MachineId,
    },
    Renew {
        machine: MachineId,
    },
    BackUp {
        machine: MachineId,
        number: u32,
        epoch: u32,
    },
    /// What was ended, and has not answered yet.
    Ended {
        machine: MachineId,
    },
}

impl Job {
    pub(super) fn machine(&self) -> MachineId {
        match self {
            Job::Ticket { machine, .. }
            | Job::SealPki { machine }
            | Job::RenewToken { machine, .. }
            | Job::DeleteToken { machine }
            | Job::Strike { machine }
            | Job::Drain { machine }
            | Job::Open { machine }
            | Job::Renew { machine }
            | Job::BackUp { machine, .. }
            | Job::Ended { machine } => *machine,
        }
    }
}

/// The runs under way, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Runs {
    jobs: BTreeMap<RunId, Job>,
    /// Until when nothing is tried for a machine, and how often in a row something for it failed.
    not_before: BTreeMap<MachineId, (Time, u32)>,
}

impl Runs {
    pub(super) fn count(&self) -> usize {
        self.jobs.len()
    }

    /// Whether something is under way that needs a turn to disrupt.
    pub(super) fn disrupts(&self) -> bool {
        let disrupts = |job: &Job| {
            matches!(
                job,
                Job::Strike { .. } | Job::Drain { .. } | Job::Open { .. } | Job::Renew { .. } | Job::Ended { .. }
            )
        };
        self.jobs.values().any(disrupts)
    }

    /// Whether a backup is being taken here.
    pub(super) fn backs_up(&self) -> bool {
        self.jobs.values().any(|job| matches!(job, Job::BackUp { .. }))
    }

    /// Ends the draining that is under way, if any. It is answered all the same.
    pub(super) fn end_drain(&mut self, context: &mut Context<'_>) {
        for (run, job) in &mut self.jobs {
            if let Job::Drain { machine } = *job {
                *job = Job::Ended { machine };
                context.effects.push(Effect::Abort { run: *run });
            }
        }
    }

    pub(super) fn start(&mut self, context: &mut Context<'_>, job: Job, step: Step) {
        *context.runs += 1;
        let run = RunId(*context.runs);
        self.jobs.insert(run, job);
        context.effects.push(Effect::Run { run, step });
    }

    /// What a run is for, if it is the leader's.
    pub(super) fn job(&self, run: RunId) -> Option<Job> {
        self.jobs.get(&run).copied()
    }

    pub(super) fn take(&mut self, run: RunId) -> Option<Job> {
        self.jobs.remove(&run)
    }

    /// Whether a used token is being deleted.
    pub(super) fn deletes(&self) -> bool {
        self.jobs.values().any(|job| matches!(job, Job::DeleteToken { .. }))
    }

    /// Something for a machine failed: nothing is tried for it for a moment.
    pub(super) fn pause(&mut self, now: Time, machine: MachineId, tuning: &Tuning) {
        let failed = self.not_before.get(&machine).map_or(0, |(_, failed)| failed + 1);
        let resends = RETRY_RESENDS.saturating_mul(1 << (failed / 2).min(8)).min(RETRY_RESENDS_MAX);
        self.not_before.insert(machine, (now + tuning.resend * resends, failed));
    }

    /// Something for a machine was done: its next failure is a first one.
    pub(super) fn succeeded(&mut self, machine: MachineId) {
        self.not_before.remove(&machine);
    }

    /// Whether nothing of this kind runs for the machine, and its pause after a failure is over.
    pub(super) fn idle(&self, context: &mut Context<'_>, machine: MachineId, kind: impl Fn(&Job) -> bool) -> bool {
        if let Some((pause, _)) = self.not_before.get(&machine).copied().filter(|(pause, _)| context.now < *pause) {
            context.wake_at(pause, "something to try again");
            context.waits.push(Wait::Work(Work::Retry { machine, until: pause }));
            return false;
        }
        !self.jobs.values().any(|job| kind(job) && job.machine() == machine)
    }
}

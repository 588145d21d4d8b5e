//! Backups of etcd without being asked: every so often by the leader, and before something is taken down by whoever is about to.
//!
//! Nobody's clock decides when: each control plane counts from the moment at which it saw the last one in the ledger. Whoever has just started does
//! not know how old that is, and takes one soon.

use std::time::Duration;

use muster_wire::{Backup, Entry, level};

use super::disrupt::Task;
use super::runs::{Job, Runs};
use super::{Context, has_joined};
use crate::planted::planted;
use crate::words::waits::{Wait, Work};
use crate::{Step, StepOutput, Time};

/// How long after it begins to look a leader takes one, if it does not know how old the last is.
const FIRST: Duration = Duration::from_secs(600);

/// How old one may be that is good enough before something is taken down.
const FRESH: Duration = Duration::from_secs(600);

/// How long after the leader should have taken one another control plane does, and how long the next one waits for that.
const TURN: Duration = Duration::from_secs(180);

/// So long after the first look, what comes into the ledger is new.
const CATCHES_UP: Duration = Duration::from_secs(30);

/// How long what was taken here may take to come into the ledger before it is given up.
const COMMITTED: Duration = Duration::from_secs(120);

/// How long one that was taken for something is good for further tries at the same.
const SAME: Duration = Duration::from_secs(24 * 3_600);

/// Pause after a try that failed; doubled with each, up to an hour.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// This duty's notes.
#[derive(Debug, Default)]
pub(super) struct Backups {
    /// When the first look was.
    since: Option<Time>,
    /// The last in the ledger, and when it was first seen there; none for one that was there at the first look.
    last: (u32, Option<Time>),
    /// What was taken here, and is not in the ledger yet.
    taken: Option<Backup>,
    /// When the last try here ended.
    tried: Option<Time>,
    /// What one was last taken for, and when.
    before: Option<(Task, Time)>,
    failed: u32,
    why: Option<String>,
    not_before: Time,
}

impl Backups {
    /// Sees whether there is a new one, and whether one is due.
    pub(super) fn run(&mut self, context: &mut Context<'_>, runs: &mut Runs, leads: bool) {
        if !are_taken(context) {
            return;
        }
        self.look(context);
        let Some(every) = context.tuning.backups.every else { return };
        if !can(context) {
            // Another control plane takes it, if this one cannot.
            context.waits.extend(leads.then_some(Wait::Work(Work::NoEtcd)));
            return;
        }
        let since = self.since.unwrap_or(context.now);
        let due = self.last.1.map_or(since + FIRST.min(every), |at| at + every);
        // The leader may have no room, or no etcd: the others take one after the other when it should have.
        let turns = if leads { 0 } else { 1 + turn_of(context) };
        let due = (due + TURN * turns).max(self.not_before);
        if context.now < due {
            return context.wake_at(due, "a backup to take");
        }
        self.start(context, runs);
    }

    fn look(&mut self, context: &mut Context<'_>) {
        let last = context.ledger.last_backup();
        if self.since.is_none() {
            (self.since, self.last) = (Some(context.now), (last, None));
        } else if self.last.0 != last {
            // What comes while it catches up was taken who knows when.
            let new = self.since.is_some_and(|since| context.now.since(since) >= CATCHES_UP);
            self.last = (last, new.then_some(context.now));
            (self.failed, self.why) = (0, None);
        }
        let epoch = context.ledger.epoch().number;
        let late = self.tried.is_some_and(|tried| context.now.since(tried) >= COMMITTED);
        self.taken.take_if(|taken| taken.number <= last || taken.epoch != epoch || late);
        if let Some(taken) = &self.taken {
            context.wants.want(Entry::BackedUp(taken.clone()));
        }
    }

    /// Whether there is one that is young enough for this to be done, or none can be had. If not, one is being taken.
    pub(super) fn before(&mut self, context: &mut Context<'_>, runs: &mut Runs, task: Task) -> bool {
        if !are_taken(context) || planted("disrupts-without-backup") {
            return true;
        }
        self.look(context);
        let young = |at: Option<Time>| at.is_some_and(|at| context.now.since(at) < FRESH);
        // What is tried again and again would leave none that is older.
        let same = self.before.is_some_and(|(before, at)| before == task && context.now.since(at) < SAME);
        if same || young(self.last.1) || young(self.tried) {
            if !same {
                self.before = Some((task, context.now));
            }
            return true;
        }
        self.start(context, runs);
        false
    }

    fn start(&self, context: &mut Context<'_>, runs: &mut Runs) {
        let (number, epoch) = (context.ledger.last_backup().saturating_add(1), context.ledger.epoch().number);
        if runs.backs_up() || self.taken.is_some() {
            return;
        }
        let step = Step::BackUp { number, epoch, charter: *context.ledger.charter() };
        runs.start(context, Job::BackUp { machine: context.me(), number, epoch }, step);
    }

    /// A try here came to its end, well.
    pub(super) fn taken(&mut self, now: Time, job: Job, output: &StepOutput, copies: u32, keep: u32) {
        let (Job::BackUp { machine, number, epoch }, StepOutput::BackedUp { taken_s, revision, bytes, digest }) =
            (job, output)
        else {
            return;
        };
        let (taken_s, revision, bytes, digest) = (*taken_s, *revision, *bytes, *digest);
        self.taken = Some(Backup { number, machine, epoch, taken_s, revision, bytes, digest, copies, keep });
        (self.tried, self.failed, self.why) = (Some(now), 0, None);
    }

    /// Or it did not.
    pub(super) fn failed(&mut self, now: Time, why: &str) {
        self.not_before = now + (PAUSE * (1 << self.failed.min(8))).min(PAUSE_MAX);
        (self.tried, self.failed, self.why) = (Some(now), self.failed + 1, Some(why.to_owned()));
    }

    /// How often in a row none could be taken here, and why the last time.
    pub(super) fn failure(&self) -> Option<(u32, &str)> {
        self.why.as_deref().map(|why| (self.failed, why))
    }
}

/// Whether the cluster takes backups: it is made, its ledger has room for them, and the image asks for them.
fn are_taken(context: &Context<'_>) -> bool {
    let ledger = context.ledger;
    ledger.ready().is_some() && ledger.level() >= level::BACKUPS && context.tuning.backups.every.is_some()
}

/// How many of the other control planes have their turn before this one.
fn turn_of(context: &Context<'_>) -> u32 {
    let me = context.me();
    context.ledger.control_planes().filter(|plane| *plane < me).count() as u32
}

/// Whether this machine can take one.
fn can(context: &Context<'_>) -> bool {
    has_joined(context, context.me()) && context.ledger.has_etcd(context.me())
}

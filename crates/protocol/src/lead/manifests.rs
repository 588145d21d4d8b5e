//! Who applies the image's manifests, and when again.
//!
//! The machine that made the cluster does, as soon as the ledger says that it is made: without a pod network no Node is
//! ever Ready. Whoever leads later does, once in a start, so that a changed image brings its changes along. Nothing waits
//! for it, and its failure fails nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_wire::{Durable, KubeadmMarker, MachineId, Role};
use serde::{Deserialize, Serialize};

use crate::status::ManifestsStatus;
use crate::words::notices::NoticeKind;
use crate::{Effect, Effects, Ledger, RunId, Step, StepFailure, StepOutput, Time};

/// First pause before what waits for something is tried again; it doubles up to [`WAIT_MAX`].
const WAIT: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// First pause before what was refused is tried again; it doubles up to [`REFUSED_MAX`]. Somebody may have changed the
/// cluster meanwhile.
const REFUSED: Duration = Duration::from_secs(60);
const REFUSED_MAX: Duration = Duration::from_secs(900);

/// First pause after a step that failed as a whole; it doubles up to [`FAILED_MAX`].
const FAILED: Duration = Duration::from_secs(1);
const FAILED_MAX: Duration = Duration::from_secs(60);

/// Most reasons of a kind that people are shown.
const SHOWN: usize = 5;

/// What became of one object of the manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestResult {
    /// Its number, from 0.
    pub object: u32,
    /// What became of it.
    pub outcome: ManifestOutcome,
}

/// What became of an object. The texts name it and its file, are bounded, and hold no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestOutcome {
    /// It is as the manifest says.
    Applied,
    /// Something else must be there first.
    Later(String),
    /// The API server takes it as a mistake.
    Refused(String),
}

/// An object that is not applied yet.
#[derive(Debug, Default)]
struct Left {
    tries: u32,
    due: Time,
    refused: bool,
    why: String,
}

/// This machine's part in it. Nothing here needs to survive a restart: applying twice is applying once.
#[derive(Debug)]
pub(crate) struct Manifests {
    total: u32,
    left: BTreeMap<u32, Left>,
    /// Whether this machine's init made the cluster and is not finished, in this start.
    made_here: bool,
    /// Whether this machine ever had the duty in this start.
    begun: bool,
    running: Option<(RunId, BTreeSet<u32>)>,
    failures: u32,
    not_before: Time,
}

/// What the duty needs to know and may change.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) me: MachineId,
    pub(crate) leads: bool,
    pub(crate) ledger: &'a Ledger,
    pub(crate) durable: &'a Durable,
    pub(crate) runs: &'a mut u64,
    pub(crate) due: &'a mut Option<(Time, &'static str)>,
    pub(crate) effects: &'a mut Effects,
}

impl Manifests {
    /// For an image with so many objects.
    pub(crate) fn new(total: u32) -> Self {
        Self {
            total,
            left: (0..total).map(|object| (object, Left::default())).collect(),
            made_here: false,
            begun: false,
            running: None,
            failures: 0,
            not_before: Time(0),
        }
    }

    /// etcd has what it had once: all of them are applied again.
    pub(crate) fn restored(&mut self) {
        *self = Self { made_here: self.made_here, ..Self::new(self.total) };
    }

    /// Has those objects applied that are due, if that is this machine's to do.
    pub(crate) fn run(&mut self, context: &mut Context<'_>) {
        if self.left.is_empty() || self.running.is_some() || !self.is_due_here(context) {
            return;
        }
        self.begun = true;
        let first = self.left.values().map(|left| left.due).min().unwrap_or(context.now).max(self.not_before);
        if first > context.now {
            let due = (first, "a manifest to try again");
            *context.due = Some(context.due.map_or(due, |other| other.min(due)));
            return;
        }
        let due: BTreeSet<u32> =
            self.left.iter().filter(|(_, left)| left.due <= context.now).map(|(object, _)| *object).collect();
        *context.runs += 1;
        let run = RunId(*context.runs);
        let step = Step::ApplyManifests { objects: due.iter().copied().collect() };
        self.running = Some((run, due));
        context.effects.push(Effect::Run { run, step });
    }

    fn is_due_here(&mut self, context: &Context<'_>) -> bool {
        let (Some(ready), Some(member)) = (context.ledger.ready(), context.ledger.member(context.me)) else {
            return false;
        };
        let ours = Some(KubeadmMarker { attempt: ready.attempt, init: true });
        self.made_here |= context.durable.started == ours && context.durable.completed != ours;
        // Only a machine with an API server of its own has the identity for it.
        let leads = context.leads && member.joined && member.admitted.role == Role::ControlPlane;
        leads || self.made_here && ready.machine == context.me
    }

    /// A run ended. Returns whether it was this one.
    pub(crate) fn finished(
        &mut self,
        now: Time,
        run: RunId,
        result: &Result<StepOutput, StepFailure>,
        effects: &mut Effects,
    ) -> bool {
        let Some((_, asked)) = self.running.take_if(|(running, _)| *running == run) else { return false };
        match result {
            Ok(StepOutput::Manifests(results)) => {
                self.failures = 0;
                for result in results.iter().filter(|result| asked.contains(&result.object)) {
                    self.take(now, result, effects);
                }
            }
            result => {
                let why = result.as_ref().err().map_or("an unexpected answer".to_owned(), ToString::to_string);
                self.not_before = now + doubled(FAILED, self.failures, FAILED_MAX);
                self.failures += 1;
                effects.notice(NoticeKind::Retry, format!("{why}; it is tried again"));
                for (object, left) in &mut self.left {
                    if asked.contains(object) && !left.refused {
                        left.why.clone_from(&why);
                    }
                }
            }
        }
        if self.left.is_empty() {
            effects.notice(NoticeKind::Manifests, format!("all {} objects of the manifests are applied", self.total));
        }
        true
    }

    fn take(&mut self, now: Time, result: &ManifestResult, effects: &mut Effects) {
        let (refused, why) = match &result.outcome {
            ManifestOutcome::Applied => {
                self.left.remove(&result.object);
                return;
            }
            ManifestOutcome::Later(why) => (false, why),
            ManifestOutcome::Refused(why) => (true, why),
        };
        let Some(left) = self.left.get_mut(&result.object) else { return };
        if left.refused != refused {
            left.tries = 0;
        }
        if refused && (!left.refused || left.why != *why) {
            effects.notice(NoticeKind::ManifestRefused, format!("a manifest is refused: {why}"));
        }
        let (pause, most) = if refused { (REFUSED, REFUSED_MAX) } else { (WAIT, WAIT_MAX) };
        left.due = now + doubled(pause, left.tries, most);
        left.tries += 1;
        left.refused = refused;
        left.why.clone_from(why);
    }

    /// How far it has come; none if it was never this machine's to do.
    pub(crate) fn status(&self) -> Option<ManifestsStatus> {
        let some = |refused: bool| {
            let all = self.left.values().filter(|left| left.refused == refused && !left.why.is_empty());
            all.map(|left| left.why.clone()).take(SHOWN).collect()
        };
        let applied = self.total - self.left.len() as u32;
        self.begun.then(|| ManifestsStatus { total: self.total, applied, waiting: some(false), refused: some(true) })
    }
}

fn doubled(pause: Duration, times: u32, most: Duration) -> Duration {
    (pause * (1 << times.min(10))).min(most)
}

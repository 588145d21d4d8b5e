//! Many seeds: what came of each, how fast, and which states were never reached.

mod rounds;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;

use crate::name::Name;
use crate::reach::{self, Reach};
use crate::run::{Outcome, Verdict};
use crate::scenario::{Policy, Scenario, Sort};
use crate::sometimes;
use crate::states::Reached;
use crate::twice::Twice;
use rounds::rounds;

/// Most failing seeds of a class that are kept in the summary.
const EXAMPLES_MAX: usize = 10;

/// A class of results: a verdict, and the promise that was broken.
#[derive(Debug, Clone, Serialize)]
pub struct Class {
    /// The verdict.
    pub verdict: Verdict,
    /// The promise, if one was broken.
    pub promise: Option<&'static str>,
    /// How many seeds.
    pub count: u64,
    /// Some of them, with what was seen.
    pub examples: Vec<(Name, String)>,
}

/// What came of a sweep.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The scenario's title.
    pub title: String,
    /// First seed.
    pub first: u64,
    /// One past the last seed.
    pub end: u64,
    /// The worst verdict; not enough seen if a state that the scenario expects was never reached, or if not most of the
    /// seeds could be judged.
    pub verdict: Verdict,
    /// Runs on which every promise held.
    pub held: u64,
    /// How many were run, variations among them.
    pub run: u64,
    /// How many of them were variations of others, on top of the seeds.
    pub varied: u64,
    /// Whether someone stopped it before its end.
    pub stopped: bool,
    /// Results by class, worst first.
    pub classes: Vec<Class>,
    /// Seeds on which no fault took effect though the scenario has some. They count for nothing.
    pub nothing_happened: u64,
    /// How the faults of all seeds fared, by sort.
    pub faults: BTreeMap<Sort, Reach>,
    /// Sorts that were drawn and never took effect.
    pub never_took: Vec<Sort>,
    /// How many seeds reached each state; those that none reached are unknown.
    pub sometimes: BTreeMap<&'static str, u64>,
    /// States that no seed reached.
    pub unknown: Vec<&'static str>,
    /// The protocol's states that were come to, and what of them was not though it could be.
    pub states: Reached,
    /// Expected states that no seed reached.
    pub missing: Vec<String>,
    /// The promise that the scenario is meant to break, if no seed broke it.
    pub unbroken: Option<String>,
    /// Seconds from heal to one charter everywhere: median, 99th percentile, worst.
    pub charter_after_s: Option<[f64; 3]>,
    /// Seconds from the start to everyone Ready: median, 99th percentile, worst.
    pub ready_at_s: Option<[f64; 3]>,
    /// Seeds that were run again in a process of their own, and those that differed: if any, safety counts as broken.
    pub twice: Twice,
    /// Of a scenario with the threshold policy, what came of the same seeds with muster's majority.
    pub with_majority: Option<Box<Summary>>,
    /// Digest of all runs' hashes: the seeds' in their order, then those of the variations.
    pub hash: String,
    /// Events handled.
    pub events: u64,
    /// Virtual machine-hours.
    pub machine_hours: f64,
    /// Seconds it took.
    pub wall_s: f64,
    /// Threads.
    pub jobs: usize,
    /// Seeds a minute.
    pub seeds_per_minute: f64,
    /// Virtual machine-hours per second of one core.
    pub machine_hours_per_core_second: f64,
}

/// A guided sweep adds one variation for so many seeds.
pub const SEEDS_A_VARIATION: u64 = 2;

/// Runs the seeds `first..end` on `jobs` threads, telling `done` of every outcome as it comes. Begins no further seed once
/// `stop` is set.
pub fn sweep(
    scenario: &Scenario,
    first: u64,
    end: u64,
    jobs: usize,
    stop: &AtomicBool,
    done: impl Fn(&Outcome) + Sync,
) -> (Summary, Vec<Outcome>) {
    rounds(scenario, (first, end), jobs, stop, false, done)
}

/// The same, and on top of the seeds variations of those runs that came to states which few others came to: one for
/// [`SEEDS_A_VARIATION`] seeds, if the scenario draws faults that can be varied. The outcomes of variations come last.
pub fn guided(
    scenario: &Scenario,
    first: u64,
    end: u64,
    jobs: usize,
    stop: &AtomicBool,
    done: impl Fn(&Outcome) + Sync,
) -> (Summary, Vec<Outcome>) {
    rounds(scenario, (first, end), jobs, stop, true, done)
}

/// The same scenario with muster's majority, if it runs the threshold policy: what shows that the policy is to blame.
pub fn with_majority(scenario: &Scenario) -> Option<Scenario> {
    let mut ours = scenario.clone();
    ours.image.policy = Policy::Majority;
    ours.image.expect = None;
    ours.expect.breaks = None;
    (scenario.image.policy == Policy::Threshold).then_some(ours)
}

impl Summary {
    /// Notes that the sweep was stopped before its end. What broke is broken; what held was not all.
    pub fn stop(&mut self) {
        self.stopped = true;
        if self.verdict == Verdict::Held {
            self.verdict = Verdict::NotEnoughSeen;
        }
    }

    /// Why too little was seen to say that the scenario holds: nothing if the sweep saw enough, or saw worse.
    pub fn too_little(&self) -> Vec<String> {
        if self.verdict != Verdict::NotEnoughSeen {
            return Vec::new();
        }
        let mut why = Vec::new();
        if self.stopped {
            let seeds = self.run - self.varied;
            why.push(format!("the sweep was stopped after {seeds} of {} seeds", self.end - self.first));
        }
        if self.nothing_happened > 0 {
            why.push(format!(
                "no fault took effect on {} of {}, which count for nothing",
                self.nothing_happened,
                self.counted()
            ));
        }
        let counted = self.run - self.nothing_happened;
        let what = if self.varied == 0 { "seeds" } else { "runs" };
        if let Some(promise) = &self.unbroken {
            why.push(format!("the scenario is meant to break {promise}, and no seed did"));
        } else if !enough(self.held, counted - self.held) {
            why.push(format!("everything was seen to hold on {} of the {counted} {what} that count", self.held));
        }
        if !self.missing.is_empty() {
            why.push(format!("what the scenario expects was never reached: {}", self.missing.join(", ")));
        }
        let beside = self.with_majority.iter().flat_map(|ours| ours.too_little());
        why.extend(beside.map(|why| format!("with muster's majority {why}")));
        why
    }

    /// How many were run, in words.
    pub fn counted(&self) -> String {
        let seeds = self.run - self.varied;
        let variations = if self.varied == 1 { "variation" } else { "variations" };
        match self.varied {
            0 => format!("{seeds} seeds"),
            varied => format!("{seeds} seeds and {varied} {variations}"),
        }
    }

    /// Takes what came of running seeds again.
    pub fn compare(&mut self, twice: Twice) {
        if !twice.differ.is_empty() {
            self.verdict = Verdict::SafetyBroken;
        }
        self.twice = twice;
    }

    /// Takes what came of the same seeds with muster's majority. It must hold, whatever the baseline does.
    pub fn beside(&mut self, ours: Summary) {
        if ours.verdict != Verdict::Held {
            self.verdict = ours.verdict;
        }
        self.with_majority = Some(Box::new(ours));
    }
}

fn summarize(scenario: &Scenario, first: u64, end: u64, jobs: usize, begun: Instant, outcomes: &[Outcome]) -> Summary {
    let mut classes: BTreeMap<(Verdict, Option<&'static str>), Class> = BTreeMap::new();
    let mut reached: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut hash = 0u64;
    for outcome in outcomes {
        let promise = outcome.broken.as_ref().or(outcome.unbound.as_ref()).map(|broken| broken.promise);
        let class = classes.entry((outcome.verdict, promise)).or_insert_with(|| Class {
            verdict: outcome.verdict,
            promise,
            count: 0,
            examples: Vec::new(),
        });
        class.count += 1;
        if outcome.verdict != Verdict::Held && class.examples.len() < EXAMPLES_MAX {
            class.examples.push((outcome.name.clone(), outcome.what()));
        }
        for name in outcome.sometimes.keys().filter(|_| counts(outcome)) {
            *reached.entry(name).or_default() += 1;
        }
        let own = u64::from_str_radix(&outcome.hash, 16).unwrap_or(0);
        hash = (hash.rotate_left(7) ^ own).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    let faults = reach::of_all(outcomes.iter().map(|outcome| &outcome.faults));
    let wall_s = begun.elapsed().as_secs_f64();
    let missing: Vec<String> =
        scenario.expect.sometimes.iter().filter(|name| !reached.contains_key(name.as_str())).cloned().collect();
    let virtual_us: u64 = outcomes.iter().map(|outcome| outcome.virtual_us).sum();
    let busy_s = outcomes.iter().map(|outcome| outcome.core_us).sum::<u64>() as f64 / 1e6;
    let machine_hours = virtual_us as f64 / 3.6e9 * f64::from(scenario.machines);
    Summary {
        title: scenario.title.clone(),
        first,
        end,
        verdict: verdict(scenario, &classes, &missing),
        unbroken: scenario.expect.breaks.clone().filter(|breaks| !broke(&classes, breaks)),
        held: count(&classes, Verdict::Held),
        nothing_happened: count(&classes, Verdict::NothingHappened),
        never_took: faults.iter().filter(|(_, reach)| reach.took == 0).map(|(sort, _)| *sort).collect(),
        faults,
        run: outcomes.len() as u64,
        varied: 0,
        states: Reached::default(),
        stopped: false,
        classes: classes.into_values().collect(),
        unknown: sometimes::names().into_iter().filter(|name| !reached.contains_key(name)).collect(),
        sometimes: reached,
        missing,
        charter_after_s: spread(
            outcomes.iter().filter(|outcome| counts(outcome)).filter_map(|outcome| outcome.charter_after_us),
        ),
        ready_at_s: spread(outcomes.iter().filter(|outcome| counts(outcome)).filter_map(|outcome| outcome.ready_at_us)),
        twice: Twice::default(),
        with_majority: None,
        hash: format!("{hash:016x}"),
        events: outcomes.iter().map(|outcome| outcome.events).sum(),
        machine_hours,
        wall_s,
        jobs,
        seeds_per_minute: outcomes.len() as f64 / wall_s.max(1e-9) * 60.0,
        machine_hours_per_core_second: machine_hours / busy_s.max(1e-9),
    }
}

/// Whether some seed broke this promise.
fn broke(classes: &BTreeMap<(Verdict, Option<&'static str>), Class>, breaks: &str) -> bool {
    classes.keys().any(|(_, promise)| *promise == Some(breaks))
}

fn verdict(
    scenario: &Scenario,
    classes: &BTreeMap<(Verdict, Option<&'static str>), Class>,
    missing: &[String],
) -> Verdict {
    if let Some(breaks) = &scenario.expect.breaks {
        // A baseline that is meant to break shows nothing if it does not.
        let broke = broke(classes, breaks);
        let other = classes.keys().find(|(verdict, promise)| {
            *verdict != Verdict::AssumptionBroken && promise.is_some_and(|promise| promise != breaks)
        });
        return match (broke, other) {
            (_, Some((verdict, _))) => *verdict,
            (true, None) => Verdict::Held,
            (false, None) => Verdict::NotEnoughSeen,
        };
    }
    let count = |verdict: Verdict| count(classes, verdict);
    // Where the scenario broke what a promise assumes, the promise was not judged.
    let unknown = count(Verdict::NotEnoughSeen) + count(Verdict::AssumptionBroken);
    if count(Verdict::SafetyBroken) > 0 {
        Verdict::SafetyBroken
    } else if count(Verdict::LivenessBroken) > 0 {
        Verdict::LivenessBroken
    } else if !missing.is_empty() || !enough(count(Verdict::Held), unknown) {
        Verdict::NotEnoughSeen
    } else {
        Verdict::Held
    }
}

/// Whether a run counts: one in which no fault took effect shows nothing, not even what it reached.
fn counts(outcome: &Outcome) -> bool {
    outcome.verdict != Verdict::NothingHappened
}

/// Whether a sweep may say that everything held: most of its seeds must have shown it.
pub fn enough(held: u64, unknown: u64) -> bool {
    held > unknown
}

fn count(classes: &BTreeMap<(Verdict, Option<&'static str>), Class>, verdict: Verdict) -> u64 {
    classes.values().filter(|class| class.verdict == verdict).map(|class| class.count).sum()
}

/// Median, 99th percentile and worst, in seconds.
fn spread(values: impl Iterator<Item = u64>) -> Option<[f64; 3]> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    let at = |share: f64| values[(last as f64 * share).ceil() as usize] as f64 / 1e6;
    Some([at(0.5), at(0.99), at(1.0)])
}

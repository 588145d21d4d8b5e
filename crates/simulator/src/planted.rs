//! Can the simulator see? Mistakes are planted in the code, one at a time, and looked for.

use std::panic::AssertUnwindSafe;

use muster_wire::planted::{PLANTED, plant};
use serde::Serialize;

use crate::built_in;
use crate::guide::Guide;
use crate::name::Name;
use crate::run::{Outcome, run_named};
use crate::scenario::Scenario;

/// The scenarios that are tried in turn, each with the same number of seeds.
const SCENARIOS: &[&str] = &[
    "swarm-founding",
    "founding-duels",
    "late-init",
    "etcd-turns",
    "swarm-init",
    "late-proposals",
    "power-cuts",
    "forged-frames",
    "wiped-machine",
    "disks",
    "cloned-disk",
    "too-many-machines",
    "kairos-dead-first-control-plane",
    "two-clusters-one-network",
    "five",
    "swarm-5",
    "stray-proposals",
    "raft-snapshots",
    "raft-votes",
    "claims-fail",
    "init-fails",
    "etcd-cut",
    "etcd-reset",
    "other-image-later",
    "second-cluster",
    "second-cluster-second-hand",
    "regressions/l1-ticket-overtook-ready",
    "regressions/s6-learner-stays",
    "regressions/s8-old-etcd-turn",
    "dead-initialiser",
    "regressions/s4-answer-to-an-earlier-start",
    "regressions/s10-claims-unpaused",
    "regressions/s1-ballot-outlives-halt",
    "regressions/s8-turn-forgotten",
    "regressions/l1-poll-overtaken",
    "last-step-fails",
    "last-step-fails-once",
    "regressions/l3-earlier-life",
    "log-lost",
    "six-control-planes",
    "too-few",
    "strangers",
    "etcd-three",
    "turn-outlived",
    "turn-holder-lost",
    "snapshots-cut",
    "flapping-initialiser",
    "level-upgrade",
    "level-old-voter",
    "removal",
    "removal-away",
    "repair",
    "recovery-old",
    "recovery-behind",
    "planes-replaced-power-loss",
    "split-replaced",
    "level-while-replaced",
    "two-cut-off",
    "certificates-power-loss",
    "backups",
    "restore",
];

/// Where a mistake is looked for.
#[derive(Debug, Clone)]
pub struct Search {
    /// The scenarios that are tried in turn, by name.
    pub scenarios: Vec<String>,
    /// Their seeds begin so much later.
    pub first: u64,
    /// Most runs.
    pub seeds_max: u64,
    /// Whether every second run of a scenario that draws faults is a variation of an earlier one.
    pub guided: bool,
}

impl Search {
    /// In the scenarios that are meant for it.
    pub fn everywhere(seeds_max: u64) -> Self {
        let scenarios = SCENARIOS.iter().map(|name| (*name).to_owned()).collect();
        Self { scenarios, first: 0, seeds_max, guided: true }
    }
}

/// What came of one mistake.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// The mistake.
    pub name: &'static str,
    /// The promise it breaks.
    pub breaks: &'static str,
    /// What it does.
    pub what: &'static str,
    /// How many seeds and variations were run until it was found, or in vain.
    pub seeds: u64,
    /// Scenario, seed, and promise as it was seen broken.
    pub seen: Option<(String, Name, String)>,
}

/// The names of all mistakes.
pub fn names() -> impl Iterator<Item = &'static str> {
    PLANTED.iter().map(|(name, ..)| *name)
}

/// Looks for one mistake.
pub fn look_for(name: &str, search: &Search) -> Option<Found> {
    let (name, breaks, what) = *PLANTED.iter().find(|(known, ..)| *known == name)?;
    let (seeds, seen) = find(name, search);
    Some(Found { name, breaks, what, seeds, seen })
}

/// A scenario, and what was run of it.
struct Tried<'a> {
    name: &'a str,
    scenario: Scenario,
    guide: Guide,
    seeds: u64,
    variations: u64,
}

impl Tried<'_> {
    /// The next run: a seed, or a variation when it is its turn.
    fn next(&mut self, search: &Search) -> Name {
        let due = search.guided && self.seeds > self.variations;
        if let Some(name) = due.then(|| self.guide.next(&self.scenario, 1).pop()).flatten() {
            self.variations += 1;
            return name;
        }
        self.seeds += 1;
        // A regression keeps the seed that it was made of.
        (self.scenario.seed + search.first + self.seeds - 1).into()
    }
}

fn find(mistake: &'static str, search: &Search) -> (u64, Option<(String, Name, String)>) {
    let read = |name: &String| Scenario::parse(built_in::text(name)?).ok();
    let tried = search.scenarios.iter().filter_map(|name| {
        let scenario = read(name)?;
        Some(Tried { name, scenario, guide: Guide::default(), seeds: 0, variations: 0 })
    });
    let mut tried: Vec<Tried<'_>> = tried.collect();
    for nth in 0..search.seeds_max {
        let place = nth as usize % tried.len().max(1);
        let Some(tried) = tried.get_mut(place) else { break };
        let name = tried.next(search);
        let (broken, outcome) = outcome(&tried.scenario, &name, Some(mistake));
        if let Some(outcome) = outcome {
            tried.guide.learn(&outcome);
        }
        // What breaks without the mistake as well says nothing about it.
        if let Some(broken) = broken
            && self::outcome(&tried.scenario, &name, None).0.is_none()
        {
            return (nth + 1, Some((tried.name.to_owned(), name, broken)));
        }
    }
    (search.seeds_max, None)
}

/// The promise that a run breaks, if it breaks one that it is not meant to break, and the run unless it ended in a panic.
fn outcome(scenario: &Scenario, name: &Name, mistake: Option<&'static str>) -> (Option<String>, Option<Outcome>) {
    plant(mistake);
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| run_named(scenario, name))).ok();
    plant(None);
    let broken = match &outcome {
        None => Some("panic".to_owned()),
        Some(outcome) => outcome.broken.as_ref().map(|broken| broken.promise.to_owned()),
    };
    (broken.filter(|broken| scenario.expect.breaks.as_ref() != Some(broken)), outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_is_tried_is_there() {
        for name in SCENARIOS {
            assert!(built_in::text(name).is_some_and(|text| Scenario::parse(text).is_ok()), "{name}");
        }
    }
}

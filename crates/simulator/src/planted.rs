//! Can the simulator see? Mistakes are planted in the code, one at a time, and looked for.

use std::panic::AssertUnwindSafe;

use muster_wire::planted::{PLANTED, plant};
use serde::Serialize;

use crate::built_in;
use crate::run::run;
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
    "snapshots-cut",
    "flapping-initialiser",
];

/// What came of one mistake.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// The mistake.
    pub name: &'static str,
    /// The promise it breaks.
    pub breaks: &'static str,
    /// What it does.
    pub what: &'static str,
    /// How many seeds were run until it was found, or in vain.
    pub seeds: u64,
    /// Scenario, seed, and promise as it was seen broken.
    pub seen: Option<(String, u64, String)>,
}

/// The names of all mistakes.
pub fn names() -> impl Iterator<Item = &'static str> {
    PLANTED.iter().map(|(name, ..)| *name)
}

/// Looks for one mistake in at most `seeds_max` seeds.
pub fn look_for(name: &str, seeds_max: u64) -> Option<Found> {
    let (name, breaks, what) = *PLANTED.iter().find(|(known, ..)| *known == name)?;
    let (seeds, seen) = search(name, seeds_max);
    Some(Found { name, breaks, what, seeds, seen })
}

fn search(mistake: &'static str, seeds_max: u64) -> (u64, Option<(String, u64, String)>) {
    let scenarios: Vec<(&str, Scenario)> =
        SCENARIOS.iter().filter_map(|name| Some((*name, Scenario::parse(built_in::text(name)?).ok()?))).collect();
    for nth in 0..seeds_max {
        let (name, scenario) = &scenarios[nth as usize % scenarios.len()];
        // A regression keeps the seed that it was made of.
        let seed = scenario.seed + nth / scenarios.len() as u64;
        // What breaks without the mistake as well says nothing about it.
        if let Some(broken) = broken(scenario, seed, Some(mistake))
            && self::broken(scenario, seed, None).is_none()
        {
            return (nth + 1, Some(((*name).to_owned(), seed, broken)));
        }
    }
    (seeds_max, None)
}

/// The promise that a run breaks, if it breaks one that it is not meant to break.
fn broken(scenario: &Scenario, seed: u64, mistake: Option<&'static str>) -> Option<String> {
    plant(mistake);
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| run(scenario, seed)));
    plant(None);
    let broken = match outcome {
        Err(_) => "panic".to_owned(),
        Ok(outcome) => outcome.broken?.promise.to_owned(),
    };
    (scenario.expect.breaks.as_ref() != Some(&broken)).then_some(broken)
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

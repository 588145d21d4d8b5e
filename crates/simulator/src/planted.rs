//! Can the simulator see? Mistakes are planted in the protocol, one at a time, and looked for.

use std::panic::AssertUnwindSafe;

use muster_protocol::planted::{PLANTED, plant};
use serde::Serialize;

use crate::run::run;
use crate::scenario::Scenario;

/// The scenarios that are tried in turn, with the share of seeds each gets.
const SCENARIOS: [(&str, &str); 5] = [
    ("swarm-founding", include_str!("../../../simulations/swarm-founding.toml")),
    ("swarm-init", include_str!("../../../simulations/swarm-init.toml")),
    ("swarm-5", include_str!("../../../simulations/swarm-5.toml")),
    ("threshold-splits", include_str!("../../../simulations/threshold-splits.toml")),
    ("wiped-machine", include_str!("../../../simulations/wiped-machine.toml")),
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
    plant(Some(name));
    let found = search(seeds_max);
    plant(None);
    let (seeds, seen) = found;
    Some(Found { name, breaks, what, seeds, seen })
}

fn search(seeds_max: u64) -> (u64, Option<(String, u64, String)>) {
    let scenarios: Vec<(&str, Scenario)> =
        SCENARIOS.iter().filter_map(|(name, text)| Some((*name, Scenario::parse(text).ok()?))).collect();
    for nth in 0..seeds_max {
        let (name, scenario) = &scenarios[nth as usize % scenarios.len()];
        let seed = nth / scenarios.len() as u64;
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| run(scenario, seed)));
        let broken = match outcome {
            Err(_) => Some("panic".to_owned()),
            // The baseline is there to break S1, mistake or not.
            Ok(outcome) => outcome.broken.map(|broken| broken.promise.to_owned()),
        };
        if let Some(broken) = broken.filter(|broken| scenario.expect.breaks.as_ref() != Some(broken)) {
            return (nth + 1, Some((name.to_string(), seed, broken)));
        }
    }
    (seeds_max, None)
}

//! Can the simulator see? Mistakes are planted in the code, one at a time, and looked for.

use std::panic::AssertUnwindSafe;

use muster_wire::planted::{PLANTED, plant};
use serde::Serialize;

use crate::run::run;
use crate::scenario::Scenario;

/// The scenarios that are tried in turn, each with the same number of seeds.
const SCENARIOS: &[(&str, &str)] = &[
    ("swarm-founding", include_str!("../../../simulations/swarm-founding.toml")),
    ("founding-duels", include_str!("../../../simulations/founding-duels.toml")),
    ("late-init", include_str!("../../../simulations/late-init.toml")),
    ("etcd-turns", include_str!("../../../simulations/etcd-turns.toml")),
    ("swarm-init", include_str!("../../../simulations/swarm-init.toml")),
    ("late-proposals", include_str!("../../../simulations/late-proposals.toml")),
    ("power-cuts", include_str!("../../../simulations/power-cuts.toml")),
    ("forged-frames", include_str!("../../../simulations/forged-frames.toml")),
    ("wiped-machine", include_str!("../../../simulations/wiped-machine.toml")),
    ("disks", include_str!("../../../simulations/disks.toml")),
    ("cloned-disk", include_str!("../../../simulations/cloned-disk.toml")),
    ("too-many-machines", include_str!("../../../simulations/too-many-machines.toml")),
    ("kairos-dead-first-control-plane", include_str!("../../../simulations/kairos-dead-first-control-plane.toml")),
    ("two-clusters-one-network", include_str!("../../../simulations/two-clusters-one-network.toml")),
    ("five", include_str!("../../../simulations/five.toml")),
    ("swarm-5", include_str!("../../../simulations/swarm-5.toml")),
    ("stray-proposals", include_str!("../../../simulations/stray-proposals.toml")),
    ("raft-snapshots", include_str!("../../../simulations/raft-snapshots.toml")),
    ("raft-votes", include_str!("../../../simulations/raft-votes.toml")),
    ("claims-fail", include_str!("../../../simulations/claims-fail.toml")),
    ("init-fails", include_str!("../../../simulations/init-fails.toml")),
    ("etcd-cut", include_str!("../../../simulations/etcd-cut.toml")),
    ("etcd-reset", include_str!("../../../simulations/etcd-reset.toml")),
    ("other-image-later", include_str!("../../../simulations/other-image-later.toml")),
    ("second-cluster", include_str!("../../../simulations/second-cluster.toml")),
    ("second-cluster-second-hand", include_str!("../../../simulations/second-cluster-second-hand.toml")),
    (
        "regressions/l1-ticket-overtook-ready",
        include_str!("../../../simulations/regressions/l1-ticket-overtook-ready.toml"),
    ),
    ("regressions/s6-learner-stays", include_str!("../../../simulations/regressions/s6-learner-stays.toml")),
    ("regressions/s8-old-etcd-turn", include_str!("../../../simulations/regressions/s8-old-etcd-turn.toml")),
    ("dead-initialiser", include_str!("../../../simulations/dead-initialiser.toml")),
    (
        "regressions/s4-answer-to-an-earlier-start",
        include_str!("../../../simulations/regressions/s4-answer-to-an-earlier-start.toml"),
    ),
    ("regressions/s10-claims-unpaused", include_str!("../../../simulations/regressions/s10-claims-unpaused.toml")),
    (
        "regressions/s1-ballot-outlives-halt",
        include_str!("../../../simulations/regressions/s1-ballot-outlives-halt.toml"),
    ),
    ("regressions/s8-turn-forgotten", include_str!("../../../simulations/regressions/s8-turn-forgotten.toml")),
    ("regressions/l1-poll-overtaken", include_str!("../../../simulations/regressions/l1-poll-overtaken.toml")),
    ("last-step-fails", include_str!("../../../simulations/last-step-fails.toml")),
    ("last-step-fails-once", include_str!("../../../simulations/last-step-fails-once.toml")),
    ("regressions/l3-earlier-life", include_str!("../../../simulations/regressions/l3-earlier-life.toml")),
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
        SCENARIOS.iter().filter_map(|(name, text)| Some((*name, Scenario::parse(text).ok()?))).collect();
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

//! Numbers from papers beside ours, on the same conditions as far as that can be; where it cannot, the row says so.

mod idle;
mod raft;
mod spread;
mod swim;

use serde::Serialize;

use crate::scenario::{Bounds, Scenario};
use crate::world::World;

/// One row: what was measured, theirs and ours.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What, and on which conditions.
    pub what: String,
    /// What is published, and where.
    pub theirs: &'static str,
    /// How many measurements.
    pub count: usize,
    /// Our mean.
    pub mean: Option<f64>,
    /// Half of the 95 % confidence interval of the mean.
    pub margin: Option<f64>,
    /// 99.9th percentile, or the worst of fewer than a thousand.
    pub high: Option<f64>,
    /// The unit.
    pub unit: &'static str,
    /// In what ours differs, or why it is missing.
    pub note: String,
}

/// Makes a row, given how many measurements are wanted at most.
type Make = fn(seeds: u64) -> Row;

/// Every row, in the order of printing: what it is about, whether it takes long, and what makes it.
pub const ROWS: [(&str, bool, Make); 22] = [
    ("SWIM: load of 10", false, |seeds| swim::load(10, seeds)),
    ("SWIM: load of 25", false, |seeds| swim::load(25, seeds)),
    ("SWIM: load of 55", false, |seeds| swim::load(55, seeds)),
    ("SWIM: load of 200", true, |seeds| swim::load(200, seeds)),
    ("SWIM: first detection, 10 members", false, |seeds| swim::detection(10, seeds)),
    ("SWIM: first detection, 55 members", false, |seeds| swim::detection(55, seeds)),
    ("SWIM: from a death until all know", false, |seeds| swim::dead_everywhere(55, seeds)),
    ("SWIM: stable group under loss", false, swim::stable_group),
    ("SWIM: false positives under loss", false, swim::false_positives),
    ("dissemination to 50", false, |seeds| spread::spread(50, 0.0, seeds)),
    ("dissemination to 50, loss", false, |seeds| spread::spread(50, 0.25, seeds)),
    ("dissemination to 200", true, |seeds| spread::spread(200, 0.0, seeds)),
    ("dissemination to 200, loss", true, |seeds| spread::spread(200, 0.25, seeds)),
    ("dissemination to 1,000", true, |seeds| spread::spread(1_000, 0.0, seeds)),
    ("dissemination to 1,000, loss", true, |seeds| spread::spread(1_000, 0.25, seeds)),
    ("dissemination to 10,000", false, |_| spread::too_large(0.0)),
    ("dissemination to 10,000, loss", false, |_| spread::too_large(0.25)),
    ("Raft: election, 150 to 200 ms", false, |seeds| raft::election(&raft::NARROW, seeds)),
    ("Raft: election, 150 to 300 ms", false, |seeds| raft::election(&raft::LAN, seeds)),
    ("Raft: election, 300 to 600 ms", false, |seeds| raft::election(&raft::WAN, seeds)),
    ("idle egress of 10", false, |seeds| idle::egress(10, seeds)),
    ("idle egress of 100", false, |seeds| idle::egress(100, seeds)),
];

/// A scenario in which nothing is asked for.
fn base(machines: u32, control_planes: u32) -> Scenario {
    let text = format!("title = \"measure\"\nmachines = {machines}\n[image]\ncontrol_planes = {control_planes}\n");
    let mut scenario = Scenario::parse(&text).unwrap_or_else(|error| unreachable!("written right above: {error}"));
    scenario.bounds = Bounds { check: Vec::new(), ..Bounds::default() };
    scenario
}

/// Steps until `at_us`. False if the run ends before.
fn step_to(world: &mut World, at_us: u64) -> bool {
    while world.now < at_us {
        if !world.step() {
            return false;
        }
    }
    true
}

/// Steps until `done`, which is asked every 20 ms. Gives the time in seconds since `from_us`.
fn step_until(world: &mut World, from_us: u64, done: impl Fn(&World) -> bool) -> Option<f64> {
    loop {
        let next = world.now + 20_000;
        if !step_to(world, next) {
            return None;
        }
        if done(world) {
            return Some((world.now - from_us) as f64 / 1e6);
        }
    }
}

fn row(what: String, theirs: &'static str, mut values: Vec<f64>, unit: &'static str, note: &str) -> Row {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    let mean = (count > 0).then(|| values.iter().sum::<f64>() / count as f64);
    let margin = mean.filter(|_| count > 1).map(|mean| {
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1) as f64;
        1.96 * (variance / count as f64).sqrt()
    });
    let high = values.get((count.saturating_sub(1) as f64 * 0.999).ceil() as usize).copied();
    Row { what, theirs, count, mean, margin, high, unit, note: note.to_owned() }
}

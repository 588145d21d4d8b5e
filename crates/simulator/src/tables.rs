//! Numbers from papers beside ours, on the same conditions.

use serde::Serialize;

use crate::run::run_traced;
use crate::scenario::{Bounds, Fault, Pick, Scenario, Sort};
use crate::trace::Trace;
use crate::watch::Watch;
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
    pub mean: f64,
    /// Half of the 95 % confidence interval of the mean.
    pub margin: f64,
    /// 99.9th percentile, or the worst of fewer than a thousand.
    pub high: f64,
    /// The unit.
    pub unit: &'static str,
}

/// All tables, with `seeds` measurements a row.
pub fn all(seeds: u64) -> Vec<Row> {
    let mut rows = vec![election(seeds)];
    rows.extend([10, 25, 55].map(|machines| load(machines, seeds.min(5))));
    for machines in [10, 50] {
        rows.extend([0.0, 0.25].map(|loss| spread(machines, loss, seeds.min(20))));
    }
    rows
}

fn base(machines: u32, control_planes: u32) -> Scenario {
    let text = format!("title = \"measure\"\nmachines = {machines}\n[image]\ncontrol_planes = {control_planes}\n");
    let mut scenario = Scenario::parse(&text).expect("written right above");
    scenario.bounds = Bounds { check: Vec::new(), ..Bounds::default() };
    scenario
}

/// Raft: from a leader's death to the next leader, five voters. openraft waits its lease, which is the longest election
/// timeout, and then a timeout; so it gets half of the thesis' timeouts.
fn election(seeds: u64) -> Row {
    let mut scenario = base(5, 5);
    scenario.network.latency_ms = [15.0, 20.0];
    scenario.raft.heartbeat_ms = 75;
    scenario.raft.election_ms = [150, 300];
    scenario.phases.faults_s = 60.0;
    scenario.phases.heal_s = 1.0;
    scenario.faults = vec![Fault::new(Sort::Crash, 40.0, 20.0, Pick::Leader)];
    let values = (0..seeds).filter_map(|seed| {
        let (_, world) = run_traced(&scenario, seed, Trace::new(0));
        let lines = &world.watch().trace.as_ref()?.lines;
        let died = lines.iter().position(|line| line.kind == "fault")?;
        let next = lines[died..].iter().find(|line| line.kind == "leads")?;
        Some((next.at_us - lines[died].at_us) as f64 / 1e3)
    });
    row(
        "Raft: a leader's death to the next leader; 5 voters, 15 to 20 ms one way, timeouts 150 to 300 ms after the lease".into(),
        "mean 475 ms, p99.9 1500 ms (Ongaro's thesis, WAN, timeouts 300 to 600 ms, one server failed)",
        values.collect(),
        "ms",
    )
}

/// SWIM: messages sent per member and period by an idle cluster.
fn load(machines: u32, seeds: u64) -> Row {
    let mut scenario = base(machines, 3);
    scenario.phases.heal_s = 150.0;
    let values = (0..seeds).map(|seed| {
        let (_, world) = run_traced(&scenario, seed, Trace::new(4_000_000));
        let messages = world.watch().trace.as_ref().map(|trace| trace.frames.kept()).unwrap_or_default();
        let from = 100_000_000;
        let count = messages.iter().filter(|message| message.sent_us >= from && message.kind == "swim").count();
        let periods = (world.now - from) as f64 / 1e6 / muster_protocol::Tuning::default().swim_idle.as_secs_f64();
        count as f64 / f64::from(machines) / periods
    });
    row(
        format!("SWIM: messages per member and period, idle; {machines} machines, period 5 s"),
        "2.0 whatever the size (Das, Gupta, Motivala 2002, to 55 members, period 2 s)",
        values.collect(),
        "messages",
    )
}

/// Dissemination: from a machine's boot until every other one holds it for alive.
fn spread(machines: u32, loss: f64, seeds: u64) -> Row {
    let mut scenario = base(machines, 3);
    scenario.network.loss = loss;
    scenario.phases.faults_s = 60.0;
    scenario.phases.heal_s = 30.0;
    let late = machines - 1;
    scenario.faults = vec![Fault::new(Sort::Crash, 0.0, 40.0, Pick::These(vec![late]))];
    let values = (0..seeds).filter_map(|seed| {
        let mut world = World::new(&scenario, seed, Watch::default());
        while world.now < 40_000_000 || world.machine(late).is_none() {
            if !world.step() {
                return None;
            }
        }
        let (begun, id) = (world.now, world.machine(late)?.id());
        let mut next = begun;
        while world.step() {
            if world.now < next {
                continue;
            }
            next = world.now + 20_000;
            let known = |slot| world.machine(slot).is_some_and(|machine| machine.roster_alive().contains(&id));
            if (0..late).all(known) {
                return Some((world.now - begun) as f64 / 1e6);
            }
        }
        None
    });
    let theirs = match (machines, loss > 0.0) {
        (50, false) => "1.8 s (Serf's formula to 99.99 %, 50 machines, fanout 3, 200 ms)",
        (50, true) => "2.4 s (the same with 25 % loss)",
        _ => "none published for this size",
    };
    let what = format!(
        "dissemination: a machine's boot until all hold it for alive; {machines} machines, {:.0} % loss",
        loss * 100.0
    );
    row(what, theirs, values.collect(), "s")
}

fn row(what: String, theirs: &'static str, mut values: Vec<f64>, unit: &'static str) -> Row {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    let mean = values.iter().sum::<f64>() / count.max(1) as f64;
    let variance =
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count.saturating_sub(1).max(1) as f64;
    let high = values.get(((count.max(1) - 1) as f64 * 0.999).ceil() as usize).copied().unwrap_or(f64::NAN);
    Row { what, theirs, count, mean, margin: 1.96 * (variance / count.max(1) as f64).sqrt(), high, unit }
}

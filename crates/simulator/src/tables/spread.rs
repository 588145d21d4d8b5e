//! Dissemination, beside the formula by which Serf's convergence is computed (serf.io/docs/internals/simulator.html).

use super::{Row, base, row, step_until};
use crate::cost;
use crate::scenario::{Fault, Pick, Sort};
use crate::watch::Watch;
use crate::world::World;

/// Joins measured in one world: forming a large one costs more than measuring in it.
const JOINS: u32 = 5;
/// The first machine that comes late comes then, and the others each so long after the one before.
const FIRST_S: f64 = 40.0;
const APART_S: f64 = 12.0;
/// Seconds of a core that one row may take before no further world is begun.
const CORE_MAX_S: f64 = 20.0;

fn theirs(machines: u32, loss: f64) -> &'static str {
    match (machines, loss > 0.0) {
        (50, false) => "1.8 s (Serf's formula to 99.99 %: fanout 3, every 200 ms)",
        (50, true) => "2.4 s (the same with 25 % loss)",
        (1_000, false) => "2.2 s (Serf's formula to 99.99 %: fanout 3, every 200 ms)",
        (1_000, true) => "3.0 s (the same with 25 % loss)",
        (10_000, false) => "2.6 s (Serf's formula to 99.99 %: fanout 3, every 200 ms)",
        (10_000, true) => "3.4 s (the same with 25 % loss)",
        _ => "none published for this size",
    }
}

fn what(machines: u32, loss: f64) -> String {
    format!(
        "dissemination: a machine's boot until all others hold it for alive; {machines} machines, {:.0} % loss",
        loss * 100.0
    )
}

/// From a machine's boot until every other one holds it for alive.
pub(super) fn spread(machines: u32, loss: f64, seeds: u64) -> Row {
    let begun = cost::core_time();
    let mut values = Vec::new();
    for seed in 0..seeds.div_ceil(JOINS.into()).min(20) {
        values.extend(joins(machines, loss, seed));
        if (cost::core_time() - begun).as_secs_f64() > CORE_MAX_S {
            break;
        }
    }
    let note = "with the dials, handshakes and greetings that the formula leaves out; looked at every 20 ms";
    row(what(machines, loss), theirs(machines, loss), values, "s", note)
}

fn joins(machines: u32, loss: f64, seed: u64) -> Vec<f64> {
    let mut scenario = base(machines, 3);
    scenario.network.loss = loss;
    scenario.network.connections_max = 512;
    let first = machines - JOINS;
    let comes = |late: u32| FIRST_S + f64::from(late - first) * APART_S;
    scenario.phases.faults_s = comes(machines);
    scenario.phases.heal_s = 30.0;
    let away = |late: u32| Fault::new(Sort::Crash, 0.0, comes(late), Pick::These(vec![late]));
    scenario.faults = (first..machines).map(away).collect();
    let mut world = World::new(&scenario, seed, Watch::default());
    let mut values = Vec::new();
    for late in first..machines {
        // The events of its boot are among the very next.
        while world.machine(late).is_none() {
            if !world.step() {
                return values;
            }
        }
        let (begun, id) = (world.now, world.hosts[late as usize].me);
        let known = |world: &World| {
            (0..late).all(|slot| world.machine(slot).is_some_and(|machine| machine.holds_for_alive(id)))
        };
        values.extend(step_until(&mut world, begun, known));
    }
    values
}

/// What is not measured.
pub(super) fn too_large(loss: f64) -> Row {
    let note = "not measured: 10,000 machines that all hold 10,000 cards and members are 100 million of each";
    row(what(10_000, loss), theirs(10_000, loss), Vec::new(), "s", note)
}

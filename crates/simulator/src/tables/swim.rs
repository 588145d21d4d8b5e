//! SWIM (Das, Gupta, Motivala, "SWIM", DSN 2002): period 2 s as there.

use std::time::Duration;

use super::{Row, base, row, step_to, step_until};
use crate::scenario::{Fault, Pick, Scenario, Sort};
use crate::watch::Watch;
use crate::world::{Slot, World};

const PERIOD: Duration = Duration::from_secs(2);

fn world(scenario: &Scenario, seed: u64) -> World {
    let mut world = World::new(scenario, seed, Watch::default());
    world.tuning.swim_forming = PERIOD;
    world.tuning.swim_idle = PERIOD;
    world
}

/// Messages sent per member and period, once everyone has joined.
pub(super) fn load(machines: u32, seeds: u64) -> Row {
    let mut scenario = base(machines, 3);
    scenario.phases.heal_s = 180.0;
    let values = (0..seeds.min(10)).filter_map(|seed| {
        let mut world = world(&scenario, seed);
        let sent = |world: &World| world.hosts.iter().map(|host| host.sent_swim).sum::<u64>();
        let from = 120_000_000;
        step_to(&mut world, from).then_some(())?;
        let before = sent(&world);
        while world.step() {}
        let periods = (world.now - from) as f64 / 1e6 / PERIOD.as_secs_f64();
        Some((sent(&world) - before) as f64 / f64::from(machines) / periods)
    });
    row(
        format!("SWIM: messages sent per member and period, idle; {machines} members, period 2 s"),
        "2.0 whatever the size (SWIM, figure 2: up to 55 members)",
        values.collect(),
        "messages",
        "with the announcements to members held for dead, every 12 periods, and to one other, every 30",
    )
}

/// A world of `machines` in which the last one loses power at a time that differs with the seed. Gives the world as it was
/// then.
fn with_death(machines: u32, seed: u64) -> Option<(World, Slot)> {
    let victim = machines - 1;
    let at_s = 40.0 + (seed % 19) as f64 * PERIOD.as_secs_f64() / 19.0;
    let mut scenario = base(machines, 3);
    scenario.phases.faults_s = 120.0;
    scenario.phases.heal_s = 1.0;
    scenario.faults = vec![Fault::new(Sort::PowerLoss, at_s, 80.0, Pick::These(vec![victim]))];
    let mut world = world(&scenario, seed);
    let at_us = (at_s * 1e6) as u64;
    step_to(&mut world, at_us).then_some((world, victim))
}

/// From a silent death to the first doubt of anyone.
pub(super) fn detection(machines: u32, seeds: u64) -> Row {
    let values = (0..seeds.min(200)).filter_map(|seed| {
        let (mut world, victim) = with_death(machines, seed)?;
        let (from, id) = (world.now, world.hosts[victim as usize].me);
        let doubts =
            |world: &World| (0..victim).any(|slot| world.machine(slot).is_some_and(|machine| machine.doubts(id)));
        step_until(&mut world, from, doubts)
    });
    row(
        format!("SWIM: first detection of a silent death; {machines} members, period 2 s"),
        "3.16 s expected (SWIM, section 3.1: e/(e-1) periods; measured around it up to 55 members)",
        values.collect(),
        "s",
        "3 indirect probes where theirs has 1; looked at every 20 ms",
    )
}

/// From a silent death until no one holds the machine for alive.
pub(super) fn dead_everywhere(machines: u32, seeds: u64) -> Row {
    let values = (0..seeds.min(50)).filter_map(|seed| {
        let (mut world, victim) = with_death(machines, seed)?;
        let (from, id) = (world.now, world.hosts[victim as usize].me);
        let gone = |world: &World| {
            (0..victim).all(|slot| world.machine(slot).is_none_or(|machine| !machine.holds_for_alive(id)))
        };
        step_until(&mut world, from, gone)
    });
    row(
        format!("SWIM: from a silent death until nobody holds the machine for alive; {machines} members, period 2 s"),
        "none published for this suspicion time",
        values.collect(),
        "s",
        "suspicion lasts 4 log10 n periods, as in Lifeguard (Dadgar and others, 2018)",
    )
}

/// How many join.
const JOINS: u32 = 17;

/// What was seen of seventeen machines that started one after the other, every tenth frame being lost.
struct Stability {
    /// Machines that everybody held for alive all the time.
    stable: usize,
    /// How often some machine gave up another one that ran.
    given_up: u64,
    minutes: f64,
}

fn stability(seed: u64) -> Option<Stability> {
    let mut scenario = base(JOINS, 3);
    scenario.network.loss = 0.1;
    scenario.phases.faults_s = 200.0;
    scenario.phases.heal_s = 300.0;
    let late = |slot: Slot| Fault::new(Sort::Crash, 0.0, f64::from(slot) * 10.0, Pick::These(vec![slot]));
    scenario.faults = (1..JOINS).map(late).collect();
    let mut world = world(&scenario, seed);
    let from = 200_000_000;
    step_to(&mut world, from).then_some(())?;
    let ids: Vec<_> = world.hosts.iter().map(|host| host.me).collect();
    let holds = |world: &World, slot: Slot, other: usize| {
        world.machine(slot).is_some_and(|machine| machine.holds_for_alive(ids[other]))
    };
    let mut always = vec![true; ids.len()];
    let mut held = vec![true; ids.len() * ids.len()];
    let mut given_up = 0;
    loop {
        for slot in 0..JOINS {
            for other in 0..ids.len() {
                let now = holds(&world, slot, other);
                let before = &mut held[slot as usize * ids.len() + other];
                given_up += u64::from(*before && !now);
                always[other] &= now;
                *before = now;
            }
        }
        let next = world.now + 200_000;
        if !step_to(&mut world, next) {
            break;
        }
    }
    let minutes = (world.now - from) as f64 / 6e7;
    Some(Stability { stable: always.into_iter().filter(|always| *always).count(), given_up, minutes })
}

/// The stable group.
pub(super) fn stable_group(seeds: u64) -> Row {
    let values = (0..seeds.min(20)).filter_map(stability).map(|seen| seen.stable as f64);
    row(
        "SWIM: members that all hold for alive for 5 min without a break; 17 joined one by one, 10 % of frames lost"
            .into(),
        "2 (basic), 4 (with infection-style spreading), 12 (with suspicion) (SWIM, section 5)",
        values.collect(),
        "members of 17",
        "every frame of ours is lost at 10 %, theirs lost what was received",
    )
}

/// How often a running machine is given up.
pub(super) fn false_positives(seeds: u64) -> Row {
    let values = (0..seeds.min(20)).filter_map(stability).map(|seen| seen.given_up as f64 / seen.minutes);
    row(
        "SWIM: how often a machine gives up another one that runs, in the whole group; conditions as above".into(),
        "not given as a rate",
        values.collect(),
        "a minute",
        "of 272 pairs",
    )
}

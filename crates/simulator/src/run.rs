//! One run and what came of it.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use crate::check::{Broken, Standing};
use crate::cost;
use crate::name::Name;
use crate::reach::{self, Reach};
use crate::scenario::{Fault, Scenario, Sort};
use crate::states::Way;
use crate::trace::Trace;
use crate::vary;
use crate::watch::Watch;
use crate::world::{At, Lost, World};

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every promise that was asked for held.
    Held,
    /// A safety promise was broken.
    SafetyBroken,
    /// A liveness promise was broken.
    LivenessBroken,
    /// Some promise could not be judged.
    NotEnoughSeen,
    /// What a safety promise says came about, because the scenario broke what the promise assumes: nobody's mistake.
    AssumptionBroken,
    /// No fault took effect though the scenario has some: whatever held shows nothing of what the scenario is for.
    NothingHappened,
}

impl Verdict {
    /// The word in JSON and in output.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Held => "held",
            Verdict::SafetyBroken => "safety-broken",
            Verdict::LivenessBroken => "liveness-broken",
            Verdict::NotEnoughSeen => "not-enough-seen",
            Verdict::AssumptionBroken => "assumption-broken",
            Verdict::NothingHappened => "nothing-happened",
        }
    }

    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Verdict::Held => 0,
            Verdict::SafetyBroken => 1,
            Verdict::LivenessBroken => 2,
            Verdict::NotEnoughSeen | Verdict::NothingHappened => 3,
            Verdict::AssumptionBroken => 5,
        }
    }
}

/// The result of one run. Nothing in it but `wall_us` and `core_us` depends on the computer.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The run's name: the seed, and how its faults were varied.
    pub name: Name,
    /// The verdict.
    pub verdict: Verdict,
    /// What was broken first.
    pub broken: Option<Broken>,
    /// The promise that does not hold because the scenario broke what it assumes. Then liveness is not judged.
    pub unbound: Option<Broken>,
    /// Digest of everything that happened.
    pub hash: String,
    /// Liveness promises.
    pub liveness: BTreeMap<&'static str, Standing>,
    /// From heal to one charter everywhere, in microseconds.
    pub charter_after_us: Option<At>,
    /// When every machine was Ready, in microseconds.
    pub ready_at_us: Option<At>,
    /// How the faults fared, by sort.
    pub faults: BTreeMap<Sort, Reach>,
    /// States reached, with how often.
    pub sometimes: BTreeMap<&'static str, u64>,
    /// How many of the protocol's states the site came to.
    pub states: u64,
    /// Which, and when. A sweep that has counted them forgets them.
    #[serde(skip)]
    pub way: Way,
    /// Virtual time in microseconds.
    pub virtual_us: At,
    /// Events handled.
    pub events: u64,
    /// Frames sent.
    pub frames: u64,
    /// Bytes of frames sent.
    pub frame_bytes: u64,
    /// Frames lost, by reason.
    pub lost: BTreeMap<Lost, u64>,
    /// Microseconds it took.
    pub wall_us: u64,
    /// Of those, microseconds on a core.
    pub core_us: u64,
}

impl Outcome {
    /// The verdict when a run was stopped on the way: what is not known yet is not missing.
    pub(crate) fn verdict_so_far(&self) -> Verdict {
        match self.verdict {
            Verdict::NotEnoughSeen | Verdict::NothingHappened => Verdict::Held,
            verdict => verdict,
        }
    }

    /// What there is to say of it in one line.
    pub fn what(&self) -> String {
        if let Some(broken) = &self.broken {
            return format!("{} at {:.3} s: {}", broken.promise, broken.at_us as f64 / 1e6, broken.what);
        }
        if let Some(unbound) = &self.unbound {
            let at_s = unbound.at_us as f64 / 1e6;
            return format!("{} outside of what it assumes at {at_s:.3} s: {}", unbound.promise, unbound.what);
        }
        if self.verdict == Verdict::NothingHappened {
            return "no fault took effect".to_owned();
        }
        let unknown = self.liveness.iter().filter_map(|(promise, standing)| match standing {
            Standing::Unknown { why } => Some(format!("{promise} unknown: {why}")),
            _ => None,
        });
        unknown.collect::<Vec<_>>().join("; ")
    }
}

/// Runs a seed of a scenario.
pub fn run(scenario: &Scenario, seed: u64) -> Outcome {
    run_named(scenario, &seed.into())
}

/// Runs a seed, or a variation of one.
pub fn run_named(scenario: &Scenario, name: &Name) -> Outcome {
    finish(world(scenario, name, Watch::default()), name).0
}

/// Runs it with these faults in place of its own.
pub fn run_plan(scenario: &Scenario, seed: u64, plan: Vec<Fault>) -> Outcome {
    finish(World::with_plan(scenario, seed, plan, Watch::default()), &seed.into()).0
}

/// Runs it with a trace.
pub fn run_traced(scenario: &Scenario, seed: u64, trace: Trace) -> (Outcome, World) {
    let name = seed.into();
    finish(world(scenario, &name, Watch::traced(trace)), &name)
}

/// Runs it with or without a trace, telling now and then at what virtual time it is, and when it ends at the latest.
pub fn run_telling(
    scenario: &Scenario,
    name: &Name,
    trace: Option<Trace>,
    told: impl FnMut(At, At),
) -> (Outcome, World) {
    let watch = trace.map_or_else(Watch::default, Watch::traced);
    finish_telling(world(scenario, name, watch), name, told)
}

/// The world of a run before its first event.
pub fn world(scenario: &Scenario, name: &Name, watch: Watch) -> World {
    let vary::Run { seed, plan } = vary::made_of(scenario, name);
    World::with_plan(scenario, seed, plan, watch)
}

fn finish(world: World, name: &Name) -> (Outcome, World) {
    finish_telling(world, name, |_, _| {})
}

fn finish_telling(mut world: World, name: &Name, told: impl FnMut(At, At)) -> (Outcome, World) {
    let (begun, core) = (Instant::now(), cost::core_time());
    world.run_telling(told);
    let mut outcome = outcome_of(&world, name, begun.elapsed().as_micros() as u64);
    outcome.core_us = (cost::core_time() - core).as_micros() as u64;
    (outcome, world)
}

/// What came of a world so far.
pub(crate) fn outcome_of(world: &World, name: &Name, wall_us: u64) -> Outcome {
    let watch = &world.watch;
    let broken = watch.broken_promise().cloned();
    let liveness = watch.checks.liveness.standing().clone();
    let unknown = liveness.values().any(|standing| matches!(standing, Standing::Unknown { .. }));
    let unbound = watch.checks.unbound().cloned();
    let faults = reach::of_run(&world.plan, &world.fared());
    let disturbed = faults.values().any(|reach| reach.took > 0);
    let meant = world.scenario.expect.unbound.as_deref();
    let verdict = match &broken {
        Some(broken) if broken.promise.starts_with('S') => Verdict::SafetyBroken,
        _ if unbound.as_ref().is_some_and(|unbound| Some(unbound.promise) != meant) => Verdict::AssumptionBroken,
        Some(_) => Verdict::LivenessBroken,
        None if world.scenario.disturbs() && !disturbed => Verdict::NothingHappened,
        // Where it came to that, liveness is not judged.
        None if unknown && unbound.is_none() => Verdict::NotEnoughSeen,
        None => Verdict::Held,
    };
    let way = watch.site.way();
    Outcome {
        seed: name.seed,
        name: name.clone(),
        verdict,
        broken,
        unbound,
        hash: format!("{:016x}", watch.hash()),
        liveness,
        charter_after_us: watch.checks.liveness.charter_after_us,
        ready_at_us: watch.checks.liveness.ready_at_us,
        faults,
        sometimes: watch.sometimes.all().collect(),
        states: way.len() as u64,
        way,
        virtual_us: world.now,
        events: world.handled,
        frames: world.hosts.iter().map(|host| host.sent).sum(),
        frame_bytes: world.hosts.iter().map(|host| host.sent_bytes).sum(),
        lost: watch.frames_lost().clone(),
        wall_us,
        core_us: 0,
    }
}

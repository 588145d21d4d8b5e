//! What the simulator can do on this computer, and how fast clusters form in it: measured, with what was aimed at beside it.

use serde::Serialize;

use crate::calibrate;
use crate::cost;
use crate::run::{Outcome, run};
use crate::scenario::Scenario;
use crate::watch::Watch;
use crate::world::World;

/// A number.
#[derive(Debug, Clone, Serialize)]
pub struct Number {
    /// What was measured, and on which conditions.
    pub what: String,
    /// What came of it; nothing if it was not reached.
    pub value: Option<f64>,
    /// Its unit.
    pub unit: &'static str,
    /// What was aimed at.
    pub goal: f64,
    /// Whether it was met.
    pub met: bool,
    /// What else there is to say.
    pub note: String,
    /// Seconds of one core that the measurement took.
    pub core_s: f64,
}

/// Whether a number should be large or small.
enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn number(&self) -> f64 {
        match self {
            Goal::AtLeast(goal) | Goal::AtMost(goal) => *goal,
        }
    }

    fn met(&self, value: f64) -> bool {
        match self {
            Goal::AtLeast(goal) => value >= *goal,
            Goal::AtMost(goal) => value <= *goal,
        }
    }
}

/// One measurement: its name, and what makes its numbers. `tell` hears how far it is.
pub struct Measurement {
    /// A word for the command line.
    pub name: &'static str,
    /// Makes the numbers.
    pub measure: fn(quick: bool, tell: &dyn Fn(String)) -> Vec<Number>,
}

/// All measurements, in the order of what they need.
pub const MEASUREMENTS: [Measurement; 5] = [
    Measurement { name: "formation", measure: formation },
    Measurement { name: "gossip", measure: gossip },
    Measurement { name: "voters", measure: voters },
    Measurement { name: "swarm", measure: swarm },
    Measurement { name: "heal", measure: heal },
];

fn scenario(text: &str) -> Scenario {
    Scenario::parse(text).unwrap_or_else(|error| unreachable!("a scenario of this file: {error}"))
}

fn number(what: String, goal: Goal, value: Option<f64>, unit: &'static str, core_s: f64, note: String) -> Number {
    Number { what, value, unit, goal: goal.number(), met: value.is_some_and(|value| goal.met(value)), note, core_s }
}

/// Machines, found and joined or not, in hours of their own time for a second of a core.
fn machine_hours(outcomes: &[Outcome], machines: u32) -> (f64, f64) {
    let core_s = outcomes.iter().map(|outcome| outcome.core_us).sum::<u64>() as f64 / 1e6;
    let hours = outcomes.iter().map(|outcome| outcome.virtual_us).sum::<u64>() as f64 / 3.6e9 * f64::from(machines);
    (hours / core_s.max(1e-9), core_s)
}

fn runs(scenario: &Scenario, seeds: u64, what: &str, tell: &dyn Fn(String)) -> Vec<Outcome> {
    let one = |seed| {
        tell(format!("{what}: seed {} of {seeds}", seed + 1));
        run(scenario, seed)
    };
    (0..seeds).map(one).collect()
}

/// How many did not hold what they should.
fn broken(outcomes: &[Outcome]) -> String {
    let broken: Vec<String> =
        outcomes.iter().filter_map(|outcome| outcome.broken.as_ref().map(|_| outcome.what())).collect();
    match broken.first() {
        None => format!("{} seeds, no promise broken", outcomes.len()),
        Some(first) => format!("{} of {} seeds broke a promise, the first: {first}", broken.len(), outcomes.len()),
    }
}

/// Seconds of a core after which a formation is given up, and what would take longer than one is left out.
const FORMATION_MAX_S: f64 = 180.0;

/// What one of 300 seeds a minute may cost, in turns of the calibration loop at a fiftieth of a second each.
const LOOPS_A_SEED: f64 = 10.0;

/// Memory beyond which a formation is given up, in bytes: it would not become less.
const FORMATION_MAX_BYTES: u64 = 6 << 30;

/// A thousand machines and ten thousand, from their boot until all follow one charter.
fn formation(quick: bool, tell: &dyn Fn(String)) -> Vec<Number> {
    let sizes: &[u32] = if quick { &[1_000] } else { &[1_000, 10_000] };
    sizes.iter().flat_map(|machines| formation_of(*machines, tell)).collect()
}

fn formation_of(machines: u32, tell: &dyn Fn(String)) -> Vec<Number> {
    let scenario = scenario(&format!(
        "title = \"formation\"\nmachines = {machines}\n[image]\ncontrol_planes = 5\n[network]\nconnections_max = {}\n\
         [phases]\nfaults_s = 3600.0\nheal_s = 1.0\n[bounds]\ncheck = []\n",
        // A founding quorum must be reachable; the agent has 512 at most.
        (machines / 2).max(512)
    ));
    let what = format!("formation of {machines} machines, from boot until all follow one charter");
    let peak_known = cost::forget_peak();
    let begun = cost::core_time();
    let spent = || (cost::core_time() - begun).as_secs_f64();
    let mut world = World::new(&scenario, 0, Watch::default());
    let mut look_at = 0;
    let mut chartered = 0;
    let fits = || !peak_known || cost::peak_bytes().is_none_or(|bytes| bytes < FORMATION_MAX_BYTES);
    while spent() < FORMATION_MAX_S && fits() && chartered < machines && world.step() {
        // The clock is not asked at every event, and the machines even less often.
        let until = world.now + 20_000;
        while world.now < until && world.step() {}
        if world.now >= look_at {
            look_at = world.now + 200_000;
            let follows = |slot: &u32| world.machine(*slot).is_some_and(|machine| machine.charter().is_some());
            chartered = (0..machines).filter(follows).count() as u32;
            let seconds = world.now as f64 / 1e6;
            tell(format!("{what}: {chartered} follow it after {seconds:.1} virtual and {:.0} core seconds", spent()));
        }
    }
    let (core_s, done) = (spent(), chartered == machines);
    let virtual_s = world.now as f64 / 1e6;
    let note = match (done, world.watch().broken_promise()) {
        (_, Some(broken)) => format!("{} was broken: {}", broken.promise, broken.what),
        (true, None) => format!("after {virtual_s:.1} virtual seconds, {} events", world.handled()),
        (false, None) => format!(
            "given up after {core_s:.0} core seconds, which were {virtual_s:.1} virtual ones; {chartered} follow a charter"
        ),
    };
    let peak = cost::peak_bytes().filter(|_| peak_known).map(|bytes| bytes as f64 / 1e6);
    let memory = if done { "its peak of memory" } else { "the peak of memory up to then" };
    vec![
        number(what.clone(), Goal::AtMost(60.0), done.then_some(core_s), "s of a core", core_s, note),
        number(format!("{what}: {memory}"), Goal::AtMost(2_000.0), peak, "MB", core_s, String::new()),
    ]
}

/// A thousand machines for an hour of their time.
fn gossip(quick: bool, tell: &dyn Fn(String)) -> Vec<Number> {
    let mut scenario = scenario(include_str!("../../../simulations/thousand.toml"));
    let found = runs(&scenario, 1, "1,000 machines found", tell);
    let (forming, core_s) = machine_hours(&found, scenario.machines);
    let first = number(
        format!("1,000 machines boot, found and gossip for {:.0} s", scenario.phases.heal_s),
        Goal::AtLeast(100.0),
        Some(forming),
        "machine-hours per core second",
        core_s,
        broken(&found),
    );
    if quick {
        return vec![first];
    }
    let what = "1,000 machines boot, found, join and gossip for half an hour".to_owned();
    if core_s > FORMATION_MAX_S {
        let note = format!("not measured, since the first minute alone took {core_s:.0} s of a core");
        return vec![first, number(what, Goal::AtLeast(100.0), None, "machine-hours per core second", 0.0, note)];
    }
    scenario.phases.heal_s = 1_800.0;
    let long = runs(&scenario, 1, "1,000 machines for half an hour", tell);
    let (whole, core_s) = machine_hours(&long, scenario.machines);
    vec![first, number(what, Goal::AtLeast(100.0), Some(whole), "machine-hours per core second", core_s, broken(&long))]
}

/// Fifty machines with real Raft.
fn voters(quick: bool, tell: &dyn Fn(String)) -> Vec<Number> {
    let seeds = if quick { 2 } else { 10 };
    let one = |voters: u32, minutes: u32| {
        let scenario = scenario(&format!(
            "title = \"voters\"\nmachines = 50\n[image]\ncontrol_planes = {voters}\n[phases]\nheal_s = {}.0\n",
            minutes * 60
        ));
        let what = format!("50 machines, {voters} of them Raft's voters, boot, found, join and idle for {minutes} min");
        let outcomes = runs(&scenario, seeds, &what, tell);
        let (value, core_s) = machine_hours(&outcomes, 50);
        let note = broken(&outcomes);
        number(what, Goal::AtLeast(10.0), Some(value), "machine-hours per core second", core_s, note)
    };
    vec![one(3, 2), one(5, 2), one(3, 10), one(5, 10)]
}

/// Formations of fifty machines with every fault, and the calibration loop between them.
fn swarm(quick: bool, tell: &dyn Fn(String)) -> Vec<Number> {
    const TOGETHER: u64 = 5;
    let scenario = scenario(include_str!("../../../simulations/swarm-50.toml"));
    let seeds: u64 = if quick { 10 } else { 100 };
    let (mut outcomes, mut loops) = (Vec::new(), Vec::new());
    for seed in 0..seeds {
        tell(format!("50 machines, all faults: seed {} of {seeds}", seed + 1));
        if seed.is_multiple_of(TOGETHER) {
            loops.push(calibrate::once().as_secs_f64());
        }
        outcomes.push(run(&scenario, seed));
    }
    let (hours, core_s) = machine_hours(&outcomes, 50);
    let per_minute = seeds as f64 * 60.0 / core_s.max(1e-9);
    let loop_s = loops.iter().sum::<f64>() / loops.len() as f64;
    let what = "formations of 50 machines with all faults, 120 virtual seconds each".to_owned();
    let note = format!("{}; {hours:.1} machine-hours per core second", broken(&outcomes));
    let of_loops = format!(
        "one such formation, in turns of a fixed loop that took {:.1} ms here; {LOOPS_A_SEED:.0} of 20 ms are 300 a minute",
        loop_s * 1e3
    );
    let loops_a_seed = core_s / seeds as f64 / loop_s.max(1e-9);
    vec![
        number(what, Goal::AtLeast(300.0), Some(per_minute), "seeds a minute of a core", core_s, note),
        number(of_loops, Goal::AtMost(LOOPS_A_SEED), Some(loops_a_seed), "loops", core_s, String::new()),
    ]
}

/// From the end of a split into halves to one charter everywhere, while three frames of ten are lost all the time.
fn heal(quick: bool, tell: &dyn Fn(String)) -> Vec<Number> {
    let scenario = scenario(
        "title = \"heal\"\nmachines = 50\n[network]\nloss = 0.3\n[phases]\nfaults_s = 20.0\nheal_s = 40.0\n[bounds]\ncheck = []\n\
         [[fault]]\nkind = \"split\"\nat_s = 0.0\nfor_s = 20.0\nmachines = \"half\"\n",
    );
    let outcomes = runs(&scenario, if quick { 20 } else { 200 }, "heal under loss", tell);
    let (_, core_s) = machine_hours(&outcomes, 50);
    let mut times: Vec<u64> = outcomes.iter().map(|outcome| outcome.charter_after_us.unwrap_or(u64::MAX)).collect();
    times.sort_unstable();
    let at = |share: f64| {
        let time = times[((times.len() - 1) as f64 * share).ceil() as usize];
        (time < u64::MAX).then_some(time as f64 / 1e6)
    };
    let what = "50 machines, 30 % loss throughout: from the end of a split into halves to one charter everywhere";
    let row = |name: &str, share: f64| {
        let note = format!("{}; looked at every 0.5 s", broken(&outcomes));
        number(format!("{what}, {name}"), Goal::AtMost(10.0), at(share), "s", core_s, note)
    };
    vec![row("median", 0.5), row("99th percentile", 0.99), row("worst", 1.0)]
}

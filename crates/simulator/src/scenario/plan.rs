//! From a scenario and a seed to the faults of one run.

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::{Fault, Pick, Scenario, Sort, Swarm};

/// The steps of the kubeadm device; a swarm disturbs all but those that nobody's joining hangs on, the last ones.
pub(super) const STEPS: [&str; 19] = [
    "check",
    "prepare",
    "make-pki",
    "seal-pki",
    "issue-ticket",
    "init",
    "init-finish",
    "found",
    "found-finish",
    "join",
    "join-etcd",
    "join-finish",
    "await-ready",
    "reset",
    "delete-token",
    "apply-manifests",
    "strike",
    "leave-etcd",
    "rebuild-etcd",
];

const COPIES_KEPT: i32 = crate::world::COPIES_KEPT as i32;

/// How many of them a swarm disturbs by name.
const DISTURBED: usize = 14;

/// The faults of one run, ordered by when they begin, with the machines named wherever the seed alone decides them.
pub fn plan(scenario: &Scenario, seed: u64) -> Vec<Fault> {
    Drawn::new(scenario, seed).plan()
}

/// The faults of one run: those that the scenario fixes, and those that are drawn for this seed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Drawn {
    /// Of the scenario, with the machines named that the seed decides.
    pub(crate) fixed: Vec<Fault>,
    /// Of its swarm.
    pub(crate) drawn: Vec<Fault>,
}

impl Drawn {
    /// Of this seed.
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        // A stream of its own: what a fault does in the run must not change which faults there are.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        let (mut fixed, mut drawn) = (scenario.faults.clone(), Vec::new());
        if let Some(swarm) = &scenario.swarm {
            let count = rng.random_range(swarm.faults[0]..=swarm.faults[1]);
            drawn.extend((0..count).map(|_| draw(swarm, scenario, &mut rng)));
        }
        for fault in fixed.iter_mut().chain(&mut drawn) {
            settle(fault, scenario.machines, &mut rng);
        }
        Self { fixed, drawn }
    }

    /// One more fault of a swarm, with its machines named.
    pub(crate) fn one(swarm: &Swarm, scenario: &Scenario, rng: &mut ChaCha8Rng) -> Fault {
        let mut fault = draw(swarm, scenario, rng);
        settle(&mut fault, scenario.machines, rng);
        fault
    }

    /// All of them, ordered by when they begin.
    pub(crate) fn plan(self) -> Vec<Fault> {
        let mut faults = self.fixed;
        faults.extend(self.drawn);
        faults.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        faults
    }
}

fn milliseconds(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn draw(swarm: &Swarm, scenario: &Scenario, rng: &mut ChaCha8Rng) -> Fault {
    let kind = *swarm.sorts.choose(rng).expect("the parser refuses a swarm without sorts");
    let time = scenario.phases.faults_s;
    // Most of what can go wrong goes wrong early: a cluster is founded within a second and joined within ten. So times are
    // drawn evenly in orders of magnitude.
    let early = |rng: &mut ChaCha8Rng, most: f64| milliseconds(most * 1e-3f64.powf(rng.random_range(0.0..=1.0)));
    let at_s = early(rng, time);
    let for_s = early(rng, (time - at_s).max(0.001));
    let machines = match rng.random_range(0..10) {
        0 => Pick::Leader,
        1 => Pick::Initialiser,
        2 => Pick::ControlPlanes,
        3 => Pick::Proposer,
        4 => Pick::Half,
        5 => Pick::All,
        _ => Pick::Random(rng.random_range(1..=scenario.machines.div_ceil(3))),
    };
    // A copy and its original.
    let machines = if kind == Sort::Clone { Pick::Random(2) } else { machines };
    let mut fault = Fault::new(kind, at_s, for_s, machines);
    for parameter in kind.takes() {
        give(&mut fault, parameter, swarm, rng);
    }
    fault
}

fn give(fault: &mut Fault, parameter: &str, swarm: &Swarm, rng: &mut ChaCha8Rng) {
    match parameter {
        "rate" => {
            let most = if fault.kind == Sort::Loss { swarm.loss_max } else { 0.3 };
            fault.rate = Some(milliseconds(rng.random_range(0.0..=most)));
        }
        "ms" => {
            let most = match fault.kind {
                Sort::Slow => 40.0,
                Sort::ClockJump => 30_000.0,
                Sort::LateProposals => 60_000.0,
                _ => 800.0,
            };
            fault.ms = Some(rng.random_range(1.0f64..=most).round());
        }
        "kbit" => fault.kbit = Some(rng.random_range(64.0f64..=2_000.0).round()),
        "bytes" => fault.bytes = Some(rng.random_range(600..=9_000)),
        "period_s" => fault.period_s = Some(milliseconds(rng.random_range(0.2..=6.0))),
        "ppm" => fault.ppm = Some(rng.random_range(-100_000.0f64..=100_000.0).round()),
        "count" => fault.count = Some(rng.random_range(1..=3)),
        "level" => fault.level = Some(rng.random_range(muster_wire::level::FOUNDED..=muster_wire::level::KNOWN)),
        // Of the first copies that are kept, or back from the last.
        "copy" => fault.copy = Some(rng.random_range(-COPIES_KEPT..COPIES_KEPT)),
        // By numbers, as long as nobody says otherwise.
        "half" => {}
        _ => {
            fault.step =
                (!rng.random_ratio(1, 4)).then(|| STEPS[..DISTURBED].choose(rng).expect("there are steps").to_string())
        }
    }
}

/// Names the machines that the seed alone decides.
fn settle(fault: &mut Fault, machines: u32, rng: &mut ChaCha8Rng) {
    let count = match fault.machines {
        Pick::Random(count) => count.min(machines),
        Pick::Half => machines / 2,
        _ => return,
    };
    let all: Vec<u32> = (0..machines).collect();
    let mut chosen: Vec<u32> = all.sample(rng, count as usize).copied().collect();
    if fault.kind != Sort::Clone {
        chosen.sort_unstable();
    }
    fault.machines = Pick::These(chosen);
}

//! Variations of a run: the same seed with some of its drawn faults otherwise. A variation is always a run that another seed
//! might have drawn: what the scenario fixes stays, and what it draws stays within what it draws from. So whatever breaks in
//! one is as good a finding as in any other run.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh3::xxh3_64;

use crate::name::{Name, Step};
use crate::scenario::{Drawn, Fault, Scenario, Swarm};
use crate::world::At;

/// Most changes that one variation makes.
const CHANGES_MAX: u32 = 3;

/// How far from its moment a fault is put, in seconds: evenly in orders of magnitude, most of them close.
const AROUND_S: [f64; 2] = [0.000_1, 10.0];

/// What a named run is made of: the seed of everything that is left to chance, and the faults.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The seed of latencies, identities and so on.
    pub seed: u64,
    /// The faults, in the order in which they begin.
    pub plan: Vec<Fault>,
}

/// Whether there is something to vary: a scenario that draws nothing is the same for every seed but for latencies.
pub fn varies(scenario: &Scenario) -> bool {
    scenario.swarm.is_some() && scenario.phases.faults_s > 0.0
}

/// What the run of this name is made of.
pub fn made_of(scenario: &Scenario, name: &Name) -> Run {
    let mut seed = name.seed;
    let mut drawn = Drawn::new(scenario, seed);
    if let Some(swarm) = &scenario.swarm {
        let mut so_far = Name::from(name.seed);
        for step in &name.steps {
            so_far.steps.push(*step);
            let mut rng = ChaCha8Rng::seed_from_u64(xxh3_64(so_far.to_string().as_bytes()));
            let mut variation = Variation { scenario, swarm, step: *step, rng: &mut rng };
            variation.vary(&mut seed, &mut drawn.drawn);
        }
    }
    Run { seed, plan: drawn.plan() }
}

struct Variation<'a> {
    scenario: &'a Scenario,
    swarm: &'a Swarm,
    step: Step,
    rng: &'a mut ChaCha8Rng,
}

impl Variation<'_> {
    fn vary(&mut self, seed: &mut u64, faults: &mut Vec<Fault>) {
        for _ in 0..self.rng.random_range(1..=CHANGES_MAX) {
            let [least, most] = self.swarm.faults.map(|count| count as usize);
            match self.rng.random_range(0..8) {
                0 | 1 if !faults.is_empty() => self.change(faults, Self::move_around),
                2 if !faults.is_empty() => self.change(faults, Self::lengthen),
                3 if !faults.is_empty() => self.change(faults, Self::aim),
                4 if faults.len() > least => {
                    let place = self.place(faults);
                    faults.remove(place);
                }
                5 => *seed = self.rng.random(),
                _ if faults.len() < most => faults.push(self.another()),
                _ if !faults.is_empty() => {
                    let place = self.place(faults);
                    faults[place] = self.another();
                }
                _ => {}
            }
        }
    }

    fn place(&mut self, faults: &[Fault]) -> usize {
        self.rng.random_range(0..faults.len())
    }

    fn change(&mut self, faults: &mut [Fault], how: fn(&mut Self, &mut Fault)) {
        let place = self.place(faults);
        how(self, &mut faults[place]);
    }

    /// Another fault, which begins around the moment.
    fn another(&mut self) -> Fault {
        let mut fault = Drawn::one(self.swarm, self.scenario, self.rng);
        self.move_around(&mut fault);
        fault
    }

    /// It begins around the moment, a little before or after.
    fn move_around(&mut self, fault: &mut Fault) {
        let [least, most] = AROUND_S;
        let off = least * (most / least).powf(self.rng.random_range(0.0..=1.0));
        let around = self.step.around_us as f64 / 1e6;
        let end = self.scenario.phases.faults_s;
        let at = if self.rng.random() { around + off } else { around - off };
        // As early as a swarm draws them at all, and with some time left.
        fault.at_s = tenths(at.clamp(end * 1e-3, end));
        self.fit(fault);
    }

    fn lengthen(&mut self, fault: &mut Fault) {
        fault.for_s *= 8f64.powf(self.rng.random_range(-1.0..=1.0));
        self.fit(fault);
    }

    /// It hits others.
    fn aim(&mut self, fault: &mut Fault) {
        let mut other = Drawn::one(&Swarm { sorts: vec![fault.kind], ..self.swarm.clone() }, self.scenario, self.rng);
        std::mem::swap(&mut fault.machines, &mut other.machines);
    }

    /// What a swarm draws ends with the time of faults.
    fn fit(&self, fault: &mut Fault) {
        let left = self.scenario.phases.faults_s - fault.at_s;
        fault.for_s = tenths(fault.for_s.clamp(0.0, left.max(0.0)));
    }
}

/// To a tenth of a millisecond: what happens between a promise and a vote takes no longer.
fn tenths(seconds: f64) -> f64 {
    (seconds * 1e4).round() / 1e4
}

/// The moment as a variation's name has it: no finer than faults are put.
pub fn moment(at: At) -> At {
    at / 100 * 100
}

//! From a failing seed to the smallest list of faults that still fails in the same way.

use crate::name::Name;
use crate::run::{Outcome, run_plan};
use crate::scenario::{Fault, Pick, Scenario};
use crate::vary;

/// A smaller scenario.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The scenario with the faults that are left, and the seed.
    pub scenario: Scenario,
    /// What came of it.
    pub outcome: Outcome,
    /// How many faults there were.
    pub faults_before: usize,
    /// How many runs it took.
    pub runs: u32,
}

struct Search<'a> {
    told: &'a mut dyn FnMut(u32, usize),
    scenario: &'a Scenario,
    least: usize,
    seed: u64,
    promise: &'static str,
    runs: u32,
    runs_max: u32,
}

/// Makes the faults of a failing seed fewer, shorter and narrower for as long as the same promise is broken. `None` if the
/// seed breaks none. `told` hears before every run how many there were, and with how many faults the promise is broken.
pub fn shrink(scenario: &Scenario, name: &Name, runs_max: u32, told: &mut dyn FnMut(u32, usize)) -> Option<Shrunk> {
    let vary::Run { seed, plan: faults } = vary::made_of(scenario, name);
    let faults_before = faults.len();
    told(0, faults_before);
    let first = run_plan(scenario, seed, faults.clone());
    let promise = first.broken.as_ref()?.promise;
    let mut search = Search { told, least: faults_before, scenario, seed, promise, runs: 1, runs_max };
    let faults = search.fewer(faults);
    let faults = search.gentler(faults);
    let mut small = Scenario { seed, swarm: None, faults, ..scenario.clone() };
    small.title = format!("{} (seed {name}, {promise})", scenario.title);
    let outcome = run_plan(&small, seed, small.faults.clone());
    Some(Shrunk { scenario: small, outcome, faults_before, runs: search.runs })
}

impl Search<'_> {
    fn fails(&mut self, faults: &[Fault]) -> bool {
        if self.runs >= self.runs_max {
            return false;
        }
        (self.told)(self.runs, self.least);
        self.runs += 1;
        let outcome = run_plan(self.scenario, self.seed, faults.to_vec());
        let fails = outcome.broken.is_some_and(|broken| broken.promise == self.promise);
        if fails {
            self.least = faults.len();
        }
        fails
    }

    /// Leaves out halves, then quarters, down to single faults (Zeller's ddmin).
    fn fewer(&mut self, mut faults: Vec<Fault>) -> Vec<Fault> {
        let mut size = faults.len().div_ceil(2).max(1);
        loop {
            let mut begin = 0;
            while begin < faults.len() {
                let end = (begin + size).min(faults.len());
                let rest: Vec<Fault> = faults[..begin].iter().chain(&faults[end..]).cloned().collect();
                if self.fails(&rest) {
                    faults = rest;
                } else {
                    begin = end;
                }
            }
            if size == 1 {
                return faults;
            }
            size = size.div_ceil(2);
        }
    }

    /// Shorter times, fewer machines.
    fn gentler(&mut self, mut faults: Vec<Fault>) -> Vec<Fault> {
        for index in 0..faults.len() {
            loop {
                let mut changed = faults.clone();
                changed[index].for_s = (changed[index].for_s * 500.0).round() / 1_000.0;
                if changed[index].for_s < 0.05 || !self.fails(&changed) {
                    break;
                }
                faults = changed;
            }
            while let Pick::These(these) = faults[index].machines.clone() {
                let fewer = (0..these.len()).filter(|_| these.len() > 1).find_map(|left_out| {
                    let mut changed = faults.clone();
                    let mut machines = these.clone();
                    machines.remove(left_out);
                    changed[index].machines = Pick::These(machines);
                    self.fails(&changed).then_some(changed)
                });
                match fewer {
                    Some(changed) => faults = changed,
                    None => break,
                }
            }
        }
        faults
    }
}

//! The runs of a sweep, in rounds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::{SEEDS_A_VARIATION, Summary, summarize};
use crate::guide::Guide;
use crate::name::Name;
use crate::run::{Outcome, run_named};
use crate::scenario::Scenario;

/// Seeds that are run before it is looked at what they came to. Rounds are the same however many threads there are, so that
/// what is varied does not depend on which of them is done first.
const ROUND: u64 = 64;

/// Runs the seeds, and their variations if guided.
pub(super) fn rounds(
    scenario: &Scenario,
    (first, end): (u64, u64),
    jobs: usize,
    stop: &AtomicBool,
    guided: bool,
    done: impl Fn(&Outcome) + Sync,
) -> (Summary, Vec<Outcome>) {
    let begun = Instant::now();
    let mut guide = Guide::default();
    let (mut seeds, mut variations) = (Vec::new(), Vec::new());
    let mut next = first;
    while !stop.load(Ordering::Relaxed) {
        let owed = if guided { (next - first) / SEEDS_A_VARIATION - variations.len() as u64 } else { 0 };
        let round = next..end.min(next.saturating_add(ROUND));
        next = round.end;
        let mut names: Vec<Name> = round.map(Name::from).collect();
        names.extend(guide.next(scenario, owed as usize));
        if names.is_empty() {
            break;
        }
        for mut outcome in run_all(scenario, &names, jobs, stop, &done) {
            guide.learn(&outcome);
            outcome.way = Vec::new();
            if outcome.name.steps.is_empty() { seeds.push(outcome) } else { variations.push(outcome) }
        }
    }
    let varied = variations.len() as u64;
    seeds.append(&mut variations);
    let mut summary = summarize(scenario, first, end, jobs, begun, &seeds);
    summary.varied = varied;
    summary.states = guide.reached(scenario);
    (summary, seeds)
}

/// Runs these in whatever order threads take them; the outcomes are in the order of the names.
fn run_all(
    scenario: &Scenario,
    names: &[Name],
    jobs: usize,
    stop: &AtomicBool,
    done: &(impl Fn(&Outcome) + Sync),
) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, names.len()) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(name) = names.get(place).filter(|_| !stop.load(Ordering::Relaxed)) else { return };
                    let outcome = run_named(scenario, name);
                    done(&outcome);
                    outcomes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((place, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    outcomes.sort_by_key(|(place, _)| *place);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

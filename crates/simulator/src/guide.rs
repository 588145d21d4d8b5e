//! Where a sweep looks next: around the moments at which runs came to states that few others came to.

use std::collections::BTreeMap;

use crate::name::{Name, Step};
use crate::run::{Outcome, Verdict};
use crate::scenario::Scenario;
use crate::states::{Reached, State};
use crate::vary;
use crate::world::At;

/// What a state is worth that a single run came to; of one that `n` runs came to, each gets the `n`th part.
const WORTH: u64 = 1_000;

/// A run that came to states which no run before it had come to.
#[derive(Debug)]
struct Find {
    name: Name,
    /// Those states, in the order in which it came to them.
    fresh: Vec<(State, At)>,
    /// How often it was varied.
    varied: u32,
}

/// What a sweep has seen so far. It depends on the runs and the order in which they are learned of, and on nothing else.
#[derive(Debug, Default)]
pub struct Guide {
    /// How many runs came to each state.
    seen: BTreeMap<State, u64>,
    finds: Vec<Find>,
}

impl Guide {
    /// Takes what a run came to. One in which nothing happened counts for nothing.
    pub fn learn(&mut self, outcome: &Outcome) {
        if outcome.verdict == Verdict::NothingHappened {
            return;
        }
        let mut fresh = Vec::new();
        for (state, at) in &outcome.way {
            let count = self.seen.entry(*state).or_default();
            *count += 1;
            if *count == 1 {
                fresh.push((*state, *at));
            }
        }
        if !fresh.is_empty() {
            fresh.sort_by_key(|(state, at)| (*at, *state));
            self.finds.push(Find { name: outcome.name.clone(), fresh, varied: 0 });
        }
    }

    /// The variations to run next, at most `count`; none if there is nothing to vary.
    pub fn next(&mut self, scenario: &Scenario, count: usize) -> Vec<Name> {
        if !vary::varies(scenario) {
            return Vec::new();
        }
        let worth: Vec<u64> = self.finds.iter().map(|find| self.worth(find)).collect();
        let mut names = Vec::new();
        while names.len() < count {
            // The most that is left to be found for what was spent on it; of equals the first. A run that cannot be varied
            // any further is none.
            let open = self.finds.iter_mut().zip(&worth).filter(|(find, _)| find.next().is_some());
            let best = open.min_by_key(|(find, worth)| u64::MAX - *worth / u64::from(find.varied + 1));
            let Some((find, _)) = best else { break };
            names.extend(find.next());
            find.varied += 1;
        }
        names
    }

    /// The states that were come to.
    pub fn reached(&self, scenario: &Scenario) -> Reached {
        Reached::of(scenario, self.seen.keys().copied())
    }

    fn worth(&self, find: &Find) -> u64 {
        find.fresh.iter().map(|(state, _)| WORTH / self.seen[state].max(1)).sum()
    }
}

impl Find {
    /// Its next variation: each of the moments in turn.
    fn next(&self) -> Option<Name> {
        let (_, at) = self.fresh[self.varied as usize % self.fresh.len()];
        self.name.varied(Step { nth: self.varied, around_us: vary::moment(at) })
    }
}

//! Where a whole site stands in the protocol, coarsely: which phases there are, ballots against promises, attempts, turns,
//! terms, who is away. Runs that come to the same states show the same things, whatever their seeds; a sweep looks for the
//! others.

mod could;
mod site;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::scenario::Scenario;
use crate::world::At;

pub(crate) use site::Site;

/// One side of a state.
#[derive(Debug)]
pub struct Dimension {
    /// What it is about, in people's words.
    pub name: &'static str,
    /// What it can be.
    pub values: &'static [&'static str],
    /// Whether it is a set of values, and not one of them.
    several: bool,
}

/// All dimensions, in the order in which a state is packed. Places in `values` are the numbers in `states/site.rs`.
pub const DIMENSIONS: [Dimension; 12] = [
    several(
        "phase",
        &["Halted", "Meeting", "Founding", "Waiting", "Preparing", "Initialising", "Joining", "Settling", "Ready"],
    ),
    one("highest promise", &["none", "round 1", "round 2", "round 3 or later"]),
    one("votes", &["none", "in one ballot", "in several ballots", "for several charters"]),
    one("charter", &["nobody's", "some machines'", "everyone's", "one that a machine may not follow"]),
    one("attempt", &["none", "1 live", "a later one live", "abandoned", "1 made the cluster", "a later one made it"]),
    one("turn at etcd", &["none yet", "1 held", "a later one held", "done", "given up"]),
    one("term", &["none", "1", "2", "3 or later"]),
    one(
        "away",
        &[
            "nobody",
            "a worker",
            "a control plane",
            "the leader",
            "the holder of a turn",
            "the initialiser",
            "half of the control planes",
            "a founding quorum",
        ],
    ),
    one("starts of a machine", &["none", "1", "2", "3 or more"]),
    one("joined", &["nobody", "some", "all admitted"]),
    one("removed", &["nobody", "a machine"]),
    one("moment", &MOMENTS),
];

const fn one(name: &'static str, values: &'static [&'static str]) -> Dimension {
    Dimension { name, values, several: false }
}

const fn several(name: &'static str, values: &'static [&'static str]) -> Dimension {
    Dimension { name, values, several: true }
}

/// What has just happened, as the last dimension names it: [`Moment`], in its order.
const MOMENTS: [&str; 29] = [
    "a phase changed",
    "a start",
    "a stop",
    "a start refused",
    "a promise on disk",
    "a vote on disk",
    "a charter on disk",
    "a charter of another image on disk",
    "kubeadm begun on disk",
    "kubeadm completed on disk",
    "a ballot asked",
    "a ballot refused for a promise",
    "a promise that tells a vote",
    "a leader",
    "a ledger as a whole",
    "admitted",
    "removed",
    "init claimed",
    "the CA sealed",
    "the cluster made",
    "an attempt abandoned",
    "a ticket",
    "a turn begun",
    "a turn done",
    "a turn given up",
    "joined",
    "an entry refused",
    "a step failed",
    "a reset begun",
];

/// What has just happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Phase,
    Start,
    Stop,
    Refused,
    Promise,
    Vote,
    Charter,
    Seen,
    Begun,
    Completed,
    Asked,
    Beaten,
    Told,
    Leader,
    Whole,
    Admitted,
    Removed,
    Claimed,
    Sealed,
    Made,
    Abandoned,
    Ticket,
    TurnBegun,
    TurnDone,
    TurnGivenUp,
    Joined,
    EntryRefused,
    StepFailed,
    Reset,
}

/// A state: the values of all dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State(u64);

impl State {
    /// Packs one number a dimension: a place in its values, or a bit for each of them.
    fn pack(numbers: [u64; DIMENSIONS.len()]) -> Self {
        let mut packed = 0;
        for (dimension, number) in DIMENSIONS.iter().zip(numbers) {
            debug_assert!(number >> dimension.bits() == 0, "{}: {number}", dimension.name);
            packed = packed << dimension.bits() | number;
        }
        Self(packed)
    }

    /// The values of each dimension, a bit for each.
    fn values(self) -> [u64; DIMENSIONS.len()] {
        let mut packed = self.0;
        let mut values = [0; DIMENSIONS.len()];
        for (dimension, value) in DIMENSIONS.iter().zip(&mut values).rev() {
            let number = packed & ((1 << dimension.bits()) - 1);
            packed >>= dimension.bits();
            *value = if dimension.several { number } else { 1 << number };
        }
        values
    }
}

impl Dimension {
    const fn bits(&self) -> u32 {
        if self.several { self.values.len() as u32 } else { u64::BITS - (self.values.len() as u64 - 1).leading_zeros() }
    }

    fn named(&self, bits: u64) -> Vec<&'static str> {
        self.values.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1).map(|(_, value)| *value).collect()
    }
}

/// The states that some runs came to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Reached {
    /// How many different ones.
    pub distinct: u64,
    /// By dimension, the values that the scenario could have come to and did not.
    pub never: BTreeMap<&'static str, Vec<&'static str>>,
}

impl Reached {
    /// Of these states, each named once.
    pub fn of(scenario: &Scenario, states: impl Iterator<Item = State>) -> Self {
        let mut reached = Self::default();
        let mut seen = [0; DIMENSIONS.len()];
        for state in states {
            reached.distinct += 1;
            seen.iter_mut().zip(state.values()).for_each(|(seen, values)| *seen |= values);
        }
        let could = could::come_to(scenario);
        for ((dimension, could), seen) in DIMENSIONS.iter().zip(could).zip(seen) {
            let missing = dimension.named(could & !seen);
            if !missing.is_empty() {
                reached.never.insert(dimension.name, missing);
            }
        }
        reached
    }
}

/// The states of one run, with when each was come to first, in microseconds, in the order of states.
pub type Way = Vec<(State, At)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_place_of_its_own_and_all_of_them_fit() {
        assert!(DIMENSIONS.iter().map(Dimension::bits).sum::<u32>() <= u64::BITS);
        assert_eq!(Moment::Reset as usize + 1, MOMENTS.len());
        let mut packed = std::collections::BTreeSet::new();
        for (place, dimension) in DIMENSIONS.iter().enumerate() {
            for nth in 1..dimension.values.len() {
                let mut numbers = [0; DIMENSIONS.len()];
                numbers[place] = if dimension.several { 1 << nth } else { nth as u64 };
                let state = State::pack(numbers);
                assert!(packed.insert(state), "{} {}", dimension.name, dimension.values[nth]);
                assert_eq!(dimension.named(state.values()[place]), [dimension.values[nth]]);
            }
        }
    }
}

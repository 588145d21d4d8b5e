//! Names of runs: a seed, or a seed and how its faults were varied. A name and the scenario are all that a run depends on.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::world::At;

/// Most variations one upon the other.
pub const STEPS_MAX: usize = 8;

/// One variation: the `nth` of the run before it, around a moment of that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// Which of the variations around that moment.
    pub nth: u32,
    /// The moment, in microseconds of the run that is varied.
    pub around_us: At,
}

/// A run of a scenario. Written as `17`, or `17.2@350000`: the variation numbered 2 of seed 17 around 0.35 s.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The seed.
    pub seed: u64,
    /// How it was varied, at most [`STEPS_MAX`] times; not at all if empty.
    pub steps: Vec<Step>,
}

impl From<u64> for Name {
    fn from(seed: u64) -> Self {
        Self { seed, steps: Vec::new() }
    }
}

impl Name {
    /// The run that this one varies, and how; nothing if it is a seed's own.
    pub fn parent(&self) -> Option<(Name, Step)> {
        let (last, before) = self.steps.split_last()?;
        Some((Name { seed: self.seed, steps: before.to_vec() }, *last))
    }

    /// A variation of it; nothing if it is varied too often already.
    pub fn varied(&self, step: Step) -> Option<Name> {
        let mut name = self.clone();
        name.steps.push(step);
        (name.steps.len() <= STEPS_MAX).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        self.steps.iter().try_for_each(|Step { nth, around_us }| write!(f, ".{nth}@{around_us}"))
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no run: a seed is a whole number from 0 to {}, a variation of one as 17.2@350000",
                u64::MAX
            )
        };
        let mut parts = text.trim().split('.');
        let seed = parts.next().and_then(|seed| seed.parse().ok()).ok_or_else(wrong)?;
        let step = |part: &str| {
            let (nth, around_us) = part.split_once('@')?;
            Some(Step { nth: nth.parse().ok()?, around_us: around_us.parse().ok()? })
        };
        let steps: Vec<Step> = parts.map(|part| step(part).ok_or_else(wrong)).collect::<Result<_, _>>()?;
        if steps.len() > STEPS_MAX {
            return Err(format!("{text:?} is varied more than {STEPS_MAX} times"));
        }
        Ok(Name { seed, steps })
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A seed is a number, as it always was.
        if self.steps.is_empty() { serializer.serialize_u64(self.seed) } else { serializer.collect_str(self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_what_is_none_is_refused() {
        for text in ["0", "18446744073709551615", "17.2@350000", "17.0@0.4294967295@18446744073709551615"] {
            assert_eq!(text.parse::<Name>().map(|name| name.to_string()), Ok(text.to_owned()));
        }
        let long = "1".to_owned() + &".1@1".repeat(STEPS_MAX + 1);
        for text in ["", "-1", "1.", "1.2", "1.2@", "1.@2", "1.x@2", "1.2@3@4", "18446744073709551616", "1.-2@3", &long]
        {
            let why = text.parse::<Name>().expect_err(text);
            assert!(why.contains("a seed is a whole number") || why.contains("varied more than"), "{why}");
        }
    }

    #[test]
    fn a_variation_knows_what_it_varies_and_ends_somewhere() {
        let mut name = Name::from(17);
        assert_eq!(name.parent(), None);
        for nth in 0..STEPS_MAX as u32 {
            let step = Step { nth, around_us: 5 };
            let varied = name.varied(step).expect("few steps");
            assert_eq!(varied.parent(), Some((name, step)));
            name = varied;
        }
        assert_eq!(name.varied(Step { nth: 0, around_us: 0 }), None);
    }
}

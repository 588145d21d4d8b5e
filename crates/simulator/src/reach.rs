//! Which faults took effect. A fault that hit nobody shows nothing, however often it was drawn.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::scenario::{Fault, Sort};

/// How one fault of a run fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fared {
    /// It began before the run was over.
    pub begun: bool,
    /// It named somebody: there was a leader, an initialiser and so on when it began.
    pub named: bool,
    /// Something went otherwise for it than without it.
    pub took: bool,
}

/// How the faults of one sort fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// How many there were in the plans.
    pub drawn: u64,
    /// How many took effect.
    pub took: u64,
    /// How many did not, since the run was over before they began.
    pub not_begun: u64,
    /// How many did not, since nobody was what they name.
    pub named_nobody: u64,
    /// How many did not, since whom they named did not run, sent nothing, had nothing on its disk, was cut off already and so on.
    pub without_effect: u64,
}

impl Reach {
    fn count(&mut self, fared: Fared) {
        self.drawn += 1;
        let place = match fared {
            Fared { took: true, .. } => &mut self.took,
            Fared { begun: false, .. } => &mut self.not_begun,
            Fared { named: false, .. } => &mut self.named_nobody,
            _ => &mut self.without_effect,
        };
        *place += 1;
    }

    fn add(&mut self, more: &Reach) {
        self.drawn += more.drawn;
        self.took += more.took;
        self.not_begun += more.not_begun;
        self.named_nobody += more.named_nobody;
        self.without_effect += more.without_effect;
    }

    /// Why those that took no effect did not, in words.
    pub fn missed(&self) -> String {
        let reasons = [
            (self.without_effect, "hit nothing"),
            (self.named_nobody, "named nobody"),
            (self.not_begun, "were after the run's end"),
        ];
        let reasons: Vec<String> =
            reasons.iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count} {why}")).collect();
        reasons.join(", ")
    }
}

/// Of one run, by sort.
pub fn of_run(plan: &[Fault], fared: &[Fared]) -> BTreeMap<Sort, Reach> {
    let mut reach: BTreeMap<Sort, Reach> = BTreeMap::new();
    for (fault, fared) in plan.iter().zip(fared) {
        reach.entry(fault.kind).or_default().count(*fared);
    }
    reach
}

/// Of many runs, by sort.
pub fn of_all<'a>(runs: impl Iterator<Item = &'a BTreeMap<Sort, Reach>>) -> BTreeMap<Sort, Reach> {
    let mut all: BTreeMap<Sort, Reach> = BTreeMap::new();
    for (sort, reach) in runs.flatten() {
        all.entry(*sort).or_default().add(reach);
    }
    all
}

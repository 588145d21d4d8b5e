//! Which values a scenario could come to at all. What it could not is not missed.

use super::{DIMENSIONS, Moment};
use crate::scenario::{Differs, Scenario, Sort};

/// By dimension, a bit for each value that could be come to. Where nobody can say, it could.
pub(super) fn come_to(scenario: &Scenario) -> [u64; DIMENSIONS.len()] {
    let mut could = DIMENSIONS.each_ref().map(|dimension| (1 << dimension.values.len()) - 1);
    let mut cannot = |name: &str, bits: u64| {
        for (dimension, could) in DIMENSIONS.iter().zip(&mut could).filter(|(dimension, _)| dimension.name == name) {
            debug_assert!(bits >> dimension.values.len() == 0, "{name}");
            *could &= !bits;
        }
    };
    let moment = |moment: Moment| 1 << moment as u64;
    let has = |sorts: &[Sort]| sorts.iter().any(|sort| sorts_of(scenario).any(|drawn| drawn == *sort));
    let stops = has(&STOPS);
    let loses = has(&[Sort::Wipe, Sort::OldCopy, Sort::Clone, Sort::LyingSync]);
    let images = scenario.others.iter().any(|other| matches!(other.differs, Differs::Settings | Differs::Machines));
    if !stops {
        cannot("moment", moment(Moment::Stop));
        cannot("starts of a machine", 0b1100);
    }
    if !stops && !has(&super::site::SILENCED) {
        cannot("away", 0b1111_1110);
    }
    if !has(&[Sort::TornWrite, Sort::Misdirected, Sort::BitRot, Sort::LyingSync]) {
        cannot("moment", moment(Moment::Refused));
    }
    if !images {
        cannot("charter", 0b1000);
        cannot("moment", moment(Moment::Seen));
    }
    if !images && !loses && !has(&[Sort::Sybil]) && scenario.image.alike == 0 {
        cannot("phase", 0b1);
    }
    if !loses {
        cannot("removed", 0b10);
        cannot("moment", moment(Moment::Removed));
    }
    let machines = scenario.machines.min(scenario.image_machines());
    if scenario.image.control_planes < 2 || machines < 2 {
        cannot("turn at etcd", 0b1_1110);
        cannot("away", 0b1_0000);
        cannot("moment", moment(Moment::TurnBegun) | moment(Moment::TurnDone) | moment(Moment::TurnGivenUp));
    }
    if scenario.image.control_planes < 3 {
        cannot("turn at etcd", 0b100);
    }
    if machines <= scenario.image.control_planes {
        cannot("away", 0b10);
    }
    if machines < 2 {
        cannot("moment", moment(Moment::Asked) | moment(Moment::Beaten) | moment(Moment::Told));
        cannot("votes", 0b1100);
    }
    if !scenario.disturbs() {
        cannot("moment", moment(Moment::StepFailed) | moment(Moment::Reset) | moment(Moment::Abandoned));
        cannot("attempt", 0b10_1100);
        cannot("turn at etcd", 0b1_0000);
        cannot("moment", moment(Moment::TurnGivenUp));
    }
    could
}

/// Faults that end processes.
const STOPS: [Sort; 14] = [
    Sort::Crash,
    Sort::CrashLoop,
    Sort::Restart,
    Sort::PowerLoss,
    Sort::CrashOnWrite,
    Sort::TornWrite,
    Sort::Misdirected,
    Sort::Full,
    Sort::IoError,
    Sort::BitRot,
    Sort::Wipe,
    Sort::OldCopy,
    Sort::Clone,
    Sort::Sybil,
];

/// The sorts of faults that a scenario has or draws.
fn sorts_of(scenario: &Scenario) -> impl Iterator<Item = Sort> + '_ {
    let drawn = scenario.swarm.iter().flat_map(|swarm| swarm.sorts.iter().copied());
    scenario.faults.iter().map(|fault| fault.kind).chain(drawn)
}

#[cfg(test)]
mod tests {
    use super::super::Reached;
    use super::*;

    fn never(text: &str) -> Vec<String> {
        let scenario = Scenario::parse(text).expect("right");
        let never = Reached::of(&scenario, std::iter::empty()).never;
        let named = |(name, values): (&'static str, Vec<&'static str>)| {
            values.into_iter().map(move |value| format!("{name}: {value}"))
        };
        never.into_iter().flat_map(named).collect()
    }

    #[test]
    fn only_what_could_be_come_to_is_missed() {
        let calm = never("title = \"x\"\nmachines = 1\n");
        for impossible in
            ["away: the leader", "turn at etcd: 1 held", "moment: a stop", "phase: Halted", "removed: a machine"]
        {
            assert!(!calm.iter().any(|never| never == impossible), "{impossible} in a scenario of one with no faults");
        }
        assert!(calm.iter().any(|never| never == "phase: Ready"), "{calm:?}");
        let wild = "title = \"x\"\nmachines = 5\n[phases]\nfaults_s = 9\n[swarm]\nfaults = [1, 2]\n\
                    sorts = [\"crash\", \"split\", \"wipe\", \"torn-write\"]\n[[other]]\ncount = 1\ndiffers = \"settings\"\n";
        let all: usize = DIMENSIONS.iter().map(|dimension| dimension.values.len()).sum();
        assert_eq!(never(wild).len(), all, "everything could happen in it");
    }
}

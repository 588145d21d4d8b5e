//! Raft's elections (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014; Ongaro's thesis).

use super::{Row, base, row};
use crate::run::run_traced;
use crate::scenario::{Fault, Pick, Sort};
use crate::trace::Trace;

/// One row's conditions.
pub(super) struct Conditions {
    /// The paper's election timeouts, in milliseconds.
    timeouts: [u64; 2],
    latency_ms: [f64; 2],
    theirs: &'static str,
}

pub(super) const NARROW: Conditions = Conditions {
    timeouts: [150, 200],
    latency_ms: [6.0, 9.0],
    theirs: "worst of 1,000 trials 513 ms (the Raft paper, section 9.3: 5 servers, broadcast time 15 ms)",
};
pub(super) const LAN: Conditions =
    Conditions { timeouts: [150, 300], latency_ms: [6.0, 9.0], theirs: "recommended there, no time given" };
pub(super) const WAN: Conditions = Conditions {
    timeouts: [300, 600],
    latency_ms: [15.0, 20.0],
    theirs: "mean 475 ms, p99.9 1500 ms (Ongaro's thesis, one server failed)",
};

/// From a leader's death to the next leader, five voters.
pub(super) fn election(conditions: &Conditions, seeds: u64) -> Row {
    let [least, most] = conditions.timeouts;
    let mut scenario = base(5, 5);
    scenario.network.latency_ms = conditions.latency_ms;
    scenario.raft.heartbeat_ms = least / 4;
    scenario.raft.election_ms = [least / 2, most / 2];
    scenario.phases.faults_s = 14.0;
    scenario.phases.heal_s = 0.5;
    let values = (0..seeds).filter_map(|seed| {
        let at_s = 10.0 + (seed % 37) as f64 / 37.0;
        scenario.faults = vec![Fault::new(Sort::Crash, at_s, 4.0, Pick::Leader)];
        let (_, world) = run_traced(&scenario, seed, Trace::new(0));
        let lines = &world.watch().trace.as_ref()?.lines;
        let died = lines.iter().position(|line| line.kind == "fault")?;
        let next = lines[died..].iter().find(|line| line.kind == "leads")?;
        Some((next.at_us - lines[died].at_us) as f64 / 1e3)
    });
    let [low, high] = conditions.latency_ms;
    let what = format!(
        "Raft: a leader's death to the next leader; 5 voters, {low:.0} to {high:.0} ms one way, timeouts {least} to {most} ms"
    );
    let note = "openraft waits its lease, which is the longest timeout, and then a timeout: it is given half of theirs";
    row(what, conditions.theirs, values.collect(), "ms", note)
}

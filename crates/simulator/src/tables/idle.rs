//! What an idle machine sends, beside what users of Kairos' p2p mode report.

use super::{Row, base, row, step_to};
use crate::watch::Watch;
use crate::world::World;

/// Bytes sent per machine and second once everyone has joined, founding and joining being over for minutes.
pub(super) fn egress(machines: u32, seeds: u64) -> Row {
    let mut scenario = base(machines, 3);
    scenario.phases.heal_s = 240.0;
    let from = 180_000_000;
    let values = (0..seeds.min(5)).filter_map(|seed| {
        let mut world = World::new(&scenario, seed, Watch::default());
        let sent = |world: &World| world.hosts.iter().map(|host| host.sent_bytes).sum::<u64>();
        step_to(&mut world, from).then_some(())?;
        let before = sent(&world);
        while world.step() {}
        let seconds = (world.now - from) as f64 / 1e6;
        Some((sent(&world) - before) as f64 / f64::from(machines) / seconds)
    });
    let theirs = if machines < 100 {
        "17,000 bytes a broadcast (Kairos p2p, 10 nodes: every node gossips the whole state)"
    } else {
        "at least 1,100,000 bytes/s (Kairos p2p, 100 nodes: broadcasts of 116,000 bytes)"
    };
    row(
        format!("bytes sent per machine and second, idle; {machines} machines, 3 control planes"),
        theirs,
        values.collect(),
        "bytes/s",
        "frames as the protocol encodes them, the voters' Raft among them; Noise, Yamux and TCP add some 70 bytes to each",
    )
}

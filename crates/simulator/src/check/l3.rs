//! L3: equal rosters.

use std::collections::BTreeSet;

use muster_wire::MachineId;

use super::Facts;
use super::liveness::Look;
use crate::world::{Power, World};

/// Whether every machine holds exactly those for alive that run.
pub(super) fn equal(world: &World, _facts: &Facts) -> Look {
    let running: BTreeSet<MachineId> =
        world.expected().filter(|host| *world.power(host.slot) == Power::On).map(|host| host.me).collect();
    for host in world.expected() {
        let Some(machine) = world.machine(host.slot) else { continue };
        let alive = machine.roster_alive();
        if let Some(missing) = running.difference(&alive).next() {
            return Look::NotYet(format!("machine {} does not hold {missing} for alive, which runs", host.slot));
        }
        let gone = alive.difference(&running).find(|id| !world.runs(**id));
        if let Some(gone) = gone {
            return Look::NotYet(format!("machine {} holds {gone} for alive, which does not run", host.slot));
        }
    }
    Look::Holds
}

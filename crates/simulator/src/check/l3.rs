//! L3: equal rosters.

use std::collections::BTreeSet;

use muster_wire::{MachineId, limits};

use super::liveness::Look;
use crate::truth::Truth;
use crate::world::{At, Power, World};

/// Equal rosters are compared this seldom, and more seldom in a large site, where there are a million pairs.
const LOOK_EVERY: u32 = 5;
const LOOK_EVERY_LARGE: u32 = 40;

/// Since when the rosters have differed.
#[derive(Debug, Default)]
pub(super) struct EqualRosters {
    differ: Option<At>,
    equal: bool,
    looks: u32,
}

impl EqualRosters {
    /// They may differ at any time, since machines come and go, but never for longer than the bound.
    pub(super) fn look(&mut self, world: &World, truth: &Truth, healed: At, bound_s: f64) -> Look {
        self.looks += 1;
        let every = if world.slots() as usize > limits::MESH_FULL { LOOK_EVERY_LARGE } else { LOOK_EVERY };
        if self.differ.is_none() && self.equal && !self.looks.is_multiple_of(every) {
            return Look::Holds;
        }
        match equal(world, truth) {
            Ok(()) => {
                self.differ = None;
                self.equal = true;
                Look::Holds
            }
            Err(why) => {
                let since = *self.differ.get_or_insert(world.now.max(healed));
                if (world.now - since) as f64 > bound_s * 1e6 { Look::Broken(why) } else { Look::NotYet(why) }
            }
        }
    }
}

/// Whether every machine holds exactly those for alive that run. A machine whose disk was copied, or restored from an old copy,
/// takes no part any more once it learns of that; the others are asked for each other alone.
fn equal(world: &World, truth: &Truth) -> Result<(), String> {
    let judged = || world.expected().filter(|host| !truth.excused.contains(&host.me));
    let running: BTreeSet<MachineId> =
        judged().filter(|host| *world.power(host.slot) == Power::On).map(|host| host.me).collect();
    for host in judged() {
        let Some(machine) = world.machine(host.slot) else { continue };
        if let Some(missing) = running.iter().find(|id| !machine.holds_for_alive(**id)) {
            return Err(format!("machine {} does not hold {missing} for alive, which runs", host.slot));
        }
        // It holds all that run; only if it holds more is there someone to look for.
        if machine.roster_alive_count() == running.len() {
            continue;
        }
        let gone = machine.roster_alive().into_iter().find(|id| !running.contains(id) && !world.runs(*id));
        if let Some(gone) = gone {
            return Err(format!("machine {} holds {gone} for alive, which does not run", host.slot));
        }
    }
    Ok(())
}

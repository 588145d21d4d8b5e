//! Whether a machine that was held for dead was held for alive again, and had run all the time.

use std::collections::{BTreeMap, BTreeSet};

use muster_wire::{MachineId, limits};

use crate::world::{Power, Slot, World};

/// Comparing every roster is not free, least of all in a large site.
const LOOK_EVERY: u32 = 4;
const LOOK_EVERY_LARGE: u32 = 60;

/// The rosters as they were last seen.
#[derive(Debug, Default)]
pub(super) struct Refuted {
    looks: u32,
    alive: BTreeMap<Slot, BTreeSet<MachineId>>,
    /// Who holds whom for dead, and the life that the dead machine is in.
    dead: BTreeMap<(Slot, MachineId), u32>,
}

impl Refuted {
    /// Looks at all rosters. Says whether a suspicion was refuted.
    pub(super) fn look(&mut self, world: &World) -> bool {
        self.looks += 1;
        let every = if world.hosts.len() > limits::MESH_FULL { LOOK_EVERY_LARGE } else { LOOK_EVERY };
        if !self.looks.is_multiple_of(every) {
            return false;
        }
        let mut refuted = false;
        for host in world.hosts.iter().filter(|host| host.power == Power::On) {
            let Some(machine) = &host.machine else { continue };
            let before = self.alive.entry(host.slot).or_default();
            // Nearly always nothing has changed, and then no roster needs to be listed.
            let held = |other: &MachineId| *other == machine.id() || machine.holds_for_alive(*other);
            if before.len() == machine.roster_alive_count() && before.iter().all(held) {
                continue;
            }
            let now = machine.roster_alive();
            for gone in before.difference(&now) {
                let life = world.slot_of(*gone).map(|slot| world.hosts[slot as usize].life);
                self.dead.insert((host.slot, *gone), life.unwrap_or(0));
            }
            for back in now.difference(before) {
                let life = world.slot_of(*back).map(|slot| world.hosts[slot as usize].life);
                refuted |= self.dead.remove(&(host.slot, *back)).is_some_and(|then| Some(then) == life);
            }
            *before = now;
        }
        refuted
    }
}

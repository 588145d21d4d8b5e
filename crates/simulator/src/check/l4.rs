//! L4: a dead initialiser is replaced.

use muster_wire::{Attempt, MachineId};

use super::l1;
use super::liveness::Look;
use crate::truth::Truth;
use crate::world::{At, World};

/// Since when the holder of the live claim has been dead.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    dead: Option<(Attempt, MachineId, At)>,
    happened: bool,
}

impl Replaced {
    pub(super) fn look(&mut self, world: &World, truth: &Truth, bound_s: f64) -> Look {
        self.happened |= !truth.abandoned.is_empty();
        let dead = truth.claim.filter(|(_, machine)| !world.runs(*machine));
        let Some((attempt, machine)) = dead else {
            self.dead = None;
            return if self.happened { Look::Holds } else { Look::NoOccasion };
        };
        let (_, _, since) = match self.dead {
            Some(known) if known.0 == attempt => known,
            _ => *self.dead.insert((attempt, machine, world.now)),
        };
        if (world.now - since) as f64 <= bound_s * 1e6 {
            return Look::Pointless(format!("{machine} of attempt {attempt} is dead, and was not replaced yet"));
        }
        match l1::able(world, truth) {
            Err(why) => Look::Pointless(why),
            Ok(()) => Look::Broken(format!("{machine} of attempt {attempt} is dead and was not replaced")),
        }
    }
}

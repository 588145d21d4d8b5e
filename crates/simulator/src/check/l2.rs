//! L2: a new leader.

use super::l1;
use super::liveness::Look;
use crate::truth::Truth;
use crate::world::{Power, World};

/// Whether a machine that runs leads, in the eyes of Raft.
pub(super) fn led(world: &World, truth: &Truth) -> Look {
    if let Err(why) = l1::able(world, truth) {
        return Look::Pointless(why);
    }
    let Some(leader) = truth.leader else { return Look::NotYet("nobody leads".into()) };
    let alive = world.expected().any(|host| host.me == leader && *world.power(host.slot) == Power::On);
    if alive { Look::Holds } else { Look::NotYet(format!("{leader} leads, but does not run")) }
}

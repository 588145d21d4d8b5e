//! L2: a leader that a majority follows, whenever there could be one, and a ledger that reaches everybody.

use std::collections::BTreeSet;

use muster_wire::MachineId;

use super::l1;
use super::liveness::Look;
use crate::truth::Truth;
use crate::world::{At, Power, World};

/// How far behind a machine's ledger may be.
const BEHIND_MAX: At = 120_000_000;

/// How long it may not hold once it has: a voter asks others after 10 s, or 60.
const AGAIN: At = 60_000_000;

/// Since when it does not hold.
#[derive(Debug, Default)]
pub(super) struct Led {
    held: Option<At>,
}

impl Led {
    /// Whether somebody leads, in the eyes of Raft's voters themselves. Held once, it must not fail for longer than its bound again.
    pub(super) fn look(&mut self, world: &World, truth: &Truth) -> Look {
        if let Err(why) = l1::able(world, truth) {
            // Once it can hold again it is given its time.
            self.held = self.held.map(|_| world.now);
            return Look::Pointless(why);
        }
        let why = match led(world, truth).and_then(|()| abreast(world, truth)) {
            Ok(()) => {
                self.held = Some(world.now);
                return Look::Holds;
            }
            Err(why) => why,
        };
        match self.held {
            Some(held) if world.now - held < AGAIN => Look::Holds,
            _ => Look::NotYet(why),
        }
    }
}

/// Whether a majority of the voters follows one of them, in its term.
fn led(world: &World, truth: &Truth) -> Result<(), String> {
    let voters: BTreeSet<MachineId> = l1::voters(world, truth).into_iter().flatten().collect();
    let says = |machine: MachineId| world.slot_of(machine).and_then(|slot| world.raft_leads(slot));
    let of = |leader: MachineId, term: u64| {
        voters.iter().filter(|voter| says(**voter) == Some((term, Some(leader)))).count() * 2 > voters.len()
    };
    let claims = voters.iter().filter_map(|voter| says(*voter).filter(|(_, leader)| *leader == Some(*voter)));
    let claims: Vec<(u64, Option<MachineId>)> = claims.collect();
    let led = claims.iter().any(|(term, leader)| leader.is_some_and(|leader| of(leader, *term)));
    if led {
        Ok(())
    } else {
        Err(format!("nobody leads a majority of {} voters; {} say they lead", voters.len(), claims.len()))
    }
}

/// Whether every member that is there has what was committed a while ago.
fn abreast(world: &World, truth: &Truth) -> Result<(), String> {
    let Some(settled) = truth.committed_by(world.now.saturating_sub(BEHIND_MAX)) else { return Ok(()) };
    let level = truth.book.level();
    for host in world.expected().filter(|host| *world.power(host.slot) == Power::On && host.level >= level) {
        let member = truth.admitted.contains(&host.me) && !truth.removed.contains(&host.me);
        let long = world.now.saturating_sub(host.up_since) > BEHIND_MAX && !truth.excused.contains(&host.me);
        let has = world.machine(host.slot).map(|machine| machine.ledger().revision());
        if let Some(has) = has.filter(|has| member && long && *has < settled) {
            return Err(format!(
                "machine {} has the ledger up to {has}, and {settled} was committed two minutes ago",
                host.slot
            ));
        }
    }
    Ok(())
}

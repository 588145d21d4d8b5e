//! S6: a machine that was not admitted is in no quorum, holds no ticket and reads no ledger.

use muster_wire::{Entry, Frame, MachineId, Role};

use super::Verdict;
use crate::truth::Truth;
use crate::watch::{Seen, decode};
use crate::world::{At, World};

/// From heal until Raft's voters are the ledger's control planes.
const SETTLE: At = 60_000_000;

/// Looks at what leaves and at what is committed.
#[derive(Debug, Default)]
pub(super) struct Admission;

impl Admission {
    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            Seen::Sent { machine, to, frame: Frame::LedgerNews(news), .. } => {
                let tells = news.state.is_some() || !news.entries.is_empty();
                if tells && !truth.admitted.contains(to) {
                    return Err(format!("{machine} told {to}, which is not admitted, what is in the ledger"));
                }
                Ok(())
            }
            Seen::Leads { machine, term, .. } if !votes(*machine, truth) => {
                Err(format!("{machine} leads term {term} and is neither a control plane nor a voter of the charter"))
            }
            Seen::Sent { machine, to, frame: Frame::RaftCall { .. } | Frame::RaftAnswer { .. }, .. }
                if truth.first_voters.contains(machine) && !ever_voted(*to, truth) =>
            {
                Err(format!("{machine} speaks of Raft to {to}, which never was a control plane"))
            }
            Seen::Applied { revision, entry, .. } => match decode(entry) {
                Some(Entry::Admitted(admitted))
                    if truth.first_voters.contains(&admitted.machine) && admitted.role != Role::ControlPlane =>
                {
                    Err(format!("entry {revision} makes {} a worker, which votes by the charter", admitted.machine))
                }
                Some(Entry::InitClaimed { machine, .. }) if !truth.admitted.contains(&machine) => {
                    Err(format!("entry {revision} lets {machine} run init, which is not admitted"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Raft's members are the charter's voters and admitted control planes.
    pub(super) fn look(&self, world: &World, truth: &Truth) -> Verdict {
        for slot in 0..world.slots() {
            let Some(members) = world.raft_members(slot).filter(|_| !world.is_apart(slot, truth)) else { continue };
            let charter = world.machine(slot).and_then(|machine| machine.charter());
            let first = charter.map(|certificate| certificate.charter().voters.as_slice()).unwrap_or_default();
            let stranger = members.iter().find(|member| !first.contains(member) && !truth.admitted.contains(member));
            if let Some(stranger) = stranger {
                return Err(format!("{stranger}, which is not admitted, is a member of Raft on machine {slot}"));
            }
        }
        Ok(())
    }

    /// At the end: a machine that was removed is no voter any more, if enough others are there.
    pub(super) fn end(&self, world: &World, truth: &Truth) -> Verdict {
        let settled = world.healed.is_some_and(|healed| world.now >= healed + SETTLE) && truth.excused.is_empty();
        let alive = truth.control_planes.iter().filter(|machine| world.runs(**machine)).count();
        let Some(leader) = truth.leader.and_then(|leader| world.slot_of(leader)) else { return Ok(()) };
        if !settled || alive < world.scenario.image.control_planes as usize {
            return Ok(());
        }
        let members = world.raft_members(leader).unwrap_or_default();
        match members.iter().find(|member| truth.removed.contains(member)) {
            Some(gone) => Err(format!("{gone} was removed, and still is a member of Raft")),
            None => Ok(()),
        }
    }
}

fn votes(machine: MachineId, truth: &Truth) -> bool {
    truth.first_voters.contains(&machine) || truth.control_planes.contains(&machine)
}

/// Whether it votes, or did before it was removed.
fn ever_voted(machine: MachineId, truth: &Truth) -> bool {
    votes(machine, truth) || truth.removed.contains(&machine)
}

//! Raft's voters are the control planes.

use std::collections::BTreeSet;

use muster_wire::MachineId;

use super::Context;
use crate::planted::planted;
use crate::words::waits::{self, Wait};
use crate::{Effect, Time};

/// This duty's notes.
#[derive(Debug, Default)]
pub(super) struct Voters {
    /// Whom Raft was last asked to have, and when.
    asked: Option<(BTreeSet<MachineId>, Time)>,
}

impl Voters {
    /// Voters are the control planes: those admitted later become voters as well.
    pub(super) fn grow(&mut self, context: &mut Context<'_>, unvoted: Option<MachineId>) {
        let mut voters: BTreeSet<MachineId> = context.charter.voters.iter().copied().collect();
        voters.retain(|voter| !context.ledger.was_removed(*voter) || planted("removed-still-votes"));
        // Whoever has joined keeps its vote while it is away: fewer votes would not be safer, and it comes back.
        let counts = |plane: &MachineId| {
            *plane == context.me() || context.roster.is_alive(*plane) || super::has_joined(context, *plane)
        };
        voters.extend(context.ledger.control_planes().filter(counts));
        // Whoever leaves gives its vote back while it has one: a change of voters takes those of the former, too.
        let unvoted = unvoted.or_else(|| super::disrupt::unvoted_by_another(context));
        let leaving = unvoted.filter(|leaving| voters.remove(leaving));
        let founding: BTreeSet<MachineId> = context.charter.voters.iter().copied().collect();
        let removed = context.ledger.any_removed() || leaving.is_some();
        // An even number is no better than one less, as long as more are to come. Whoever was removed votes no more, all the same.
        let even = voters.len().is_multiple_of(2) && voters.len() < context.control_planes as usize && !removed;
        // One that gave its vote back, and stays after all, has it again; be it that its last leader died when it was to be given it.
        let members = context.raft_members;
        let all_vote = members.all.is_empty() || founding.is_subset(&members.votes);
        if voters == founding && !removed && all_vote || even && !planted("even-voters") {
            return;
        }
        let again = context.tuning.resend * 15;
        let asked = self.asked.as_ref().filter(|(asked, at)| *asked == voters && context.now.since(*at) < again);
        match asked {
            Some((_, at)) => {
                context.wake_at(*at + again, "Raft's voters");
                let missing = members.votes.symmetric_difference(&voters).copied();
                context.waits.extend(missing.map(|machine| Wait::Turn(waits::Turn::Vote(machine))));
            }
            None => {
                self.asked = Some((voters.clone(), context.now));
                context.effects.push(Effect::SetVoters(voters));
                context.wake_at(context.now + again, "Raft's voters");
            }
        }
    }
}

//! S6: a machine that was not admitted is in no quorum, holds no ticket and reads no ledger.

use muster_wire::{Entry, Frame};

use super::{Facts, Verdict};
use crate::watch::{Seen, decode};
use crate::world::World;

/// Looks at what leaves and at what is committed.
#[derive(Debug, Default)]
pub(super) struct Admission;

impl Admission {
    pub(super) fn see(&mut self, seen: &Seen<'_>, facts: &Facts) -> Verdict {
        match seen {
            Seen::Sent { machine, to, frame: Frame::LedgerNews(news), .. } => {
                let tells = news.state.is_some() || !news.entries.is_empty();
                if tells && !facts.admitted.contains(to) {
                    return Err(format!("{machine} told {to}, which is not admitted, what is in the ledger"));
                }
                Ok(())
            }
            Seen::Applied { revision, entry, .. } => match decode(entry) {
                Some(Entry::InitClaimed { machine, .. }) if !facts.admitted.contains(&machine) => {
                    Err(format!("entry {revision} lets {machine} run init, which is not admitted"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Raft's members are the charter's voters and admitted control planes.
    pub(super) fn look(&self, world: &World, facts: &Facts) -> Verdict {
        for slot in 0..world.slots() {
            let Some(members) = world.raft_members(slot) else { continue };
            let charter = world.machine(slot).and_then(|machine| machine.charter());
            let first = charter.map(|certificate| certificate.charter().voters.as_slice()).unwrap_or_default();
            let stranger = members.iter().find(|member| !first.contains(member) && !facts.admitted.contains(member));
            if let Some(stranger) = stranger {
                return Err(format!("{stranger}, which is not admitted, is a member of Raft on machine {slot}"));
            }
        }
        Ok(())
    }
}

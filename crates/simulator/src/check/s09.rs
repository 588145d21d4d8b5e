//! S9: an identity is never used again after its disk was wiped, nor after it was removed.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::{Machine, NoticeKind};
use muster_wire::{Frame, MachineId};

use super::Verdict;
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::{At, Power, Slot, World};

/// So long after heal two machines of one identity may run together until one of them says so.
const NAMED_AFTER: At = 30_000_000;

/// Where each identity was first seen.
#[derive(Debug, Default)]
pub(super) struct Identities {
    homes: BTreeMap<MachineId, (Slot, u64)>,
    /// Machines that have said that their identity runs elsewhere too.
    named: BTreeSet<(Slot, MachineId)>,
    /// Identities that run twice, unnamed, and since when. One that starts and refuses again and again does not run.
    silent: BTreeMap<MachineId, At>,
    /// Identities whose votes in Raft are gone, which must not vote once more.
    logs_gone: BTreeSet<MachineId>,
}

impl Identities {
    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            Seen::Notice { slot, notice } if notice.kind == NoticeKind::OwnClone => {
                self.named.extend(truth.identity.get(slot).map(|machine| (*slot, *machine)));
            }
            Seen::Said { slot, machine, frame } if self.named.contains(&(*slot, *machine)) => {
                return Err(format!("{machine} knows that it runs twice, and sends a {}", frame.kind()));
            }
            Seen::StepBegan { slot, step, .. } if self.named.iter().any(|(known, _)| known == slot) => {
                return Err(format!("machine {slot} knows that its identity runs twice, and begins {}", step.name()));
            }
            Seen::LogGone { slot } => self.logs_gone.extend(truth.identity.get(slot).copied()),
            Seen::Said { machine, frame: Frame::RaftCall { .. } | Frame::RaftAnswer { .. }, .. }
                if self.logs_gone.contains(machine) =>
            {
                return Err(format!("{machine} speaks of Raft again, and its votes are gone with its log"));
            }
            Seen::Stopped { slot } => self.named.retain(|(known, _)| known != slot),
            _ => {}
        }
        let Seen::Booting { slot, machine, generation, .. } = seen else { return Ok(()) };
        let home = *self.homes.entry(*machine).or_insert((*slot, *generation));
        if home != (*slot, *generation) && !truth.excused.contains(machine) {
            return Err(format!(
                "{machine} of machine {} and disk {} runs on machine {slot} and disk {generation}",
                home.0, home.1
            ));
        }
        Ok(())
    }

    /// Of machines of one identity that run, one says so, soon after nothing keeps them from meeting the others any more. The
    /// other one may hear of it from nobody, since it is turned away.
    pub(super) fn look(&mut self, world: &World) -> Verdict {
        let Some(healed) = world.healed else { return Ok(()) };
        let mut homes: BTreeMap<MachineId, Vec<Slot>> = BTreeMap::new();
        for host in world.hosts.iter().filter(|host| host.power == Power::On) {
            homes.entry(host.me).or_default().push(host.slot);
        }
        let named = &self.named;
        homes.retain(|machine, slots| slots.len() > 1 && !slots.iter().any(|slot| named.contains(&(*slot, *machine))));
        self.silent.retain(|machine, _| homes.contains_key(machine));
        for (machine, slots) in &homes {
            let since = *self.silent.entry(*machine).or_insert(world.now);
            if world.now >= since.max(healed) + NAMED_AFTER {
                return Err(format!("{machine} runs on the machines {slots:?}, and none of them says so"));
            }
        }
        Ok(())
    }

    pub(super) fn after(&self, machine: &Machine, truth: &Truth) -> Verdict {
        if truth.removed.is_empty() {
            return Ok(());
        }
        let ledger = machine.ledger();
        let back =
            truth.removed.iter().find(|removed| ledger.was_removed(**removed) && ledger.member(**removed).is_some());
        match back {
            Some(back) => Err(format!("{back} was removed and is a member again")),
            None => Ok(()),
        }
    }
}

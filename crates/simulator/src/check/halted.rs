//! S1, where its assumption ends: a machine that has said that founding halts takes no part in it until it says otherwise, and
//! one that was shown a charter takes no part in it ever again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use muster_protocol::{Effect, Input, Machine, NoticeKind};
use muster_wire::{Frame, MachineId};

use super::Verdict;
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::Slot;

/// Goes by what machines tell people, which they do when they stop and when they go on; and counts whom they hold for alive.
#[derive(Debug, Default)]
pub(super) struct Halted {
    said: BTreeSet<Slot>,
    /// Machines that hold more others for alive than the image bears: any two quorums must meet.
    crowded: BTreeSet<Slot>,
    /// Machines that have taken a charter for their cluster's name off the wire, and not written anything since.
    shown: BTreeMap<Slot, MachineId>,
    /// Identities that have, and have written it.
    know: BTreeSet<MachineId>,
}

impl Halted {
    /// A charter that is shown has been checked: what does not prove itself is no frame.
    pub(super) fn before(&mut self, slot: Slot, machine: &Machine, input: &Input, truth: &Truth) {
        let Input::Received { frame: Frame::Chartered { certificate, .. }, .. } = input else { return };
        let known = machine.charter().is_some() || self.know.contains(&machine.id());
        if certificate.charter().cluster == machine.cluster() && !known && !truth.excused.contains(&machine.id()) {
            self.shown.insert(slot, machine.id());
        }
    }

    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            Seen::Persisted { slot, .. } => self.know.extend(self.shown.remove(slot)),
            Seen::Refused { slot, whom, .. } if self.shown.contains_key(slot) => {
                return Err(format!(
                    "machine {slot} refuses {whom} before it has written down whose charter it was shown"
                ));
            }
            Seen::Said { slot, machine, frame }
                if is_founding(frame)
                    && (self.shown.contains_key(slot) || self.know.contains(machine))
                    && !truth.excused.contains(machine) =>
            {
                return Err(format!(
                    "{machine} was shown the charter of its cluster's name, and sends a {}",
                    frame.kind()
                ));
            }
            Seen::Notice { slot, notice } if notice.kind == NoticeKind::FoundingHalted => drop(self.said.insert(*slot)),
            Seen::Notice { slot, notice }
                if matches!(notice.kind, NoticeKind::FoundingGoesOn | NoticeKind::Charter) =>
            {
                self.said.remove(slot);
            }
            Seen::Stopped { slot } => {
                self.said.remove(slot);
                self.crowded.remove(slot);
                self.shown.remove(slot);
            }
            Seen::Said { slot, machine, frame } if self.said.contains(slot) && is_founding(frame) => {
                return Err(format!("{machine} says that founding halts, and sends a {}", frame.kind()));
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn after(
        &mut self,
        slot: Slot,
        machine: &Machine,
        effects: &VecDeque<Effect>,
        truth: &Truth,
    ) -> Verdict {
        let most = 2 * truth.quorum - 1;
        // What another image bears is another number.
        if truth.others.contains(&slot) || truth.baseline || truth.identity.len() <= most || machine.charter().is_some()
        {
            return Ok(());
        }
        let founds = effects.iter().find_map(|effect| match effect {
            Effect::Send { frame, .. } => is_founding(frame).then(|| frame.kind()),
            _ => None,
        });
        // What it hears in the same moment may come after its words.
        if let Some(kind) = founds.filter(|_| self.crowded.contains(&slot)) {
            return Err(format!("{} holds more than {most} machines for alive, and sends a {kind}", machine.id()));
        }
        let alive = machine.roster_alive();
        let slots = truth.identity.iter().filter(|(other, id)| **other == slot || alive.contains(id)).count();
        if slots > most {
            self.crowded.insert(slot)
        } else {
            self.crowded.remove(&slot)
        };
        Ok(())
    }
}

fn is_founding(frame: &Frame) -> bool {
    matches!(frame, Frame::Prepare(_) | Frame::Promise(_) | Frame::Accept { .. } | Frame::Accepted { .. })
}

//! S7: a machine never belongs to two clusters; it refuses a peer with another charter, and says so.

use std::collections::{BTreeMap, VecDeque};

use muster_protocol::{Effect, Input, Machine};
use muster_wire::charter::charter_hash;
use muster_wire::{Certificate, Entry, Frame, MachineId};

use super::Verdict;
use crate::sometimes::Sometimes;
use crate::truth::Truth;
use crate::watch::{Seen, decode};
use crate::world::{Slot, World};

/// Remembers whom each identity follows, and the foreign charter that an input carried.
#[derive(Debug, Default)]
pub(super) struct OneCluster {
    follows: BTreeMap<MachineId, [u8; 16]>,
    foreign: Option<(Slot, MachineId)>,
    /// The cluster that each machine's image names.
    clusters: BTreeMap<Slot, String>,
}

impl OneCluster {
    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        if let Seen::Applied { entry, .. } = seen
            && let Some(Entry::Admitted(admitted)) = decode(entry)
            && !truth.two_charters
            && truth.of_image(admitted.machine).is_none_or(|image| !truth.book.accepts(image))
            && truth.others.clone().any(|slot| truth.identity.get(&slot) == Some(&admitted.machine))
        {
            return Err(format!("{} is admitted, which has another image", admitted.machine));
        }
        if let Seen::Persisted { slot, durable, .. } = seen {
            self.clusters.insert(*slot, durable.cluster.clone());
        }
        if let Seen::Booting { machine, durable, .. } = seen
            && durable.charter.is_none()
            && truth.excused.contains(machine)
        {
            // Its disk forgot the charter: an old copy, or a sync that lied.
            self.follows.remove(machine);
        }
        let Seen::Persisted { machine, durable, .. } = seen else { return Ok(()) };
        let Some(certificate) = &durable.charter else { return Ok(()) };
        let charter = certificate.charter();
        if charter.cluster != durable.cluster {
            return Err(format!("{machine} of {:?} follows a charter of {:?}", durable.cluster, charter.cluster));
        }
        let first = self.follows.entry(*machine).or_insert(charter.id);
        if *first != charter.id {
            return Err(format!("{machine} went over from one charter to another"));
        }
        Ok(())
    }

    /// A machine follows no charter that was founded with other settings than its image's, unless its own was accepted.
    pub(super) fn look(&self, world: &World, truth: &Truth) -> Verdict {
        for host in &world.hosts {
            let Some(certificate) = host.machine.as_ref().and_then(|machine| machine.charter()) else { continue };
            let image = world.settings(host.slot).digest;
            if certificate.charter().settings != image && !truth.book.accepts(image) {
                return Err(format!("machine {} follows a charter that is of another image than its own", host.slot));
            }
        }
        Ok(())
    }

    pub(super) fn before(&mut self, slot: Slot, machine: &Machine, input: &Input) {
        self.foreign = None;
        let Input::Received { from, frame } = input else { return };
        let hash = |certificate: &Certificate| charter_hash(certificate.charter_bytes());
        if let Frame::Hello { card, .. } = frame
            && card.card().machine == *from
            && self.clusters.get(&slot).is_some_and(|ours| *ours != card.card().cluster)
        {
            self.foreign = Some((slot, *from));
            return;
        }
        let theirs = match frame {
            Frame::Hello { charter: Some(theirs), .. } => *theirs,
            Frame::Chartered { certificate, .. } => hash(certificate),
            _ => return,
        };
        if machine.charter().is_some_and(|ours| hash(ours) != theirs) {
            self.foreign = Some((slot, *from));
        }
    }

    pub(super) fn after(&mut self, slot: Slot, effects: &VecDeque<Effect>, sometimes: &mut Sometimes) -> Verdict {
        let Some((at, from)) = self.foreign.take() else { return Ok(()) };
        debug_assert_eq!(at, slot);
        let refuses = |effect: &Effect| matches!(effect, Effect::Refuse { machine, .. } if *machine == from);
        if effects.iter().any(refuses) {
            sometimes.reached("peer-refused");
            return Ok(());
        }
        Err(format!("machine {slot} met {from} of another cluster or charter and did not refuse it"))
    }
}

//! L7: certificates are renewed before they end, and afterwards as well. Looked at when a run ends, by what lies on the machines.

use std::collections::BTreeMap;

use muster_protocol::Renewal;

use crate::scenario::Sort;
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::{At, Power, Slot, World};

/// So long it may take: each control plane's own turn, and a worker's new ticket.
const RENEWED: At = 150_000_000;

/// Since when machines have certificates to renew.
#[derive(Debug, Default)]
pub(super) struct Renewed {
    since: BTreeMap<Slot, At>,
}

impl Renewed {
    pub(super) fn see(&mut self, now: At, seen: &Seen<'_>) {
        if let Seen::FaultBegins { fault, targets, .. } = seen
            && matches!(fault.kind, Sort::CertificatesDue | Sort::CertificatesOver)
        {
            self.since.extend(targets.iter().map(|slot| (*slot, now)));
        }
    }

    pub(super) fn end(&self, world: &World, truth: &Truth, able: bool) -> Result<(), String> {
        let Some(healed) = world.healed.filter(|_| able && truth.excused.is_empty() && truth.damaged.is_empty()) else {
            return Ok(());
        };
        let late = |slot: &Slot| self.since.get(slot).is_some_and(|since| world.now >= since.max(&healed) + RENEWED);
        // A worker's are for its kubelet to renew, as long as they are good.
        let due = |slot: Slot| match truth.control_planes.contains(&world.hosts[slot as usize].me) {
            true => world.hosts[slot as usize].kube.renewal != Renewal::NotYet,
            false => world.hosts[slot as usize].kube.renewal == Renewal::Overdue,
        };
        let mut late = world.expected().filter(|host| host.power == Power::On).map(|host| host.slot).filter(late);
        match late.find(|slot| due(*slot)) {
            Some(slot) => Err(format!("machine {slot} has certificates that were to be renewed long ago")),
            None => Ok(()),
        }
    }
}

//! S19: certificates that still serve are renewed in the machine's own turn to disrupt, and so on one machine at a time. Which are good no
//! more is counted by what befell them.

use std::collections::BTreeSet;

use muster_protocol::Step;
use muster_wire::TurnKind;

use super::Verdict;
use crate::scenario::Sort;
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::Slot;

/// Machines whose certificates are good no more.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    over: BTreeSet<Slot>,
}

impl Renewals {
    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            Seen::FaultBegins { fault, targets, .. } if fault.kind == Sort::CertificatesOver => {
                self.over.extend(targets.iter().copied());
            }
            Seen::StepEnded { slot, step: Step::Renew { .. } | Step::RenewKubelet { .. }, result: Ok(_) } => {
                self.over.remove(slot);
            }
            Seen::StepBegan { slot, step: Step::Renew { .. }, apart: false, .. } if !self.over.contains(slot) => {
                let holder = truth.book.turn(TurnKind::Disrupt).map(|(_, holder)| holder);
                if holder.is_none() || holder != truth.identity.get(slot).copied() {
                    return Err(format!(
                        "machine {slot} renews certificates that still serve, and {holder:?} has the turn to disrupt"
                    ));
                }
            }
            Seen::StepBegan { slot, step: Step::RenewKubelet { .. }, apart: false, .. }
                if !self.over.contains(slot) =>
            {
                return Err(format!("the kubelet of machine {slot} is started anew, whose certificate is good"));
            }
            _ => {}
        }
        Ok(())
    }
}

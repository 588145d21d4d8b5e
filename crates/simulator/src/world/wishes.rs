//! What people ask machines for.

use muster_protocol::{Fate, Input};
use muster_wire::{CallNumber, Image, Wish};

use super::World;
use super::event::Slot;
use crate::scenario::Pick;
use crate::watch::Seen;

impl World {
    /// Asks whoever the scenario names. A wish's number is its place there.
    pub(super) fn wish(&mut self, index: usize) {
        if self.scenario.wishes.get(index).is_some_and(|wish| wish.recover) {
            let restores = self.scenario.wishes[index].from_backup;
            for slot in self.targets(&self.scenario.wishes[index].machines) {
                let backup = self.last_backup(slot).filter(|_| restores);
                if restores && backup.is_none() {
                    continue;
                }
                let works = self.works_at(slot);
                self.feed(slot, Input::Recover { call: CallNumber(index as u64), dry_run: false, backup, works });
            }
            return;
        }
        let Some(wish) = self.wished(index) else { return };
        self.asked.insert(index, wish.clone());
        for slot in self.targets(&self.scenario.wishes[index].machines) {
            self.feed(slot, Input::Wish { call: CallNumber(index as u64), wish: wish.clone(), dry_run: false });
        }
    }

    fn wished(&mut self, index: usize) -> Option<Wish> {
        let wish = self.scenario.wishes.get(index)?.clone();
        if let Some(pick) = &wish.remove {
            return self.one(pick).map(|machine| Wish::RemoveMachine { machine, returns: wish.returns });
        }
        if let Some(pick) = &wish.withdraw {
            return self.one(pick).map(|machine| Wish::WithdrawRemoval { machine });
        }
        let accepts = wish.accept_other? as usize;
        let others: u32 = self.scenario.others.iter().skip(accepts).map(|other| other.count).sum();
        let settings = self.settings(self.scenario.machines.checked_sub(others)?);
        Some(Wish::AcceptImage(Image { digest: settings.digest, kubernetes_version: settings.kubernetes_version }))
    }

    fn one(&mut self, pick: &Pick) -> Option<muster_wire::MachineId> {
        let slot = *self.targets(pick).first()?;
        Some(self.hosts[slot as usize].me)
    }

    pub(super) fn wish_answered(&mut self, slot: Slot, call: CallNumber, fate: &Fate) {
        let Some(wish) = self.asked.get(&(call.0 as usize)).cloned() else { return };
        self.see(Seen::Answered { slot, wish: &wish, fate });
    }
}

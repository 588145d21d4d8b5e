//! What people ask machines for.

use muster_protocol::{Fate, Input};
use muster_wire::{Image, Wish};

use super::World;
use super::event::Slot;
use crate::watch::Seen;

impl World {
    /// Asks whoever the scenario names. A wish's number is its place there.
    pub(super) fn wish(&mut self, index: usize) {
        let Some(wish) = self.wished(index) else { return };
        for slot in self.targets(&self.scenario.wishes[index].machines) {
            self.feed(slot, Input::Wish { call: index as u64, wish: wish.clone(), dry_run: false });
        }
    }

    fn wished(&self, index: usize) -> Option<Wish> {
        let wish = self.scenario.wishes.get(index)?;
        let others: u32 = self.scenario.others.iter().skip(wish.accept_other as usize).map(|other| other.count).sum();
        let settings = self.settings(self.scenario.machines.checked_sub(others)?);
        Some(Wish::AcceptImage(Image { digest: settings.digest, kubernetes_version: settings.kubernetes_version }))
    }

    pub(super) fn wish_answered(&mut self, slot: Slot, call: u64, fate: &Fate) {
        if let Some(wish) = self.wished(call as usize) {
            self.see(Seen::Answered { slot, wish: &wish, fate });
        }
    }
}

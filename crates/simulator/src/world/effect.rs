//! Notes of the faults that took effect. Nothing here changes a run.

use super::World;
use super::event::Slot;
use crate::reach::Fared;
use crate::scenario::Sort;

impl World {
    /// How the faults of the plan fared so far.
    pub(crate) fn fared(&self) -> Vec<Fared> {
        let took = |index: usize| self.fared[index].took || self.net.took(index) || self.writes_failed(index);
        self.fared.iter().enumerate().map(|(index, fared)| Fared { took: took(index), ..*fared }).collect()
    }

    /// This fault took effect.
    pub(super) fn took(&mut self, index: usize) {
        self.fared[index].took = true;
    }

    /// The faults of these sorts that are under way on a machine took effect.
    pub(super) fn took_on(&mut self, slot: Slot, sorts: &[Sort]) {
        for active in &self.active {
            if sorts.contains(&self.plan[active.index].kind) && active.targets.contains(&slot) {
                self.fared[active.index].took = true;
            }
        }
    }

    /// Of the faults of these sorts under way on a machine, the last that began took effect: it stands in place of the others.
    pub(super) fn last_took_on(&mut self, slot: Slot, sorts: &[Sort]) {
        let last = self
            .active
            .iter()
            .rev()
            .find(|active| sorts.contains(&self.plan[active.index].kind) && active.targets.contains(&slot));
        if let Some(index) = last.map(|active| active.index) {
            self.took(index);
        }
    }

    /// Whether this fault is one under which a write of Raft's failed.
    pub(super) fn writes_failed(&self, index: usize) -> bool {
        matches!(self.plan[index].kind, Sort::Full | Sort::IoError)
            && self.active.iter().any(|active| {
                active.index == index
                    && active.targets.iter().any(|slot| self.hosts[*slot as usize].platter.has_failed())
            })
    }
}

//! A machine's disk: one state file with its identity and every promise it made.

use std::collections::VecDeque;

use bytes::Bytes;
use muster_wire::Durable;

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) identity_seed: [u8; 32],
    pub(crate) sealing_seed: [u8; 32],
    pub(crate) durable: Bytes,
    /// Whether Raft's store was begun beside it.
    pub(crate) raft_begun: bool,
}

/// What a machine finds when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing: the first boot of this disk.
    Nothing,
    /// A file whose checksum does not hold.
    Broken,
    /// A file.
    File(File),
}

/// The disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    content: Found,
    /// What will still be there after a power loss, while syncs lie.
    kept: Option<Found>,
    /// Old copies, for whoever restores one: the first few, and the last few of those after them.
    first: Vec<File>,
    last: VecDeque<File>,
    /// Counts the times that this hardware got an empty disk.
    pub(crate) generation: u64,
}

/// So many of the first copies are kept, and of the last.
pub(crate) const COPIES_KEPT: usize = 8;

impl Disk {
    pub(crate) fn new() -> Self {
        Self { content: Found::Nothing, kept: None, first: Vec::new(), last: VecDeque::new(), generation: 0 }
    }

    pub(crate) fn read(&self) -> &Found {
        &self.content
    }

    /// A synced write.
    pub(crate) fn write(&mut self, file: File) {
        if self.content != Found::File(file.clone()) {
            if self.first.len() < COPIES_KEPT {
                self.first.push(file.clone());
            }
            self.last.push_back(file.clone());
            if self.last.len() > COPIES_KEPT + 1 {
                self.last.pop_front();
            }
        }
        self.content = Found::File(file);
    }

    /// From now on syncs lie.
    pub(crate) fn begin_lying(&mut self) {
        self.kept.get_or_insert_with(|| self.content.clone());
    }

    /// Syncs are true again, and what was written is on the disk by now.
    pub(crate) fn end_lying(&mut self) {
        self.kept = None;
    }

    /// Power is lost. Says whether something went that was believed to be synced.
    pub(crate) fn lose_power(&mut self) -> bool {
        let Some(kept) = self.kept.take() else { return false };
        let lost = kept != self.content;
        self.content = kept;
        lost
    }

    /// The file no longer has its checksum.
    pub(crate) fn break_file(&mut self) {
        if self.content != Found::Nothing {
            self.content = Found::Broken;
        }
    }

    /// Whether there is nothing on it.
    pub(crate) fn is_empty(&self) -> bool {
        self.content == Found::Nothing
    }

    /// The disk is replaced by an empty one.
    pub(crate) fn wipe(&mut self) {
        *self = Self { generation: self.generation + 1, ..Self::new() };
    }

    /// The disk becomes an old copy of itself: the `copy`th that was written, or counted back from the present one if negative;
    /// the nearest that is kept. Says whether that is another content.
    pub(crate) fn restore_old(&mut self, copy: i32) -> bool {
        let back = self.last.len() as i64 - 1 + i64::from(copy);
        let old = if copy < 0 {
            self.last.get(back.max(0) as usize)
        } else {
            self.first.get((copy as usize).min(self.first.len().saturating_sub(1)))
        };
        let Some(old) = old.cloned() else { return false };
        let changed = self.content != Found::File(old.clone());
        self.content = Found::File(old);
        changed
    }

    /// The same with any of the copies that are kept, as `draw` has it.
    pub(crate) fn restore_any(&mut self, draw: u64) -> bool {
        // The present one is the last, and no older copy.
        let (first, last) = (self.first.len() as i32, self.last.len().saturating_sub(1) as i32);
        let place = (draw % (first + last).max(1) as u64) as i32;
        self.restore_old(if place < first { place } else { first - 1 - place })
    }

    /// Raft's store was begun on this disk: one that is gone later was lost. The file says so from now on.
    pub(crate) fn begin_raft(&mut self) {
        let copies = self.first.last_mut().into_iter().chain(self.last.back_mut());
        let present = match &mut self.content {
            Found::File(file) => Some(file),
            _ => None,
        };
        let Some(present) = present else { return };
        let before = present.clone();
        // It is the file as it was written last, with one word more.
        copies.filter(|copy| **copy == before).for_each(|copy| copy.raft_begun = true);
        present.raft_begun = true;
    }

    /// Whether the file says that Raft's store was begun.
    pub(crate) fn has_begun_raft(&self) -> bool {
        matches!(&self.content, Found::File(file) if file.raft_begun)
    }

    /// Whether the file is from before its machine followed a charter, and so from before it ran Raft.
    pub(crate) fn is_before_charter(&self) -> bool {
        match &self.content {
            Found::File(file) => Durable::decode(&file.durable).is_ok_and(|durable| durable.charter.is_none()),
            _ => false,
        }
    }

    /// The disk becomes a copy of another one.
    pub(crate) fn copy_from(&mut self, other: &Disk) {
        self.content = other.content.clone();
        self.kept = None;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u8) -> File {
        File {
            identity_seed: [1; 32],
            sealing_seed: [2; 32],
            durable: Bytes::copy_from_slice(&[number]),
            raft_begun: false,
        }
    }

    fn restored(copy: i32) -> Option<u8> {
        let mut disk = Disk::new();
        (0..20).for_each(|number| disk.write(file(number)));
        disk.restore_old(copy);
        match disk.read() {
            Found::File(file) => file.durable.first().copied(),
            _ => None,
        }
    }

    #[test]
    fn a_copy_is_counted_from_the_first_write_or_back_from_the_last() {
        assert_eq!([0, 1, 7].map(restored), [Some(0), Some(1), Some(7)]);
        assert_eq!([-1, -2, -8].map(restored), [Some(18), Some(17), Some(11)]);
    }

    #[test]
    fn any_copy_may_be_the_one_that_is_restored() {
        let restored: std::collections::BTreeSet<u8> = (0..64)
            .filter_map(|draw| {
                let mut disk = Disk::new();
                (0..20).for_each(|number| disk.write(file(number)));
                disk.restore_any(draw);
                match disk.read() {
                    Found::File(file) => file.durable.first().copied(),
                    _ => None,
                }
            })
            .collect();
        assert_eq!(restored, (0..8).chain(11..19).collect());
    }

    #[test]
    fn what_changes_nothing_forgets_nothing() {
        let mut disk = Disk::new();
        assert!(!disk.restore_old(0));
        disk.write(file(3));
        assert!(!disk.restore_old(0) && !disk.restore_old(-1));
        disk.write(file(4));
        assert!(disk.restore_old(-1));
    }
}

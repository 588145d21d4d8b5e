//! A machine's disk: one state file with its identity and every promise it made.

use bytes::Bytes;

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) identity_seed: [u8; 32],
    pub(crate) sealing_seed: [u8; 32],
    pub(crate) durable: Bytes,
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
    /// Old copies, for whoever restores one; the oldest and a few later ones.
    copies: Vec<File>,
    /// Counts the times that this hardware got an empty disk.
    pub(crate) generation: u64,
}

/// Most old copies that are kept.
const COPIES_MAX: usize = 8;

impl Disk {
    pub(crate) fn new() -> Self {
        Self { content: Found::Nothing, kept: None, copies: Vec::new(), generation: 0 }
    }

    pub(crate) fn read(&self) -> &Found {
        &self.content
    }

    /// A synced write.
    pub(crate) fn write(&mut self, file: File) {
        if self.copies.len() < COPIES_MAX && self.copies.last() != Some(&file) {
            self.copies.push(file.clone());
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

    /// The disk is replaced by an empty one.
    pub(crate) fn wipe(&mut self) {
        *self = Self { generation: self.generation + 1, ..Self::new() };
    }

    /// The disk becomes its own oldest copy. Says whether that is another content.
    pub(crate) fn restore_old(&mut self) -> bool {
        let Some(oldest) = self.copies.first().cloned() else { return false };
        let changed = self.content != Found::File(oldest.clone());
        self.content = Found::File(oldest);
        changed
    }

    /// The disk becomes a copy of another one.
    pub(crate) fn copy_from(&mut self, other: &Disk) {
        self.content = other.content.clone();
        self.kept = None;
        self.generation += 1;
    }
}

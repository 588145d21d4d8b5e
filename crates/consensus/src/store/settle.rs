//! Snapshots on their way to disk, and who waits for them.

use bytes::Bytes;
use openraft::ErrorSubject;

use super::Store;
use crate::runtime::Runtime;
use crate::types::{LogId, SnapshotMeta, StorageError};

/// What is known of snapshots while Raft runs.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// The end of the snapshot that is being installed.
    coming: Option<LogId>,
    /// The end of the last one written.
    held: Option<LogId>,
    failed: bool,
}

impl<R: Runtime> Store<R> {
    /// A received snapshot is handed to openraft. [`Store::snapshot_done`] must follow.
    pub(crate) fn snapshot_coming(&self, end: Option<LogId>) {
        self.snapshots.send_modify(|snapshots| snapshots.coming = end);
    }

    /// openraft has installed it, or has refused it.
    pub(crate) fn snapshot_done(&self) {
        self.snapshot_coming(None);
    }

    pub(super) fn snapshot_failed(&self) {
        self.snapshots.send_modify(|snapshots| snapshots.failed = true);
    }

    /// Waits until no snapshot that reaches `end` is on its way to disk.
    pub(super) async fn snapshot_settled(&self, end: &LogId) {
        let end = Some(*end);
        let settled = |now: &Snapshots| now.failed || now.coming < end || now.held >= end;
        // The sender is in `self`, so this ends by the condition alone.
        let _ = self.snapshots.subscribe().wait_for(settled).await;
    }

    pub(super) async fn keep_snapshot(&self, meta: SnapshotMeta, data: Bytes) -> Result<(), StorageError> {
        let end = meta.last_log_id;
        let subject = ErrorSubject::Snapshot(Some(meta.signature()));
        let kept = self.synced(subject, move |store| store.write_snapshot(&meta, &data)).await;
        match kept {
            Ok(()) => self.snapshots.send_modify(|snapshots| snapshots.held = snapshots.held.max(end)),
            Err(_) => self.snapshot_failed(),
        }
        kept
    }
}

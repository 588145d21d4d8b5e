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

    /// Waits until no snapshot that reaches `end` is on its way to disk. Returns whether what it covers may go: not after one did not come to disk,
    /// over which Raft stops. Whoever starts here next, be it with an image that can read that snapshot, has to have all that was promised.
    pub(super) async fn snapshot_settled(&self, end: &LogId) -> bool {
        let end = Some(*end);
        let settled = |now: &Snapshots| now.failed || now.coming < end || now.held >= end;
        // The sender is in `self`, so this ends by the condition alone.
        let _ = self.snapshots.subscribe().wait_for(settled).await;
        let now = self.snapshots.borrow();
        !now.failed || now.held >= end
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use muster_protocol::ledger::Ledger;
    use muster_wire::MachineId;
    use openraft::CommittedLeaderId;
    use openraft::storage::RaftLogStorage;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::disk::Disk;
    use crate::seeded::{Executor, Seeded};

    fn end(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(1, MachineId::default()), index)
    }

    /// Starts to remove what is covered up to 5 while a snapshot up to `coming` comes; returns whether it is done after
    /// each of: nothing, and `then`.
    fn removing(coming: u64, then: impl Future<Output = ()> + Send + 'static, store: &Store<Seeded>) -> [bool; 2] {
        let executor = Executor::new(1);
        let done = std::sync::Arc::new(AtomicBool::new(false));
        store.snapshot_coming(Some(end(coming)));
        let (mut log, told) = (store.log(), done.clone());
        executor.spawn(async move {
            log.purge(end(5)).await.unwrap();
            told.store(true, Ordering::Relaxed);
        });
        executor.run(1_000);
        let early = done.load(Ordering::Relaxed);
        executor.spawn(then);
        executor.run(1_000);
        [early, done.load(Ordering::Relaxed)]
    }

    #[test]
    fn nothing_is_removed_before_the_snapshot_that_covers_it_is_on_disk() {
        let disk = Disk::open_on("memory", InMemoryBackend::new()).unwrap();
        let store = Store::<Seeded>::open(&disk, [7; 16], MachineId::default()).unwrap();
        let meta = SnapshotMeta { last_log_id: Some(end(5)), ..SnapshotMeta::default() };
        let (keeping, data) = (store.clone(), Ledger::default().encode().into());
        let kept = async move { keeping.keep_snapshot(meta, data).await.unwrap() };
        assert_eq!(removing(4, async {}, &store), [true, true], "another snapshot");
        assert_eq!(removing(5, kept, &store), [false, true]);
    }

    #[test]
    fn nobody_waits_for_a_snapshot_that_was_refused_or_failed_and_after_a_failure_nothing_is_removed() {
        for failed in [false, true] {
            let disk = Disk::open_on("memory", InMemoryBackend::new()).unwrap();
            let store = Store::<Seeded>::open(&disk, [7; 16], MachineId::default()).unwrap();
            let ending = store.clone();
            let ends = async move { if failed { ending.snapshot_failed() } else { ending.snapshot_done() } };
            assert_eq!(removing(5, ends, &store), [false, true]);
            let (executor, purged) = (Executor::new(1), std::sync::Arc::new(std::sync::Mutex::new(None)));
            let (mut log, told) = (store.log(), purged.clone());
            executor.spawn(async move {
                *told.lock().unwrap() = log.get_log_state().await.unwrap().last_purged_log_id;
            });
            executor.run(1_000);
            assert_eq!(*purged.lock().unwrap(), (!failed).then(|| end(5)));
        }
    }
}

//! openraft's view of the vote and the log.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{ErrorSubject, ErrorVerb, RaftLogReader};

use super::{Store, failure};
use crate::runtime::Runtime;
use crate::types::{LogId, Record, StorageError, Types, Vote};

/// Most bytes of records in one call, unless a single record has more. A call that does not get through within a
/// heartbeat is tried again whole, so it should be short enough for a slow link.
const CALL_BYTES: usize = 64 * 1024;

/// The vote and the log. What it says is done is synced to disk.
#[derive(Debug)]
pub struct LogStore<R>(pub(super) Store<R>);

/// Reads the log for replication.
#[derive(Debug)]
pub struct LogReader<R>(Store<R>);

impl<R: Runtime> Store<R> {
    /// openraft's view of the vote and the log.
    pub fn log(&self) -> LogStore<R> {
        LogStore(self.clone())
    }

    #[expect(clippy::result_large_err, reason = "openraft's error")]
    fn entries(&self, range: impl RangeBounds<u64>, bytes: usize) -> Result<Vec<Record<R>>, StorageError> {
        self.read_records(range, bytes, false).map_err(|why| failure(ErrorSubject::Logs, ErrorVerb::Read, &why))
    }
}

impl<R: Runtime> RaftLogReader<Types<R>> for LogReader<R> {
    async fn try_get_log_entries<B: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: B,
    ) -> Result<Vec<Record<R>>, StorageError> {
        self.0.entries(range, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Record<R>>, StorageError> {
        self.0.entries(start..end, CALL_BYTES)
    }
}

impl<R: Runtime> RaftLogReader<Types<R>> for LogStore<R> {
    async fn try_get_log_entries<B: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: B,
    ) -> Result<Vec<Record<R>>, StorageError> {
        self.0.entries(range, usize::MAX)
    }
}

impl<R: Runtime> RaftLogStorage<Types<R>> for LogStore<R> {
    type LogReader = LogReader<R>;

    async fn get_log_state(&mut self) -> Result<LogState<Types<R>>, StorageError> {
        let facts = self.0.read_facts().map_err(|why| failure(ErrorSubject::Logs, ErrorVerb::Read, &why))?;
        Ok(LogState { last_purged_log_id: facts.purged, last_log_id: facts.last })
    }

    async fn get_log_reader(&mut self) -> LogReader<R> {
        LogReader(self.0.clone())
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        self.0.synced(ErrorSubject::Vote, move |store| store.write_vote(&vote)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let facts = self.0.read_facts().map_err(|why| failure(ErrorSubject::Vote, ErrorVerb::Read, &why))?;
        Ok(facts.vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.0.write_committed(committed.as_ref()).map_err(|why| failure(ErrorSubject::Store, ErrorVerb::Write, &why))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let facts = self.0.read_facts().map_err(|why| failure(ErrorSubject::Store, ErrorVerb::Read, &why))?;
        // openraft applies anew what is committed before it runs. Where the ledger goes beyond what this machine knows it would not
        // start at all; so it hears of that from the leader.
        Ok(facts.committed.filter(|_| !self.0.is_beyond()))
    }

    /// Calls back after the sync, with what came of it.
    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types<R>>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Record<R>> + Send,
        I::IntoIter: Send,
    {
        let records: Vec<_> = entries.into_iter().collect();
        let written = self.0.synced(ErrorSubject::Logs, move |store| store.write_records(&records)).await;
        match &written {
            Ok(()) => callback.log_io_completed(Ok(())),
            Err(why) => callback.log_io_completed(Err(io::Error::other(why.to_string()))),
        }
        written
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.0.synced(ErrorSubject::Log(log_id), move |store| store.remove_from(log_id.index)).await
    }

    /// Waits for a snapshot that is being received: openraft orders the removal of what it covers at once, and were the
    /// removal on disk before the snapshot, a crash in between would leave neither.
    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        if !self.0.snapshot_settled(&log_id).await {
            return Ok(());
        }
        self.0.remove_up_to(&log_id).map_err(|why| failure(ErrorSubject::Log(log_id), ErrorVerb::Delete, &why))
    }
}

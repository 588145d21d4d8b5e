//! The whole state, read once when it is opened.

use muster_wire::level;
use redb::ReadableTable;

use super::{LOG, Record, Store};
use crate::disk::DiskError;
use crate::runtime::Runtime;

impl<R: Runtime> Store<R> {
    /// Reads every record, and compares what they say of each other.
    ///
    /// # Errors
    /// [`DiskError::Damaged`] naming the first record that is wrong or missing.
    pub(super) fn check(&self) -> Result<(), DiskError> {
        let facts = self.read_facts()?;
        let snapshot = self.read_ledger(level::KNOWN)?.and_then(|(meta, _)| meta.last_log_id);
        if facts.purged > snapshot {
            return Err(self.disk.damaged("raft-facts/purged", "records were removed that are in no snapshot"));
        }
        let mut expected = facts.purged.map_or(0, |id| id.index + 1);
        let mut before = facts.purged;
        self.for_each_record(|record| {
            let id = record.log_id;
            let missing = |index: u64| self.disk.damaged(format!("raft-log/{index}"), "it is missing");
            if id.index != expected {
                return Err(missing(expected));
            }
            if before.is_some_and(|before| id.leader_id < before.leader_id) {
                return Err(self
                    .disk
                    .damaged(format!("raft-log/{}", id.index), "it is older than the record before it"));
            }
            expected += 1;
            before = Some(id);
            Ok(())
        })?;
        // A snapshot that was received may be ahead of the whole log; a commit is never ahead of both.
        if facts.committed > before.max(snapshot) {
            return Err(self.disk.damaged(format!("raft-log/{expected}"), "it was committed and is missing"));
        }
        Ok(())
    }

    /// One record at a time, so that memory stays small.
    fn for_each_record(&self, mut each: impl FnMut(Record<R>) -> Result<(), DiskError>) -> Result<(), DiskError> {
        let mut broken = Ok(());
        self.disk.read(|transaction| {
            for item in transaction.open_table(LOG)?.iter()? {
                let (key, value) = item?;
                broken = self.decode_record(key.value(), value.value()).and_then(&mut each);
                if broken.is_err() {
                    break;
                }
            }
            Ok(())
        })?;
        broken
    }
}

//! openraft's view of the ledger.
//!
//! The ledger lives in memory; on disk are its last snapshot and the log after it. At a start the snapshot is loaded and
//! the committed records after it are applied again.

use bytes::Bytes;
use muster_protocol::ledger::Ledger;
use muster_wire::Entry;
use muster_wire::planted::planted;
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, RaftSnapshotBuilder};
use tokio::sync::mpsc;

use super::{Store, failure};
use crate::disk::DiskError;
use crate::event::Event;
use crate::runtime::Runtime;
use crate::types::{Applied, LogId, Record, SnapshotMeta, StorageError, StoredMembership, Types};

/// Bytes of records read at a time at a start.
const CATCH_UP_BYTES: usize = 256 * 1024;

/// The ledger, fed by openraft, feeding the machine.
#[derive(Debug)]
pub struct StateMachine<R> {
    store: Store<R>,
    ledger: Ledger,
    applied: Option<LogId>,
    membership: StoredMembership,
    events: mpsc::Sender<Event>,
}

/// A copy of the ledger, to be written while the original goes on.
#[derive(Debug)]
pub struct SnapshotBuilder<R> {
    store: Store<R>,
    meta: SnapshotMeta,
    data: Bytes,
}

impl<R: Runtime> Store<R> {
    /// openraft's view of the ledger, as far as this machine knows it to be committed. `events` gets that ledger at once,
    /// then every entry that is applied and every snapshot that is installed, in order. `founded` is the ledger before its first
    /// entry, [`Ledger::founded`]: the same on all machines, or they would not apply alike.
    ///
    /// # Errors
    /// [`DiskError`], as at opening.
    pub async fn state_machine(
        &self,
        founded: Ledger,
        events: mpsc::Sender<Event>,
    ) -> Result<StateMachine<R>, DiskError> {
        let (meta, ledger) = self.read_ledger()?.unwrap_or_else(|| (SnapshotMeta::default(), founded));
        let mut machine = StateMachine {
            store: self.clone(),
            ledger,
            applied: meta.last_log_id,
            membership: meta.last_membership,
            events,
        };
        // openraft would do the same, but its applying tells every entry, to a reader that may not be reading yet.
        machine.catch_up()?;
        machine.restored(machine.ledger.encode().into()).await;
        Ok(machine)
    }
}

impl<R: Runtime> StateMachine<R> {
    fn catch_up(&mut self) -> Result<(), DiskError> {
        let Some(committed) = self.store.read_facts()?.committed else { return Ok(()) };
        while self.applied < Some(committed) {
            let next = self.applied.map_or(0, |id| id.index + 1);
            let records = self.store.read_records(next..=committed.index, CATCH_UP_BYTES, false)?;
            if records.is_empty() {
                return Err(self.store.disk.damaged(format!("raft-log/{next}"), "it was committed and is missing"));
            }
            for record in &records {
                self.apply_one(record);
            }
        }
        Ok(())
    }

    fn apply_one(&mut self, record: &Record<R>) -> Applied {
        let revision = record.log_id.index;
        self.applied = Some(record.log_id);
        let refused = match &record.payload {
            EntryPayload::Blank => {
                self.ledger.skip(revision);
                None
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(record.log_id), membership.clone());
                self.ledger.skip(revision);
                None
            }
            EntryPayload::Normal(bytes) => match Entry::decode(bytes.clone()) {
                Ok(entry) => self.ledger.apply(revision, &entry).err().map(|why| why.to_string()),
                // An entry of a later version changes nothing here, but keeps its place.
                Err(why) => {
                    self.ledger.skip(revision);
                    Some(why.to_string())
                }
            },
        };
        Applied { revision, refused }
    }

    async fn restored(&self, ledger: Bytes) {
        // Without a receiver the machine is stopping, and Raft with it.
        let _ = self.events.send(Event::Restored { revision: self.ledger.revision(), ledger }).await;
    }

    fn meta(&self) -> SnapshotMeta {
        let name = self.applied.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone(), snapshot_id: name }
    }
}

impl<R: Runtime> RaftStateMachine<Types<R>> for StateMachine<R> {
    type SnapshotBuilder = SnapshotBuilder<R>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Record<R>> + Send,
        I::IntoIter: Send,
    {
        let mut outcomes = Vec::new();
        for record in entries {
            let outcome = self.apply_one(&record);
            let told = !planted("entry-untold") || !outcome.revision.is_multiple_of(11);
            if let EntryPayload::Normal(entry) = record.payload
                && told
            {
                let _ = self.events.send(Event::Applied { revision: outcome.revision, entry }).await;
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<R> {
        SnapshotBuilder { store: self.store.clone(), meta: self.meta(), data: self.ledger.encode().into() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<Bytes>) -> Result<(), StorageError> {
        let subject = || ErrorSubject::Snapshot(Some(meta.signature()));
        let unreadable = |why: muster_wire::WireError| {
            let why = self.store.disk.damaged(format!("snapshot {} received", meta.snapshot_id), why.to_string());
            self.store.snapshot_failed();
            failure(subject(), ErrorVerb::Read, &why)
        };
        let ledger = Ledger::decode(&snapshot).map_err(unreadable)?;
        self.store.keep_snapshot(meta.clone(), (*snapshot).clone()).await?;
        if !planted("snapshot-not-taken") {
            self.ledger = ledger;
        }
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        if !planted("snapshot-untold") {
            self.restored(*snapshot).await;
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types<R>>>, StorageError> {
        let found = self.store.read_snapshot();
        let found = found.map_err(|why| failure(ErrorSubject::Snapshot(None), ErrorVerb::Read, &why))?;
        Ok(found.map(|(meta, data)| Snapshot { meta, snapshot: Box::new(data) }))
    }
}

impl<R: Runtime> RaftSnapshotBuilder<Types<R>> for SnapshotBuilder<R> {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types<R>>, StorageError> {
        self.store.keep_snapshot(self.meta.clone(), self.data.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(self.data.clone()) })
    }
}

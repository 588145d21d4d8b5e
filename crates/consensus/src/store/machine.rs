//! openraft's view of the ledger.
//!
//! The ledger lives in memory; on disk are its last snapshot and the log after it. At a start the snapshot is loaded and
//! the committed records after it are applied again.
//!
//! A ledger above the level that this machine knows is not read in part: the machine is told of what cannot be read, as of
//! anything else, and Raft stops here. Nothing is skipped, and no snapshot is made of what was not read.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use muster_protocol::ledger::Ledger;
use muster_wire::planted::planted;
use muster_wire::{Entry, Revision, WireError};
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, RaftSnapshotBuilder};
use tokio::sync::mpsc;

use super::{Kept, Store, failure};
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
    /// The highest level that this machine knows.
    known: u32,
    /// Whether `ledger` is not the one at `applied`, which is above that level.
    blind: bool,
}

/// A copy of the ledger, to be written while the original goes on.
#[derive(Debug)]
pub struct SnapshotBuilder<R> {
    store: Store<R>,
    meta: SnapshotMeta,
    /// The ledger, encoded; none if it cannot be read here.
    data: Option<Bytes>,
}

impl<R: Runtime> Store<R> {
    /// openraft's view of the ledger, as far as this machine knows it to be committed. `events` gets that ledger at once,
    /// then every entry that is applied and every snapshot that is installed, in order. `founded` is the ledger before its first
    /// entry, [`Ledger::founded`]: the same on all machines, or they would not apply alike. `known` is the highest level of the
    /// ledger that this machine knows: at what is above it the events end with that, and applying fails from there on.
    ///
    /// # Errors
    /// [`DiskError`], as at opening.
    pub async fn state_machine(
        &self,
        founded: Ledger,
        known: u32,
        events: mpsc::Sender<Event>,
    ) -> Result<StateMachine<R>, DiskError> {
        let (meta, ledger, beyond) = match self.read_ledger(known)? {
            None => (SnapshotMeta::default(), founded, None),
            Some((meta, Kept::Ledger(ledger))) => (meta, *ledger, None),
            Some((meta, Kept::Beyond(data))) => (meta, founded, Some(data)),
        };
        let mut machine = StateMachine {
            store: self.clone(),
            ledger,
            applied: meta.last_log_id,
            membership: meta.last_membership,
            events,
            known,
            blind: beyond.is_some(),
        };
        if let Some(data) = beyond {
            self.beyond.store(true, Ordering::Relaxed);
            machine.restored(data).await;
            return Ok(machine);
        }
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
                // openraft comes to it as well, and is told.
                if self.apply_one(record).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// The entry is beyond what this machine knows, and is neither applied nor skipped.
    fn apply_one(&mut self, record: &Record<R>) -> Result<Applied, WireError> {
        let revision = Revision(record.log_id.index);
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
            EntryPayload::Normal(bytes) => match Entry::decode_at(bytes.clone(), self.known) {
                Ok(entry) => self.ledger.apply(revision, &entry).err().map(|why| why.to_string()),
                Err(why) => self.stop(revision, why).map(|()| None)?,
            },
        };
        self.applied = Some(record.log_id);
        Ok(Applied { revision, refused })
    }

    fn stop(&mut self, revision: Revision, why: WireError) -> Result<(), WireError> {
        if planted("unknown-entry-skipped") {
            self.ledger.skip(revision);
            return Ok(());
        }
        self.store.beyond.store(true, Ordering::Relaxed);
        Err(why)
    }

    async fn restored(&self, ledger: Bytes) {
        let revision = Revision(self.applied.map_or(0, |id| id.index));
        // Without a receiver the machine is stopping, and Raft with it.
        let _ = self.events.send(Event::Restored { revision, ledger }).await;
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
        if self.blind {
            return Err(beyond(&WireError::Field {
                field: "snapshot",
                rule: "is of a higher level than this machine knows",
            }));
        }
        for record in entries {
            let revision = Revision(record.log_id.index);
            let outcome = self.apply_one(&record);
            let told = !planted("entry-untold") || !revision.0.is_multiple_of(11);
            if let EntryPayload::Normal(entry) = record.payload
                && told
            {
                let _ = self.events.send(Event::Applied { revision, entry }).await;
            }
            outcomes.push(outcome.map_err(|why| beyond(&why))?);
        }
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder<R> {
        let data = (!self.blind).then(|| self.ledger.encode().into());
        SnapshotBuilder { store: self.store.clone(), meta: self.meta(), data }
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
        let ledger = match Ledger::decode(&snapshot, self.known) {
            Ok(ledger) => ledger,
            Err(why @ WireError::Level { .. }) => {
                self.store.beyond.store(true, Ordering::Relaxed);
                self.store.snapshot_failed();
                self.restored(*snapshot).await;
                return Err(beyond(&why));
            }
            Err(why) => return Err(unreadable(why)),
        };
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

/// In openraft's words: Raft stops here.
fn beyond(why: &WireError) -> StorageError {
    failure(ErrorSubject::StateMachine, ErrorVerb::Read, why)
}

impl<R: Runtime> RaftSnapshotBuilder<Types<R>> for SnapshotBuilder<R> {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types<R>>, StorageError> {
        let unread = WireError::Field { field: "ledger", rule: "is of a higher level than this machine knows" };
        let data = self.data.clone().ok_or_else(|| beyond(&unread))?;
        self.store.keep_snapshot(self.meta.clone(), data.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(data) })
    }
}

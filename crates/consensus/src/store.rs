//! Raft's durable state: the vote, the log, and the snapshot, in one redb database.
//!
//! | table | key | value |
//! |---|---|---|
//! | `raft-facts` | `owner`, `vote`, `committed`, `purged`, `snapshot` | `RaftOwner`, `RaftVote`, `RaftLogId`, `RaftLogId`, `RaftSnapshot` |
//! | `raft-log` | index | `RaftRecord` |
//! | `raft-data` | `snapshot` | the snapshot's encoded ledger |
//!
//! Every value begins with a checksum over table, key and value, so that a bit that flipped, or a value that stands in
//! another one's place, is found when it is read; all of them are read when the store is opened.
//!
//! The state belongs to one machine of one cluster for good. It must never be emptied under an identity that voted with
//! it: a voter that forgot its votes can give them twice. New disk, new identity (promise S9).

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use muster_protocol::ledger::Ledger;
use muster_wire::planted::planted;
use muster_wire::{MachineId, WireError, proto};
use openraft::AnyError;
use openraft::{EmptyNode, EntryPayload, ErrorSubject, ErrorVerb, StorageIOError};
use prost::Message;
use redb::{Durability, TableDefinition, WriteTransaction};
use tokio::sync::watch;

use crate::disk::{Disk, DiskError};
use crate::format::{
    Unsaid, log_id_from_proto, log_id_to_proto, record_from_proto, record_to_proto, snapshot_from_proto,
    snapshot_to_proto, vote_from_proto, vote_to_proto,
};
use crate::runtime::Runtime;
use crate::types::{LogId, Membership, Record, SnapshotMeta, StorageError, Vote};

mod check;
mod log;
mod machine;
mod rebuild;
mod sealed;
mod settle;

pub use log::{LogReader, LogStore};
pub use machine::{SnapshotBuilder, StateMachine};
pub use rebuild::Rebuilt;

use sealed::{seal, unseal};

/// Version of the formats in the database.
const FORMAT: u32 = 1;

const FACTS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("raft-facts");
const LOG: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("raft-log");
const DATA: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("raft-data");

/// Names of the records in `raft-facts` and `raft-data`.
mod name {
    pub(super) const OWNER: &str = "owner";
    pub(super) const VOTE: &str = "vote";
    pub(super) const COMMITTED: &str = "committed";
    pub(super) const PURGED: &str = "purged";
    pub(super) const SNAPSHOT: &str = "snapshot";
}

/// A machine's Raft state. Clones share it.
#[derive(Debug)]
pub struct Store<R> {
    disk: Disk,
    owner: Arc<Owner>,
    snapshots: Arc<watch::Sender<settle::Snapshots>>,
    /// Whether the ledger went beyond the level that this machine knows: Raft stops then, as it should.
    beyond: Arc<AtomicBool>,
    runtime: PhantomData<fn() -> R>,
}

impl<R> Clone for Store<R> {
    fn clone(&self) -> Self {
        Self {
            disk: self.disk.clone(),
            owner: self.owner.clone(),
            snapshots: self.snapshots.clone(),
            beyond: self.beyond.clone(),
            runtime: PhantomData,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Owner {
    cluster: [u8; 16],
    machine: MachineId,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "machine {} of cluster ", self.machine)?;
        self.cluster.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The vote, the log's ends and the snapshot's description, as they are on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) snapshot: Option<SnapshotMeta>,
    pub(crate) last: Option<LogId>,
}

impl<R: Runtime> Store<R> {
    /// Opens the state of `machine` in the cluster with id `cluster` (the charter's), or begins it. Reads and checks all
    /// of it.
    ///
    /// # Errors
    /// [`DiskError::Foreign`] if it is another's, [`DiskError::Damaged`] naming the record that is not as it was
    /// written, [`DiskError::Unusable`] if the disk refuses.
    pub fn open(disk: &Disk, cluster: [u8; 16], machine: MachineId) -> Result<Self, DiskError> {
        Self::open_or(disk, Owner { cluster, machine }, Self::begin)
    }

    /// As [`Store::open`], for a machine that knows that it has begun its state before: one that is empty was lost, and its
    /// votes with it, so the identity must not be used any more (promise S9).
    ///
    /// # Errors
    /// As [`Store::open`], and [`DiskError::Damaged`] if there is no state.
    pub fn reopen(disk: &Disk, cluster: [u8; 16], machine: MachineId) -> Result<Self, DiskError> {
        if planted("log-begun-anew") {
            return Self::open(disk, cluster, machine);
        }
        let gone = |store: &Self| Err(store.disk.damaged("raft-facts/owner", "the state of Raft is gone"));
        Self::open_or(disk, Owner { cluster, machine }, gone)
    }

    fn open_or(
        disk: &Disk,
        owner: Owner,
        begin: impl FnOnce(&Self) -> Result<(), DiskError>,
    ) -> Result<Self, DiskError> {
        let store = Self {
            disk: disk.clone(),
            owner: Arc::new(owner),
            snapshots: Arc::default(),
            beyond: Arc::default(),
            runtime: PhantomData,
        };
        match store.read_owner()? {
            Some(found) if found == *store.owner => {}
            Some(found) => {
                return Err(DiskError::Foreign {
                    place: disk.place().to_owned(),
                    theirs: found.to_string(),
                    ours: store.owner.to_string(),
                });
            }
            None => begin(&store)?,
        }
        store.check()?;
        Ok(store)
    }

    /// Whose state this is.
    pub fn machine(&self) -> MachineId {
        self.owner.machine
    }

    /// The cluster it belongs to.
    pub fn cluster(&self) -> [u8; 16] {
        self.owner.cluster
    }

    /// Whether the ledger went beyond the level that this machine knows.
    pub(crate) fn is_beyond(&self) -> bool {
        self.beyond.load(Ordering::Relaxed)
    }

    /// Whether anything on its disk was found not to be what was written.
    pub(crate) fn is_damaged(&self) -> bool {
        self.disk.is_damaged()
    }

    fn begin(&self) -> Result<(), DiskError> {
        let owner = proto::RaftOwner {
            format: FORMAT,
            cluster: Bytes::copy_from_slice(&self.owner.cluster),
            machine: Bytes::copy_from_slice(&self.owner.machine.0),
        };
        self.disk.write(|transaction| {
            transaction.open_table(LOG)?;
            transaction.open_table(DATA)?;
            put_fact(transaction, name::OWNER, &owner.encode_to_vec())
        })
    }

    /// Gives a log that has nothing its first record: the charter's `voters` are the first membership. Every one of them begins with the very
    /// same record, before it hears anybody, so whoever calls the first election may die at any moment and the others can call the next. A voter
    /// without it would vote, and could never stand itself.
    ///
    /// # Errors
    /// [`DiskError`], if it cannot be written.
    pub fn found(&self, voters: &BTreeSet<MachineId>) -> Result<(), DiskError> {
        let facts = self.read_facts()?;
        if facts.last.is_some() || facts.purged.is_some() || facts.snapshot.is_some() {
            return Ok(());
        }
        let voters = if planted("raft-begun-alone") { BTreeSet::from([self.machine()]) } else { voters.clone() };
        let nodes: BTreeMap<MachineId, EmptyNode> = voters.iter().map(|voter| (*voter, EmptyNode::new())).collect();
        let payload = EntryPayload::Membership(Membership::new(vec![voters], nodes));
        self.write_records(&[Record { log_id: LogId::default(), payload }])
    }

    /// Runs a change that syncs, on the runtime's threads for disk work.
    async fn synced(
        &self,
        subject: ErrorSubject<MachineId>,
        change: impl FnOnce(&Self) -> Result<(), DiskError> + Send + 'static,
    ) -> Result<(), StorageError> {
        let store = self.clone();
        let stopped =
            || DiskError::Unusable { place: self.disk.place().to_owned(), why: "muster is stopping".to_owned() };
        let done = R::blocking(move || change(&store)).await.unwrap_or_else(|| Err(stopped()));
        done.map_err(|why| failure(subject, ErrorVerb::Write, &why))
    }

    fn fact<M: Message + Default, T>(
        &self,
        fact: &str,
        read: impl FnOnce(M) -> Result<T, muster_wire::WireError>,
    ) -> Result<Option<T>, DiskError> {
        let damaged = |why: String| self.disk.damaged(format!("raft-facts/{fact}"), why);
        let Some(bytes) = self.value(FACTS, fact)? else { return Ok(None) };
        let payload = unseal("raft-facts", fact.as_bytes(), &bytes).map_err(|why| damaged(why.to_owned()))?;
        let message = M::decode(payload).map_err(|why| damaged(why.to_string()))?;
        read(message).map(Some).map_err(|why| damaged(why.to_string()))
    }

    fn value(
        &self,
        table: TableDefinition<'static, &'static str, &'static [u8]>,
        key: &str,
    ) -> Result<Option<Vec<u8>>, DiskError> {
        self.disk.read(|transaction| match transaction.open_table(table) {
            Ok(table) => Ok(table.get(key)?.map(|value| value.value().to_vec())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(why) => Err(why.into()),
        })
    }

    fn read_owner(&self) -> Result<Option<Owner>, DiskError> {
        let place = self.disk.place();
        let read = |owner: proto::RaftOwner| {
            let cluster = owner.cluster.as_ref().try_into().ok();
            let machine = MachineId::from_slice(&owner.machine, "owner.machine")?;
            Ok((owner.format, cluster.map(|cluster| Owner { cluster, machine })))
        };
        match self.fact(name::OWNER, read)? {
            None => Ok(None),
            Some((FORMAT, Some(owner))) => Ok(Some(owner)),
            Some((FORMAT, None)) => Err(self.disk.damaged("raft-facts/owner", "owner.cluster must have 16 bytes")),
            Some((format, _)) => Err(DiskError::Foreign {
                place: place.to_owned(),
                theirs: format!("a muster with format {format}"),
                ours: format!("format {FORMAT}"),
            }),
        }
    }

    pub(crate) fn read_facts(&self) -> Result<Facts, DiskError> {
        let snapshot = self.fact(name::SNAPSHOT, |meta| snapshot_from_proto(&meta, Unsaid::NOBODY))?;
        let purged = self.fact(name::PURGED, |id| log_id_from_proto(&id, Unsaid::NOBODY))?;
        Ok(Facts {
            vote: self.fact(name::VOTE, |vote| vote_from_proto(&vote, Unsaid::NOBODY))?,
            committed: self.fact(name::COMMITTED, |id| log_id_from_proto(&id, Unsaid::NOBODY))?,
            purged,
            snapshot: snapshot.map(|(meta, _)| meta),
            last: self.last_record()?.map(|record: Record<R>| record.log_id).or(purged),
        })
    }

    fn last_record(&self) -> Result<Option<Record<R>>, DiskError> {
        Ok(self.read_records(.., usize::MAX, true)?.pop())
    }

    /// Records in `range`, in order, until `bytes` are exceeded; the first one always. With `last`, only the last one.
    pub(crate) fn read_records(
        &self,
        range: impl RangeBounds<u64>,
        bytes: usize,
        last: bool,
    ) -> Result<Vec<Record<R>>, DiskError> {
        let (from, to): (Bound<u64>, Bound<u64>) = (range.start_bound().cloned(), range.end_bound().cloned());
        let mut records = Vec::new();
        let mut size = 0;
        let mut broken = None;
        self.disk.read(|transaction| {
            let table = transaction.open_table(LOG)?;
            let mut found = table.range::<u64>((from, to))?;
            while let Some(item) = if last { found.next_back() } else { found.next() } {
                let (key, value) = item?;
                size += value.value().len();
                if !records.is_empty() && size > bytes {
                    break;
                }
                match self.decode_record(key.value(), value.value()) {
                    Ok(record) => records.push(record),
                    Err(why) => broken = Some(why),
                }
                if last || broken.is_some() {
                    break;
                }
            }
            Ok(())
        })?;
        broken.map_or(Ok(records), Err)
    }

    fn decode_record(&self, index: u64, value: &[u8]) -> Result<Record<R>, DiskError> {
        let damaged = |why: String| self.disk.damaged(format!("raft-log/{index}"), why);
        let payload = unseal("raft-log", &index.to_be_bytes(), value).map_err(|why| damaged(why.to_owned()))?;
        let record = proto::RaftRecord::decode(payload).map_err(|why| damaged(why.to_string()))?;
        let record = record_from_proto::<R>(record, Unsaid::NOBODY).map_err(|why| damaged(why.to_string()))?;
        if record.log_id.index != index {
            return Err(damaged(format!("it is the record of {}", record.log_id.index)));
        }
        Ok(record)
    }

    /// The snapshot's description and data.
    pub(crate) fn read_snapshot(&self) -> Result<Option<(SnapshotMeta, Bytes)>, DiskError> {
        let Some((meta, size)) = self.fact(name::SNAPSHOT, |meta| snapshot_from_proto(&meta, Unsaid::NOBODY))? else {
            return Ok(None);
        };
        let damaged = |why: &str| self.disk.damaged("raft-data/snapshot", why);
        let value = self.value(DATA, name::SNAPSHOT)?.ok_or_else(|| damaged("it is missing"))?;
        let payload = unseal("raft-data", name::SNAPSHOT.as_bytes(), &value).map_err(damaged)?;
        if payload.len() as u64 != size {
            return Err(damaged("it has another size than its description says"));
        }
        Ok(Some((meta, Bytes::copy_from_slice(payload))))
    }

    /// Replaces the snapshot, unless the one on disk is newer: building one and receiving one may cross.
    fn write_snapshot(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), DiskError> {
        let held = self.fact(name::SNAPSHOT, |held| snapshot_from_proto(&held, Unsaid::NOBODY))?;
        if held.is_some_and(|(held, _)| held.last_log_id > meta.last_log_id) {
            return Ok(());
        }
        let description = snapshot_to_proto(meta, data.len(), Unsaid::NOBODY);
        if planted("snapshot-in-two") {
            self.disk.write(|transaction| put_fact(transaction, name::SNAPSHOT, &description.encode_to_vec()))?;
        }
        self.disk.write(|transaction| {
            put_fact(transaction, name::SNAPSHOT, &description.encode_to_vec())?;
            let sealed = seal("raft-data", name::SNAPSHOT.as_bytes(), data);
            transaction.open_table(DATA)?.insert(name::SNAPSHOT, sealed.as_slice())?;
            Ok(())
        })
    }

    fn write_records(&self, records: &[Record<R>]) -> Result<(), DiskError> {
        let durability = if planted("raft-log-unsynced") { Durability::None } else { Durability::Immediate };
        self.disk.commit(durability, |transaction| {
            let mut table = transaction.open_table(LOG)?;
            for record in records {
                let index = record.log_id.index;
                let payload = record_to_proto(record, Unsaid::NOBODY).encode_to_vec();
                table.insert(index, seal("raft-log", &index.to_be_bytes(), &payload).as_slice())?;
            }
            Ok(())
        })
    }

    fn write_vote(&self, vote: &Vote) -> Result<(), DiskError> {
        let payload = vote_to_proto(vote, Unsaid::NOBODY).encode_to_vec();
        if planted("raft-vote-unsynced") {
            return self.disk.write_later(|transaction| put_fact(transaction, name::VOTE, &payload));
        }
        self.disk.write(|transaction| put_fact(transaction, name::VOTE, &payload))
    }

    /// Not synced: losing it only means that the leader says it again.
    fn write_committed(&self, committed: Option<&LogId>) -> Result<(), DiskError> {
        self.disk.write_later(|transaction| match committed {
            Some(id) => put_fact(transaction, name::COMMITTED, &log_id_to_proto(id, Unsaid::NOBODY).encode_to_vec()),
            None => {
                transaction.open_table(FACTS)?.remove(name::COMMITTED)?;
                Ok(())
            }
        })
    }

    fn remove_from(&self, index: u64) -> Result<(), DiskError> {
        self.disk.write(|transaction| {
            transaction.open_table(LOG)?.retain_in(index.., |_, _| false)?;
            Ok(())
        })
    }

    /// Not synced: the records are in the snapshot, which is.
    fn remove_up_to(&self, id: &LogId) -> Result<(), DiskError> {
        self.disk.write_later(|transaction| {
            transaction
                .open_table(LOG)?
                .retain_in(..=id.index + u64::from(planted("raft-purges-too-much")), |_, _| false)?;
            put_fact(transaction, name::PURGED, &log_id_to_proto(id, Unsaid::NOBODY).encode_to_vec())
        })
    }

    /// The ledger of the snapshot, if there is one, for a machine that knows the levels up to `known`.
    pub(crate) fn read_ledger(&self, known: u32) -> Result<Option<(SnapshotMeta, Kept)>, DiskError> {
        let Some((meta, data)) = self.read_snapshot()? else { return Ok(None) };
        let kept = match Ledger::decode(&data, known) {
            Ok(ledger) => Kept::Ledger(Box::new(ledger)),
            Err(WireError::Level { .. }) => Kept::Beyond(data),
            Err(why) => return Err(self.disk.damaged("raft-data/snapshot", why.to_string())),
        };
        Ok(Some((meta, kept)))
    }
}

/// What is in a snapshot on disk.
pub(crate) enum Kept {
    /// A ledger.
    Ledger(Box<Ledger>),
    /// One above the level that this machine knows: written by a newer image of it.
    Beyond(Bytes),
}

fn put_fact(transaction: &WriteTransaction, fact: &str, payload: &[u8]) -> Result<(), redb::Error> {
    transaction.open_table(FACTS)?.insert(fact, seal("raft-facts", fact.as_bytes(), payload).as_slice())?;
    Ok(())
}

/// In openraft's words. Any of these stops Raft on this machine: it must not go on with a disk that it cannot trust.
pub(crate) fn failure(
    subject: ErrorSubject<MachineId>,
    verb: ErrorVerb,
    why: &(impl std::error::Error + 'static),
) -> StorageError {
    StorageIOError::new(subject, verb, AnyError::new(why)).into()
}

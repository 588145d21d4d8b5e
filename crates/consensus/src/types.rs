//! The types with which openraft is instantiated.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use muster_wire::{MachineId, Revision};
use openraft::raft::responder::OneshotResponder;
use openraft::{EmptyNode, RaftTypeConfig};

use crate::runtime::Runtime;

/// What came of an entry when it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its index in the Raft log, which is the ledger's revision.
    pub revision: Revision,
    /// The rule that refused it, for people. The revision is used up all the same.
    pub refused: Option<String>,
}

/// openraft's type configuration on runtime `R`. Everything else in this crate is written once, over `R`: the agent's
/// `TokioRuntime` and the simulator's [`crate::seeded::Seeded`] run the same storage, network adapter and state machine.
pub struct Types<R>(PhantomData<fn() -> R>);

impl<R: Runtime> RaftTypeConfig for Types<R> {
    /// An encoded [`muster_wire::Entry`], kept as bytes so that fields of later versions survive.
    type D = Bytes;
    type R = Applied;
    type NodeId = MachineId;
    /// Addresses are the roster's business; Raft knows machines by identity alone.
    type Node = EmptyNode;
    type Entry = openraft::Entry<Self>;
    /// An encoded ledger.
    type SnapshotData = Bytes;
    type AsyncRuntime = R;
    type Responder = OneshotResponder<Self>;
}

pub(crate) type Vote = openraft::Vote<MachineId>;
pub(crate) type LogId = openraft::LogId<MachineId>;
pub(crate) type Record<R> = openraft::Entry<Types<R>>;
pub(crate) type Membership = openraft::Membership<MachineId, EmptyNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<MachineId, EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<MachineId, EmptyNode>;
pub(crate) type StorageError = openraft::StorageError<MachineId>;

// Derived impls would ask the same of `R`, of which no value is ever made.

impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}

impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Types<R> {}

impl<R> Default for Types<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R> PartialEq for Types<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<R> Eq for Types<R> {}

impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for Types<R> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

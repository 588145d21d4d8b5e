//! What consensus tells its machine.

use bytes::Bytes;
use muster_protocol::RaftMembers;
use muster_wire::{MachineId, Revision};

/// One thing that happened. They come in order: first [`Event::Restored`], then every entry of a later revision exactly
/// once in this process's lifetime, except those that another [`Event::Restored`] contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The whole ledger: at the start as far as the disk says it is committed (a crash may have lost the last news of
    /// commits, so this can be older than what the process before knew), later from the leader if this machine was too far
    /// behind.
    Restored {
        /// The ledger's revision.
        revision: Revision,
        /// The ledger, encoded.
        ledger: Bytes,
    },
    /// An entry is committed and was given to the ledger, which may have refused it.
    Applied {
        /// Its index in the Raft log; indexes only grow, and some carry no entry.
        revision: Revision,
        /// The encoded entry, byte for byte as it was proposed.
        entry: Bytes,
    },
    /// Who leads, as this machine knows it. A hint: the leader may be another by now. openraft orders leaders by (term,
    /// machine), so a term can see one leader give way to a higher machine.
    Leading {
        /// The term.
        term: u64,
        /// Who leads, if that is known.
        leader: Option<MachineId>,
    },
    /// Who takes part in Raft.
    Members(RaftMembers),
    /// Raft has stopped on this machine and will not start again in this process.
    Stopped {
        /// What broke; nothing if it was asked to stop, or if the last event before was of what this machine cannot read.
        why: Option<Broke>,
    },
}

/// How Raft ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broke {
    /// It says why: what it keeps on disk, nearly always.
    #[error("{0}")]
    Failed(String),
    /// What is on its disk is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// Its task ended without a word.
    #[error("its task panicked")]
    Panicked,
}

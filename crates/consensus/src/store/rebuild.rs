//! The store made anew when the other voters are gone for good: the one change of it that Raft knows nothing of.
//!
//! It is safe for this machine and for nobody else: what it votes from here on is in a term that none of the lost can have reached, and those that
//! come back are kept out by the ledger's epoch, not by Raft.

use std::collections::{BTreeMap, BTreeSet};

use muster_wire::MachineId;
use openraft::{CommittedLeaderId, EmptyNode};
use prost::Message;

use super::{LOG, Store, name, put_fact, seal};
use crate::disk::DiskError;
use crate::format::{Unsaid, log_id_to_proto, snapshot_to_proto, vote_to_proto};
use crate::runtime::Runtime;
use crate::store::DATA;
use crate::types::{LogId, Membership, SnapshotMeta, StoredMembership, Vote};

/// The terms of an epoch begin so far above the last that this machine has heard of: those that are lost may have gone on for a while.
const TERMS_BETWEEN: u64 = 1 << 20;

impl<R: Runtime> Store<R> {
    /// Replaces vote, log and snapshot in one change: the ledger is `data` at `revision`, and this machine alone votes.
    ///
    /// # Errors
    /// [`DiskError`]; nothing is changed then.
    pub fn rebuild(&self, revision: u64, data: &[u8]) -> Result<(), DiskError> {
        let facts = self.read_facts()?;
        let me = self.owner.machine;
        let heard = facts.vote.map_or(0, |vote| vote.leader_id.term).max(facts.last.map_or(0, |id| id.leader_id.term));
        let term = heard + TERMS_BETWEEN;
        let end = LogId::new(CommittedLeaderId::new(term, me), revision);
        let voters: BTreeSet<MachineId> = [me].into();
        let membership = Membership::new(vec![voters], BTreeMap::from([(me, EmptyNode::new())]));
        let meta = SnapshotMeta {
            last_log_id: Some(end),
            last_membership: StoredMembership::new(Some(end), membership),
            snapshot_id: end.to_string(),
        };
        self.disk.write(|transaction| {
            transaction.open_table(LOG)?.retain(|_, _| false)?;
            put_fact(transaction, name::VOTE, &vote_to_proto(&Vote::new(term, me), Unsaid::NOBODY).encode_to_vec())?;
            let id = log_id_to_proto(&end, Unsaid::NOBODY).encode_to_vec();
            put_fact(transaction, name::COMMITTED, &id)?;
            put_fact(transaction, name::PURGED, &id)?;
            let description = snapshot_to_proto(&meta, data.len(), Unsaid::NOBODY);
            put_fact(transaction, name::SNAPSHOT, &description.encode_to_vec())?;
            let sealed = seal("raft-data", name::SNAPSHOT.as_bytes(), data);
            transaction.open_table(DATA)?.insert(name::SNAPSHOT, sealed.as_slice())?;
            Ok(())
        })
    }
}

//! Between openraft's types and `proto/raft.proto`.
//!
//! Everything read here is checked: what comes from a peer may be anything, and what comes from the disk may have rotted.

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_wire::{MachineId, WireError, limits, proto};
use openraft::{CommittedLeaderId, EntryPayload, LeaderId};

use crate::runtime::Runtime;
use crate::types::{LogId, Membership, Record, SnapshotMeta, StoredMembership, Vote};

/// Most learners in a membership: as many control planes can be on their way to a vote as there can be voters.
const LEARNERS_MAX: usize = limits::VOTERS_MAX;

/// Longest name of a snapshot in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Who an empty `machine` means: the caller in a call and its answer, nobody on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsaid(pub(crate) Option<MachineId>);

impl Unsaid {
    /// On disk every machine is written out.
    pub(crate) const NOBODY: Self = Self(None);

    fn write(self, machine: MachineId) -> Bytes {
        if self.0 == Some(machine) { Bytes::new() } else { Bytes::copy_from_slice(&machine.0) }
    }

    fn read(self, bytes: &Bytes, field: &'static str) -> Result<MachineId, WireError> {
        match self.0 {
            Some(machine) if bytes.is_empty() => Ok(machine),
            _ => MachineId::from_slice(bytes, field),
        }
    }
}

pub(crate) fn required<T>(value: Option<T>, field: &'static str) -> Result<T, WireError> {
    value.ok_or(WireError::Field { field, rule: "is missing" })
}

pub(crate) fn vote_to_proto(vote: &Vote, unsaid: Unsaid) -> proto::RaftVote {
    proto::RaftVote {
        term: vote.leader_id.term,
        machine: unsaid.write(vote.leader_id.node_id),
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_proto(vote: &proto::RaftVote, unsaid: Unsaid) -> Result<Vote, WireError> {
    let machine = unsaid.read(&vote.machine, "vote.machine")?;
    Ok(Vote { leader_id: LeaderId::new(vote.term, machine), committed: vote.committed })
}

pub(crate) fn log_id_to_proto(id: &LogId, unsaid: Unsaid) -> proto::RaftLogId {
    proto::RaftLogId { term: id.leader_id.term, machine: unsaid.write(id.leader_id.node_id), index: id.index }
}

pub(crate) fn log_id_from_proto(id: &proto::RaftLogId, unsaid: Unsaid) -> Result<LogId, WireError> {
    let machine = unsaid.read(&id.machine, "log_id.machine")?;
    // One below the end of the numbers, so that "the next index" always exists.
    if id.index == u64::MAX {
        return Err(WireError::Field { field: "log_id.index", rule: "is out of range" });
    }
    Ok(LogId::new(CommittedLeaderId::new(id.term, machine), id.index))
}

pub(crate) fn membership_to_proto(membership: &Membership) -> proto::RaftMembership {
    let write = |machine: &MachineId| Bytes::copy_from_slice(&machine.0);
    let voters: BTreeSet<MachineId> = membership.voter_ids().collect();
    proto::RaftMembership {
        voters: membership
            .get_joint_config()
            .iter()
            .map(|set| proto::RaftVoters { machines: set.iter().map(write).collect() })
            .collect(),
        learners: membership
            .nodes()
            .map(|(machine, _)| machine)
            .filter(|one| !voters.contains(one))
            .map(write)
            .collect(),
    }
}

pub(crate) fn membership_from_proto(membership: &proto::RaftMembership) -> Result<Membership, WireError> {
    let set = |machines: &[Bytes], max: usize, field: &'static str| {
        if machines.len() > max {
            return Err(WireError::Field { field, rule: "has too many machines" });
        }
        machines.iter().map(|machine| MachineId::from_slice(machine, field)).collect::<Result<BTreeSet<_>, _>>()
    };
    if membership.voters.len() > 2 {
        return Err(WireError::Field { field: "membership.voters", rule: "has more than two sets" });
    }
    let voters = membership
        .voters
        .iter()
        .map(|voters| set(&voters.machines, limits::VOTERS_MAX, "membership.voters"))
        .collect::<Result<Vec<_>, _>>()?;
    if voters.iter().any(BTreeSet::is_empty) {
        return Err(WireError::Field { field: "membership.voters", rule: "has an empty set" });
    }
    Ok(Membership::new(voters, set(&membership.learners, LEARNERS_MAX, "membership.learners")?))
}

pub(crate) fn record_to_proto<R: Runtime>(record: &Record<R>, unsaid: Unsaid) -> proto::RaftRecord {
    let mut proto = proto::RaftRecord { id: Some(log_id_to_proto(&record.log_id, unsaid)), ..Default::default() };
    match &record.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(entry) => proto.entry = entry.clone(),
        EntryPayload::Membership(membership) => proto.membership = Some(membership_to_proto(membership)),
    }
    proto
}

pub(crate) fn record_from_proto<R: Runtime>(record: proto::RaftRecord, unsaid: Unsaid) -> Result<Record<R>, WireError> {
    let log_id = log_id_from_proto(&required(record.id, "record.id")?, unsaid)?;
    let payload = match (record.membership, record.entry.is_empty()) {
        (None, true) => EntryPayload::Blank,
        (None, false) if record.entry.len() > limits::ENTRY_BYTES_MAX => {
            return Err(WireError::TooLarge { what: "entry", bytes: record.entry.len(), max: limits::ENTRY_BYTES_MAX });
        }
        (None, false) => EntryPayload::Normal(record.entry),
        (Some(membership), true) => EntryPayload::Membership(membership_from_proto(&membership)?),
        (Some(_), false) => return Err(WireError::Field { field: "record", rule: "carries two payloads" }),
    };
    Ok(Record { log_id, payload })
}

pub(crate) fn snapshot_to_proto(meta: &SnapshotMeta, bytes: usize, unsaid: Unsaid) -> proto::RaftSnapshot {
    proto::RaftSnapshot {
        name: meta.snapshot_id.clone(),
        last: meta.last_log_id.as_ref().map(|id| log_id_to_proto(id, unsaid)),
        membership: Some(membership_to_proto(meta.last_membership.membership())),
        membership_id: meta.last_membership.log_id().as_ref().map(|id| log_id_to_proto(id, unsaid)),
        bytes: bytes as u64,
    }
}

/// The description and the size of the data in bytes.
pub(crate) fn snapshot_from_proto(
    snapshot: &proto::RaftSnapshot,
    unsaid: Unsaid,
) -> Result<(SnapshotMeta, u64), WireError> {
    if snapshot.name.len() > NAME_BYTES_MAX {
        return Err(WireError::Field { field: "snapshot.name", rule: "is too long" });
    }
    let id = |id: &Option<proto::RaftLogId>| id.as_ref().map(|id| log_id_from_proto(id, unsaid)).transpose();
    let membership = snapshot.membership.as_ref().map(membership_from_proto).transpose()?.unwrap_or_default();
    let meta = SnapshotMeta {
        last_log_id: id(&snapshot.last)?,
        last_membership: StoredMembership::new(id(&snapshot.membership_id)?, membership),
        snapshot_id: snapshot.name.clone(),
    };
    Ok((meta, snapshot.bytes))
}

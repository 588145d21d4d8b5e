//! Raft's calls between voters as bytes.
//!
//! A call's votes and log ids mostly name the caller, so that name is left out: a heartbeat is about 20 bytes.

use bytes::Bytes;
use muster_wire::{MachineId, WireError, limits, proto};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use prost::Message;
use proto::raft_request::Call;
use proto::raft_response::Answer;

use crate::format::{
    Unsaid, log_id_from_proto, log_id_to_proto, record_from_proto, record_to_proto, required, snapshot_from_proto,
    snapshot_to_proto, vote_from_proto, vote_to_proto,
};
use crate::runtime::Runtime;
use crate::types::{LogId, SnapshotMeta, Types, Vote};

/// Longest body of a call in bytes; the rest of a frame is the frame's own.
pub const CALL_BYTES_MAX: usize = limits::FRAME_BYTES_MAX - 1024;

/// Largest snapshot in bytes: ten thousand machines with names, keys and tickets.
pub const SNAPSHOT_BYTES_MAX: usize = 64 << 20;

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    /// Size of the whole data in bytes, at most [`SNAPSHOT_BYTES_MAX`].
    pub(crate) size: usize,
    pub(crate) offset: usize,
    pub(crate) data: Bytes,
}

/// A call, checked.
#[derive(Debug)]
pub(crate) enum Request<R: Runtime> {
    Append(AppendEntriesRequest<Types<R>>),
    Ask(VoteRequest<MachineId>),
    Part(Part),
}

/// An answer, checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Response {
    Append(AppendEntriesResponse<MachineId>),
    Ask(VoteResponse<MachineId>),
    Part { vote: Vote, next: usize },
}

impl<R: Runtime> Request<R> {
    /// The vote under which the caller calls.
    pub(crate) fn vote(&self) -> &Vote {
        match self {
            Request::Append(append) => &append.vote,
            Request::Ask(ask) => &ask.vote,
            Request::Part(part) => &part.vote,
        }
    }

    pub(crate) fn encode(&self, caller: MachineId) -> Bytes {
        let unsaid = Unsaid(Some(caller));
        let id = |id: &Option<LogId>| id.as_ref().map(|id| log_id_to_proto(id, unsaid));
        let call = match self {
            Request::Append(append) => Call::Append(proto::RaftAppend {
                vote: Some(vote_to_proto(&append.vote, unsaid)),
                previous: id(&append.prev_log_id),
                committed: id(&append.leader_commit),
                records: append.entries.iter().map(|record| record_to_proto(record, unsaid)).collect(),
            }),
            Request::Ask(ask) => {
                Call::Ask(proto::RaftAsk { vote: Some(vote_to_proto(&ask.vote, unsaid)), last: id(&ask.last_log_id) })
            }
            Request::Part(part) => Call::Part(proto::RaftPart {
                vote: Some(vote_to_proto(&part.vote, unsaid)),
                snapshot: Some(snapshot_to_proto(&part.meta, part.size, unsaid)),
                offset: part.offset as u64,
                data: part.data.clone(),
            }),
        };
        proto::RaftRequest { call: Some(call) }.encode_to_vec().into()
    }

    /// Checks form, bounds, and that the log ids can be a leader's.
    pub(crate) fn decode(body: Bytes, caller: MachineId) -> Result<Self, WireError> {
        let unsaid = Unsaid(Some(caller));
        bounded(&body)?;
        let request = proto::RaftRequest::decode(body).map_err(|why| malformed("call", &why))?;
        let id = |id: &Option<proto::RaftLogId>| id.as_ref().map(|id| log_id_from_proto(id, unsaid)).transpose();
        Ok(match required(request.call, "call")? {
            Call::Append(append) => {
                let request = AppendEntriesRequest {
                    vote: vote_from_proto(&required(append.vote, "append.vote")?, unsaid)?,
                    prev_log_id: id(&append.previous)?,
                    leader_commit: id(&append.committed)?,
                    entries: append
                        .records
                        .into_iter()
                        .map(|record| record_from_proto::<R>(record, unsaid))
                        .collect::<Result<_, _>>()?,
                };
                in_order(&request)?;
                Request::Append(request)
            }
            Call::Ask(ask) => Request::Ask(VoteRequest {
                vote: vote_from_proto(&required(ask.vote, "ask.vote")?, unsaid)?,
                last_log_id: id(&ask.last)?,
            }),
            Call::Part(part) => Request::Part(part_from_proto(part, unsaid)?),
        })
    }
}

/// openraft relies on a leader's records being consecutive, and panics if they are not.
fn in_order<R: Runtime>(append: &AppendEntriesRequest<Types<R>>) -> Result<(), WireError> {
    if !append.vote.committed {
        return Err(WireError::Field { field: "append.vote", rule: "is not a leader's" });
    }
    let mut before = append.prev_log_id;
    for record in &append.entries {
        let id = record.log_id;
        let follows = id.index == before.map_or(0, |before| before.index + 1);
        if !follows || before.is_some_and(|before| id.leader_id < before.leader_id) {
            return Err(WireError::Field { field: "append.records", rule: "are not in order" });
        }
        if id.leader_id > append.vote.leader_id {
            return Err(WireError::Field { field: "append.records", rule: "are newer than their leader" });
        }
        before = Some(id);
    }
    Ok(())
}

fn part_from_proto(part: proto::RaftPart, unsaid: Unsaid) -> Result<Part, WireError> {
    let vote = vote_from_proto(&required(part.vote, "part.vote")?, unsaid)?;
    let (meta, size) = snapshot_from_proto(&required(part.snapshot, "part.snapshot")?, unsaid)?;
    let limit = WireError::TooLarge {
        what: "snapshot",
        bytes: usize::try_from(size).unwrap_or(usize::MAX),
        max: SNAPSHOT_BYTES_MAX,
    };
    let size = usize::try_from(size).ok().filter(|size| *size <= SNAPSHOT_BYTES_MAX).ok_or(limit)?;
    let offset = usize::try_from(part.offset).ok();
    let fits = offset.is_some_and(|offset| offset <= size && part.data.len() <= size - offset);
    let Some(offset) = offset.filter(|_| fits) else {
        return Err(WireError::Field { field: "part.data", rule: "goes beyond the snapshot" });
    };
    if !vote.committed {
        return Err(WireError::Field { field: "part.vote", rule: "is not a leader's" });
    }
    if meta.last_log_id.is_none_or(|last| last.leader_id > vote.leader_id) {
        return Err(WireError::Field { field: "part.snapshot.last", rule: "is missing or newer than its leader" });
    }
    Ok(Part { vote, meta, size, offset, data: part.data })
}

impl Response {
    pub(crate) fn encode(&self, caller: MachineId) -> Bytes {
        let unsaid = Unsaid(Some(caller));
        let id = |id: &Option<LogId>| id.as_ref().map(|id| log_id_to_proto(id, unsaid));
        let answer = match self {
            Response::Append(appended) => Answer::Appended(match appended {
                AppendEntriesResponse::Success => proto::RaftAppended::default(),
                // openraft takes all records or none; were it otherwise, the leader would look for the common ones.
                AppendEntriesResponse::PartialSuccess(_) | AppendEntriesResponse::Conflict => {
                    proto::RaftAppended { conflict: true, ..Default::default() }
                }
                AppendEntriesResponse::HigherVote(vote) => {
                    proto::RaftAppended { higher: Some(vote_to_proto(vote, unsaid)), ..Default::default() }
                }
            }),
            Response::Ask(asked) => Answer::Granted(proto::RaftGranted {
                vote: Some(vote_to_proto(&asked.vote, unsaid)),
                granted: asked.vote_granted,
                last: id(&asked.last_log_id),
            }),
            Response::Part { vote, next } => {
                Answer::Taken(proto::RaftTaken { vote: Some(vote_to_proto(vote, unsaid)), next: *next as u64 })
            }
        };
        proto::RaftResponse { answer: Some(answer) }.encode_to_vec().into()
    }

    /// Checks form and bounds. `caller` is the machine that made the call.
    pub(crate) fn decode(body: Bytes, caller: MachineId) -> Result<Self, WireError> {
        let unsaid = Unsaid(Some(caller));
        bounded(&body)?;
        let response = proto::RaftResponse::decode(body).map_err(|why| malformed("answer", &why))?;
        let id = |id: &Option<proto::RaftLogId>| id.as_ref().map(|id| log_id_from_proto(id, unsaid)).transpose();
        Ok(match required(response.answer, "answer")? {
            Answer::Appended(appended) => Response::Append(if let Some(vote) = &appended.higher {
                AppendEntriesResponse::HigherVote(vote_from_proto(vote, unsaid)?)
            } else if appended.conflict {
                AppendEntriesResponse::Conflict
            } else {
                AppendEntriesResponse::Success
            }),
            Answer::Granted(granted) => Response::Ask(VoteResponse {
                vote: vote_from_proto(&required(granted.vote, "granted.vote")?, unsaid)?,
                vote_granted: granted.granted,
                last_log_id: id(&granted.last)?,
            }),
            Answer::Taken(taken) => Response::Part {
                vote: vote_from_proto(&required(taken.vote, "taken.vote")?, unsaid)?,
                next: usize::try_from(taken.next)
                    .map_err(|_| WireError::Field { field: "taken.next", rule: "is out of range" })?,
            },
        })
    }

    pub(crate) fn of_install(installed: &SnapshotResponse<MachineId>, size: usize) -> Self {
        Response::Part { vote: installed.vote, next: size }
    }
}

fn bounded(body: &Bytes) -> Result<(), WireError> {
    if body.len() > CALL_BYTES_MAX {
        return Err(WireError::TooLarge { what: "Raft call", bytes: body.len(), max: CALL_BYTES_MAX });
    }
    Ok(())
}

fn malformed(what: &'static str, why: &prost::DecodeError) -> WireError {
    WireError::Malformed { what, why: why.to_string() }
}

#[cfg(test)]
mod tests;

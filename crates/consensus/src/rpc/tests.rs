use std::collections::BTreeSet;

use openraft::{CommittedLeaderId, EntryPayload, LeaderId, TokioRuntime};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::types::{Membership, Record, StoredMembership};

type Request = super::Request<TokioRuntime>;

fn machine() -> impl Strategy<Value = MachineId> {
    any::<[u8; 32]>().prop_map(MachineId)
}

prop_compose! {
    fn vote(committed: bool)(term in 5..1_000_u64, who in machine()) -> Vote {
        Vote { leader_id: LeaderId::new(term, who), committed }
    }
}

prop_compose! {
    fn log_id()(term in 0..5_u64, who in machine(), index in 0..1_000_000_u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, who), index)
    }
}

fn membership() -> impl Strategy<Value = Membership> {
    (vec(btree_set(machine(), 1..6), 0..3), btree_set(machine(), 0..4))
        .prop_map(|(voters, learners)| Membership::new(voters, learners))
}

fn payload() -> impl Strategy<Value = EntryPayload<Types<TokioRuntime>>> {
    prop_oneof![
        Just(EntryPayload::Blank),
        vec(any::<u8>(), 1..200).prop_map(|entry| EntryPayload::Normal(entry.into())),
        membership().prop_map(EntryPayload::Membership),
    ]
}

prop_compose! {
    fn append()(
        vote in vote(true),
        previous in proptest::option::of(log_id()),
        committed in proptest::option::of(log_id()),
        payloads in vec(payload(), 0..5),
    ) -> AppendEntriesRequest<Types<TokioRuntime>> {
        let first = previous.map_or(0, |id| id.index + 1);
        let record = |(index, payload)| Record { log_id: LogId::new(vote.leader_id, index), payload };
        let entries = (first..).zip(payloads).map(record).collect();
        AppendEntriesRequest { vote, prev_log_id: previous, leader_commit: committed, entries }
    }
}

prop_compose! {
    fn part()(
        vote in vote(true),
        last in log_id(),
        membership in membership(),
        brought in proptest::option::of(log_id()),
        name in "[a-z0-9-]{0,40}",
        data in vec(any::<u8>(), 0..100),
        before in 0..1_000_usize,
        after in 0..1_000_usize,
    ) -> Part {
        let meta = SnapshotMeta {
            last_log_id: Some(last),
            last_membership: StoredMembership::new(brought, membership),
            snapshot_id: name,
        };
        Part { vote, meta, size: before + data.len() + after, offset: before, data: data.into() }
    }
}

proptest! {
    #[test]
    fn calls_arrive_as_they_were_made(append in append(), part in part(), ask in vote(false), last in proptest::option::of(log_id()), caller in machine()) {
        let back = |request: &Request, caller| Request::decode(request.encode(caller), caller).unwrap();
        // The leader itself calls, or its bytes are passed on as another's: what is written out must not change.
        for caller in [append.vote.leader_id.node_id, caller] {
            match back(&Request::Append(append.clone()), caller) {
                Request::Append(found) => {
                    prop_assert_eq!(found.vote, append.vote);
                    prop_assert_eq!(found.prev_log_id, append.prev_log_id);
                    prop_assert_eq!(found.leader_commit, append.leader_commit);
                    prop_assert_eq!(&found.entries, &append.entries);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        match back(&Request::Part(part.clone()), caller) {
            Request::Part(found) => prop_assert_eq!(found, part),
            other => prop_assert!(false, "{:?}", other),
        }
        match back(&Request::Ask(VoteRequest::new(ask, last)), caller) {
            Request::Ask(found) => prop_assert_eq!(found, VoteRequest::new(ask, last)),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn answers_arrive_as_they_were_given(vote in vote(true), last in proptest::option::of(log_id()), granted: bool, next in 0..1_000_000_usize, caller in machine()) {
        for response in [
            Response::Append(AppendEntriesResponse::Success),
            Response::Append(AppendEntriesResponse::Conflict),
            Response::Append(AppendEntriesResponse::HigherVote(vote)),
            Response::Ask(VoteResponse { vote, vote_granted: granted, last_log_id: last }),
            Response::Part { vote, next },
        ] {
            prop_assert_eq!(Response::decode(response.encode(caller), caller), Ok(response));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, caller in machine()) {
        let _ = Request::decode(bytes.clone().into(), caller);
        let _ = Response::decode(bytes.into(), caller);
    }

    #[test]
    fn a_broken_call_is_survived(append in append(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index, caller in machine()) {
        let mut bytes = Request::Append(append).encode(caller).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(1 + cut.index(bytes.len()));
        if let Ok(Request::Append(found)) = Request::decode(bytes.into(), caller) {
            prop_assert!(in_order(&found).is_ok());
        }
    }
}

#[test]
fn a_heartbeat_is_small() {
    let leader = MachineId([9; 32]);
    let id = LogId::new(CommittedLeaderId::new(3, leader), 1_000);
    let heartbeat = Request::Append(AppendEntriesRequest {
        vote: Vote::new_committed(3, leader),
        prev_log_id: Some(id),
        leader_commit: Some(id),
        entries: Vec::new(),
    });
    assert!(heartbeat.encode(leader).len() <= 24, "{}", heartbeat.encode(leader).len());
    assert!(Response::Append(AppendEntriesResponse::Success).encode(leader).len() <= 4);
}

#[test]
fn what_openraft_would_panic_over_is_refused() {
    let leader = MachineId([9; 32]);
    let record = |term, index| Record::<TokioRuntime> {
        log_id: LogId::new(CommittedLeaderId::new(term, leader), index),
        payload: EntryPayload::Blank,
    };
    let append = |vote, previous: Option<LogId>, entries: Vec<Record<TokioRuntime>>| {
        let append = AppendEntriesRequest { vote, prev_log_id: previous, leader_commit: None, entries };
        Request::decode(Request::Append(append).encode(leader), leader)
    };
    let leads = Vote::new_committed(3, leader);
    assert!(append(leads, None, vec![record(3, 0), record(3, 1)]).is_ok());
    assert!(append(leads, None, vec![record(3, 0), record(3, 2)]).is_err(), "a hole");
    assert!(append(leads, None, vec![record(3, 1)]).is_err(), "a hole before the first");
    assert!(append(leads, Some(record(2, 4).log_id), vec![record(1, 5)]).is_err(), "an older leader after a newer");
    assert!(append(leads, None, vec![record(4, 0)]).is_err(), "a record of a later leader");
    assert!(append(Vote::new(3, leader), None, vec![]).is_err(), "a candidate that acts as a leader");
}

#[test]
fn bounds_hold() {
    let caller = MachineId([9; 32]);
    let too_long = Bytes::from(vec![0; CALL_BYTES_MAX + 1]);
    assert!(matches!(Request::decode(too_long.clone(), caller), Err(WireError::TooLarge { .. })));
    assert!(matches!(Response::decode(too_long, caller), Err(WireError::TooLarge { .. })));

    let voters: BTreeSet<MachineId> = (0..=limits::VOTERS_MAX as u64).map(MachineId::from).collect();
    let meta = |voters: BTreeSet<MachineId>| SnapshotMeta {
        last_log_id: Some(LogId::new(CommittedLeaderId::new(1, caller), 1)),
        last_membership: StoredMembership::new(None, Membership::new(vec![voters], ())),
        snapshot_id: String::new(),
    };
    let vote = Vote::new_committed(3, caller);
    let part = |meta, size, offset| {
        let part = Part { vote, meta, size, offset, data: Bytes::from_static(b"12345") };
        Request::decode(Request::Part(part).encode(caller), caller)
    };
    let few: BTreeSet<MachineId> = voters.iter().copied().take(3).collect();
    assert!(part(meta(few.clone()), 10, 5).is_ok());
    assert!(part(meta(few.clone()), 10, 6).is_err(), "beyond the end");
    assert!(part(meta(few.clone()), 10, 11).is_err(), "after the end");
    assert!(part(meta(few), SNAPSHOT_BYTES_MAX + 1, 0).is_err(), "too large");
    assert!(part(meta(voters), 10, 5).is_err(), "too many voters");
    assert!(part(meta(BTreeSet::new()), 10, 5).is_err(), "nobody votes");
}

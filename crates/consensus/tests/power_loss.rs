//! The power goes at every single write and sync: what was acknowledged is there afterwards.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{Loss, Platter, block};
use muster_consensus::seeded::{Executor, Seeded};
use muster_consensus::{Disk, DiskError, Event, LogStore, Store, Types};
use muster_protocol::Ledger;
use muster_wire::{Entry, MachineId};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{CommittedLeaderId, EntryPayload, LogId, RaftLogReader, RaftSnapshotBuilder, Vote};
use tokio::sync::mpsc;

type Record = openraft::Entry<Types<Seeded>>;

const CLUSTER: [u8; 16] = [7; 16];

fn me() -> MachineId {
    MachineId::from(1)
}

fn log_id(term: u64, index: u64) -> LogId<MachineId> {
    LogId::new(CommittedLeaderId::new(term, me()), index)
}

fn record(term: u64, index: u64) -> Record {
    let removed = Entry::Removed { machine: MachineId::from(index) }.encode();
    Record { log_id: log_id(term, index), payload: EntryPayload::Normal(removed) }
}

/// What the store should hold.
#[derive(Debug, Clone, Default, PartialEq)]
struct Held {
    vote: Option<Vote<MachineId>>,
    log: BTreeMap<u64, LogId<MachineId>>,
    purged: Option<LogId<MachineId>>,
    committed: Option<LogId<MachineId>>,
    snapshot: Option<LogId<MachineId>>,
}

/// One thing openraft asks of a store.
#[derive(Debug, Clone, Copy)]
enum Step {
    Vote(u64),
    Append(u64, u64, u64),
    Commit(u64, u64),
    Snapshot(u64, u64),
    Purge(u64, u64),
    Truncate(u64, u64),
}

/// Some weeks of a voter's life.
const LIFE: &[Step] = &[
    Step::Vote(1),
    Step::Append(1, 0, 0),
    Step::Append(1, 1, 3),
    Step::Commit(1, 2),
    Step::Vote(2),
    Step::Append(2, 4, 40),
    Step::Commit(2, 30),
    Step::Snapshot(2, 30),
    Step::Purge(2, 20),
    Step::Vote(4),
    Step::Truncate(2, 38),
    Step::Append(4, 38, 39),
    Step::Commit(4, 39),
    Step::Snapshot(4, 39),
    Step::Purge(4, 39),
    Step::Append(4, 40, 41),
    Step::Vote(5),
];

impl Step {
    /// Losing it does no harm until something that is synced comes after it.
    fn is_lazy(self) -> bool {
        matches!(self, Step::Commit(..) | Step::Purge(..))
    }

    fn change(self, held: &mut Held) {
        match self {
            Step::Vote(term) => held.vote = Some(Vote::new(term, me())),
            Step::Append(term, from, to) => held.log.extend((from..=to).map(|index| (index, log_id(term, index)))),
            Step::Commit(term, index) => held.committed = Some(log_id(term, index)),
            Step::Snapshot(term, index) => held.snapshot = Some(log_id(term, index)),
            Step::Purge(term, index) => {
                held.log.retain(|at, _| *at > index);
                held.purged = Some(log_id(term, index));
            }
            Step::Truncate(_, index) => held.log.retain(|at, _| *at < index),
        }
    }

    async fn take(self, store: &Store<Seeded>, log: &mut LogStore<Seeded>) {
        match self {
            Step::Vote(term) => log.save_vote(&Vote::new(term, me())).await.unwrap(),
            Step::Append(term, from, to) => {
                log.blocking_append((from..=to).map(|index| record(term, index))).await.unwrap();
            }
            Step::Commit(term, index) => log.save_committed(Some(log_id(term, index))).await.unwrap(),
            Step::Snapshot(_, index) => {
                let (events, _events) = mpsc::channel::<Event>(1024);
                let mut machine =
                    store.state_machine(Ledger::default(), muster_wire::level::KNOWN, events).await.unwrap();
                assert_eq!(machine.applied_state().await.unwrap().0.unwrap().index, index, "all that is committed");
                machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
            }
            Step::Purge(term, index) => log.purge(log_id(term, index)).await.unwrap(),
            Step::Truncate(term, index) => log.truncate(log_id(term, index)).await.unwrap(),
        }
    }
}

async fn held(store: &Store<Seeded>) -> Held {
    let mut log = store.log();
    let state = log.get_log_state().await.unwrap();
    let (events, _events) = mpsc::channel::<Event>(1024);
    let mut machine = store.state_machine(Ledger::default(), muster_wire::level::KNOWN, events).await.unwrap();
    let records = log.try_get_log_entries(..).await.unwrap();
    Held {
        vote: log.read_vote().await.unwrap(),
        log: records.iter().map(|record| (record.log_id.index, record.log_id)).collect(),
        purged: state.last_purged_log_id,
        committed: log.read_committed().await.unwrap(),
        snapshot: machine.get_current_snapshot().await.unwrap().and_then(|snapshot| snapshot.meta.last_log_id),
    }
}

/// The disk's age after each step, and what the store should hold then.
type Life = Vec<(usize, Held)>;

fn live(platter: &Platter) -> Life {
    let mut life = vec![(0, Held::default())];
    let store = Store::<Seeded>::open(&Disk::open_on("raft.redb", platter.clone()).unwrap(), CLUSTER, me()).unwrap();
    life.push((platter.age(), Held::default()));
    for step in LIFE {
        let (used, mut log) = (store.clone(), store.log());
        block(&Executor::new(0), async move { step.take(&used, &mut log).await });
        let mut now = life.last().unwrap().1.clone();
        step.change(&mut now);
        life.push((platter.age(), now));
    }
    life
}

fn reopened(bytes: Vec<u8>) -> Result<Held, DiskError> {
    let store = Store::<Seeded>::open(&Disk::open_on("raft.redb", Platter::holding(bytes))?, CLUSTER, me())?;
    Ok(block(&Executor::new(0), async move { held(&store).await }))
}

#[test]
fn what_was_acknowledged_survives_a_power_loss_at_every_write() {
    let platter = Platter::default();
    let life = live(&platter);
    for age in 0..=platter.age() {
        // The steps that were answered by then; the one after them was under way.
        let answered = life.iter().rposition(|(end, _)| *end <= age).unwrap();
        // Steps before the first one here; the last of them that is synced must be there, those after it may be.
        let synced = (0..answered.saturating_sub(1)).rev().find(|step| !LIFE[*step].is_lazy());
        let oldest = synced.map_or(0, |step| step + 2);
        let newest = (answered + 1).min(life.len() - 1);
        for loss in [
            Loss::None,
            Loss::All,
            Loss::Some((age as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            Loss::Torn(!(age as u64).wrapping_mul(77)),
        ] {
            let found = reopened(platter.after_power_loss(age, loss));
            let found = found.unwrap_or_else(|why| panic!("at {age} of {}, {loss:?}: {why}", platter.age()));
            let possible = || life[oldest..=newest].iter().map(|(_, held)| held);
            assert!(
                possible().any(|held| *held == found),
                "at {age}, {loss:?}: {found:#?}\nis none of {oldest}..={newest}"
            );
        }
    }
}

#[test]
fn a_store_that_lost_nothing_is_as_it_was() {
    let platter = Platter::default();
    let life = live(&platter);
    assert_eq!(reopened(platter.bytes()).unwrap(), life.last().unwrap().1);
}

#[test]
fn the_state_of_another_machine_or_cluster_is_refused() {
    let platter = Platter::default();
    let disk = Disk::open_on("raft.redb", platter).unwrap();
    Store::<Seeded>::open(&disk, CLUSTER, me()).unwrap();
    for (cluster, machine) in [([8; 16], me()), (CLUSTER, MachineId::from(2))] {
        let refused = Store::<Seeded>::open(&disk, cluster, machine).unwrap_err();
        assert!(matches!(refused, DiskError::Foreign { .. }), "{refused}");
        assert!(refused.to_string().contains("raft.redb belongs to machine m-00000000 of cluster 0707"), "{refused}");
    }
}

#[test]
fn a_state_that_is_gone_is_not_begun_again() {
    for bytes in [vec![], vec![0; 1 << 16]] {
        let disk = Disk::open_on("raft.redb", Platter::holding(bytes)).unwrap();
        let refused = Store::<Seeded>::reopen(&disk, CLUSTER, me()).unwrap_err();
        assert!(refused.to_string().contains("the state of Raft is gone"), "{refused}");
        Store::<Seeded>::open(&disk, CLUSTER, me()).unwrap();
        Store::<Seeded>::reopen(&disk, CLUSTER, me()).unwrap();
    }
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let platter = Platter::default();
    let disk = Disk::open_on("raft.redb", platter.clone()).unwrap();
    let store = Store::<Seeded>::open(&disk, CLUSTER, me()).unwrap();
    let (mut log, mut again) = (store.log(), store.log());
    block(&Executor::new(0), async move { log.save_vote(&Vote::new(3, me())).await.unwrap() });
    let before = platter.age();
    platter.fill_up();
    let refused = block(&Executor::new(0), async move { again.save_vote(&Vote::new(4, me())).await });
    assert!(refused.unwrap_err().to_string().contains("raft.redb"));
    drop((store, disk));
    let found = reopened(platter.after_power_loss(before, Loss::None)).unwrap();
    assert_eq!(found.vote, Some(Vote::new(3, me())));
}

/// Whatever a byte of the file turns into: the state is read as it was, or refused. Never another one.
#[test]
fn rot_is_found_or_does_no_harm() {
    let platter = Platter::default();
    let (end, kept) = live(&platter).pop().unwrap();
    // Closed in good order, and killed after the last answer: redb then looks whether its newest state is whole.
    let (clean, killed) = (platter.bytes(), platter.after_power_loss(end, Loss::None));
    assert_ne!(clean, killed);
    let mut found = 0;
    for image in [&clean, &killed] {
        let used: Vec<usize> = (0..image.len()).filter(|at| image[*at] != 0).collect();
        for at in used.iter().step_by(used.len() / 300) {
            let mut rotten = image.clone();
            rotten[*at] ^= 0x10;
            match reopened(rotten) {
                Ok(held) => assert_eq!(held, kept, "after rot at {at}"),
                Err(why) => {
                    assert!(why.to_string().contains("raft.redb"), "{why}");
                    found += 1;
                }
            }
        }
    }
    assert!(found > 0);
}

#[test]
fn bytes_that_are_no_database_are_refused_by_name() {
    for bytes in [vec![b'x'; 100], vec![0xFF; 1 << 20], Bytes::from_static(b"redb").repeat(5000)] {
        let refused = Disk::open_on("raft.redb", Platter::holding(bytes)).unwrap_err();
        assert!(refused.to_string().starts_with("raft.redb"), "{refused}");
    }
}

//! A voter whose image knows less than the ledger holds: it stops before that, loses nothing, and goes on with the newer image.

use bytes::Bytes;
use muster_consensus::seeded::{Executor, Seeded};
use muster_consensus::{Disk, Event, Store, Types};
use muster_protocol::Ledger;
use muster_wire::{Entry, MachineId, Revision, level};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{CommittedLeaderId, EntryPayload, LogId, RaftSnapshotBuilder};
use redb::backends::InMemoryBackend;
use tokio::sync::mpsc;

mod common;
use common::block;

type Record = openraft::Entry<Types<Seeded>>;

/// At this index the ledger rises.
const RISES: u64 = 3;

fn record(index: u64) -> Record {
    let entry = match index {
        RISES => Entry::LevelRaised { level: 2 },
        _ => Entry::Removed { machine: MachineId::from(index) },
    };
    let log_id = LogId::new(CommittedLeaderId::new(1, MachineId::default()), index);
    Record { log_id, payload: EntryPayload::Normal(entry.encode()) }
}

fn told(events: &mut mpsc::Receiver<Event>) -> Vec<(Revision, Option<Bytes>)> {
    let mut all = Vec::new();
    while let Ok(event) = events.try_recv() {
        all.push(match event {
            Event::Applied { revision, .. } => (revision, None),
            Event::Restored { revision, ledger } => (revision, Some(ledger)),
            other => panic!("{other:?}"),
        });
    }
    all
}

fn store(disk: &Disk) -> Store<Seeded> {
    Store::open(disk, [7; 16], MachineId::default()).expect("opens")
}

#[test]
fn it_stops_before_the_entry_and_the_newer_image_goes_on_from_there() {
    let disk = Disk::open_on("memory", InMemoryBackend::new()).expect("opens");
    block(&Executor::new(1), async move {
        let store = store(&disk);
        let (tell, mut events) = mpsc::channel(64);
        let mut old = store.state_machine(Ledger::default(), 1, tell).await.expect("begins");
        told(&mut events);
        old.apply((1..RISES).map(record)).await.expect("knows these");
        old.apply([record(RISES), record(RISES + 1)]).await.expect_err("does not know what comes");
        assert_eq!(
            told(&mut events),
            [1, 2, RISES].map(|revision| (Revision(revision), None)),
            "it is told what it cannot read, and no more"
        );
        let snapshot = old.get_snapshot_builder().await.build_snapshot().await.expect("of what it knows");
        assert_eq!(snapshot.meta.last_log_id.map(|last| last.index), Some(RISES - 1));

        let mut log = store.log();
        log.blocking_append((1..=RISES + 1).map(record)).await.expect("appends");
        log.save_committed(Some(record(RISES + 1).log_id)).await.expect("commits");
        let (tell, mut events) = mpsc::channel(64);
        let mut old = store.state_machine(Ledger::default(), 1, tell).await.expect("starts again");
        assert_eq!(old.applied_state().await.expect("is").0.map(|last| last.index), Some(RISES - 1));
        assert_eq!(told(&mut events).len(), 1, "the ledger as far as it can be read");
        assert_eq!(
            log.read_committed().await.expect("reads"),
            None,
            "or openraft would apply what cannot be read, and not start"
        );

        let (tell, mut events) = mpsc::channel(64);
        let mut new = store.state_machine(Ledger::default(), level::KNOWN, tell).await.expect("starts");
        assert_eq!(new.applied_state().await.expect("is").0.map(|last| last.index), Some(RISES + 1));
        let ledger = told(&mut events).remove(0).1.expect("a whole ledger");
        assert_eq!(Ledger::decode(&ledger, level::KNOWN).expect("decodes").level(), 2);

        // What the newer image keeps, the older one leaves alone.
        new.get_snapshot_builder().await.build_snapshot().await.expect("is kept");
        let (tell, mut events) = mpsc::channel(64);
        let mut old = store.state_machine(Ledger::default(), 1, tell).await.expect("starts");
        let (revision, ledger) = told(&mut events).remove(0);
        assert_eq!(revision, Revision(RISES + 1));
        assert!(
            Ledger::decode(&ledger.expect("a whole ledger"), 1).is_err(),
            "the machine sees that it cannot read it"
        );
        old.get_snapshot_builder().await.build_snapshot().await.expect_err("it has nothing to keep");
        let kept = old.get_current_snapshot().await.expect("reads").expect("is there");
        let kept = Ledger::decode(&kept.snapshot, level::KNOWN).expect("is whole");
        assert_eq!((kept.revision(), kept.level()), (Revision(RISES + 1), 2));
    });
}

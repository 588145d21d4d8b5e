//! openraft's own tests of a store.

use muster_consensus::{Disk, Event, LogStore, StateMachine, Store, TokioRuntime, Types};
use muster_protocol::Ledger;
use muster_wire::MachineId;
use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use tokio::sync::mpsc;

struct OnFiles;

type Kept = (tempfile::TempDir, mpsc::Receiver<Event>);

impl StoreBuilder<Types<TokioRuntime>, LogStore<TokioRuntime>, StateMachine<TokioRuntime>, Kept> for OnFiles {
    async fn build(
        &self,
    ) -> Result<(Kept, LogStore<TokioRuntime>, StateMachine<TokioRuntime>), StorageError<MachineId>> {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(&directory.path().join("raft.redb")).unwrap();
        let store = Store::open(&disk, [7; 16], MachineId::from(0)).unwrap();
        let (events, kept) = mpsc::channel(1024);
        let machine = store.state_machine(Ledger::default(), muster_wire::level::KNOWN, events).await.unwrap();
        Ok(((directory, kept), store.log(), machine))
    }
}

#[test]
fn openraft_is_content_with_the_store() {
    Suite::test_all(OnFiles).unwrap();
}

//! The agent's runtime and real files; everything else about consensus is tested in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use muster_consensus::{Call, Config, Consensus, Disk, Event, LOG_DIRECTIVE, Store, TokioRuntime};
use muster_protocol::Ledger;
use muster_wire::{Entry, MachineId, Revision};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

type Device = Consensus<TokioRuntime>;
type Peers = Arc<Mutex<BTreeMap<MachineId, Device>>>;

/// Counts what is logged as an error.
struct Errors(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Errors {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if *event.metadata().level() == tracing::Level::ERROR {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn start(directory: &Path, me: MachineId, voters: &BTreeSet<MachineId>, peers: &Peers) -> mpsc::Receiver<Event> {
    let disk = Disk::open(&directory.join(format!("{me}-{}.redb", me.to_hex()))).unwrap();
    let store = Store::open(&disk, [7; 16], me).unwrap();
    if voters.contains(&me) {
        store.found(voters).unwrap();
    }
    let (calls, mut called) = mpsc::channel::<Call>(64);
    let (events, happened) = mpsc::channel(1_024);
    let device =
        Consensus::open(Config::default(), store, Ledger::default(), voters.clone(), calls, events).await.unwrap();
    peers.lock().unwrap().insert(me, device);
    let peers = peers.clone();
    tokio::spawn(async move {
        while let Some(call) = called.recv().await {
            let peer = peers.lock().unwrap().get(&call.to).cloned();
            tokio::spawn(async move {
                if let Some(peer) = peer
                    && let Ok(answer) = peer.handle_call(me, call.body).await
                {
                    let _ = call.answer.send(answer);
                }
            });
        }
    });
    happened
}

async fn leader(events: &mut mpsc::Receiver<Event>) -> MachineId {
    loop {
        if let Event::Leading { leader: Some(leader), .. } = events.recv().await.unwrap() {
            return leader;
        }
    }
}

async fn entry(events: &mut mpsc::Receiver<Event>) -> Entry {
    loop {
        if let Event::Applied { entry, .. } = events.recv().await.unwrap() {
            return Entry::decode(entry.clone()).unwrap();
        }
    }
}

// Paused: time is tokio's own and passes when all are idle, so the machine that runs this may be as slow as it likes.
#[tokio::test(start_paused = true)]
async fn three_voters_on_files_elect_commit_replace_and_stop_without_an_error_in_the_log() {
    let errors = Arc::new(AtomicUsize::new(0));
    let filter = EnvFilter::new("info").add_directive(LOG_DIRECTIVE.parse().unwrap());
    tracing_subscriber::registry().with(filter).with(Errors(errors.clone())).init();

    let directory = tempfile::tempdir().unwrap();
    let voters: BTreeSet<MachineId> = (1..=3).map(MachineId::from).collect();
    let peers = Peers::default();
    let mut events = BTreeMap::new();
    for me in &voters {
        events.insert(*me, start(directory.path(), *me, &voters, &peers).await);
    }
    let device = |me: &MachineId| peers.lock().unwrap()[me].clone();
    let first = *voters.first().unwrap();
    device(&first).call_election().await.unwrap();
    for happened in events.values_mut() {
        assert_eq!(leader(happened).await, first);
    }
    let proposed = Entry::Removed { machine: MachineId::from(9) };
    let applied = device(&first).propose(proposed.encode()).await.unwrap();
    assert!(applied.refused.unwrap().contains("not admitted"));
    for happened in events.values_mut() {
        assert_eq!(entry(happened).await, proposed);
    }

    device(&first).shutdown().await;
    peers.lock().unwrap().remove(&first);
    events.remove(&first);
    let other = *events.keys().next().unwrap();
    let second = loop {
        let second = leader(events.get_mut(&other).unwrap()).await;
        if second != first {
            break second;
        }
    };
    device(&second).propose(proposed.encode()).await.unwrap();

    // The first one comes back with what it had.
    let mut happened = start(directory.path(), first, &voters, &peers).await;
    match happened.recv().await.unwrap() {
        Event::Restored { revision, .. } => assert!(revision > Revision(0)),
        other => panic!("{other:?}"),
    }
    assert_eq!(entry(&mut happened).await, proposed);
    for me in &voters {
        device(me).shutdown().await;
    }
    assert_eq!(errors.load(Ordering::Relaxed), 0);
}

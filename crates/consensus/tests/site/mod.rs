//! Machines with consensus and a network between them, in virtual time: a function of the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use muster_consensus::seeded::{Executor, Seeded};
use muster_consensus::{Applied, Broke, Call, Calls, Config, Consensus, Disk, Event, ProposeError, Store};
use muster_protocol::ledger::Ledger;
use muster_wire::entry::Admitted;
use muster_wire::{CallNumber, Entry, MachineId, Revision, Role};
use tokio::sync::mpsc;

use crate::common::{Loss, Platter};

pub(crate) const CLUSTER: [u8; 16] = [7; 16];

type Later<T> = Arc<Mutex<Vec<T>>>;

/// What a machine does not know itself after a restart.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) me: MachineId,
    pub(crate) platter: Platter,
    pub(crate) running: Option<Running>,
    /// Times it was started.
    lives: u64,
}

/// A machine's process.
#[derive(Debug)]
pub(crate) struct Running {
    executor: Executor,
    started: Duration,
    pub(crate) consensus: Consensus<Seeded>,
    calls: mpsc::Receiver<Call>,
    waiting: Calls,
    events: mpsc::Receiver<Event>,
    answers: Later<(MachineId, u64, Bytes)>,
    proposed: Later<(u64, Result<Applied, ProposeError>)>,
    changed: Later<Result<(), ProposeError>>,
    pub(crate) seen: Seen,
}

/// What a machine was told, checked while it is told.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) ledger: Ledger,
    pub(crate) entries: BTreeMap<Revision, Bytes>,
    pub(crate) leader: Option<MachineId>,
    pub(crate) term: u64,
    pub(crate) restored: u64,
    pub(crate) stopped: Option<Option<Broke>>,
}

#[derive(Debug, Clone)]
enum Message {
    Call(u64, Bytes),
    Answer(u64, Bytes),
}

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) machines: BTreeMap<MachineId, Machine>,
    pub(crate) config: Config,
    pub(crate) voters: BTreeSet<MachineId>,
    now: Duration,
    seed: u64,
    sent: u64,
    under_way: BTreeMap<(Duration, u64), (MachineId, MachineId, Message)>,
    /// Messages lost in a hundred; half as many come twice, and late.
    pub(crate) loss: u64,
    /// How long disks take to sync.
    pub(crate) sync: Duration,
    /// Machines that nothing reaches and that reach nothing.
    pub(crate) cut: BTreeSet<MachineId>,
    pub(crate) outcomes: BTreeMap<u64, Result<Applied, ProposeError>>,
    pub(crate) changes: Vec<Result<(), ProposeError>>,
    proposals: u64,
    /// Everything that happened, in order.
    pub(crate) trace: Vec<String>,
    pub(crate) bytes_sent: u64,
    called: Vec<(MachineId, MachineId, Bytes)>,
}

pub(crate) fn id(number: u64) -> MachineId {
    MachineId::from(number)
}

pub(crate) fn admission(number: u64) -> Bytes {
    Entry::Admitted(Admitted {
        machine: id(1_000 + number),
        role: Role::Worker,
        name: format!("worker-{number}"),
        sealing_key: [1; 32],
        address: "10.0.0.1".to_owned(),
    })
    .encode()
}

impl Site {
    /// `machines` machines, all of them on, the first `voters` of them the charter's voters.
    pub(crate) fn new(seed: u64, machines: u64, voters: u64, config: Config) -> Self {
        let mut site = Self {
            machines: BTreeMap::new(),
            config,
            voters: (1..=voters).map(id).collect(),
            now: Duration::ZERO,
            seed,
            sent: 0,
            under_way: BTreeMap::new(),
            loss: 0,
            sync: Duration::ZERO,
            cut: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            changes: Vec::new(),
            proposals: 0,
            trace: Vec::new(),
            bytes_sent: 0,
            called: Vec::new(),
        };
        for me in (1..=machines).map(id) {
            site.machines.insert(me, Machine { me, platter: Platter::default(), running: None, lives: 0 });
            site.start(me);
        }
        site
    }

    /// A founded cluster with a leader.
    pub(crate) fn founded(seed: u64, machines: u64, voters: u64, config: Config) -> Self {
        let mut site = Self::new(seed, machines, voters, config);
        site.call_election(id(1));
        site.until("a leader", |site| site.leader().is_some());
        site
    }

    pub(crate) fn call_election(&mut self, me: MachineId) {
        let running = self.running(me);
        let consensus = running.consensus.clone();
        running.executor.spawn(async move { drop(consensus.call_election().await) });
    }

    pub(crate) fn start(&mut self, me: MachineId) {
        let machine = self.machines.get_mut(&me).unwrap();
        machine.lives += 1;
        let disk = Disk::open_on(&format!("{me}.redb"), machine.platter.clone()).unwrap();
        let store = Store::<Seeded>::open(&disk, CLUSTER, me).unwrap();
        if self.voters.contains(&me) {
            store.found(&self.voters).unwrap();
        }
        let executor =
            Executor::new(self.seed ^ u64::from_be_bytes(me.0[..8].try_into().unwrap()) << 32 ^ machine.lives);
        let (calls, called) = mpsc::channel(64);
        executor.set_disk_delay(self.sync);
        // Small, so that the state machine has to wait for its reader.
        let (events, happened) = mpsc::channel(4);
        let opened = Arc::new(Mutex::new(None));
        let (slot, config, trusted) = (opened.clone(), self.config.clone(), self.voters.clone());
        executor.spawn(async move {
            *slot.lock().unwrap() =
                Some(Consensus::open(config, store, Ledger::default(), trusted, calls, events).await.unwrap());
        });
        let mut happened = happened;
        let mut seen = Seen::default();
        let consensus = loop {
            executor.run(100_000);
            while let Ok(event) = happened.try_recv() {
                self.trace.push(format!("{:?} {me} {event:?}", self.now));
                seen.take(event);
            }
            if let Some(consensus) = opened.lock().unwrap().take() {
                break consensus;
            }
        };
        machine.running = Some(Running {
            executor,
            started: self.now,
            consensus,
            calls: called,
            waiting: Calls::default(),
            events: happened,
            answers: Later::default(),
            proposed: Later::default(),
            changed: Later::default(),
            seen,
        });
    }

    /// Ends a process where it stands. Its disk keeps what was synced, and what was not if `power` stays.
    pub(crate) fn kill(&mut self, me: MachineId, loss: Loss) {
        let machine = self.machines.get_mut(&me).unwrap();
        // The bytes before the process ends: redb would tidy up.
        let bytes = machine.platter.after_power_loss(machine.platter.age(), loss);
        machine.running = None;
        machine.platter = Platter::holding(bytes);
        self.under_way.retain(|_, (_, to, _)| *to != me);
        self.trace.push(format!("{:?} {me} killed", self.now));
    }

    pub(crate) fn running(&mut self, me: MachineId) -> &mut Running {
        self.machines.get_mut(&me).unwrap().running.as_mut().unwrap()
    }

    /// Proposes at `me`; the answer comes to [`Site::outcomes`] under the number that is returned.
    pub(crate) fn propose(&mut self, me: MachineId, entry: Bytes) -> u64 {
        self.proposals += 1;
        let number = self.proposals;
        let running = self.running(me);
        let (consensus, proposed) = (running.consensus.clone(), running.proposed.clone());
        running.executor.spawn(async move {
            let outcome = consensus.propose(entry).await;
            proposed.lock().unwrap().push((number, outcome));
        });
        number
    }

    pub(crate) fn set_voters(&mut self, me: MachineId, voters: BTreeSet<MachineId>) {
        let running = self.running(me);
        let (consensus, changed) = (running.consensus.clone(), running.changed.clone());
        running.executor.spawn(async move {
            let outcome = consensus.set_voters(voters).await;
            changed.lock().unwrap().push(outcome);
        });
    }

    /// The leader that a majority of the running, reachable machines agree on, if it leads itself.
    pub(crate) fn leader(&self) -> Option<MachineId> {
        let up = |machine: &&Machine| machine.running.is_some() && !self.cut.contains(&machine.me);
        let mut votes = BTreeMap::<_, usize>::new();
        for machine in self.machines.values().filter(up) {
            if let Some(leader) = machine.running.as_ref().unwrap().seen.leader {
                *votes.entry(leader).or_default() += 1;
            }
        }
        let (leader, count) = votes.into_iter().max_by_key(|(_, count)| *count)?;
        let leads = self.machines[&leader].running.as_ref().is_some_and(|running| running.seen.leader == Some(leader));
        (leads && !self.cut.contains(&leader) && count * 2 > self.voters.len()).then_some(leader)
    }

    /// Runs until `done`, within an hour of virtual time.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let limit = self.now + Duration::from_secs(3_600);
        while !done(self) {
            assert!(self.now < limit, "waited in vain for {what}; the end was:\n{}", self.tail());
            self.step();
        }
    }

    fn tail(&self) -> String {
        self.trace[self.trace.len().saturating_sub(40)..].join("\n")
    }

    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
        }
    }

    /// Runs everything that is ready, then moves time to whatever comes next.
    fn step(&mut self) {
        let ids: Vec<MachineId> = self.machines.keys().copied().collect();
        for me in &ids {
            self.drive(*me);
        }
        let timers = self.machines.values().filter_map(|machine| {
            let running = machine.running.as_ref()?;
            Some(running.started + running.executor.next_timer()?)
        });
        let message = self.under_way.keys().next().map(|(at, _)| *at);
        self.now = timers.chain(message).min().expect("somebody waits for something").max(self.now);
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, message) = entry.remove();
            self.deliver(from, to, message);
        }
    }

    fn drive(&mut self, me: MachineId) {
        let Some(running) = self.machines.get_mut(&me).unwrap().running.as_mut() else { return };
        running.executor.advance(self.now - running.started);
        let mut out = Vec::new();
        loop {
            running.executor.run(1_000_000);
            let mut quiet = true;
            while let Ok(event) = running.events.try_recv() {
                self.trace.push(format!("{:?} {me} {event:?}", self.now));
                running.seen.take(event);
                quiet = false;
            }
            if quiet {
                break;
            }
        }
        while let Ok(call) = running.calls.try_recv() {
            let to = call.to;
            if let Some((number, body)) = running.waiting.begin(call) {
                out.push((to, Message::Call(number.0, body)));
            }
        }
        for (to, number, body) in running.answers.lock().unwrap().drain(..) {
            out.push((to, Message::Answer(number, body)));
        }
        self.outcomes.extend(running.proposed.lock().unwrap().drain(..));
        self.changes.append(&mut running.changed.lock().unwrap());
        for (to, message) in out {
            self.send(me, to, message);
        }
    }

    fn send(&mut self, from: MachineId, to: MachineId, message: Message) {
        self.trace.push(format!("{:?} {from} to {to}: {message:?}", self.now));
        let (Message::Call(_, body) | Message::Answer(_, body)) = &message;
        self.bytes_sent += body.len() as u64;
        if let Message::Call(_, body) = &message {
            self.called.push((from, to, body.clone()));
        }
        self.sent += 1;
        // One to three milliseconds, in no order.
        let draw = (self.seed ^ self.sent).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let due = self.now + Duration::from_micros(1_000 + (draw >> 53));
        let fate = (draw >> 20) % 100;
        if fate >= 100 - self.loss / 2 {
            let again = due + Duration::from_millis(draw % 2_000);
            self.under_way.insert((again, self.sent), (from, to, message.clone()));
        }
        if fate >= self.loss {
            self.under_way.insert((due, self.sent), (from, to, message));
        }
    }

    fn deliver(&mut self, from: MachineId, to: MachineId, message: Message) {
        let lost = self.cut.contains(&from) || self.cut.contains(&to);
        let Some(running) = self.machines.get_mut(&to).and_then(|machine| machine.running.as_mut()).filter(|_| !lost)
        else {
            return;
        };
        running.executor.advance(self.now - running.started);
        match message {
            Message::Answer(number, body) => {
                running.waiting.answered(from, CallNumber(number), body);
            }
            Message::Call(number, body) => {
                let (consensus, answers) = (running.consensus.clone(), running.answers.clone());
                running.executor.spawn(async move {
                    if let Ok(answer) = consensus.handle_call(from, body).await {
                        answers.lock().unwrap().push((from, number, answer));
                    }
                });
            }
        }
    }

    /// Bodies of the calls from one machine to another that are in the trace of their senders.
    pub(crate) fn calls_made(&self, from: MachineId, to: MachineId) -> Vec<Bytes> {
        self.called.iter().filter(|(one, other, _)| (*one, *other) == (from, to)).map(|call| call.2.clone()).collect()
    }

    /// Calls a machine in the name of a connection, as if it had come from there.
    pub(crate) fn call(&mut self, from: MachineId, to: MachineId, body: Bytes) {
        self.deliver(from, to, Message::Call(0, body));
    }

    pub(crate) fn shut_down(&mut self, me: MachineId) {
        let running = self.running(me);
        let consensus = running.consensus.clone();
        running.executor.spawn(async move { consensus.shutdown().await });
    }

    pub(crate) fn messages_sent(&self) -> u64 {
        self.sent
    }

    /// Entries that any machine was told are the same at every machine that was told that revision.
    pub(crate) fn assert_agreement(&self) {
        let mut agreed = BTreeMap::new();
        for machine in self.machines.values() {
            for (revision, entry) in machine.running.iter().flat_map(|running| &running.seen.entries) {
                let first = agreed.entry(*revision).or_insert(entry);
                assert_eq!(*first, entry, "revision {revision} at {}", machine.me);
            }
        }
    }

    /// All running machines in `who` have a ledger with the machine of `admission(number)`.
    pub(crate) fn all_have(&self, who: impl IntoIterator<Item = MachineId>, number: u64) -> bool {
        who.into_iter().all(|me| {
            let running = self.machines[&me].running.as_ref();
            running.is_none_or(|running| running.seen.ledger.member(id(1_000 + number)).is_some())
        })
    }
}

impl Seen {
    fn take(&mut self, event: Event) {
        match event {
            Event::Restored { revision, ledger } => {
                self.ledger = Ledger::decode(&ledger, muster_wire::level::KNOWN).unwrap();
                assert_eq!(self.ledger.revision(), revision);
                assert!(self.entries.keys().all(|known| *known <= revision), "a ledger that forgets");
                self.restored += 1;
            }
            Event::Applied { revision, entry } => {
                assert!(self.restored > 0, "an entry before the ledger");
                assert!(revision > self.ledger.revision(), "revision {revision} twice or late");
                let _ = self.ledger.apply(revision, &Entry::decode(entry.clone()).unwrap());
                self.entries.insert(revision, entry);
            }
            Event::Leading { term, leader } => {
                assert!(term >= self.term, "terms only grow");
                (self.term, self.leader) = (term, leader);
            }
            Event::Members(members) => assert!(!members.all.is_empty(), "nobody takes part"),
            Event::Stopped { why } => {
                assert!(self.stopped.is_none(), "stopped twice");
                self.stopped = Some(why);
            }
        }
    }
}

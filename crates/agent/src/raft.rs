//! Raft at this machine: opens the file of its seat, runs its tasks, and carries frames between it and the mesh.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_consensus::{
    Call, Config, Consensus, Disk as RaftDisk, DiskError, Done, Event, OpenError, Refusals, Seat, SeatError, Then,
    TokioRuntime,
};
use muster_protocol::{Dropped, Input, Ledger, NextEpoch};
use muster_wire::{CallNumber, Charter, Entry, Frame, MachineId};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::counters::Counters;
use crate::disk::Disk;
use crate::net::Command;

/// How long a store that was stopped may be held.
const LET_GO: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(50);

/// Most tasks of the seat whose end waits for the shell; the others wait for room.
const DONE_MAX: usize = 256;

/// This machine's Raft, or the place for it.
pub(crate) struct Raft {
    seat: Seat<TokioRuntime>,
    /// What Raft wants said; nothing comes before it runs.
    pub(crate) outgoing: mpsc::Receiver<Call>,
    /// What Raft tells; nothing comes before it runs.
    pub(crate) events: mpsc::Receiver<Event>,
    /// Ends of the seat's tasks.
    pub(crate) done: mpsc::Receiver<Done>,
    /// For the core, to be taken before anything is waited for.
    pub(crate) inputs: VecDeque<Input>,
    done_sender: mpsc::Sender<Done>,
    net: mpsc::Sender<Command>,
    counters: Arc<Counters>,
}

impl Raft {
    pub(crate) fn new(me: MachineId, net: mpsc::Sender<Command>, counters: Arc<Counters>) -> Self {
        let (done_sender, done) = mpsc::channel(DONE_MAX);
        Self {
            seat: Seat::new(me),
            outgoing: mpsc::channel(1).1,
            events: mpsc::channel(1).1,
            done,
            inputs: VecDeque::new(),
            done_sender,
            net,
            counters,
        }
    }

    /// Starts Raft on this machine's store.
    ///
    /// # Errors
    /// When the store cannot be used. The machine must stop then: its votes are in there.
    pub(crate) async fn start(&mut self, charter: &Charter, ledger: &Ledger, disk: &mut Disk) -> Result<(), SeatError> {
        let (begun, path) = (disk.has_begun_raft(), disk.raft_path());
        let open = || RaftDisk::open(&path);
        let mark = || disk.raft_begun().map_err(|why| why.to_string());
        let Some(started) = self.seat.start(Config::default(), charter, ledger, begun, open, mark)? else {
            return Ok(());
        };
        (self.outgoing, self.events) = (started.calls, started.events);
        self.seat.opened(started.opening.open().await)?;
        self.carry_out(None);
        Ok(())
    }

    /// Makes the store anew and starts Raft on it. What was stopped may hold its file for a moment longer.
    ///
    /// # Errors
    /// When the store cannot be used, or is not let go.
    pub(crate) async fn rebuild(
        &mut self,
        charter: &Charter,
        ledger: &Ledger,
        known: &[u8],
        next: NextEpoch,
        disk: &mut Disk,
    ) -> Result<(), SeatError> {
        let path = disk.raft_path();
        let begun = tokio::time::Instant::now();
        let store = loop {
            match RaftDisk::open(&path) {
                Err(DiskError::Unusable { .. }) if begun.elapsed() < LET_GO => tokio::time::sleep(PAUSE).await,
                opened => break opened.map_err(OpenError::from)?,
            }
        };
        self.seat.rebuild(charter, known, next, Config::default().level, &store)?;
        drop(store);
        self.start(charter, ledger, disk).await
    }

    pub(crate) fn trust(&mut self, ledger: &Ledger) {
        self.seat.trust(ledger);
    }

    pub(crate) fn call_election(&mut self) {
        self.seat.call_election();
        self.carry_out(None);
    }

    pub(crate) fn set_voters(&mut self, voters: BTreeSet<MachineId>) {
        self.seat.set_voters(voters);
        self.carry_out(None);
    }

    pub(crate) fn propose(&mut self, call: CallNumber, entry: &Entry) {
        self.seat.propose(call, entry.encode());
        self.carry_out(None);
    }

    /// Raft wants something said to another machine.
    pub(crate) fn call(&mut self, call: Call) {
        let to = call.to;
        if let Some(frame) = self.seat.call(call)
            && !self.send(to, &frame)
        {
            self.seat.unreachable(to);
        }
    }

    /// A call of another machine's Raft. It holds its `room` in the mesh until it is answered, so that callers that do not
    /// wait for answers wait for room.
    pub(crate) fn called(&mut self, from: MachineId, call: CallNumber, body: Bytes, room: OwnedSemaphorePermit) {
        self.seat.called(from, call, body);
        self.carry_out(Some(room));
    }

    pub(crate) fn answered(&mut self, from: MachineId, call: CallNumber, body: Bytes) {
        self.seat.answered(from, call, body);
    }

    pub(crate) fn disconnected(&mut self, machine: MachineId) {
        self.seat.unreachable(machine);
    }

    /// A task of the seat ended.
    pub(crate) fn is_done(&mut self, done: Done) {
        self.seat.done(done);
        self.carry_out(None);
    }

    /// What Raft says, for the core. An error is the end: a machine whose Raft broke may not go on.
    pub(crate) fn heard(&self, event: Event) -> Result<Option<Input>, SeatError> {
        self.seat.heard(event)
    }

    /// How many calls of others were refused, by reason.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (Dropped, u64)> {
        let counts = self.seat.refusals().map(|refusals: &Refusals| {
            [
                (Dropped::RaftStranger, refusals.strangers()),
                (Dropped::RaftImpostor, refusals.impostors()),
                (Dropped::RaftMalformed, refusals.malformed()),
            ]
        });
        counts.into_iter().flatten().filter(|(_, count)| *count > 0)
    }

    pub(crate) async fn stop(&mut self) {
        let running: Option<Consensus<TokioRuntime>> = self.seat.stop();
        self.carry_out(None);
        if let Some(running) = running {
            running.shutdown().await;
        }
    }

    /// Does what follows for the seat. What it runs for another machine holds that one's `room`.
    fn carry_out(&mut self, mut room: Option<OwnedSemaphorePermit>) {
        while let Some(then) = self.seat.follows() {
            match then {
                Then::Run(work) => {
                    let (done, room) = (self.done_sender.clone(), room.take());
                    tokio::spawn(async move {
                        // Without a receiver the agent is stopping.
                        let _ = done.send(work.run().await).await;
                        drop(room);
                    });
                }
                Then::Input(input) => self.inputs.push_back(input),
                Then::Send(to, frame) => _ = self.send(to, &frame),
            }
        }
    }

    /// Whether the mesh took it.
    fn send(&self, to: MachineId, frame: &Frame) -> bool {
        let sent = self.net.try_send(Command::Send(to, frame.encode())).is_ok();
        if !sent {
            self.counters.dropped(Dropped::MeshBusy);
        }
        sent
    }
}

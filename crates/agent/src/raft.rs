//! Raft at this machine: started when the core says so, fed with the frames that are for it.

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_consensus::{Call, Calls, Config, Consensus, Disk as RaftDisk, Event, ProposeError, Store, TokioRuntime};
use muster_protocol::{Input, Ledger};
use muster_wire::frame::ProposalOutcome;
use muster_wire::{Charter, Entry, Frame, MachineId};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::{debug, error, warn};

use crate::disk::Disk;
use crate::net::Command;

/// Most events of Raft that wait for the shell; Raft waits for room.
const EVENTS_MAX: usize = 256;

/// This machine's Raft, or the place for it.
pub(crate) struct Raft {
    me: MachineId,
    running: Option<Consensus<TokioRuntime>>,
    /// What it was started on.
    charter: Option<Charter>,
    calls: Calls,
    pub(crate) outgoing: mpsc::Receiver<Call>,
    pub(crate) events: mpsc::Receiver<Event>,
    call_sender: mpsc::Sender<Call>,
    event_sender: mpsc::Sender<Event>,
    net: mpsc::Sender<Command>,
    inputs: mpsc::Sender<Input>,
}

impl Raft {
    pub(crate) fn new(me: MachineId, net: mpsc::Sender<Command>, inputs: mpsc::Sender<Input>) -> Self {
        let (call_sender, outgoing) = mpsc::channel(muster_consensus::CALLS_MAX);
        let (event_sender, events) = mpsc::channel(EVENTS_MAX);
        Self {
            me,
            running: None,
            charter: None,
            calls: Calls::default(),
            outgoing,
            events,
            call_sender,
            event_sender,
            net,
            inputs,
        }
    }

    /// Starts Raft on this machine's store.
    ///
    /// # Errors
    /// When the store cannot be used. The machine must stop then: its votes are in there.
    pub(crate) async fn start(&mut self, charter: &Charter, ledger: &Ledger, disk: &mut Disk) -> Result<(), String> {
        disk.check_raft().map_err(|why| why.to_string())?;
        // One that was begun and is empty now has lost its votes: that is no beginning.
        let open = if disk.has_begun_raft() { Store::reopen } else { Store::open };
        let store = RaftDisk::open(&disk.raft_path()).and_then(|raft| open(&raft, charter.id, self.me));
        let store = store.map_err(|why| why.to_string())?;
        disk.raft_begun().map_err(|why| why.to_string())?;
        let (calls, events) = (self.call_sender.clone(), self.event_sender.clone());
        let trusted = ledger.raft_callers(charter);
        self.charter = Some(charter.clone());
        let running = Consensus::open(Config::default(), store, Ledger::founded(charter), trusted, calls, events).await;
        self.running = Some(running.map_err(|why| why.to_string())?);
        Ok(())
    }

    /// Raft's callers may be others now.
    pub(crate) fn trust(&self, ledger: &Ledger) {
        if let (Some(raft), Some(charter)) = (&self.running, &self.charter) {
            raft.trust(ledger.raft_callers(charter));
        }
    }

    pub(crate) fn initialize(&self) {
        let Some(raft) = self.running.clone() else { return };
        let Some(charter) = &self.charter else { return };
        let voters = charter.voters.iter().copied().collect();
        tokio::spawn(async move {
            match raft.initialize(voters).await {
                Ok(new) => debug!(new, "Raft is initialized"),
                Err(why) => warn!(%why, "Raft cannot be initialized"),
            }
        });
    }

    pub(crate) fn set_voters(&self, voters: BTreeSet<MachineId>) {
        let Some(raft) = self.running.clone() else { return };
        tokio::spawn(async move {
            if let Err(why) = raft.set_voters(voters).await {
                debug!(%why, "the voters are not changed yet");
            }
        });
    }

    pub(crate) fn propose(&self, call: u64, entry: Entry) {
        let (raft, inputs) = (self.running.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let outcome = match raft {
                None => ProposalOutcome::NotLeading(None),
                Some(raft) => match raft.propose(entry.encode()).await {
                    Ok(applied) => match applied.refused {
                        None => ProposalOutcome::Applied(applied.revision),
                        Some(why) => ProposalOutcome::Refused(why),
                    },
                    Err(ProposeError::NotLeading { leader }) => ProposalOutcome::NotLeading(leader),
                    Err(ProposeError::Unavailable(_)) => ProposalOutcome::NotLeading(None),
                    Err(ProposeError::Malformed(why)) => ProposalOutcome::Refused(why.to_string()),
                },
            };
            let _ = inputs.send(Input::Proposed { call, outcome }).await;
        });
    }

    /// Raft wants something said to another machine. Dropping the call says that it cannot be.
    pub(crate) fn call(&mut self, call: Call) {
        let to = call.to;
        if let Some((number, body)) = self.calls.begin(call) {
            let frame = Frame::RaftCall { call: number, body }.encode();
            if self.net.try_send(Command::Send(to, frame)).is_err() {
                self.calls.lost(to);
            }
        }
    }

    /// A call of another machine's Raft. It holds its `room` in the mesh until it is answered, so that callers that do not
    /// wait for answers wait for room.
    pub(crate) fn called(&self, from: MachineId, call: u64, body: Bytes, room: OwnedSemaphorePermit) {
        let Some(raft) = self.running.clone() else { return };
        let net = self.net.clone();
        tokio::spawn(async move {
            match raft.handle_call(from, body).await {
                Ok(body) => {
                    let _ = net.send(Command::Send(from, Frame::RaftAnswer { call, body }.encode())).await;
                }
                Err(why) => debug!(%from, %why, "a Raft call is refused"),
            }
            drop(room);
        });
    }

    /// How many calls of others were refused, by reason.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.running.as_ref().map(|raft| {
            let refusals = raft.refusals();
            [
                ("Raft call of a stranger", refusals.strangers()),
                ("Raft call in another's name", refusals.impostors()),
                ("malformed Raft call", refusals.malformed()),
            ]
        });
        counts.into_iter().flatten().filter(|(_, count)| *count > 0)
    }

    pub(crate) fn answered(&mut self, from: MachineId, call: u64, body: Bytes) {
        self.calls.answered(from, call, body);
    }

    pub(crate) fn disconnected(&mut self, machine: MachineId) {
        self.calls.lost(machine);
    }

    /// What Raft says, for the core. An error is the end: a machine whose Raft broke may not go on.
    pub(crate) fn input(event: Event) -> Result<Option<Input>, String> {
        Ok(Some(match event {
            Event::Restored { ledger, .. } => Input::Restored { ledger },
            Event::Applied { revision, entry } => Input::Applied { revision, entry },
            Event::Leading { term, leader } => Input::Leading { term, leader },
            Event::Stopped { why: None } => return Ok(None),
            Event::Stopped { why: Some(why) } => {
                error!(%why, "Raft stopped");
                return Err(format!("Raft stopped: {why}"));
            }
        }))
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(raft) = self.running.take() {
            raft.shutdown().await;
        }
    }
}

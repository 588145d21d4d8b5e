//! A machine's seat in Raft: everything between what the core wants of Raft, [`Consensus`], and the frames on the mesh.
//!
//! The agent and the simulator both run it. It opens no file, starts no task and reads no clock: what takes time is
//! [`Opening`] or [`Work`], to be run among Raft's own tasks, and what comes of it is handed back.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use muster_protocol::{Input, Ledger, NextEpoch};
use muster_wire::frame::ProposalOutcome;
use muster_wire::{CallNumber, Charter, Frame, MachineId, Revision, WireError};
use tokio::sync::mpsc;

use crate::calls::{CALLS_MAX, Call, Calls};
use crate::config::Config;
use crate::device::{Consensus, OpenError};
use crate::disk::{Disk, DiskError};
use crate::event::{Broke, Event};
use crate::inbound::Refusals;
use crate::runtime::Runtime;
use crate::store::{Rebuilt, Store};

mod work;

use work::Ask;
pub use work::{Done, Work};

#[cfg(test)]
mod tests;

/// Most events of Raft that wait to be heard; Raft waits for room.
const EVENTS_MAX: usize = 256;

/// Most things asked for that wait until Raft is open: as many proposals as may be under way then.
const WAITING_MAX: usize = 64;

/// Why a machine may not go on with Raft. Its process ends: it must not say what Raft could not keep.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeatError {
    /// What was on the disk is gone or is not what was written. Every later start meets the same end.
    #[error(
        "{0}: this machine cannot know what it promised. Wipe its state directory and start it again; it comes back as a \
         new machine"
    )]
    Lost(DiskError),
    /// Raft does not start, for a reason that may pass.
    #[error(transparent)]
    NotOpened(OpenError),
    /// That the store was begun could not be written down.
    #[error("{0}")]
    NotMarked(String),
    /// Its store could not be made anew.
    #[error("what the cluster is to be rebuilt from cannot be read: {0}")]
    NotRebuilt(WireError),
    /// It broke while it ran.
    #[error("Raft stopped: {0}")]
    Stopped(Broke),
}

impl SeatError {
    /// Whether every later start on this disk meets the same end.
    pub fn lasts(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

impl From<OpenError> for SeatError {
    fn from(why: OpenError) -> Self {
        match why {
            OpenError::Disk(why @ DiskError::Damaged { .. }) => Self::Lost(why),
            why => Self::NotOpened(why),
        }
    }
}

/// What follows from something that the seat was told, in order.
#[derive(Debug)]
pub enum Then<R: Runtime> {
    /// To be run among Raft's tasks; what it returns is for [`Seat::done`].
    Run(Work<R>),
    /// For the core.
    Input(Input),
    /// For another machine.
    Send(MachineId, Frame),
}

/// Raft on its way to run.
#[derive(Debug)]
pub struct Opening<R> {
    config: Config,
    store: Store<R>,
    founded: Ledger,
    trusted: BTreeSet<MachineId>,
    calls: mpsc::Sender<Call>,
    events: mpsc::Sender<Event>,
}

impl<R: Runtime> Opening<R> {
    /// Starts Raft. What it returns is for [`Seat::opened`].
    ///
    /// # Errors
    /// As [`Consensus::open`].
    pub async fn open(self) -> Result<Consensus<R>, OpenError> {
        Consensus::open(self.config, self.store, self.founded, self.trusted, self.calls, self.events).await
    }
}

/// A seat that was just taken.
#[derive(Debug)]
pub struct Started<R> {
    /// To be run among Raft's tasks.
    pub opening: Opening<R>,
    /// What Raft wants said, for [`Seat::call`].
    pub calls: mpsc::Receiver<Call>,
    /// What Raft tells, for [`Seat::heard`].
    pub events: mpsc::Receiver<Event>,
}

/// One machine's seat, empty or taken, for as long as its process runs.
#[derive(Debug)]
pub struct Seat<R: Runtime> {
    me: MachineId,
    /// What it was taken under; none while it is empty.
    charter: Option<Charter>,
    consensus: Option<Consensus<R>>,
    calls: Calls,
    /// Asked for before Raft was open.
    waiting: Vec<Ask>,
    /// Proposals whose outcome the core waits for.
    proposed: BTreeSet<CallNumber>,
    changing_voters: bool,
    /// Whom the core wants as voters once the change that is under way is over.
    voters_wanted: Option<BTreeSet<MachineId>>,
    /// The ledger's revision of which Raft's callers were taken.
    trusted_at: Option<Revision>,
    then: VecDeque<Then<R>>,
}

impl<R: Runtime> Seat<R> {
    /// An empty seat of this machine.
    pub fn new(me: MachineId) -> Self {
        Self {
            me,
            charter: None,
            consensus: None,
            calls: Calls::default(),
            waiting: Vec::new(),
            proposed: BTreeSet::new(),
            changing_voters: false,
            voters_wanted: None,
            trusted_at: None,
            then: VecDeque::new(),
        }
    }

    /// The core wants Raft to run. Returns nothing if it runs already.
    ///
    /// `begun` is whether the machine's state file says that its store was begun: one that `disk` finds empty was lost then, and
    /// its votes with it (promise S9). Else `mark` has the state file say so, durably, before Raft gets the store and votes.
    ///
    /// # Errors
    /// [`SeatError`]; the seat stays empty.
    pub fn start(
        &mut self,
        config: Config,
        charter: &Charter,
        ledger: &Ledger,
        begun: bool,
        disk: impl FnOnce() -> Result<Disk, DiskError>,
        mark: impl FnOnce() -> Result<(), String>,
    ) -> Result<Option<Started<R>>, SeatError> {
        if self.charter.is_some() {
            return Ok(None);
        }
        let open = if begun { Store::reopen } else { Store::open };
        let store = disk().and_then(|disk| open(&disk, charter.id, self.me)).map_err(OpenError::from)?;
        if charter.voters.contains(&self.me) {
            store.found(&charter.voters.iter().copied().collect()).map_err(OpenError::from)?;
        }
        if !begun {
            mark().map_err(SeatError::NotMarked)?;
        }
        self.charter = Some(charter.clone());
        self.trusted_at = Some(ledger.revision());
        let (call_sender, calls) = mpsc::channel(CALLS_MAX);
        let (event_sender, events) = mpsc::channel(EVENTS_MAX);
        let opening = Opening {
            config,
            store,
            founded: Ledger::founded(charter),
            trusted: ledger.raft_callers(charter),
            calls: call_sender,
            events: event_sender,
        };
        Ok(Some(Started { opening, calls, events }))
    }

    /// Makes the store of this machine's Raft anew while it does not run, see [`Store::rebuild`]. `known` is the latest ledger that any machine has
    /// shown, `level` the highest that this one knows.
    ///
    /// # Errors
    /// [`SeatError`]; nothing is changed then.
    pub fn rebuild(
        &self,
        charter: &Charter,
        known: &[u8],
        next: NextEpoch,
        level: u32,
        disk: &Disk,
    ) -> Result<Rebuilt, SeatError> {
        let known = Ledger::decode(known, level).map_err(SeatError::NotRebuilt)?;
        let store = Store::<R>::reopen(disk, charter.id, self.me);
        let rebuilt = store.and_then(|store| store.rebuild(Ledger::founded(charter), &known, next, level));
        Ok(rebuilt.map_err(OpenError::from)?)
    }

    /// Raft runs, or could not be started. What waited for it is done now.
    ///
    /// # Errors
    /// [`SeatError`], if it could not.
    pub fn opened(&mut self, opened: Result<Consensus<R>, OpenError>) -> Result<(), SeatError> {
        self.consensus = Some(opened?);
        std::mem::take(&mut self.waiting).into_iter().for_each(|ask| self.ask(ask));
        Ok(())
    }

    /// The core wants Raft to stop. Returns what must be shut down before the store is opened again. Whatever waited for Raft
    /// is told that it does not lead.
    pub fn stop(&mut self) -> Option<Consensus<R>> {
        self.charter = None;
        self.trusted_at = None;
        self.changing_voters = false;
        self.voters_wanted = None;
        self.waiting.clear();
        self.calls.all_lost();
        for call in std::mem::take(&mut self.proposed) {
            self.then.push_back(Then::Input(Input::Proposed { call, outcome: ProposalOutcome::NotLeading(None) }));
        }
        self.consensus.take()
    }

    /// The next thing that follows, to be taken until there is none.
    pub fn follows(&mut self) -> Option<Then<R>> {
        self.then.pop_front()
    }

    /// The core wants this machine to call Raft's first election, or the next one if that gave no leader.
    pub fn call_election(&mut self) {
        if self.charter.is_some() {
            self.ask(Ask::Election);
        }
    }

    /// The core wants these voters. One change is under way at a time, and the last that was wanted meanwhile follows it; the core asks again until
    /// it holds.
    pub fn set_voters(&mut self, voters: BTreeSet<MachineId>) {
        if std::mem::replace(&mut self.changing_voters, self.charter.is_some()) {
            self.voters_wanted = Some(voters);
        } else {
            self.ask(Ask::Voters(voters));
        }
    }

    /// The core proposes an encoded entry under a number that its outcome repeats.
    pub fn propose(&mut self, call: CallNumber, entry: Bytes) {
        self.proposed.insert(call);
        self.ask(Ask::Propose { call, entry });
    }

    /// A call of another machine's Raft.
    pub fn called(&mut self, from: MachineId, call: CallNumber, body: Bytes) {
        self.ask(Ask::Called { from, call, body });
    }

    /// An answer of another machine's Raft.
    pub fn answered(&mut self, from: MachineId, call: CallNumber, body: Bytes) {
        self.calls.answered(from, call, body);
    }

    /// Nothing reaches a machine: what was said to it is not answered.
    pub fn unreachable(&mut self, machine: MachineId) {
        self.calls.lost(machine);
    }

    /// Raft wants something said to another machine: the frame that says it, unless too many calls wait for an answer.
    pub fn call(&mut self, call: Call) -> Option<Frame> {
        let (call, body) = self.calls.begin(call)?;
        Some(Frame::RaftCall { call, body })
    }

    /// The core took an input: other machines may be Raft's callers now.
    pub fn trust(&mut self, ledger: &Ledger) {
        let (Some(charter), Some(consensus)) = (&self.charter, &self.consensus) else { return };
        if self.trusted_at != Some(ledger.revision()) {
            self.trusted_at = Some(ledger.revision());
            consensus.trust(ledger.raft_callers(charter));
        }
    }

    /// What Raft tells, for the core.
    ///
    /// # Errors
    /// [`SeatError::Stopped`] when it broke.
    pub fn heard(&self, event: Event) -> Result<Option<Input>, SeatError> {
        Ok(Some(match event {
            // It stopped because it was asked to, and says the last of what it knew.
            _ if self.charter.is_none() => return Ok(None),
            Event::Stopped { why: None } => return Ok(None),
            Event::Stopped { why: Some(why) } => return Err(SeatError::Stopped(why)),
            Event::Restored { ledger, .. } => Input::Restored { ledger },
            Event::Applied { revision, entry } => Input::Applied { revision, entry },
            Event::Leading { term, leader } => Input::Leading { term, leader },
            Event::Members(members) => Input::Members(members),
        }))
    }

    /// Something that was to be run is done.
    pub fn done(&mut self, done: Done) {
        match done {
            Done::Election(Ok(())) => {}
            Done::Election(Err(why)) => tracing::warn!(%why, "no election can be called"),
            Done::Voters(changed) => {
                self.changing_voters = false;
                if let Err(why) = changed {
                    tracing::debug!(%why, "the voters are not changed yet");
                }
                if let Some(voters) = self.voters_wanted.take() {
                    self.set_voters(voters);
                }
            }
            Done::Proposed { call, outcome } => self.tell(call, outcome),
            Done::Called { from, call, answer: Ok(body) } => {
                self.then.push_back(Then::Send(from, Frame::RaftAnswer { call, body }));
            }
            Done::Called { from, answer: Err(why), .. } => tracing::debug!(%from, %why, "a Raft call is refused"),
        }
    }

    /// Voters and learners as this machine's Raft has them, while it runs.
    pub fn members(&self) -> Option<(BTreeSet<MachineId>, BTreeSet<MachineId>)> {
        Some(self.consensus.as_ref()?.members())
    }

    /// How many calls of others were refused, while Raft runs.
    pub fn refusals(&self) -> Option<&Refusals> {
        Some(self.consensus.as_ref()?.refusals())
    }

    fn ask(&mut self, ask: Ask) {
        match &self.consensus {
            Some(consensus) => self.then.push_back(Then::Run(Work::new(consensus.clone(), ask))),
            None if self.charter.is_some() && self.waiting.len() < WAITING_MAX => self.waiting.push(ask),
            None => self.refuse(ask),
        }
    }

    /// There is no Raft here, or too much waits for it.
    fn refuse(&mut self, ask: Ask) {
        match ask {
            Ask::Propose { call, .. } => self.tell(call, ProposalOutcome::NotLeading(None)),
            Ask::Voters(_) => self.changing_voters = false,
            // An election is asked for again, and a caller learns by its deadline.
            Ask::Election | Ask::Called { .. } => {}
        }
    }

    /// The outcome of a proposal, once.
    fn tell(&mut self, call: CallNumber, outcome: ProposalOutcome) {
        if self.proposed.remove(&call) {
            self.then.push_back(Then::Input(Input::Proposed { call, outcome }));
        }
    }
}

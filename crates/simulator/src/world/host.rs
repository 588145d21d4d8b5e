//! A machine as hardware: its disk, clock and power, and the process that runs the core while it is up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use muster_consensus::Seat;
use muster_consensus::seeded::Seeded;
use muster_kubeadm::{Place, Plan};
use muster_protocol::links::{Handshakes, Links};
use muster_protocol::{Effect, FormerAddresses, Input, Machine, Time};
use muster_wire::{Frame, MachineId};

use super::backups::Keeper;
use super::clock::Clock;
use super::disk::Disk;
use super::event::{At, LinkId, Slot};
use super::kubeadm::{Kube, Running};
use super::platter::Platter;
use super::raft::Voter;

/// Whether the process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Power {
    /// Not started, or stopped.
    Off,
    /// Runs.
    On,
    /// It would not start: its own words.
    Refuses(String),
}

/// What machines of other images, clusters and mesh keys cost a machine, whoever began it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Strange {
    /// Dials that reached the other end, and so the handshakes that were begun.
    pub(crate) dials: u64,
    /// Those after which a connection stood.
    pub(crate) connections: u64,
    /// Frames sent, and frames that came.
    pub(crate) frames: u64,
}

/// What the next write meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextWrite {
    CrashBefore,
    CrashAfter,
    Torn,
    Misdirected,
    Fails,
}

/// Most inputs that wait while the machine cannot take them; more are dropped, as full sockets would.
pub(crate) const INBOX_MAX: usize = 8_192;

/// One machine.
pub(crate) struct Host {
    pub(crate) slot: Slot,
    pub(crate) disk: Disk,
    /// The disk of its Raft state.
    pub(crate) platter: Platter,
    pub(crate) seat: Seat<Seeded>,
    /// What its Raft runs on, while it does.
    pub(crate) voter: Option<Box<Voter>>,
    pub(crate) clock: Clock,
    pub(crate) power: Power,
    /// Counts starts and stops; what was meant for an earlier life is dropped.
    pub(crate) life: u32,
    /// When its process was started last.
    pub(crate) up_since: At,
    pub(crate) machine: Option<Machine>,
    pub(crate) me: MachineId,
    /// The highest level of the ledger that its image knows.
    pub(crate) level: u32,
    pub(crate) identity_seed: [u8; 32],
    pub(crate) sealing_seed: [u8; 32],
    /// Whether its state file says that Raft's store was begun: the agent's own mark.
    pub(crate) raft_begun: bool,
    /// Effects that wait for a write.
    pub(crate) outbox: VecDeque<Effect>,
    /// Inputs that wait for the effects.
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) inbox_dropped: u64,
    pub(crate) writing: bool,
    pub(crate) paused: bool,
    /// Time that each input takes to handle.
    pub(crate) slow_us: At,
    pub(crate) busy: bool,
    pub(crate) wake_at: Option<At>,
    pub(crate) next_write: Option<NextWrite>,
    pub(crate) links: Links<LinkId, Frame>,
    pub(crate) links_at: Option<At>,
    pub(crate) handshakes: Handshakes,
    pub(crate) runs: BTreeMap<u64, Running>,
    pub(crate) kube: Kube,
    /// What muster makes of its kubeadm's version.
    pub(crate) plan: Option<Arc<Plan>>,
    /// Where its steps are taken, in this life.
    pub(crate) place: Option<Arc<Place>>,
    pub(crate) api_servers: Vec<String>,
    /// Which former addresses lead where.
    pub(crate) former: FormerAddresses,
    /// Which backups its device is to keep.
    pub(super) backups: Keeper,
    /// Faults that hold it down.
    pub(crate) held_down: u32,
    /// A fault has taken its assumption from it: votes may be forgotten, or told in two ways.
    pub(crate) excused: bool,
    /// It was wished away for good, and removed.
    pub(crate) dismissed: bool,
    /// An extra machine of a fault.
    pub(crate) extra: bool,
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    /// Of the frames, those of SWIM.
    pub(crate) sent_swim: u64,
    pub(crate) strange: Strange,
}

impl Host {
    pub(crate) fn new(slot: Slot, extra: bool, level: u32) -> Self {
        Self {
            slot,
            disk: Disk::new(),
            platter: Platter::default(),
            seat: Seat::new(MachineId::default()),
            voter: None,
            clock: Clock::new(0, 0),
            power: Power::Off,
            life: 0,
            up_since: 0,
            machine: None,
            me: MachineId::default(),
            level,
            identity_seed: [0; 32],
            sealing_seed: [0; 32],
            raft_begun: false,
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
            inbox_dropped: 0,
            writing: false,
            paused: false,
            slow_us: 0,
            busy: false,
            wake_at: None,
            next_write: None,
            links: Self::no_links(),
            links_at: None,
            handshakes: Handshakes::default(),
            runs: BTreeMap::new(),
            kube: Kube::default(),
            plan: None,
            place: None,
            api_servers: Vec::new(),
            former: FormerAddresses::default(),
            backups: Keeper::default(),
            held_down: 0,
            excused: false,
            dismissed: false,
            extra,
            sent: 0,
            sent_bytes: 0,
            sent_swim: 0,
            strange: Strange::default(),
        }
    }

    pub(crate) fn up(&self) -> bool {
        self.power == Power::On && !self.paused
    }

    /// Whether it can take an input now.
    pub(crate) fn free(&self) -> bool {
        !self.writing && !self.busy && !self.paused
    }

    /// The links of a machine whose process does not run.
    pub(crate) fn no_links() -> Links<LinkId, Frame> {
        Links::new(MachineId::default(), Vec::new(), 0, Time::default())
    }

    /// The process is gone, with all it had in memory.
    pub(crate) fn forget(&mut self) {
        self.life += 1;
        self.machine = None;
        self.voter = None;
        self.seat = Seat::new(self.me);
        self.outbox.clear();
        self.inbox.clear();
        self.writing = false;
        self.busy = false;
        self.paused = false;
        self.wake_at = None;
        self.handshakes = Handshakes::default();
        self.api_servers.clear();
        self.backups = Keeper::default();
        self.plan = None;
        self.place = None;
    }
}

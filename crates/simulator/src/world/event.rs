//! The event heap: what happens next, and in which order when at the same moment.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use muster_wire::{Frame, MachineId};

/// Microseconds of the world's own time since the start of the run.
pub type At = u64;

/// A machine by number: the hardware, whatever identity its disk holds.
pub type Slot = u32;

/// One thing that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// Power comes on.
    Boot { slot: Slot },
    /// The time for which the core asked.
    Wake { slot: Slot, life: u32 },
    /// A write is synced, or the CPU is free again.
    Continue { slot: Slot, life: u32 },
    /// A frame arrives over a connection.
    Deliver { to: Slot, link: LinkId, frame: Box<Frame> },
    /// Bytes arrive that were changed on the way.
    DeliverBytes { to: Slot, link: LinkId, bytes: Box<bytes::Bytes> },
    /// A dial succeeds or fails.
    Dialled { from: Slot, to: Slot, life: u32, number: u64, whom: Option<MachineId> },
    /// An end notices that its connection is dead, unless it works again.
    Silent { link: LinkId },
    /// The time for which a machine's links asked.
    Links { slot: Slot, life: u32 },
    /// Hints about other machines.
    Discover { slot: Slot, life: u32 },
    /// A kubeadm step goes on.
    Step { slot: Slot, life: u32, run: u64 },
    /// A kubelet registers its Node that kubeadm has started and not waited for.
    Registers { slot: Slot, cluster: usize, name: Box<str> },
    /// The unit of a kubelet, which began to ask then, asks its machine once more whether it may start.
    KubeletAsks { slot: Slot, begun: At },
    /// A copy of a backup comes, or is tried to be had.
    Backup { slot: Slot, life: u32 },
    /// Somebody asks a machine for something, as the scenario has it.
    Wish(usize),
    /// A fault of the plan begins.
    FaultBegins(usize),
    /// A proposal comes to Raft once more.
    ProposeAgain { slot: Slot, life: u32, fault: usize, entry: Box<bytes::Bytes> },
    /// A fault takes its next turn.
    FaultTurns(usize, u32),
    /// A fault ends.
    FaultEnds(usize),
    /// A timer of Raft's runtime.
    RaftTimer { slot: Slot, life: u32 },
    /// All faults end.
    Heal,
    /// Liveness is looked at.
    Look,
}

/// A connection, by place and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkId {
    pub(crate) place: u32,
    pub(crate) generation: u32,
}

#[derive(Debug)]
struct Entry {
    at: At,
    sequence: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    // Reversed, since the heap gives its greatest: the earliest comes first, and of one moment what was put in first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// The heap.
#[derive(Debug, Default)]
pub(crate) struct Events {
    heap: BinaryHeap<Entry>,
    sequence: u64,
}

impl Events {
    /// Lets `event` happen at `at`.
    pub(crate) fn push(&mut self, at: At, event: Event) {
        self.sequence += 1;
        self.heap.push(Entry { at, sequence: self.sequence, event });
    }

    /// Takes the next one, unless it lies after `end`.
    pub(crate) fn pop(&mut self, end: At) -> Option<(At, Event)> {
        if self.heap.peek()?.at > end {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

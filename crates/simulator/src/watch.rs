//! What is seen of a run: the event hash, the checkers, the "sometimes", and, when asked for, a trace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use muster_consensus::SeatError;
use muster_protocol::{Effect, Fate, Input, Machine, Notice, Step, StepFailure, StepOutput};
use muster_wire::{Attempt, Digest, Durable, Entry, Frame, MachineId, Revision, Wish};
use xxhash_rust::xxh3::xxh3_64;

use crate::check::{Broken, Checks};
use crate::scenario::{Fault, Scenario};
use crate::sometimes::Sometimes;
use crate::states::Site;
use crate::trace::Trace;
use crate::truth::Truth;
use crate::world::{At, Cluster, Lost, SealedTo, Slot, World};

/// One thing that happened in the world, as it happened. `slot` is the machine it happened on, `machine` its identity.
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant's line names what is in it")]
pub enum Seen<'a> {
    /// A process starts on this disk.
    Booting {
        slot: Slot,
        machine: MachineId,
        generation: u64,
        sealing_key: [u8; 32],
        durable: &'a Durable,
        image: Digest,
        level: u32,
    },
    /// A process would not start, or not go on: Raft's reason, if it was that, and the words of whatever it was.
    RefusedStart { slot: Slot, raft: Option<&'a SeatError>, why: &'a str },
    /// A process is gone.
    Stopped { slot: Slot },
    /// A synced write.
    Persisted { slot: Slot, machine: MachineId, durable: &'a Durable },
    /// A machine says something about founding or in Raft, which leaves at once, or once a connection stands.
    Said { slot: Slot, machine: MachineId, frame: &'a Frame },
    /// A frame leaves.
    Sent { slot: Slot, machine: MachineId, to: MachineId, to_slot: Slot, frame: &'a Frame, bytes: &'a [u8] },
    /// A machine turned another one away.
    Refused { slot: Slot, whom: MachineId, why: &'a str },
    /// Raft says who leads.
    Leads { slot: Slot, machine: MachineId, term: u64 },
    /// A machine's Raft is at this term.
    Term { slot: Slot, machine: MachineId, term: u64 },
    /// A frame that was changed on its way got past the signature of what is signed in it.
    Forged { slot: Slot, what: &'static str },
    /// A voter's Raft committed an entry.
    Applied { slot: Slot, machine: MachineId, revision: Revision, entry: &'a Bytes },
    /// A voter's Raft has the ledger as a whole.
    Restored { slot: Slot, machine: MachineId, revision: Revision },
    /// A secret was sealed; its ciphertext's hash.
    Sealed { hash: u64, to: SealedTo },
    /// A machine tells those on it where API servers are.
    Offered { slot: Slot, machine: MachineId, servers: &'a [String] },
    /// A private key or a token can be read where others may look.
    Exposed { slot: Slot, place: &'a str },
    /// kubeadm begins, on a machine that it has left its files on or not, of the cluster that is judged or of another one.
    StepBegan { slot: Slot, step: &'a Step, clean: bool, apart: bool },
    /// kubeadm ends.
    StepEnded { slot: Slot, step: &'a Step, result: &'a Result<StepOutput, StepFailure> },
    /// An init made a cluster, in truth.
    Initialised { slot: Slot, attempt: Attempt },
    /// A machine joined a cluster, in truth.
    JoinedKube { slot: Slot, cluster: &'a Cluster },
    /// An etcd member is being added while `others` are.
    EtcdAdding { slot: Slot, others: usize },
    /// kubeadm adds an etcd member, in the turn that its machine was given or not; etcd lists these machines then.
    EtcdAdded { slot: Slot, in_turn: bool, members: &'a BTreeSet<Slot> },
    /// etcd begins on an empty directory of a founder of this attempt.
    EtcdBegun { slot: Slot, attempt: Attempt },
    /// A majority of an attempt's founders that know of no cluster begin one; there was one before or not.
    EtcdFormed { slot: Slot, attempt: Attempt, before: bool },
    /// A founder of the attempt `own` comes to the cluster of the attempt `of`.
    EtcdMet { slot: Slot, own: Attempt, of: Attempt },
    /// With whom etcd began goes into what every later member is given.
    EtcdListUploaded { slot: Slot },
    /// A machine had etcd strike the member of `gone` off; a majority of the others works, or not.
    EtcdLeft { slot: Slot, gone: Slot, stands: bool },
    /// A machine rebuilt the cluster from its ledger, which is at this revision then. Somebody that it could ask had a ledger of `known`.
    Rebuilt { slot: Slot, revision: Revision, known: Revision },
    /// A kubelet is started on a member of etcd of a cluster that was given up. A machine of the one that counts could be met, or not.
    OldEtcdStarts { slot: Slot, warned: bool },
    /// A kubelet is started whose machine says nothing, after it was asked for as long as that takes.
    KubeletUnheard { slot: Slot },
    /// A machine answers what was wished of it.
    Answered { slot: Slot, wish: &'a Wish, fate: &'a Fate },
    /// A backup is on a machine's disk, whole.
    BackupWritten { slot: Slot, machine: MachineId, digest: Digest },
    /// People are told.
    Notice { slot: Slot, notice: &'a Notice },
    /// A fault begins.
    FaultBegins { index: usize, fault: &'a Fault, targets: &'a [Slot] },
    /// A fault ends.
    FaultEnds { index: usize },
    /// A disk was copied to another machine.
    Copied { copy: Slot, original: Slot },
    /// A file of a disk is no longer as it was written.
    Damaged { slot: Slot },
    /// Raft's file is gone, in which its votes were.
    LogGone { slot: Slot },
    /// A disk lost what it had promised to keep.
    Forgot { slot: Slot },
    /// A machine answers two ways from now on.
    TwoFaced { slot: Slot },
    /// A disk is empty.
    Wiped { slot: Slot },
    /// A machine that was removed forgot who it was, to start again as another.
    Renewed { slot: Slot },
    /// A Node is to be drained, and holds no Pod any more that could be moved.
    Drained { slot: Slot, node: &'a str },
    /// A Node is deleted by another machine.
    NodeTaken { slot: Slot, node: &'a str },
    /// Time no longer passes, so much happens at once; the last of it.
    Livelock { last: String },
    /// All faults have ended.
    Healed,
}

/// The observer of one run.
#[derive(Default)]
pub struct Watch {
    /// The world's time.
    pub now: At,
    hash: u64,
    /// States reached.
    pub sometimes: Sometimes,
    /// What is true.
    pub truth: Truth,
    /// The checkers.
    pub checks: Checks,
    /// The states that the site came to.
    pub(crate) site: Site,
    lost: BTreeMap<Lost, u64>,
    /// The trace, if one is wanted.
    pub trace: Option<Trace>,
    stop_when_held: bool,
}

impl Watch {
    /// With a trace.
    pub fn traced(trace: Trace) -> Self {
        Self { trace: Some(trace), ..Self::default() }
    }

    pub(crate) fn begin(&mut self, scenario: &Scenario, slots: Slot) {
        self.stop_when_held = scenario.phases.stop_when_held;
        self.truth.begin(scenario);
        self.checks.begin(scenario, &self.truth, slots);
    }

    /// Digest of everything that happened, in order.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// What was broken first.
    pub fn broken_promise(&self) -> Option<&Broken> {
        self.checks.broken()
    }

    pub(crate) fn broken(&self) -> bool {
        self.checks.broken().is_some()
    }

    pub(crate) fn held_early(&self) -> bool {
        self.stop_when_held && self.checks.liveness.all_held()
    }

    /// Frames that did not arrive, by reason.
    pub fn frames_lost(&self) -> &BTreeMap<Lost, u64> {
        &self.lost
    }

    pub(crate) fn leader(&self) -> Option<MachineId> {
        self.truth.leader
    }

    pub(crate) fn initialiser(&self) -> Option<MachineId> {
        self.truth.claim.map(|(_, machine)| machine)
    }

    pub(crate) fn control_planes(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.truth.control_planes.iter().copied()
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    pub(crate) fn lost(&mut self, why: Lost) {
        *self.lost.entry(why).or_default() += 1;
        self.sometimes.reached(if why == Lost::Corrupt { "frame-corrupt" } else { "frame-dropped" });
    }

    pub(crate) fn see(&mut self, now: At, seen: &Seen<'_>) {
        self.mix(now);
        self.mix(digest(seen));
        self.truth.see(now, seen, &mut self.sometimes);
        self.checks.see(now, seen, &self.truth, &mut self.sometimes);
        self.site.see(now, seen, &self.truth);
        if let Some(trace) = &mut self.trace {
            trace.see(now, seen);
        }
    }

    pub(crate) fn delivered(&mut self, now: At, to: Slot) {
        self.mix(now ^ u64::from(to) << 48);
    }

    /// A frame was sent; it arrives at these times, or never.
    pub(crate) fn on_its_way(&mut self, now: At, from: Slot, to: Slot, kind: &'static str, arrivals: &[(At, bool)]) {
        if let Some(trace) = &mut self.trace {
            trace.frames.sent(now, from, to, kind, arrivals.first().map(|(at, _)| *at));
        }
    }

    pub(crate) fn before(&mut self, now: At, slot: Slot, machine: &Machine, input: &Input) {
        self.checks.before(now, slot, machine, input, &self.truth);
    }

    pub(crate) fn after(&mut self, now: At, slot: Slot, machine: &Machine, effects: &VecDeque<Effect>) {
        self.mix(effects.len() as u64);
        self.checks.after(now, slot, machine, effects, &self.truth, &mut self.sometimes);
        self.site.after(now, slot, machine, &self.truth);
    }

    pub(crate) fn look(&mut self, world: &World) {
        self.checks.look(world, &self.truth, &mut self.sometimes);
    }

    pub(crate) fn end(&mut self, world: &World) {
        self.checks.end(world, &self.truth);
    }
}

/// What the hash takes of it.
fn digest(seen: &Seen<'_>) -> u64 {
    let numbered = |kind: u64, slot: Slot, more: u64| (kind << 56 ^ u64::from(slot) << 32).wrapping_add(more);
    match seen {
        Seen::Sent { slot, to_slot, bytes, .. } => numbered(1, *slot, xxh3_64(bytes)) ^ u64::from(*to_slot) << 8,
        Seen::Persisted { slot, durable, .. } => numbered(2, *slot, xxh3_64(&durable.encode())),
        Seen::Applied { slot, revision, entry, .. } => numbered(3, *slot, xxh3_64(entry)) ^ revision.0,
        Seen::StepBegan { slot, step, .. } => numbered(4, *slot, xxh3_64(step.name().as_bytes())),
        Seen::StepEnded { slot, step, result } => {
            numbered(5, *slot, xxh3_64(step.name().as_bytes())) ^ u64::from(result.is_ok())
        }
        Seen::Notice { slot, notice } => numbered(6, *slot, xxh3_64(notice.text.as_bytes())),
        Seen::Booting { slot, machine, .. } => numbered(7, *slot, xxh3_64(&machine.0)),
        Seen::Stopped { slot } => numbered(8, *slot, 0),
        Seen::Leads { slot, term, .. } => numbered(9, *slot, *term),
        Seen::Term { slot, term, .. } => numbered(24, *slot, *term),
        Seen::Forged { slot, .. } => numbered(25, *slot, 0),
        Seen::FaultBegins { index, .. } => numbered(10, 0, *index as u64),
        Seen::FaultEnds { index } => numbered(11, 0, *index as u64),
        Seen::RefusedStart { slot, .. } => numbered(12, *slot, 0),
        Seen::Refused { slot, whom, .. } => numbered(13, *slot, xxh3_64(&whom.0)),
        Seen::Sealed { hash, .. } => numbered(14, 0, *hash),
        Seen::Initialised { slot, attempt } => numbered(15, *slot, u64::from(attempt.0)),
        Seen::JoinedKube { slot, cluster } => numbered(16, *slot, u64::from(cluster.attempt.0)),
        Seen::EtcdAdding { slot, others } => numbered(17, *slot, *others as u64),
        Seen::EtcdAdded { slot, in_turn, .. } => numbered(30, *slot, u64::from(*in_turn)),
        Seen::EtcdBegun { slot, attempt } => numbered(35, *slot, u64::from(attempt.0)),
        Seen::EtcdFormed { slot, attempt, .. } => numbered(36, *slot, u64::from(attempt.0)),
        Seen::EtcdMet { slot, of, .. } => numbered(37, *slot, u64::from(of.0)),
        Seen::EtcdListUploaded { slot } => numbered(38, *slot, 0),
        Seen::EtcdLeft { slot, gone, .. } => numbered(31, *slot, u64::from(*gone)),
        Seen::Copied { copy, original } => numbered(18, *copy, u64::from(*original)),
        Seen::Forgot { slot } => numbered(19, *slot, 0),
        Seen::TwoFaced { slot } => numbered(26, *slot, 0),
        Seen::Said { slot, frame, .. } => numbered(27, *slot, xxh3_64(frame.kind().as_bytes())),
        Seen::Exposed { slot, .. } => numbered(28, *slot, 0),
        Seen::Offered { slot, servers, .. } => numbered(29, *slot, servers.len() as u64),
        Seen::Wiped { slot } => numbered(20, *slot, 0),
        Seen::Damaged { slot } => numbered(32, *slot, 0),
        Seen::LogGone { slot } => numbered(33, *slot, 0),
        Seen::Answered { slot, fate, .. } => numbered(34, *slot, xxh3_64(format!("{fate:?}").as_bytes())),
        Seen::Renewed { slot } => numbered(39, *slot, 0),
        Seen::Rebuilt { slot, revision, .. } => numbered(42, *slot, revision.0),
        Seen::OldEtcdStarts { slot, warned } => numbered(43, *slot, u64::from(*warned)),
        Seen::KubeletUnheard { slot } => numbered(90, *slot, 0),
        Seen::BackupWritten { slot, digest, .. } => numbered(44, *slot, xxh3_64(&digest.0)),
        Seen::Drained { slot, node } => numbered(40, *slot, xxh3_64(node.as_bytes())),
        Seen::NodeTaken { slot, node } => numbered(41, *slot, xxh3_64(node.as_bytes())),
        Seen::Healed => 21,
        Seen::Livelock { .. } => 22,
        Seen::Restored { slot, revision, .. } => numbered(23, *slot, revision.0),
    }
}

/// What an entry is, if it is one.
pub(crate) fn decode(entry: &Bytes) -> Option<Entry> {
    Entry::decode(entry.clone()).ok()
}

/// A set of machines as people read it.
pub(crate) fn list(machines: &BTreeSet<MachineId>) -> String {
    machines.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

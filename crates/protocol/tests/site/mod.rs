//! A site of machines for transcripts: an ideal network, a disk that keeps everything, and one shared log in place of
//! Raft. Faults belong in the simulator; here every message is seen and in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use muster_protocol::{
    Boot, Effect, Effects, FormerAddresses, Input, Machine, ManifestOutcome, ManifestResult, NextEpoch, RaftMembers,
    RunId, Step, StepFailure, StepOutput, Time, Tuning, WantedBackup,
};
use muster_wire::entry::Sealed;
use muster_wire::frame::ProposalOutcome;
use muster_wire::{CallNumber, Digest, Durable, Entry, Frame, Identity, MachineId, Revision, Settings, level};

use trace::{Topic, Trace};

pub(crate) mod trace;

/// One machine and its surroundings.
pub(crate) struct Seat {
    pub(crate) machine: Machine,
    pub(crate) durable: Durable,
    pub(crate) notices: Vec<String>,
    pub(crate) raft: bool,
    pub(crate) running: BTreeMap<RunId, Step>,
    applied: usize,
}

/// The site.
pub(crate) struct Site {
    pub(crate) now: Time,
    pub(crate) seats: BTreeMap<usize, Seat>,
    pub(crate) settings: Settings,
    pub(crate) transcript: Vec<String>,
    /// What a transcript shows.
    pub(crate) trace: Trace,
    /// Steps that fail, by seat and step name, once each.
    pub(crate) fail: BTreeSet<(usize, &'static str)>,
    /// Steps that are never answered.
    pub(crate) hang: BTreeSet<(usize, &'static str)>,
    /// How many frames of a kind are lost from now on.
    pub(crate) lose: BTreeMap<&'static str, usize>,
    /// How many objects the image's manifests have.
    pub(crate) manifests: u32,
    /// What comes of those that are not just applied.
    pub(crate) outcomes: BTreeMap<u32, ManifestOutcome>,
    /// Who applied what, and when.
    pub(crate) applied: Vec<(usize, Time, Vec<u32>)>,
    /// What machines list as their addresses, if not the one of their seat.
    pub(crate) listed: BTreeMap<usize, Vec<String>>,
    /// Where others reach a machine, if not at the address of its seat.
    pub(crate) stands: BTreeMap<usize, IpAddr>,
    /// Machines whose image is for another cluster.
    pub(crate) clusters: BTreeMap<usize, &'static str>,
    /// What each machine's endpoint means to it.
    pub(crate) endpoints: BTreeMap<usize, IpAddr>,
    /// The levels of the ledger that machines know, if not all that there are.
    pub(crate) levels: BTreeMap<usize, u32>,
    /// Who refused whom, and what the refusing one's disk held at that moment.
    pub(crate) refused: Vec<(usize, MachineId, Durable)>,
    /// Whom the cluster was rebuilt without, and how long the log was: their Raft goes no further.
    rebuilt: Option<(BTreeSet<MachineId>, usize)>,
    /// Who was told of former addresses.
    former: BTreeSet<usize>,
    /// The backups on disks, by number.
    pub(crate) backups: BTreeMap<usize, BTreeMap<u32, Digest>>,
    /// Machines that are to start again as others.
    pub(crate) renewed: Vec<usize>,
    /// Whether a refused machine is cut off; if not, it is heard of as through others.
    pub(crate) refusal_cuts: bool,
    ids: BTreeMap<MachineId, BTreeSet<usize>>,
    /// Who was told of a connection to whom: what is sent before is lost, as by the mesh.
    connected: BTreeSet<(usize, MachineId)>,
    log: Vec<Bytes>,
    leader: Option<usize>,
    queue: VecDeque<(usize, Input)>,
    boots: u8,
}

pub(crate) fn settings(machines: u32, control_planes: u32) -> Settings {
    Settings {
        machines,
        control_planes,
        durable: true,
        kubernetes_version: "v1.31.4".into(),
        digest: Digest::of("test", &[&machines.to_be_bytes()]),
    }
}

pub(crate) fn seed(seat: usize) -> [u8; 32] {
    [seat as u8 + 1; 32]
}

impl Site {
    pub(crate) fn new(machines: u32, control_planes: u32) -> Self {
        Self {
            now: Time(1_000_000),
            seats: BTreeMap::new(),
            settings: settings(machines, control_planes),
            transcript: Vec::new(),
            trace: Trace { begun: Time(1_000_000), ..Trace::default() },
            fail: BTreeSet::new(),
            hang: BTreeSet::new(),
            lose: BTreeMap::new(),
            manifests: 0,
            outcomes: BTreeMap::new(),
            applied: Vec::new(),
            listed: BTreeMap::new(),
            stands: BTreeMap::new(),
            clusters: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            levels: BTreeMap::new(),
            refused: Vec::new(),
            rebuilt: None,
            former: BTreeSet::new(),
            backups: BTreeMap::new(),
            renewed: Vec::new(),
            refusal_cuts: true,
            ids: BTreeMap::new(),
            connected: BTreeSet::new(),
            log: Vec::new(),
            leader: None,
            queue: VecDeque::new(),
            boots: 0,
        }
    }

    /// Gives a machine an input of a device's.
    pub(crate) fn feed(&mut self, seat: usize, input: Input) {
        self.queue.push_back((seat, input));
    }

    pub(crate) fn id(&self, seat: usize) -> MachineId {
        self.seats[&seat].machine.id()
    }

    pub(crate) fn boot(&mut self, seat: usize) {
        let settings = self.settings.clone();
        self.boot_with(seat, Durable::default(), settings, &format!("node-{seat}"));
    }

    /// The settings of another image for the same cluster.
    pub(crate) fn other_settings(&self) -> Settings {
        Settings {
            kubernetes_version: "v1.32.0".into(),
            digest: Digest::of("another image", &[]),
            ..self.settings.clone()
        }
    }

    pub(crate) fn boot_with(&mut self, seat: usize, durable: Durable, settings: Settings, hostname: &str) {
        self.boot_as(seat, seat, durable, settings, hostname);
    }

    /// Boots a machine whose disk is a copy of another seat's, if `identity` differs from `seat`.
    pub(crate) fn boot_as(
        &mut self,
        seat: usize,
        identity: usize,
        durable: Durable,
        settings: Settings,
        hostname: &str,
    ) {
        self.boots += 1;
        let mut random = [self.boots; 32];
        random[1] = seat as u8;
        let boot = Boot {
            identity: Identity::from_seed(&seed(identity)),
            sealing_key: [9; 32],
            durable,
            cluster: self.clusters.get(&seat).copied().unwrap_or("site").into(),
            settings,
            hostname: hostname.into(),
            addresses: self.listed.get(&seat).cloned().unwrap_or_else(|| vec![format!("10.0.0.{}:7390", seat + 1)]),
            api_port: 6443,
            fingerprint: Digest::of("hardware", &[hostname.as_bytes()]),
            seed: random,
            manifests: self.manifests,
            level: self.levels.get(&seat).copied().unwrap_or(level::KNOWN),
            raft_begun: false,
            tuning: Tuning::default(),
        };
        let mut effects = Effects::default();
        let machine = Machine::new(boot, self.now, &mut effects).expect("starts");
        self.ids.entry(machine.id()).or_default().insert(seat);
        let name = format!("m{seat}{}", if identity == seat { "" } else { "'" });
        self.trace.names.insert(machine.id(), name);
        let durable = Durable::default();
        let seat_of = Seat { machine, durable, notices: Vec::new(), raft: false, running: BTreeMap::new(), applied: 0 };
        self.seats.insert(seat, seat_of);
        self.carry_out(seat, effects);
        let others: Vec<usize> = self.seats.keys().copied().filter(|other| *other != seat).collect();
        for other in others {
            let (me, them) = (self.id(seat), self.id(other));
            // A copied identity is never connected to itself: it would have to authenticate as its own peer.
            if me == them {
                continue;
            }
            let own = |seat: usize| IpAddr::from([10, 0, 0, seat as u8 + 1]);
            let at = |seat: usize| self.stands.get(&seat).copied().unwrap_or_else(|| own(seat));
            self.queue.push_back((seat, Input::Reached { machine: them, address: at(other) }));
            self.queue.push_back((other, Input::Reached { machine: me, address: at(seat) }));
            self.queue.push_back((seat, Input::Connected(them)));
            self.queue.push_back((other, Input::Connected(me)));
        }
    }

    /// Pulls the plug. The disk stays.
    pub(crate) fn kill(&mut self, seat: usize) -> Durable {
        let gone = self.id(seat);
        let seat_of = self.seats.remove(&seat).expect("is there");
        self.queue.retain(|(to, _)| *to != seat);
        self.connected.retain(|(from, to)| *from != seat && *to != gone);
        for other in self.seats.keys() {
            self.queue.push_back((*other, Input::Disconnected(gone)));
        }
        if self.leader == Some(seat) {
            self.leader = None;
            self.elect();
        }
        seat_of.durable
    }

    /// What one machine sends another one is lost from now on, with every connection as it was.
    pub(crate) fn mute(&mut self, from: usize, to: usize) {
        let to = self.id(to);
        self.connected.remove(&(from, to));
    }

    fn cut(&mut self, seat: usize, peer: MachineId) {
        let me = self.id(seat);
        self.connected.remove(&(seat, peer));
        self.queue.push_back((seat, Input::Disconnected(peer)));
        for other in self.ids.get(&peer).into_iter().flatten().copied().filter(|other| self.seats.contains_key(other)) {
            self.connected.remove(&(other, me));
            self.queue.push_back((other, Input::Disconnected(me)));
        }
    }

    fn elect(&mut self) {
        if self.leader.is_none() {
            self.leader = self.seats.iter().find(|(_, seat)| seat.raft).map(|(seat, _)| *seat);
        }
        let Some(leader) = self.leader else { return };
        let leader = self.id(leader);
        let lost = |number: &usize| self.rebuilt.as_ref().is_some_and(|(lost, _)| lost.contains(&self.id(*number)));
        let led: Vec<usize> =
            self.seats.iter().filter(|(number, seat)| seat.raft && !lost(number)).map(|(number, _)| *number).collect();
        for seat in led {
            self.queue.push_back((seat, Input::Leading { term: 1, leader: Some(leader) }));
        }
    }

    /// From here on it alone votes, and what it had is the log.
    fn rebuild(&mut self, seat: usize, known: &[u8], next: NextEpoch) {
        let known = muster_protocol::Ledger::decode(known, muster_wire::level::KNOWN).expect("decodes");
        let lost = known.planes_beside(self.id(seat)).into_iter().collect();
        let rebuilt = known.rebuilt(self.id(seat), next).expect("is rebuilt");
        let ledger = rebuilt.encode().into();
        self.trace.ledger = Some(rebuilt);
        let voters = std::collections::BTreeSet::from([self.id(seat)]);
        self.seats.get_mut(&seat).expect("is there").raft = true;
        self.leader = Some(seat);
        self.rebuilt = Some((lost, self.log.len()));
        // The ledger's own step has a place in the log, and no entry.
        self.log.push(Bytes::new());
        self.seats.get_mut(&seat).expect("is there").applied = self.log.len();
        self.queue.push_back((seat, Input::Restored { ledger }));
        self.queue.push_back((seat, Input::Members(RaftMembers { all: voters.clone(), votes: voters })));
        self.queue.push_back((seat, Input::Leading { term: 1 << 20, leader: Some(self.id(seat)) }));
    }

    fn carry_out(&mut self, seat: usize, mut effects: Effects) {
        for effect in effects.drain() {
            self.trace.effect(self.now, seat, &effect, &self.seats[&seat].durable);
            match effect {
                Effect::Persist(durable) => self.seats.get_mut(&seat).expect("is there").durable = durable,
                Effect::Send { to, frame } => self.deliver(seat, to, frame),
                Effect::StartRaft { .. } => {
                    self.seats.get_mut(&seat).expect("is there").raft = true;
                    if self.leader.is_some() {
                        self.elect();
                    }
                }
                Effect::RebuildRaft { known, next, .. } => self.rebuild(seat, &known, next),
                Effect::CallElection => self.elect(),
                Effect::Propose { call, entry } => self.propose(seat, call.0, &entry),
                Effect::Run { run, step } => self.run_step(seat, run, step),
                Effect::Abort { run } => {
                    let result = Err(StepFailure { step: "step", phase: None, why: "aborted".into(), hopeless: false });
                    self.queue.push_back((seat, Input::Finished { run, result }));
                }
                Effect::Notice(notice) => {
                    if notice.kind != muster_protocol::NoticeKind::Phase {
                        self.transcript.push(format!("{seat}: {}", notice.text));
                    }
                    self.seats.get_mut(&seat).expect("is there").notices.push(notice.text);
                }
                Effect::Renew => self.renewed.push(seat),
                Effect::StopRaft => self.seats.get_mut(&seat).expect("is there").raft = false,
                // A refused machine is cut off, and not dialled again while a transcript lasts.
                Effect::Refuse { machine, .. } => {
                    self.refused.push((seat, machine, self.seats[&seat].durable.clone()));
                    if self.refusal_cuts {
                        self.cut(seat, machine);
                    }
                }
                Effect::Endpoint(address) => drop(self.endpoints.insert(seat, address)),
                Effect::Answer { fate, .. } => {
                    self.trace.say(self.now, Topic::Ledger, seat, &format!("answers {fate:?}"));
                }
                Effect::Former(former) => {
                    let routes =
                        former.routes.iter().map(|(joined, at)| format!(" {joined}->{at}")).collect::<String>();
                    let own = former.own.map(|own| format!(" own {own}")).unwrap_or_default();
                    if former != FormerAddresses::default() || self.former.contains(&seat) {
                        self.former.insert(seat);
                        self.trace.say(self.now, Topic::Steps, seat, &format!("former addresses:{own}{routes}"));
                    }
                }
                Effect::KeepBackups { last, wanted } => self.keep(seat, last, &wanted),
                Effect::SetVoters(voters) => {
                    self.seats.iter().filter(|(_, seat)| seat.raft).for_each(|(seat, _)| {
                        self.queue.push_back((
                            *seat,
                            Input::Members(RaftMembers { all: voters.clone(), votes: voters.clone() }),
                        ));
                    });
                }
                Effect::Learn { .. } | Effect::ApiServers(_) => {}
            }
        }
    }

    /// Copies come at once from any machine that is there and has them.
    fn keep(&mut self, seat: usize, last: u32, wanted: &[WantedBackup]) {
        let lists =
            |has: &BTreeMap<u32, Digest>, wanted: &WantedBackup| has.get(&wanted.number) == Some(&wanted.digest);
        let there = |machine: &MachineId| {
            let seats = self.ids.get(machine).into_iter().flatten().filter(|seat| self.seats.contains_key(*seat));
            seats.copied().collect::<Vec<_>>()
        };
        let mut own = self.backups.get(&seat).cloned().unwrap_or_default();
        own.retain(|number, _| *number > last || wanted.iter().any(|wanted| wanted.number == *number));
        for one in wanted {
            let mut from = one.from.iter().flat_map(there);
            if from.any(|other| self.backups.get(&other).is_some_and(|has| lists(has, one))) {
                own.insert(one.number, one.digest);
            }
        }
        self.queue.push_back((seat, Input::Backups(own.values().copied().collect())));
        self.backups.insert(seat, own);
    }

    fn deliver(&mut self, from: usize, to: MachineId, frame: Frame) {
        if !self.connected.contains(&(from, to)) {
            return;
        }
        if let Some(left) = self.lose.get_mut(frame.kind()).filter(|left| **left > 0) {
            *left -= 1;
            return;
        }
        // Through the codec, as on a real wire.
        let frame = Frame::decode(frame.encode().into()).expect("what is sent decodes");
        let from = self.id(from);
        for to in self.ids.get(&to).into_iter().flatten().filter(|to| self.seats.contains_key(*to)) {
            self.queue.push_back((*to, Input::Received { from, frame: frame.clone() }));
        }
    }

    fn propose(&mut self, seat: usize, call: u64, entry: &Entry) {
        let outcome = if self.leader == Some(seat) {
            self.log.push(entry.encode());
            if let Some(charter) = self.seats[&seat].machine.charter() {
                self.trace.committed(self.now, seat, charter.charter(), self.log.len() as u64, entry);
            }
            ProposalOutcome::Applied(Revision(self.log.len() as u64))
        } else {
            ProposalOutcome::NotLeading(None)
        };
        self.queue.push_back((seat, Input::Proposed { call: CallNumber(call), outcome }));
    }

    fn run_step(&mut self, seat: usize, run: RunId, step: Step) {
        let name = step.name();
        self.seats.get_mut(&seat).expect("is there").running.insert(run, step.clone());
        if self.hang.contains(&(seat, name)) {
            self.trace.say(self.now, Topic::Steps, seat, &format!("{name} hangs"));
            return;
        }
        let result = if self.fail.remove(&(seat, name)) {
            self.trace.say(self.now, Topic::Steps, seat, &format!("{name} fails"));
            Err(StepFailure { step: name, phase: None, why: "told to fail".into(), hopeless: false })
        } else {
            Ok(self.output(seat, step))
        };
        self.queue.push_back((seat, Input::Finished { run, result }));
    }

    fn output(&mut self, seat: usize, step: Step) -> StepOutput {
        let ca_hash = Digest::of("ca", &[]);
        let seal = |machine: MachineId| Sealed { machine, ciphertext: Bytes::from_static(b"sealed") };
        match step {
            Step::Check { .. } => StepOutput::Checked { version: "v1.31.4".into(), worker_only: None },
            Step::MakePki { recipients, .. } => {
                StepOutput::PkiMade { ca_hash, sealed: recipients.iter().map(|one| seal(one.machine)).collect() }
            }
            Step::SealPki { recipient, .. } => StepOutput::PkiMade { ca_hash, sealed: vec![seal(recipient.machine)] },
            Step::IssueTicket { .. } => StepOutput::Ticket { ciphertext: Bytes::from_static(b"sealed") },
            Step::InitCluster { .. } => {
                StepOutput::Initialised { ca_hash, endpoints: vec![format!("10.0.0.{}:6443", seat + 1)] }
            }
            Step::BackUp { number, .. } => {
                let digest = Digest::of("backup", &[&number.to_be_bytes(), &[seat as u8]]);
                let own = self.backups.entry(seat).or_default();
                own.insert(number, digest);
                self.queue.push_back((seat, Input::Backups(own.values().copied().collect())));
                StepOutput::BackedUp { taken_s: 1_790_000_000, revision: 100, bytes: 1_000, digest }
            }
            Step::ApplyManifests { objects } => {
                self.applied.push((seat, self.now, objects.clone()));
                let outcome = |object| self.outcomes.get(&object).cloned().unwrap_or(ManifestOutcome::Applied);
                let result = |object| ManifestResult { object, outcome: outcome(object) };
                StepOutput::Manifests(objects.into_iter().map(result).collect())
            }
            _ => StepOutput::Done,
        }
    }

    /// Runs for `time` of the site's clock.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now <= end {
            self.run_queue();
            let wakeups = self.seats.iter().filter_map(|(seat, one)| Some((one.machine.next_wakeup()?.0, *seat)));
            let Some((due, seat)) = wakeups.min() else { break };
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            self.queue.push_back((seat, Input::Wake));
        }
        self.run_queue();
        for seat in std::mem::take(&mut self.renewed) {
            self.trace.say(self.now, Topic::Ledger, seat, "starts again as another machine");
            self.kill(seat);
            let settings = self.settings.clone();
            self.boot_as(seat, seat + 100, Durable::default(), settings, &format!("node-{seat}"));
        }
        self.now = end;
    }

    fn run_queue(&mut self) {
        let mut steps = 0;
        loop {
            while let Some((seat, input)) = self.queue.pop_front() {
                steps += 1;
                assert!(steps < 100_000, "the site does not come to rest at {}", self.now);
                // Every millisecond a thousand inputs at most: time goes on even in a burst.
                self.now = self.now + Duration::from_micros(1);
                let Some(one) = self.seats.get_mut(&seat) else { continue };
                if let Input::Connected(peer) = &input {
                    self.connected.insert((seat, *peer));
                }
                let mut effects = Effects::default();
                one.machine.handle(self.now, input, &mut effects);
                self.carry_out(seat, effects);
            }
            let ids: BTreeMap<usize, MachineId> = self.seats.keys().map(|number| (*number, self.id(*number))).collect();
            let fresh: Vec<(usize, u64, Bytes)> = self
                .seats
                .iter_mut()
                .filter(|(number, seat)| {
                    let end = match &self.rebuilt {
                        Some((lost, end)) if lost.contains(&ids[*number]) => *end,
                        _ => self.log.len(),
                    };
                    seat.raft && seat.applied < end
                })
                .map(|(seat, one)| {
                    one.applied += 1;
                    (*seat, one.applied as u64, self.log[one.applied - 1].clone())
                })
                .collect();
            if fresh.is_empty() {
                return;
            }
            for (seat, revision, entry) in fresh {
                self.queue.push_back((seat, Input::Applied { revision: Revision(revision), entry }));
            }
        }
    }

    /// Whether all machines are Ready under one charter.
    pub(crate) fn formed(&self) -> bool {
        let charters: BTreeSet<_> =
            self.seats.values().map(|seat| seat.machine.charter().map(|one| one.charter().id)).collect();
        charters.len() == 1 && self.seats.values().all(|seat| seat.machine.phase() == muster_protocol::Phase::Ready)
    }
}

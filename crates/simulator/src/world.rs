//! The world: machines, network, disks, clocks and kubeadm in virtual time, one thread a seed.

mod asks;
mod backups;
mod chance;
mod clock;
mod connect;
mod disk;
mod effect;
mod etcd;
mod event;
mod faults;
mod host;
mod http;
mod kubeadm;
mod liar;
mod network;
mod platter;
mod process;
mod program;
mod raft;
mod signed;
mod stray;
mod wishes;

use std::collections::BTreeMap;

use muster_protocol::{BackupPlan, Effects, Input, Machine, Phase, Tuning};
use muster_wire::{Digest, MachineId, Settings, level};

pub(crate) use disk::COPIES_KEPT;
pub use event::{At, Slot};
pub use host::Power;
pub(crate) use host::{Host, Strange};
pub use kubeadm::{Cluster, SealedTo};
pub use network::Lost;

use crate::reach::Fared;
use crate::scenario::{Differs, Fault, Other, Policy, Scenario, Sort, plan};
use crate::truth::Truth;
use crate::watch::{Seen, Watch};
use chance::{Chance, S, seconds};
use connect::Link;
use event::{Event, Events};
use faults::Active;
use kubeadm::Site;
use network::Net;

/// The Kubernetes version of the image.
pub(crate) const KUBERNETES: &str = "v1.31.4";
/// The cluster's name in the image.
pub(crate) const CLUSTER: &str = "site";
const PORT: u16 = 7390;
/// How often an agent looks at what lies on its machine.
const AGENT_LOOKS: At = 60_000_000;
/// How often what no single event shows is looked at, and after heal liveness.
const LOOK_EVERY: At = 500_000;
/// More events than this at one moment mean that machines keep each other busy without time passing.
const AT_ONCE_MAX: u64 = 200_000;

/// One run's world.
pub struct World {
    pub(crate) scenario: Scenario,
    pub(crate) plan: Vec<Fault>,
    pub(crate) now: At,
    events: Events,
    chance: Chance,
    pub(crate) hosts: Vec<Host>,
    /// Machines without power or standing still: nothing on them answers.
    dark: Vec<bool>,
    net: Net,
    links: Vec<Option<Link>>,
    free_links: Vec<u32>,
    link_generation: u32,
    directory: BTreeMap<MachineId, Slot>,
    pub(crate) site: Site,
    /// What every image brings.
    manifests: muster_kubeadm::Manifests,
    active: Vec<Active>,
    /// How much of a step is still done that does not come to its end.
    cut: Option<u32>,
    /// How the faults of the plan fared, in its order.
    fared: Vec<Fared>,
    pub(crate) watch: Watch,
    effects: Effects,
    pub(crate) healed: Option<At>,
    end: At,
    /// The intervals that every machine goes by.
    pub(crate) tuning: Tuning,
    /// What was wished, by its place in the scenario.
    asked: BTreeMap<usize, muster_wire::Wish>,
    /// Events handled.
    pub(crate) handled: u64,
    /// Events handled at this very moment.
    at_once: u64,
}

impl World {
    /// The world of `scenario` and `seed` before its first event.
    pub fn new(scenario: &Scenario, seed: u64, watch: Watch) -> Self {
        let plan = plan(scenario, seed);
        Self::with_plan(scenario, seed, plan, watch)
    }

    /// The same with these faults.
    pub fn with_plan(scenario: &Scenario, seed: u64, plan: Vec<Fault>, watch: Watch) -> Self {
        let chance = Chance::new(seed);
        let extra: u32 = plan.iter().filter(|fault| fault.kind == Sort::Sybil).filter_map(|fault| fault.count).sum();
        let slots = scenario.machines + extra;
        let level = |slot| if scenario.other(slot).is_some() { level::KNOWN } else { scenario.image.level };
        let hosts: Vec<Host> = (0..slots).map(|slot| Host::new(slot, slot >= scenario.machines, level(slot))).collect();
        let heal = seconds(scenario.phases.faults_s);
        let mut world = Self {
            net: Net::new(scenario.network.clone(), hosts.len()),
            dark: vec![false; hosts.len()],
            hosts,
            scenario: scenario.clone(),
            fared: vec![Fared::default(); plan.len()],
            plan,
            now: 0,
            events: Events::default(),
            chance,
            links: Vec::new(),
            free_links: Vec::new(),
            link_generation: 0,
            directory: BTreeMap::new(),
            site: Site::default(),
            manifests: asks::manifests(scenario.image.manifests),
            active: Vec::new(),
            cut: None,
            watch,
            effects: Effects::default(),
            healed: None,
            end: heal + seconds(scenario.phases.heal_s),
            tuning: Tuning {
                replace_after: scenario.image.replace_after_s.map(std::time::Duration::from_secs_f64),
                backups: match scenario.image.backup_every_s.map(std::time::Duration::from_secs_f64) {
                    Some(every) => BackupPlan { every: Some(every), ..BackupPlan::default() },
                    None => BackupPlan::default(),
                },
                ..Tuning::default()
            },
            asked: BTreeMap::new(),
            handled: 0,
            at_once: 0,
        };
        world.watch.begin(&world.scenario, slots);
        world.schedule(heal);
        world
    }

    fn schedule(&mut self, heal: At) {
        for slot in 0..self.scenario.machines {
            let spread = [0.0, self.scenario.boots.spread_s];
            let at = self.chance.fixed_draw(spread, S, "boot", slot.into(), 0);
            let later = seconds(self.scenario.boots_at_s(slot));
            self.events.push(at + later, Event::Boot { slot });
        }
        for index in 0..self.plan.len() {
            self.events.push(seconds(self.plan[index].at_s).min(heal), Event::FaultBegins(index));
        }
        for index in 0..self.scenario.wishes.len() {
            self.events.push(seconds(self.scenario.wishes[index].at_s), Event::Wish(index));
        }
        self.events.push(heal, Event::Heal);
        self.events.push(LOOK_EVERY, Event::Look);
    }

    /// Runs to the end, or to the first broken safety promise.
    pub fn run(&mut self) {
        self.run_telling(|_, _| {});
    }

    /// The same, telling now and then at what time it is, and when it ends at the latest.
    pub fn run_telling(&mut self, mut told: impl FnMut(At, At)) {
        const NOW_AND_THEN: u64 = 4_096;
        while self.step() {
            if self.handled.is_multiple_of(NOW_AND_THEN) {
                told(self.now, self.end);
            }
        }
        self.judge_end();
    }

    /// Judges what can be judged only when a run is over.
    pub(crate) fn judge_end(&mut self) {
        let mut watch = std::mem::take(&mut self.watch);
        watch.end(self);
        self.watch = watch;
    }

    /// Handles one event. False when there is nothing left to do.
    pub fn step(&mut self) -> bool {
        self.step_until(self.end)
    }

    /// The same, unless the next event is later than `until`.
    pub fn step_until(&mut self, until: At) -> bool {
        if self.watch.broken() || self.watch.held_early() {
            return false;
        }
        let Some((at, event)) = self.events.pop(self.end.min(until)) else { return false };
        if at > self.now {
            self.at_once = 0;
        }
        self.at_once += 1;
        if self.at_once == AT_ONCE_MAX {
            let last = self.describe(&event);
            self.see(Seen::Livelock { last });
        }
        self.now = at;
        self.handled += 1;
        self.watch.now = at;
        self.handle(event);
        true
    }

    fn describe(&self, event: &Event) -> String {
        let mut text: String = format!("{event:?}").chars().take(200).collect();
        if let Event::Wake { slot, .. } = event {
            let wants = self.machine(*slot).and_then(Machine::next_wakeup);
            text.push_str(&format!(", wants {wants:?}, its clock shows {:?}", self.shown(*slot)));
        }
        text
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Boot { slot } => self.boot(slot),
            Event::Wake { slot, life } => self.wake(slot, life),
            Event::Continue { slot, life } => self.go_on(slot, life),
            Event::Deliver { to, link, frame } => self.deliver(to, link, *frame),
            Event::DeliverBytes { to, link, bytes } => self.deliver_bytes(to, link, *bytes),
            Event::Dialled { from, to, life, number, whom } => self.dialled([from, to], life, number, whom),
            Event::Links { slot, life } => self.wake_links(slot, life),
            Event::Silent { link } => self.silent(link),
            Event::Discover { slot, life } => self.discover(slot, life),
            Event::Step { slot, life, run } => {
                if self.hosts[slot as usize].life == life {
                    self.step_goes_on(slot, run);
                }
            }
            Event::Backup { slot, life } => {
                if self.hosts[slot as usize].life == life {
                    self.backup_comes(slot);
                }
            }
            Event::Registers { slot, cluster, name } => self.registers_late(slot, cluster, name.into_string()),
            Event::KubeletAsks { slot, begun } => self.kubelet_asks(slot, begun),
            Event::Wish(index) => self.wish(index),
            Event::FaultBegins(index) => self.fault_begins(index),
            Event::FaultTurns(index, turn) => self.fault_turns(index, turn),
            Event::FaultEnds(index) => self.fault_ends(index),
            Event::RaftTimer { slot, life } => self.raft_timer(slot, life),
            Event::ProposeAgain { slot, life, fault, entry } => self.raft_propose_again(slot, life, fault, *entry),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    fn heal(&mut self) {
        for index in self.active.iter().map(|active| active.index).collect::<Vec<_>>() {
            self.fault_ends(index);
        }
        self.healed = Some(self.now);
        for slot in 0..self.scenario.machines {
            let host = &mut self.hosts[slot as usize];
            host.held_down = 0;
            host.next_write = None;
            // What would not start for a passing reason is started once more; a broken file still refuses.
            if host.power != Power::On && self.now > 0 {
                self.boot(slot);
            }
        }
        self.see(Seen::Healed);
    }

    fn look(&mut self) {
        if self.now.is_multiple_of(AGENT_LOOKS) {
            (0..self.scenario.machines).for_each(|slot| self.look_at_certificates(slot));
        }
        let mut watch = std::mem::take(&mut self.watch);
        watch.look(self);
        self.watch = watch;
        self.events.push(self.now + LOOK_EVERY, Event::Look);
    }

    /// Tells the checkers.
    fn see(&mut self, seen: Seen<'_>) {
        // Another cluster on the same network keeps its promises to itself: what is checked is that the two stay apart.
        let elsewhere = match &seen {
            Seen::Applied { slot, .. }
            | Seen::Restored { slot, .. }
            | Seen::Leads { slot, .. }
            | Seen::Term { slot, .. }
            | Seen::JoinedKube { slot, .. }
            | Seen::Initialised { slot, .. }
            | Seen::EtcdAdding { slot, .. }
            | Seen::EtcdAdded { slot, .. }
            | Seen::EtcdBegun { slot, .. }
            | Seen::EtcdFormed { slot, .. }
            | Seen::EtcdMet { slot, .. } => self.judged_apart(*slot),
            _ => false,
        };
        if !elsewhere {
            self.watch.see(self.now, &seen);
            if matches!(seen, Seen::Applied { .. } | Seen::Booting { .. }) && !self.watch.truth.removed.is_empty() {
                let book = &self.watch.truth.book;
                self.hosts.iter_mut().for_each(|host| host.dismissed = book.is_dismissed(host.me));
            }
        }
    }

    fn address(slot: Slot) -> String {
        Self::ip(slot).to_string()
    }

    fn ip(slot: Slot) -> std::net::IpAddr {
        let [_, high, middle, low] = (slot + 1).to_be_bytes();
        [10, high, middle, low].into()
    }

    /// The machine that listens at `ip:port`, whatever the port.
    fn slot_at(&self, address: &str) -> Option<Slot> {
        let (ip, _) = address.rsplit_once(':')?;
        let mut parts = ip.split('.').map(str::parse::<u32>);
        let (_, a, b, c) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        let slot = (a << 16 | b << 8 | c).checked_sub(1)?;
        ((slot as usize) < self.hosts.len()).then_some(slot)
    }

    /// What differs in the image of this machine.
    fn differs(&self, slot: Slot) -> Option<Differs> {
        self.scenario.other(slot).map(|other| other.differs)
    }

    pub(crate) fn settings(&self, slot: Slot) -> Settings {
        let other = self.scenario.other(slot);
        let mut machines = self.scenario.image_machines();
        let control_planes = self.scenario.image.control_planes;
        let control_planes = other.and_then(|other| other.control_planes).unwrap_or(control_planes);
        if let Some(other) = other.filter(|other| other.differs == Differs::Machines) {
            machines = other.machines.unwrap_or_else(|| machines.saturating_sub(1).max(control_planes));
        }
        if let (Policy::Threshold, Some(expect)) = (self.scenario.image.policy, self.scenario.image.expect) {
            // Whoever sees `expect` machines founds with them, however many there are: to the founding code that is an image
            // of as many machines as `expect` is a majority of.
            machines = (expect.max(1) - 1) * 2;
            machines = machines.max(1);
        }
        let another = other.is_some_and(|other| other.differs == Differs::Settings || other.control_planes.is_some());
        let name = if another { "other image" } else { "image" };
        Settings {
            machines,
            control_planes,
            durable: self.scenario.image.durable,
            kubernetes_version: KUBERNETES.to_owned(),
            digest: Digest::of(name, &[&machines.to_le_bytes()]),
        }
    }

    /// Whether these two carry different images.
    pub(crate) fn strange(&self, one: Slot, other: Slot) -> bool {
        self.differs(one) != self.differs(other)
    }

    /// How many of the machines that run are strangers to the image's.
    pub(crate) fn strangers(&self) -> usize {
        let runs = self.hosts.iter().filter(|host| host.power == Power::On && !host.extra);
        runs.filter(|host| self.differs(host.slot).is_some()).count()
    }

    /// Notes what two strangers cost each other.
    fn cost(&mut self, one: Slot, other: Slot, count: impl Fn(&mut Strange)) {
        if self.strange(one, other) {
            for slot in [one, other] {
                count(&mut self.hosts[slot as usize].strange);
            }
        }
    }

    /// Whether there are machines of the same cluster with other settings: nobody founds while they are there.
    pub(crate) fn other_images(&self) -> bool {
        let differs = |other: &Other| matches!(other.differs, Differs::Settings | Differs::Machines) && other.count > 0;
        self.scenario.others.iter().any(differs)
    }

    /// Whether this machine is of another cluster.
    fn elsewhere(&self, slot: Slot) -> bool {
        self.differs(slot) == Some(Differs::Cluster)
    }

    /// Whether this machine is of another cluster than the one that is judged.
    pub(crate) fn judged_apart(&self, slot: Slot) -> bool {
        self.is_apart(slot, &self.watch.truth)
    }

    /// The same while the checkers look, and have their truth with them.
    pub(crate) fn is_apart(&self, slot: Slot, truth: &Truth) -> bool {
        let lost = truth.lost.contains(&self.hosts[slot as usize].me);
        lost || self.elsewhere(slot) || self.follows_another(slot, truth)
    }

    /// Whether this machine follows another charter than the first. That may be only where the assumptions are broken, and
    /// then the two clusters are apart like any others.
    fn follows_another(&self, slot: Slot, truth: &Truth) -> bool {
        let ours = || self.machine(slot).and_then(|machine| machine.charter()).map(|theirs| theirs.charter().id);
        truth.two_charters && ours() != truth.charter
    }

    fn cluster_name(&self, slot: Slot) -> &'static str {
        if self.differs(slot) == Some(Differs::Cluster) { "elsewhere" } else { CLUSTER }
    }

    /// Machines that ought to form the cluster: those with the image's settings that could be started.
    pub(crate) fn expected(&self) -> impl Iterator<Item = &Host> {
        self.hosts
            .iter()
            .filter(|host| !host.extra && !host.dismissed)
            .filter(|host| self.differs(host.slot).is_none() && !matches!(host.power, Power::Refuses(_)))
    }

    /// The machines that carry the image.
    pub(crate) fn image_slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.hosts.iter().filter(|host| !host.extra && self.differs(host.slot).is_none()).map(|host| host.slot)
    }

    /// The core of a machine, while it runs.
    pub fn machine(&self, slot: Slot) -> Option<&Machine> {
        self.hosts[slot as usize].machine.as_ref()
    }

    /// How many events were handled.
    pub fn handled(&self) -> u64 {
        self.handled
    }

    /// How many machines there are, those of faults among them.
    pub fn slots(&self) -> Slot {
        self.hosts.len() as Slot
    }

    /// Where a machine stands, in the core's own words, or that it does not run.
    pub fn phase(&self, slot: Slot) -> Option<Phase> {
        self.machine(slot).map(Machine::phase)
    }

    /// What a machine's own clock shows.
    pub(crate) fn shown(&self, slot: Slot) -> Option<muster_protocol::Time> {
        self.hosts.get(slot as usize).map(|host| host.clock.show(self.now))
    }

    /// Whether some machine runs under this identity.
    pub(crate) fn runs(&self, machine: MachineId) -> bool {
        self.hosts.iter().any(|host| host.me == machine && host.power == Power::On)
    }

    /// The machine that bears this identity, if one does.
    pub(crate) fn slot_of(&self, machine: MachineId) -> Option<Slot> {
        self.directory.get(&machine).copied().filter(|slot| self.hosts[*slot as usize].me == machine)
    }

    /// What a machine says of itself, while it runs.
    pub fn status(&self, slot: Slot) -> Option<muster_protocol::Status> {
        Some(self.machine(slot)?.status(self.shown(slot)?))
    }

    /// The machines that run a voter of Raft.
    pub(crate) fn voters(&self) -> impl Iterator<Item = Slot> + '_ {
        self.hosts.iter().filter(|host| host.voter.is_some()).map(|host| host.slot)
    }

    /// Whether a machine's process runs.
    pub fn power(&self, slot: Slot) -> &Power {
        &self.hosts[slot as usize].power
    }

    /// The observer.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    fn feed(&mut self, slot: Slot, input: Input) {
        let host = &mut self.hosts[slot as usize];
        if host.power != Power::On {
            return;
        }
        if host.free() && host.inbox.is_empty() {
            self.take(slot, input);
        } else if host.inbox.len() < host::INBOX_MAX {
            host.inbox.push_back(input);
        } else {
            host.inbox_dropped += 1;
        }
    }
}

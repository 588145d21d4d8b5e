//! The kubeadm device: how long its steps take, and how they lie. A step itself is muster's own code; what a machine answers to it
//! is `asks.rs`, what servers do `http.rs`, and what kubeadm's process does to a machine `program.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_kubeadm::Work;
use muster_kubeadm::guard::Asking;
use muster_kubeadm::work::{Ask, Next};
use muster_protocol::{Input, Renewal, RunId, Step, StepFailure, StepOutput};
use muster_wire::{Attempt, Digest, MachineId};
use zeroize::Zeroizing;

use super::World;
use super::asks::Reply;
use super::chance::{S, seconds};
use super::event::{At, Event, Slot};
use crate::scenario::{Range, Sort};
use crate::truth::legible;
use crate::watch::Seen;

/// What kubeadm has made of a machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kube {
    /// Files of work that did not come to its end.
    pub(crate) dirty: bool,
    /// The cluster that this machine belongs to, by number in [`Site::clusters`].
    pub(crate) cluster: Option<usize>,
    /// Its etcd member is in.
    pub(crate) etcd: bool,
    /// Its API server serves.
    pub(crate) serves: bool,
    /// Its Node is Ready.
    pub(crate) ready: bool,
    /// How its certificates stand.
    pub(crate) renewal: Renewal,
    /// Whether its etcd's data was gone when it started last.
    pub(crate) etcd_gone: bool,
    /// Its kubelet waits for the machine's word before it starts.
    pub(crate) held: Option<Unit>,
    /// The attempt that kubeadm was last run for.
    pub(crate) attempt: Attempt,
    /// Its Node's name.
    pub(crate) name: String,
    /// kubeadm's files and those that muster wrote for it.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

/// One start of a kubelet's unit, which asks its machine's agent first.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    /// When it began to ask.
    pub begun: At,
    /// What it has heard.
    pub asking: Asking,
}

/// A cluster that some `kubeadm init` made. There may be several; only one of them may ever be *the* cluster.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// The attempt.
    pub attempt: Attempt,
    /// Who ran it.
    pub machine: MachineId,
    /// Its CA's certificate.
    pub ca: String,
    /// The tokens that open it.
    pub tokens: BTreeSet<String>,
    /// Whether machines that join can learn of it.
    pub announced: bool,
    /// Machines that belong to it.
    pub members: BTreeSet<Slot>,
    /// The machines whose etcd members it has, whether these still run or not.
    pub etcd: BTreeSet<Slot>,
    /// Those of them that have not been started: kubeadm adds a learner, which has no vote, and promotes it when it runs.
    pub(super) learners: BTreeSet<Slot>,
    /// Its Node objects, by name.
    pub nodes: BTreeMap<String, NodeObject>,
    /// The objects of the manifests that it has: who applied each first, and when.
    pub manifests: BTreeMap<u32, (Slot, At)>,
    /// Those that were told to come again, once.
    pub(super) put_off: BTreeSet<u32>,
    /// The token with which its etcd was begun, if by several machines at once.
    pub(super) token: Option<String>,
    /// Whether one of its members was made another cluster of, which is the one that counts.
    pub(super) given_up: bool,
    /// Those of these machines whose members have run.
    pub(super) begun: BTreeSet<Slot>,
}

impl Cluster {
    /// Whether a machine has a member in its list that has never run.
    pub(super) fn awaits(&self, slot: Slot) -> bool {
        self.etcd.contains(&slot) && !self.begun.contains(&slot)
    }
}

/// A Node object, which outlives its machine's kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeObject {
    /// Whose kubelet registered it.
    pub slot: Slot,
    /// When that kubelet was stopped by a reset.
    pub stopped: Option<At>,
}

/// How long a Node looks Ready after its kubelet stopped: the node lifecycle controller's grace period since 1.32.
pub(super) const NODE_GRACE: At = 50_000_000;

/// Whose a ciphertext is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedTo {
    /// The machine named.
    pub machine: MachineId,
    /// The key used.
    pub key: [u8; 32],
}

/// What kubeadm's processes share: the site's clusters and the truth about secrets.
#[derive(Debug, Default)]
pub(crate) struct Site {
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) adding_etcd: BTreeSet<Slot>,
    /// The names of the Nodes that backups hold.
    pub(super) backups: BTreeMap<Digest, BTreeSet<String>>,
    /// Steps that were begun: none draws the same entropy as another.
    pub(crate) steps: u64,
}

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Fine,
    Hangs,
    Fails,
    LosesAnswer,
    /// Takes long, and does not die when it is told to.
    Late,
}

/// A step under way.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) step: Step,
    work: Work,
    /// What it has asked and waits for, and since when.
    waits: Option<(Ask, At)>,
    /// The files that it has written.
    wrote: Vec<String>,
    turn: Turn,
    /// The fault that it is made of.
    fault: Option<usize>,
    begun: At,
    aborted: bool,
}

/// What is said of a process whose answer is lost.
const VANISHED: &str = "its process vanished";

/// From the word to end to the end, at least, and at most beside that.
const LINGERS_MIN: At = 5_000;
const LINGERS_MAX: At = 5_000_000;

/// So many points there are at which a step may be cut short, at about; init is the longest.
const POINTS: u64 = 12;
const POINTS_INIT: u64 = 26;

/// A kubelet that was started registers its Node within this time, whatever has become of kubeadm.
pub(super) const REGISTERS: At = 5_000_000;

/// kubeadm polls for the API server this often, and no pause that a step asks for is shorter: a machine may be slow, and many short
/// ones cost a run dearly.
const POLL: At = 1_000_000;

/// How far a step was driven.
enum Driven {
    Ended(Result<StepOutput, StepFailure>),
    /// It is gone on with after so long.
    Waits(At),
    CutShort,
}

impl World {
    /// Starts a step.
    pub(super) fn run_step(&mut self, slot: Slot, run: RunId, step: Step) {
        let (turn, fault) = self.turn_of(slot, step.name());
        if let Some(fault) = fault.filter(|_| matches!(turn, Turn::Hangs | Turn::Late)) {
            self.took(fault);
        }
        let times = &self.scenario.kubeadm;
        let range: Range = match &step {
            Step::Prepare { .. } => times.prepare_s,
            Step::InitCluster { .. } | Step::Found { .. } => times.init_s,
            Step::InitFinish { .. } | Step::FoundFinish { .. } => times.init_finish_s,
            Step::Join { .. } => times.join_s,
            Step::JoinEtcd { .. } => times.etcd_s,
            Step::JoinFinish { .. } | Step::AwaitReady { .. } | Step::Register => times.ready_s,
            Step::Reset { .. }
            | Step::Strike { .. }
            | Step::LeaveEtcd { .. }
            | Step::Drain { .. }
            | Step::Open { .. } => [0.3, 1.0],
            Step::Check { .. } | Step::MakePki { .. } | Step::SealPki { .. } | Step::IssueTicket { .. } => {
                [0.001, 0.03]
            }
            Step::Renew { .. } | Step::RenewKubelet { .. } => [1.0, 4.0],
            Step::RebuildEtcd { .. } => [4.0, 9.0],
            Step::BackUp { .. } => [0.3, 3.0],
            Step::DeleteToken { .. } | Step::ApplyManifests { .. } => [0.01, 0.2],
        };
        let step_max = seconds(times.step_max_s);
        let takes = match turn {
            Turn::Hangs => step_max,
            Turn::Late => self.chance.draw([range[1], range[1] * 6.0], S),
            _ => self.chance.draw(range, S),
        };
        let clean = self.clean(slot);
        if matches!(step, Step::InitCluster { .. } | Step::Found { .. } | Step::Join { .. }) && clean {
            self.hosts[slot as usize].kube.dirty = true;
        }
        if matches!(step, Step::JoinEtcd { .. }) {
            let others = self.others_adding(slot);
            self.site.adding_etcd.insert(slot);
            self.see(Seen::EtcdAdding { slot, others });
        }
        let apart = self.judged_apart(slot);
        self.see(Seen::StepBegan { slot, step: &step, clean, apart });
        let work = self.work(slot, &step);
        let host = &mut self.hosts[slot as usize];
        let life = host.life;
        let running =
            Running { step, work, waits: None, wrote: Vec::new(), turn, fault, begun: self.now, aborted: false };
        host.runs.insert(run.0, running);
        self.events.push(self.now + takes.min(step_max), Event::Step { slot, life, run: run.0 });
    }

    fn work(&mut self, slot: Slot, step: &Step) -> Work {
        self.site.steps += 1;
        let seed = self.chance.fixed_bytes("step", slot.into(), self.site.steps);
        let place = match &self.hosts[slot as usize].place {
            Some(place) => place.clone(),
            None => {
                let place = Arc::new(self.place(slot));
                self.hosts[slot as usize].place = Some(place.clone());
                place
            }
        };
        Work::begin(place, self.hosts[slot as usize].plan.clone(), step.clone(), Zeroizing::new(seed))
    }

    /// How many other machines of the same Kubernetes cluster are adding their etcd members.
    pub(super) fn others_adding(&self, slot: Slot) -> usize {
        let cluster = |slot: Slot| self.hosts[slot as usize].kube.cluster;
        self.site.adding_etcd.iter().filter(|other| **other != slot && cluster(**other) == cluster(slot)).count()
    }

    fn clean(&self, slot: Slot) -> bool {
        let kube = &self.hosts[slot as usize].kube;
        !kube.dirty && kube.cluster.is_none()
    }

    /// Ends a step early, unless it is one that does not die. Half of the times what it does just then is done to its end first: a
    /// process that is killed in the kernel dies when that call returns, and nobody hears of it before.
    pub(super) fn abort_step(&mut self, slot: Slot, run: RunId) {
        let draw = self.chance.fixed("abort", u64::from(slot), self.now);
        let Some(running) = self.hosts[slot as usize].runs.get_mut(&run.0) else { return };
        running.aborted = true;
        if running.turn != Turn::Late {
            let takes = if draw.is_multiple_of(2) { LINGERS_MIN + (draw >> 1) % LINGERS_MAX } else { LINGERS_MIN };
            let life = self.hosts[slot as usize].life;
            self.events.push(self.now + takes, Event::Step { slot, life, run: run.0 });
        }
    }

    /// The processes of a machine die with it, each in the midst of its work.
    pub(super) fn kill_steps(&mut self, slot: Slot) {
        let runs = std::mem::take(&mut self.hosts[slot as usize].runs);
        for mut running in runs.into_values() {
            self.leave_first_effects(slot, &mut running);
        }
        self.site.adding_etcd.remove(&slot);
    }

    /// Does a step up to a drawn point: what it has made by then is left as it is.
    fn leave_first_effects(&mut self, slot: Slot, running: &mut Running) {
        let points =
            if matches!(running.step, Step::InitCluster { .. } | Step::Found { .. }) { POINTS_INIT } else { POINTS };
        self.cut = Some((self.chance.fixed("half-way", slot.into(), self.now) % points) as u32);
        // Nobody hears how it ended.
        let _ = self.drive(slot, running);
        self.cut = None;
    }

    /// Answers a step's asks until it ends, or has to wait.
    fn drive(&mut self, slot: Slot, running: &mut Running) -> Driven {
        if let Step::InitCluster { attempt, .. }
        | Step::Found { attempt, .. }
        | Step::Join { attempt, .. }
        | Step::JoinFinish { attempt, .. } = &running.step
        {
            self.hosts[slot as usize].kube.attempt = *attempt;
        }
        let now = Duration::from_micros(self.now);
        let mut answer = None;
        if let Some((ask, since)) = running.waits.take() {
            match self.reply(slot, &ask, Duration::from_micros(self.now - since)) {
                Reply::Now(reply) => answer = Some(reply),
                Reply::NotYet => {
                    running.waits = Some((ask, since));
                    return Driven::Waits(POLL);
                }
                Reply::CutShort => return Driven::CutShort,
            }
        }
        loop {
            let next = running.work.next(now, answer.take());
            if running.work.told().iter().any(|words| legible::secret(words.as_bytes())) {
                self.see(Seen::Exposed { slot, place: "the log" });
            }
            let ask = match next {
                Next::Ask(ask) => ask,
                Next::Ended(result) => return Driven::Ended(result),
            };
            match &ask {
                Ask::Pause(pause) => {
                    let pause = (pause.as_micros() as At).max(POLL);
                    running.waits = Some((ask, self.now));
                    return Driven::Waits(pause);
                }
                Ask::Write { path, .. } => running.wrote.push(path.display().to_string()),
                _ => {}
            }
            match self.reply(slot, &ask, Duration::ZERO) {
                Reply::Now(reply) => answer = Some(reply),
                Reply::NotYet => {
                    running.waits = Some((ask, self.now));
                    return Driven::Waits(POLL);
                }
                Reply::CutShort => return Driven::CutShort,
            }
        }
    }

    /// Whether a step that is cut short still does what comes next.
    pub(super) fn goes_on(&mut self) -> bool {
        match &mut self.cut {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// What hung is found and killed.
    pub(super) fn end_hung_steps(&mut self, slot: Slot) {
        let host = &self.hosts[slot as usize];
        let life = host.life;
        let hung = host.runs.iter().filter(|(_, running)| running.turn == Turn::Hangs);
        for run in hung.map(|(run, _)| *run).collect::<Vec<_>>() {
            self.events.push(self.now + 1_000, Event::Step { slot, life, run });
        }
    }

    /// A step goes on, or comes to its end.
    pub(super) fn step_goes_on(&mut self, slot: Slot, run: u64) {
        let Some(mut running) = self.hosts[slot as usize].runs.remove(&run) else { return };
        let late = self.now >= running.begun + seconds(self.scenario.kubeadm.step_max_s);
        let name = running.step.name();
        let failure = |why: &str| StepFailure { step: name, phase: None, why: why.to_owned(), hopeless: false };
        let waits_itself = matches!(running.waits, Some((Ask::Pause(_), _)));
        let ends_early = match running.turn {
            // A process may not die when it is told to; muster's own waiting ends.
            Turn::Late if !(late || running.aborted && waits_itself) => None,
            _ if running.aborted => Some(StepFailure::ended_on_request(name)),
            Turn::Hangs => Some(failure("took too long and was killed")),
            _ if late => Some(failure("took too long and was killed")),
            Turn::Fails => Some(failure("made to fail")),
            _ => None,
        };
        let mut vanished = false;
        let result = if let Some(failure) = ends_early {
            self.leave_first_effects(slot, &mut running);
            Err(failure)
        } else {
            match self.drive(slot, &mut running) {
                Driven::Waits(pause) => {
                    let life = self.hosts[slot as usize].life;
                    self.hosts[slot as usize].runs.insert(run, running);
                    self.events.push(self.now + pause, Event::Step { slot, life, run });
                    return;
                }
                Driven::CutShort => {
                    vanished = true;
                    Err(failure(VANISHED))
                }
                Driven::Ended(Ok(output)) => {
                    self.made(slot, &running.step, &output, &running.wrote);
                    match running.turn {
                        _ if running.aborted => Err(StepFailure::ended_on_request(name)),
                        Turn::LosesAnswer => {
                            vanished = true;
                            Err(failure(VANISHED))
                        }
                        _ => Ok(output),
                    }
                }
                Driven::Ended(Err(failure)) => {
                    if legible::secret(failure.why.as_bytes()) {
                        self.see(Seen::Exposed { slot, place: "what is said of a failed run" });
                    }
                    Err(failure)
                }
            }
        };
        let disturbed = match running.turn {
            Turn::Fails => !running.aborted && !late,
            // Its work was done, and nobody hears of that.
            Turn::LosesAnswer => vanished,
            _ => false,
        };
        if let Some(fault) = running.fault.filter(|_| disturbed) {
            self.took(fault);
        }
        if matches!(running.step, Step::JoinEtcd { .. }) {
            self.site.adding_etcd.remove(&slot);
        }
        self.see(Seen::StepEnded { slot, step: &running.step, result: &result });
        self.feed(slot, Input::Finished { run: RunId(run), result });
    }

    /// What becomes of a step, and for which fault.
    fn turn_of(&self, slot: Slot, step: &str) -> (Turn, Option<usize>) {
        for fault in &self.active {
            let what = &self.plan[fault.index];
            if !fault.targets.contains(&slot) || what.step.as_deref().is_some_and(|only| only != step) {
                continue;
            }
            let turn = match what.kind {
                Sort::KubeadmHang => Turn::Hangs,
                Sort::KubeadmFail => Turn::Fails,
                Sort::KubeadmLostAnswer => Turn::LosesAnswer,
                Sort::KubeadmLate => Turn::Late,
                _ => continue,
            };
            return (turn, Some(fault.index));
        }
        (Turn::Fine, None)
    }
}

//! The ladder from Admitted to Ready: which kubeadm step this machine takes next.
//!
//! Level-triggered: at every change it compares the ledger, the two markers on disk and what it has done since it
//! started, and takes one step. Work that was started and not completed is never resumed: it is reset and begun anew.

mod ended;
mod founders;
mod next;
mod recovery;
mod renewal;
mod timing;
mod wants;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use muster_wire::entry::Sealed;
use muster_wire::{Attempt, Digest, Durable, KubeadmMarker, MachineId, SignedCard, TurnKind, TurnNumber};

use crate::follow::Wants;
use crate::ledger::Member;
use crate::roster::Roster;
use crate::tuning::Tuning;
use crate::words::waits::Wait;
use crate::{Effect, Effects, Ledger, Phase, Renewal, RunId, Step, StepFailure, StepOutput, Time};

pub use timing::EtcdTiming;

/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Longest reason put into the ledger, in characters.
const WHY_CHARS_MAX: usize = 60;

/// What the device is doing for this machine's own climb: one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Check,
    Prepare,
    MakePki { attempt: Attempt },
    Init { attempt: Attempt },
    InitFinish { attempt: Attempt },
    Found { attempt: Attempt },
    FoundFinish { attempt: Attempt },
    Join { attempt: Attempt },
    JoinEtcd { attempt: Attempt, number: TurnNumber },
    JoinFinish { attempt: Attempt },
    AwaitReady,
    Renew,
    RenewKubelet,
    RebuildEtcd { epoch: u32 },
    Register { epoch: u32 },
    LeaveEtcd,
    Reset,
}

impl Job {
    /// As [`Step::name`] has it.
    fn name(self) -> &'static str {
        match self {
            Job::Check => "check",
            Job::Prepare => "prepare",
            Job::MakePki { .. } => "make-pki",
            Job::Init { .. } => "init",
            Job::InitFinish { .. } => "init-finish",
            Job::Found { .. } => "found",
            Job::FoundFinish { .. } => "found-finish",
            Job::Join { .. } => "join",
            Job::JoinEtcd { .. } => "join-etcd",
            Job::JoinFinish { .. } => "join-finish",
            Job::AwaitReady => "await-ready",
            Job::Renew => "renew",
            Job::RenewKubelet => "renew-kubelet",
            Job::RebuildEtcd { .. } => "rebuild-etcd",
            Job::Register { .. } => "register",
            Job::LeaveEtcd => "leave-etcd",
            Job::Reset => "reset",
        }
    }
}

#[derive(Debug)]
struct Running {
    run: RunId,
    job: Job,
    begun: Time,
    phase: Option<String>,
    aborted: bool,
}

/// How far a join of this start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum JoinStage {
    Begun,
    /// Everything that waits for nobody is done.
    Kubelet,
    /// The etcd member is in, by this turn.
    Etcd(TurnNumber),
}

/// What init of this start has brought.
#[derive(Debug, Clone)]
struct Initialised {
    attempt: Attempt,
    ca_hash: Digest,
    endpoints: Vec<String>,
    tokens: Vec<MachineId>,
}

/// This machine's own climb.
#[derive(Debug, Default)]
pub(crate) struct Ladder {
    running: Option<Running>,
    version: Option<String>,
    unable: Option<String>,
    prepared: bool,
    pki: Option<(Attempt, Digest, Vec<Sealed>)>,
    /// The work begun in this start of the machine; the same marker on disk without this one is a leftover.
    underway: Option<KubeadmMarker>,
    tokens: Vec<MachineId>,
    initialised: Option<Initialised>,
    init_failed: Option<(Attempt, String)>,
    founder: founders::Founder,
    join_stage: Option<JoinStage>,
    /// The etcd turn that the join under way has asked for, and when.
    asked_turn: Option<(TurnNumber, Time)>,
    node_ready: bool,
    /// Since when etcd's data is gone from here although it has run, as the device sees it.
    etcd_gone: Option<Time>,
    /// How the certificates stand, as the device sees it.
    renewal: Renewal,
    /// When what was good no more was renewed last in this start.
    renewed: Option<Time>,
    /// When a CA's certificate ends, in seconds since 1970, if that is soon.
    ca_ends_s: Option<NonZeroU64>,
    /// What failed since the climb was last at its end, by step, how often in a row, and what was said last.
    failures: BTreeMap<&'static str, Failed>,
    /// How often this machine was reset in this start.
    resets: u32,
    not_before: Time,
    /// What the next step waited for at the last look.
    waits: Vec<Wait>,
}

/// A step that failed and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) times: u32,
    pub(crate) why: String,
}

/// What climbing needs to know and may change.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) me: MachineId,
    pub(crate) tuning: &'a Tuning,
    pub(crate) ledger: &'a Ledger,
    pub(crate) mine: &'a SignedCard,
    pub(crate) roster: &'a Roster,
    pub(crate) durable: &'a mut Durable,
    /// Whether etcd may be begun here: nobody may have given up those with whom it would begin.
    pub(crate) may_begin_etcd: bool,
    pub(crate) runs: &'a mut u64,
    pub(crate) wants: &'a mut Wants,
    pub(crate) due: &'a mut Option<(Time, &'static str)>,
    pub(crate) effects: &'a mut Effects,
}

impl Context<'_> {
    fn wake_at(&mut self, due: Time, why: &'static str) {
        // What is past has been acted upon in this very pass; to be woken for it again would never end.
        if due > self.now {
            let due = (due, why);
            *self.due = Some(self.due.map_or(due, |other| other.min(due)));
        }
    }

    fn member(&self) -> Option<&Member> {
        self.ledger.member(self.me)
    }

    fn claims_init(&self) -> Option<Attempt> {
        self.ledger.live_claim().filter(|(_, machine)| *machine == self.me).map(|(attempt, _)| attempt)
    }

    fn made_cluster(&self) -> Option<Attempt> {
        self.ledger.ready().filter(|ready| ready.machine == self.me).map(|ready| ready.attempt)
    }
}

impl Ladder {
    /// Takes the next step if there is one to take.
    pub(crate) fn climb(&mut self, context: &mut Context<'_>) {
        self.waits.clear();
        self.want_entries(context);
        if self.running.is_some() {
            self.abort_if_moot(context);
            return;
        }
        if context.now < self.not_before {
            context.wake_at(self.not_before, "a step to try again");
            return;
        }
        if self.version.is_none() {
            // What the ledger knows of is muster's own, whatever the disk has forgotten.
            let known = context.member().is_some_and(|member| member.joined || context.ledger.has_begun(context.me));
            let fresh = context.durable.started.is_none() && !known;
            self.start(context, Job::Check, Step::Check { fresh });
            return;
        }
        if let Some(step) = self.next(context) {
            self.start(context, step.0, step.1);
        }
    }

    /// What the next step waits for.
    pub(crate) fn waits(&self) -> &[Wait] {
        &self.waits
    }

    /// This machine is of the cluster no more: what was made of it is undone. Returns whether nothing of it is left.
    pub(crate) fn depart(&mut self, context: &mut Context<'_>) -> bool {
        self.waits.clear();
        if let Some(running) = &mut self.running {
            let moot =
                !matches!(running.job, Job::Reset | Job::Check) && !std::mem::replace(&mut running.aborted, true);
            let run = running.run;
            if moot {
                context.effects.push(Effect::Abort { run });
            }
            return false;
        }
        if context.durable.started.is_none() {
            return true;
        }
        if context.now < self.not_before {
            context.wake_at(self.not_before, "a step to try again");
            return false;
        }
        match self.version {
            None => self.start(context, Job::Check, Step::Check { fresh: false }),
            // etcd has none of it, and its Node is deleted, by whoever removed it.
            Some(_) => self.start(context, Job::Reset, Step::Reset { member: None, node: None }),
        }
        false
    }

    /// The join is over, or begins from its beginning.
    fn leave_join(&mut self) {
        self.join_stage = None;
        self.asked_turn = None;
    }

    /// Ends work that the ledger has overtaken, or that takes longer than its turn.
    fn abort_if_moot(&mut self, context: &mut Context<'_>) {
        let Some(running) = &mut self.running else { return };
        let ready = context.ledger.ready().map(|ready| ready.attempt);
        let turn_begun = self.asked_turn.map_or(running.begun, |(_, asked)| asked);
        let turn_end = turn_begun + context.tuning.etcd_turn_max;
        let moot = match running.job {
            Job::Init { attempt } | Job::MakePki { attempt } | Job::Found { attempt } => {
                context.ledger.cluster_attempt() != Some(attempt)
            }
            Job::Join { attempt } | Job::JoinFinish { attempt } | Job::FoundFinish { attempt } => {
                ready != Some(attempt)
            }
            Job::JoinEtcd { number, .. } => {
                context.now >= turn_end || context.ledger.turn(TurnKind::Etcd) != Some((number, context.me))
            }
            _ => false,
        };
        let (run, aborts) = (running.run, moot && !running.aborted);
        running.aborted |= moot;
        if matches!(running.job, Job::JoinEtcd { .. }) {
            context.wake_at(turn_end, "the end of the etcd turn");
        }
        if aborts {
            context.effects.push(Effect::Abort { run });
        }
    }

    fn start(&mut self, context: &mut Context<'_>, job: Job, step: Step) {
        *context.runs += 1;
        let run = RunId(*context.runs);
        self.running = Some(Running { run, job, begun: context.now, phase: None, aborted: false });
        context.effects.push(Effect::Run { run, step });
    }

    fn mark_started(&mut self, context: &mut Context<'_>, marker: KubeadmMarker) {
        context.durable.started = Some(marker);
        context.durable.completed = None;
        // What is registered from here on is registered with the etcd of this epoch.
        context.durable.rebuilt = context.durable.rebuilt.max(context.ledger.epoch().number);
        self.underway = Some(marker);
        if !crate::planted::planted("start-unmarked") {
            context.effects.persist(context.durable).done();
        }
    }

    fn mark_completed(&mut self, context: &mut Context<'_>, marker: KubeadmMarker) {
        context.durable.completed = Some(marker);
        self.failures.clear();
        // What was seen of certificates was seen of others, or of none. The device looks again within a minute.
        self.certificates(Renewal::NotYet, 0);
        context.effects.persist(context.durable).done();
    }

    /// A run reached a phase.
    pub(crate) fn progress(&mut self, run: RunId, phase: String) {
        if let Some(running) = self.running.as_mut().filter(|running| running.run == run) {
            running.phase = Some(phase);
        }
    }

    /// A run ended. Returns whether this machine's ability to run kubeadm became another.
    pub(crate) fn finished(
        &mut self,
        run: RunId,
        result: Result<StepOutput, StepFailure>,
        context: &mut Context<'_>,
    ) -> bool {
        let Some(running) = self.running.take_if(|running| running.run == run) else { return false };
        match result {
            Ok(output) => self.succeeded(running.job, output, context),
            Err(failure) => self.failed(running.job, &failure, context),
        }
    }

    /// Whether the device sees that etcd has run here and its data is gone.
    pub(crate) fn etcd_gone(&mut self, now: Time, gone: bool) {
        self.etcd_gone = gone.then(|| self.etcd_gone.unwrap_or(now));
    }

    /// What is wrong with this machine's etcd, if anything is.
    pub(crate) fn lost_etcd(&self) -> Option<&'static str> {
        self.etcd_gone.map(|_| {
            "etcd's data is gone from this machine, so its kubelet must not start: two minutes after that was seen its member is taken \
             out of etcd, which takes a majority of the others, and it joins anew; or put the data back before"
        })
    }

    /// Why this machine cannot run kubeadm, if it cannot.
    pub(crate) fn unable(&self) -> Option<&str> {
        self.unable.as_deref()
    }

    /// Whether it is known if this machine can run kubeadm.
    pub(crate) fn has_looked(&self) -> bool {
        self.version.is_some() || self.unable.is_some()
    }

    /// kubeadm's version, once it was looked at and there is a plan for it.
    pub(crate) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether kubeadm is there and there is a plan for it.
    pub(crate) fn checked(&self) -> bool {
        self.version.is_some()
    }

    /// What failed since the climb was last at its end, by step.
    pub(crate) fn failures(&self) -> &BTreeMap<&'static str, Failed> {
        &self.failures
    }

    /// When the next step may begin, if that is not now.
    pub(crate) fn pauses_until(&self, now: Time) -> Option<Time> {
        (self.running.is_none() && now < self.not_before).then_some(self.not_before)
    }

    /// How often this machine was reset in this start.
    pub(crate) fn resets(&self) -> u32 {
        self.resets
    }

    /// What runs now: its name, kubeadm's phase, and since when.
    pub(crate) fn doing(&self) -> Option<(String, Time)> {
        let running = self.running.as_ref()?;
        let name = running.job.name();
        let text = match &running.phase {
            Some(phase) => format!("{name}: {phase}"),
            None => name.to_owned(),
        };
        Some((text, running.begun))
    }

    /// Where an admitted machine stands.
    pub(crate) fn phase(&self, me: MachineId, ledger: &Ledger, durable: &Durable) -> Phase {
        let Some(member) = ledger.member(me) else { return Phase::Waiting };
        let initialises = ledger.live_claim().is_some_and(|(_, machine)| machine == me);
        match (durable.started, durable.completed) {
            (Some(started), Some(completed)) if started == completed => {
                if member.joined {
                    Phase::Ready
                } else {
                    Phase::Settling
                }
            }
            (Some(started), _) if self.underway == Some(started) => {
                if started.init {
                    Phase::Initialising
                } else {
                    Phase::Joining
                }
            }
            _ if initialises && self.unable.is_none() => Phase::Initialising,
            _ => Phase::Preparing,
        }
    }
}

//! The ladder from Admitted to Ready: which kubeadm step this machine takes next.
//!
//! Level-triggered: at every change it compares the ledger, the two markers on disk and what it has done since it
//! started, and takes one step. Work that was started and not completed is never resumed: it is reset and begun anew.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use muster_wire::entry::Sealed;
use muster_wire::{Digest, Durable, Entry, EtcdTurn, KubeadmMarker, MachineId, Role};

use crate::follow::Subject;
use crate::ledger::Member;
use crate::machine::Tuning;
use crate::{Effect, Effects, Ledger, Phase, Recipient, RunId, Step, StepFailure, StepOutput, Time};

/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Longest reason put into the ledger, in characters.
const WHY_CHARS_MAX: usize = 60;

/// What the device is doing for this machine's own climb: one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Check,
    Prepare,
    MakePki { attempt: u32 },
    Init { attempt: u32 },
    InitFinish { attempt: u32 },
    Join { attempt: u32 },
    JoinEtcd { attempt: u32, number: u32 },
    JoinFinish { attempt: u32 },
    AwaitReady,
    Reset,
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
    Etcd(u32),
}

/// What init of this start has brought.
#[derive(Debug, Clone)]
struct Initialised {
    attempt: u32,
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
    pki: Option<(u32, Digest, Vec<Sealed>)>,
    /// The work begun in this start of the machine; the same marker on disk without this one is a leftover.
    underway: Option<KubeadmMarker>,
    tokens: Vec<MachineId>,
    initialised: Option<Initialised>,
    init_failed: Option<(u32, String)>,
    join_stage: Option<JoinStage>,
    /// The etcd turn that the join under way has asked for, and when.
    asked_turn: Option<(u32, Time)>,
    node_ready: bool,
    failures: u32,
    last_failure: Option<String>,
    not_before: Time,
}

/// What climbing needs to know and may change.
pub(crate) struct Context<'a> {
    pub(crate) now: Time,
    pub(crate) me: MachineId,
    pub(crate) tuning: &'a Tuning,
    pub(crate) ledger: &'a Ledger,
    pub(crate) durable: &'a mut Durable,
    pub(crate) runs: &'a mut u64,
    pub(crate) wants: &'a mut BTreeMap<Subject, Entry>,
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

    fn claims_init(&self) -> Option<u32> {
        self.ledger.live_claim().filter(|(_, machine)| *machine == self.me).map(|(attempt, _)| attempt)
    }

    fn made_cluster(&self) -> Option<u32> {
        self.ledger.ready().filter(|ready| ready.machine == self.me).map(|ready| ready.attempt)
    }
}

impl Ladder {
    /// Takes the next step if there is one to take.
    pub(crate) fn climb(&mut self, context: &mut Context<'_>) {
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
            self.start(context, Job::Check, Step::Check);
            return;
        }
        if let Some(step) = self.next(context) {
            self.start(context, step.0, step.1);
        }
    }

    /// The next step, given that none runs.
    fn next(&mut self, context: &mut Context<'_>) -> Option<(Job, Step)> {
        let member = context.member()?.clone();
        let role = member.admitted.role;
        match (context.durable.started, context.durable.completed) {
            (Some(marker), completed) if completed == Some(marker) => self.next_completed(context, marker, &member),
            (Some(marker), _) if self.underway == Some(marker) => self.next_underway(context, marker, &member),
            (Some(marker), _) => self.mend(context, marker),
            (None, _) => {
                if let Some(attempt) = context.claims_init() {
                    return self.next_claimed(context, attempt, &member);
                }
                if !self.prepared && context.made_cluster().is_none() {
                    return Some((Job::Prepare, Step::Prepare { role }));
                }
                self.next_join(context, &member)
            }
        }
    }

    /// This machine has the right to init and has not begun.
    fn next_claimed(&mut self, context: &mut Context<'_>, attempt: u32, member: &Member) -> Option<(Job, Step)> {
        if self.init_failed.as_ref().is_some_and(|(failed, _)| *failed == attempt) || self.unable.is_some() {
            return None;
        }
        let Some(pki) = context.ledger.pki() else {
            if self.pki.as_ref().is_some_and(|(made, ..)| *made == attempt) {
                return None;
            }
            let recipients = context.ledger.control_planes().filter_map(|plane| context.ledger.member(plane));
            let recipients = recipients
                .map(|plane| Recipient { machine: plane.admitted.machine, sealing_key: plane.admitted.sealing_key })
                .collect();
            return Some((Job::MakePki { attempt }, Step::MakePki { attempt, recipients }));
        };
        let sealed_pki = pki.sealed.get(&context.me)?.clone();
        self.mark_started(context, KubeadmMarker { attempt, init: true });
        self.tokens = context.ledger.members().keys().copied().filter(|machine| *machine != context.me).collect();
        let step = Step::InitCluster {
            attempt,
            name: member.admitted.name.clone(),
            address: member.admitted.address.clone(),
            sealed_pki,
            tokens: self.tokens.clone(),
        };
        Some((Job::Init { attempt }, step))
    }

    /// The cluster is made by another machine, and this one has not begun to join it.
    fn next_join(&mut self, context: &mut Context<'_>, member: &Member) -> Option<(Job, Step)> {
        let ready = context.ledger.ready()?;
        let attempt = ready.attempt;
        let ticket = member.ticket.as_ref().filter(|(of, _)| *of == attempt)?.1.clone();
        let role = member.admitted.role;
        let sealed_pki: Option<Bytes> = match role {
            Role::ControlPlane => Some(context.ledger.pki()?.sealed.get(&context.me)?.clone()),
            Role::Worker => None,
        };
        self.mark_started(context, KubeadmMarker { attempt, init: false });
        self.join_stage = Some(JoinStage::Begun);
        let (name, address) = (member.admitted.name.clone(), member.admitted.address.clone());
        Some((Job::Join { attempt }, Step::Join { attempt, role, name, address, ticket, sealed_pki }))
    }

    /// Work of this start goes on.
    fn next_underway(
        &mut self,
        context: &mut Context<'_>,
        marker: KubeadmMarker,
        member: &Member,
    ) -> Option<(Job, Step)> {
        let attempt = marker.attempt;
        if marker.init {
            if context.made_cluster() == Some(attempt) {
                return Some((Job::InitFinish { attempt }, Step::InitFinish { attempt }));
            }
            // Lost: the attempt was given to another machine while this one was at it.
            if context.claims_init() != Some(attempt) {
                self.underway = None;
                return self.mend(context, marker);
            }
            return None;
        }
        if context.ledger.ready().map(|ready| ready.attempt) != Some(attempt) {
            self.underway = None;
            return self.mend(context, marker);
        }
        match self.join_stage? {
            JoinStage::Begun => None,
            JoinStage::Kubelet if member.admitted.role == Role::Worker => {
                self.mark_completed(context, marker);
                self.next_completed(context, marker, member)
            }
            JoinStage::Kubelet => {
                let (number, holder) = context.ledger.etcd_turn()?;
                let ours = holder == context.me && self.turn_good(context, number);
                (ours || crate::planted::planted("etcd-turn-unwaited"))
                    .then_some((Job::JoinEtcd { attempt, number }, Step::JoinEtcd { attempt }))
            }
            // The turn's end is committed first, so that the next machine can begin while this one goes on.
            JoinStage::Etcd(_) if member.etcd_member => {
                Some((Job::JoinFinish { attempt }, Step::JoinFinish { attempt }))
            }
            JoinStage::Etcd(number) => {
                // The leader ended the turn before its success was known: what was added is taken away again.
                if context.ledger.etcd_turn() != Some((number, context.me)) {
                    self.underway = None;
                    self.leave_join();
                    return self.mend(context, marker);
                }
                None
            }
        }
    }

    /// kubeadm is done here.
    fn next_completed(
        &mut self,
        context: &mut Context<'_>,
        marker: KubeadmMarker,
        member: &Member,
    ) -> Option<(Job, Step)> {
        let ready = context.ledger.ready()?;
        if ready.attempt != marker.attempt {
            return Some((Job::Reset, Step::Reset { member: None }));
        }
        (!member.joined && !self.node_ready)
            .then(|| (Job::AwaitReady, Step::AwaitReady { name: member.admitted.name.clone() }))
    }

    /// Work was begun and is not going on: by an earlier start of this machine, or it failed.
    fn mend(&mut self, context: &mut Context<'_>, marker: KubeadmMarker) -> Option<(Job, Step)> {
        if marker.init {
            if context.made_cluster() == Some(marker.attempt) {
                // It was committed before the machine stopped: what is left can be repeated safely.
                self.underway = Some(marker);
                let attempt = marker.attempt;
                return Some((Job::InitFinish { attempt }, Step::InitFinish { attempt }));
            }
            // First the ledger must say that the attempt is over; until then this copy may just be old.
            let live = context.claims_init() == Some(marker.attempt);
            if live && crate::planted::planted("init-resumed") {
                self.underway = Some(marker);
                let pki = context.ledger.pki()?.sealed.get(&context.me)?.clone();
                let member = context.member()?.admitted.clone();
                let (attempt, tokens) = (marker.attempt, Vec::new());
                let (name, address) = (member.name, member.address);
                let step = Step::InitCluster { attempt, name, address, sealed_pki: pki, tokens };
                return Some((Job::Init { attempt }, step));
            }
            if live || context.ledger.last_attempt() < marker.attempt {
                return None;
            }
        }
        // An init's only member is itself. A join's may be one of several, and they must be told.
        let plane = context.member().filter(|member| !marker.init && member.admitted.role == Role::ControlPlane);
        let member = plane.map(|plane| plane.admitted.address.clone());
        (!crate::planted::planted("abandoned-not-reset")).then_some((Job::Reset, Step::Reset { member }))
    }

    /// What this machine wants committed, given where it stands.
    fn want_entries(&mut self, context: &mut Context<'_>) {
        let me = context.me;
        let Some(member) = context.member().cloned() else { return };
        let late = || self.initialised.as_ref().filter(|_| crate::planted::planted("ready-of-abandoned"));
        if let Some(attempt) = context.claims_init().or_else(|| late().map(|done| done.attempt)) {
            self.want_of_initialiser(context, attempt);
        }
        self.want_etcd_turn(context, &member);
        if self.node_ready && !member.joined {
            context.wants.insert(Subject("joined", me, 0), Entry::Joined { machine: me });
        }
    }

    fn want_of_initialiser(&mut self, context: &mut Context<'_>, attempt: u32) {
        let me = context.me;
        let leftover = context.durable.started.filter(|marker| marker.init && self.underway != Some(*marker));
        let why = match (&self.init_failed, &self.unable, leftover) {
            (Some((failed, why)), ..) if *failed == attempt => Some(why.clone()),
            (_, Some(why), _) => Some(why.clone()),
            (.., Some(marker)) if marker.attempt == attempt => Some("the machine restarted in the middle".to_owned()),
            _ => None,
        };
        if let Some(why) = why {
            let why = format!("{me}: {}", why.chars().take(WHY_CHARS_MAX).collect::<String>());
            context.wants.insert(Subject("abandon", me, attempt), Entry::InitAbandoned { attempt, why });
            return;
        }
        if let Some((made_for, ca_hash, sealed)) = &self.pki
            && *made_for == attempt
            && context.ledger.pki().is_none()
        {
            let entry = Entry::PkiSealed { attempt, ca_hash: *ca_hash, sealed: sealed.clone() };
            context.wants.insert(Subject("pki", me, attempt), entry);
        }
        if let Some(done) = self.initialised.as_ref().filter(|done| done.attempt == attempt) {
            let entry = Entry::InitReady {
                attempt,
                ca_hash: done.ca_hash,
                endpoints: done.endpoints.clone(),
                tokens: done.tokens.clone(),
            };
            context.wants.insert(Subject("ready", me, attempt), entry);
        }
    }

    fn want_etcd_turn(&mut self, context: &mut Context<'_>, member: &Member) {
        let me = context.me;
        let stage = self.join_stage.filter(|_| self.underway.is_some());
        let adding = self.running.as_ref().is_some_and(|running| matches!(running.job, Job::JoinEtcd { .. }));
        let want = match (context.ledger.etcd_turn(), stage) {
            (Some((number, holder)), Some(JoinStage::Etcd(ours))) if holder == me && number == ours => {
                Some((EtcdTurn::Done, number))
            }
            // Nothing was added by this turn, and nothing will be.
            (Some((number, holder)), Some(JoinStage::Begun | JoinStage::Kubelet))
                if holder == me && !adding && !self.turn_good(context, number) =>
            {
                Some((EtcdTurn::GaveUp, number))
            }
            (Some((number, holder)), None) if holder == me => {
                // A turn of work that is no more. It ends when the reset has taken the member away again.
                let reset = context.durable.started.is_none();
                (reset && self.running.is_none()).then_some((EtcdTurn::GaveUp, number))
            }
            (Some((number, holder)), Some(JoinStage::Kubelet))
                if holder != me
                    && member.admitted.role == Role::ControlPlane
                    && crate::planted::planted("two-etcd-turns") =>
            {
                Some((EtcdTurn::Started, number + 1))
            }
            (None, Some(JoinStage::Kubelet)) if member.admitted.role == Role::ControlPlane => {
                Some((EtcdTurn::Started, self.ask_turn(context)))
            }
            _ => None,
        };
        if let Some((turn, number)) = want {
            context.wants.insert(Subject("etcd", me, number), Entry::EtcdJoin { machine: me, turn, number });
        }
    }

    /// Whether the join under way may use this turn. One that an earlier start of this machine asked for may have been given
    /// up by it, and the end be on its way; one that comes late may be ended by the leader while it is used (promise S8).
    fn turn_good(&self, context: &Context<'_>, number: u32) -> bool {
        let young = |at: Time| context.now.since(at) < context.tuning.etcd_turn_max / 2;
        self.asked_turn.is_some_and(|(asked, at)| asked == number && young(at))
            || crate::planted::planted("old-turn-used")
    }

    /// The turn to ask for. Its number is on disk before anybody hears of it, and is never asked for again.
    fn ask_turn(&mut self, context: &mut Context<'_>) -> u32 {
        let last = context.ledger.etcd_turns();
        if crate::planted::planted("old-turn-used") {
            return last + 1;
        }
        let number = match self.asked_turn {
            Some((number, _)) if number > last && self.turn_good(context, number) => number,
            _ => {
                let number = last.max(context.durable.etcd_turn).saturating_add(1);
                context.durable.etcd_turn = number;
                context.effects.persist(context.durable).done();
                self.asked_turn = Some((number, context.now));
                number
            }
        };
        if let Some((_, at)) = self.asked_turn {
            context.wake_at(at + context.tuning.etcd_turn_max / 2, "an etcd turn to ask for anew");
        }
        number
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
            Job::Init { attempt } | Job::MakePki { attempt } => context.ledger.cluster_attempt() != Some(attempt),
            Job::Join { attempt } | Job::JoinFinish { attempt } => ready != Some(attempt),
            Job::JoinEtcd { number, .. } => {
                context.now >= turn_end || context.ledger.etcd_turn() != Some((number, context.me))
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
        self.underway = Some(marker);
        if crate::planted::planted("start-unmarked") {
            context.durable.started = None;
        }
        context.effects.persist(context.durable).done();
        context.durable.started = Some(marker);
    }

    fn mark_completed(&mut self, context: &mut Context<'_>, marker: KubeadmMarker) {
        context.durable.completed = Some(marker);
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

    fn succeeded(&mut self, job: Job, output: StepOutput, context: &mut Context<'_>) -> bool {
        let was_unable = self.unable.is_some();
        match (job, output) {
            (Job::Check, StepOutput::Checked { version }) => {
                self.version = Some(version);
                self.unable = None;
                return was_unable;
            }
            (Job::Prepare, _) => self.prepared = true,
            (Job::MakePki { attempt }, StepOutput::PkiMade { ca_hash, sealed }) => {
                self.pki = Some((attempt, ca_hash, sealed));
            }
            (Job::Init { attempt }, StepOutput::Initialised { ca_hash, endpoints }) => {
                let tokens = std::mem::take(&mut self.tokens);
                self.initialised = Some(Initialised { attempt, ca_hash, endpoints, tokens });
            }
            (Job::InitFinish { attempt }, _) => {
                self.mark_completed(context, KubeadmMarker { attempt, init: true });
            }
            (Job::Join { .. }, _) => self.join_stage = Some(JoinStage::Kubelet),
            (Job::JoinEtcd { number, .. }, _) => self.join_stage = Some(JoinStage::Etcd(number)),
            (Job::JoinFinish { attempt }, _) => {
                self.mark_completed(context, KubeadmMarker { attempt, init: false });
            }
            (Job::AwaitReady, _) => self.node_ready = true,
            (Job::Reset, _) => self.clean(context),
            (job, output) => {
                let why = format!("an answer that does not fit: {output:?}");
                return self.failed(job, &StepFailure { step: "device", phase: None, why, hopeless: false }, context);
            }
        }
        self.last_failure = None;
        if !matches!(job, Job::Reset | Job::Prepare) {
            self.failures = 0;
        }
        false
    }

    /// The machine is as if kubeadm had never run.
    fn clean(&mut self, context: &mut Context<'_>) {
        context.durable.started = None;
        context.durable.completed = None;
        self.underway = None;
        self.leave_join();
        self.initialised = None;
        self.node_ready = false;
        context.effects.persist(context.durable).done();
    }

    fn failed(&mut self, job: Job, failure: &StepFailure, context: &mut Context<'_>) -> bool {
        self.failures += u32::from(!crate::planted::planted("retry-at-once"));
        let pause = (Duration::from_secs(1) * (1 << self.failures.min(6))).min(PAUSE_MAX);
        let pause = if crate::planted::planted("retry-at-once") { Duration::ZERO } else { pause };
        let text = failure.to_string();
        context.effects.notice(true, "step-failed", format!("{text}; next try in {} s", pause.as_secs()));
        self.last_failure = Some(text.clone());
        self.not_before = context.now + pause;
        match job {
            Job::Check => {
                let changed = self.unable.as_ref() != Some(&text);
                self.unable = Some(text);
                return changed;
            }
            // kubeadm will say itself what is missing; a failed preparation only makes it slower.
            Job::Prepare => self.prepared = true,
            Job::MakePki { attempt } => self.init_failed = Some((attempt, text)),
            Job::Init { attempt } => {
                self.init_failed = Some((attempt, text));
                self.underway = None;
                // The right to init goes on to another machine at once; only the next try here waits.
                self.not_before = context.now;
            }
            Job::Join { .. } | Job::JoinEtcd { .. } | Job::JoinFinish { .. } => {
                self.underway = None;
                self.leave_join();
            }
            // The cluster stands. What failed is tried again.
            Job::InitFinish { .. } | Job::AwaitReady | Job::Reset => {}
        }
        false
    }

    /// Why this machine cannot run kubeadm, if it cannot.
    pub(crate) fn unable(&self) -> Option<&str> {
        self.unable.as_deref()
    }

    pub(crate) fn last_failure(&self) -> Option<&str> {
        self.last_failure.as_deref()
    }

    /// What runs now: its name, kubeadm's phase, and since when.
    pub(crate) fn doing(&self) -> Option<(String, Time)> {
        let running = self.running.as_ref()?;
        let name = match running.job {
            Job::Check => "check",
            Job::Prepare => "prepare",
            Job::MakePki { .. } => "make-pki",
            Job::Init { .. } => "init",
            Job::InitFinish { .. } => "init-finish",
            Job::Join { .. } => "join",
            Job::JoinEtcd { .. } => "join-etcd",
            Job::JoinFinish { .. } => "join-finish",
            Job::AwaitReady => "await-ready",
            Job::Reset => "reset",
        };
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

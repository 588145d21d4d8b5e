//! Which step comes next: the ledger, the two markers on disk and what this start has done decide.

use std::time::Duration;

use bytes::Bytes;
use muster_wire::entry::Admitted;
use muster_wire::{Attempt, Entry, KubeadmMarker, MachineId, Role, TurnKind, TurnNumber, level};

use super::{Context, Job, JoinStage, Ladder};
use crate::ledger::Member;
use crate::planted::planted;
use crate::words::notices::NoticeKind;
use crate::words::waits::{Climb, Wait};
use crate::{Recipient, Step};

/// How long etcd's data may be gone before its member is given up: a disk may be mounted late, and a person may be at it.
const ETCD_PATIENCE: Duration = Duration::from_secs(120);

/// Whether this machine works as a worker, and the ledger says that it is to be a control plane: whoever joined as one has written by
/// which turn. Then what it had joined with goes, and it joins anew.
pub(super) fn is_promoted(context: &Context<'_>, member: &Member) -> bool {
    let durable = &context.durable;
    let as_worker = durable.completed.is_some_and(|marker| !marker.init) && durable.etcd_joined == TurnNumber::NONE;
    member.left && member.admitted.role == Role::ControlPlane && as_worker && !planted("promotion-unreset")
}

impl Ladder {
    /// The next step, given that none runs.
    pub(super) fn next(&mut self, context: &mut Context<'_>) -> Option<(Job, Step)> {
        let member = context.member()?.clone();
        let role = member.admitted.role;
        if !planted("turn-forgotten") && self.forgot_turn(context) {
            self.underway = None;
            self.leave_join();
        }
        if let Some(epoch) = context.rebuilds() {
            return Some(self.next_rebuilt(context, epoch, &member));
        }
        if let Some(step) = self.next_without_etcd(context, &member) {
            return Some(step);
        }
        if self.is_overdue(context, &member) {
            return self.next_overdue(context, &member);
        }
        match (context.durable.started, context.durable.completed) {
            (Some(marker), completed) if completed == Some(marker) => self.next_completed(context, marker, &member),
            (Some(marker), _) if self.underway == Some(marker) => self.next_underway(context, marker, &member),
            (Some(marker), _) => self.mend(context, marker),
            // What it had joined with is gone: the disk is an older copy, or all was taken away here.
            (None, _) if member.joined && context.ledger.level() >= level::FOUNDERS && !planted("left-untold") => {
                let machine = context.me;
                context.wants.want(Entry::Left { machine });
                None
            }
            (None, _) => {
                if let Some(attempt) = context.claims_init() {
                    return self.next_claimed(context, attempt, &member);
                }
                if !self.prepared && context.made_cluster().is_none() {
                    return Some((Job::Prepare, Step::Prepare { role }));
                }
                if let Some(attempt) = context.founds() {
                    return self.next_founder(context, attempt);
                }
                self.next_join(context, &member)
            }
        }
    }

    /// Whether the ledger shows a turn at etcd that this disk knows nothing of, although its number was written before anybody
    /// heard of it: the disk is an old copy. What was done in that turn is taken back before the turn is given up.
    fn forgot_turn(&self, context: &mut Context<'_>) -> bool {
        let turn = context.ledger.turn(TurnKind::Etcd).filter(|(_, holder)| *holder == context.me);
        let Some((number, _)) = turn.filter(|(number, _)| *number > context.durable.etcd_turn) else { return false };
        let Some(ready) = context.ledger.ready() else { return false };
        context.durable.started.get_or_insert(KubeadmMarker { attempt: ready.attempt, init: false });
        context.durable.completed = None;
        context.durable.etcd_joined = TurnNumber::NONE;
        context.durable.etcd_turn = number;
        context.effects.persist(context.durable).done();
        let text =
            "this disk is an old copy: it knows nothing of this machine's turn at etcd; what that left is taken away";
        context.effects.notice(NoticeKind::DiskForgot, text.to_owned());
        true
    }

    /// This machine has the right to init and has not begun.
    fn next_claimed(&mut self, context: &mut Context<'_>, attempt: Attempt, member: &Member) -> Option<(Job, Step)> {
        if self.init_failed.as_ref().is_some_and(|(failed, _)| *failed == attempt) || self.unable.is_some() {
            return None;
        }
        if context.ledger.pki().is_none() {
            if self.pki.as_ref().is_some_and(|(made, ..)| *made == attempt) {
                return None;
            }
            let recipients = context.ledger.control_planes().filter_map(|plane| context.ledger.member(plane));
            let recipients = recipients
                .map(|plane| Recipient { machine: plane.admitted.machine, sealing_key: plane.admitted.sealing_key })
                .collect();
            return Some((Job::MakePki { attempt }, Step::MakePki { attempt, recipients }));
        }
        let sealed_pki = self.own_ca(context)?;
        if context.ledger.is_founder(context.me) {
            self.begin(context, attempt);
            return None;
        }
        self.mark_started(context, KubeadmMarker { attempt, init: true });
        Some(self.init(context, attempt, member, sealed_pki))
    }

    /// This machine's copy of the CA, in the ledger.
    pub(super) fn own_ca(&mut self, context: &Context<'_>) -> Option<Bytes> {
        let own = context.ledger.pki().and_then(|pki| pki.sealed.get(&context.me)).cloned();
        self.waits.extend(own.is_none().then_some(Wait::Climb(Climb::NoCa)));
        own
    }

    /// This machine runs init.
    pub(super) fn init(
        &mut self,
        context: &Context<'_>,
        attempt: Attempt,
        member: &Member,
        sealed_pki: Bytes,
    ) -> (Job, Step) {
        self.tokens = context.ledger.members().keys().copied().filter(|machine| *machine != context.me).collect();
        let step = Step::InitCluster {
            attempt,
            name: member.admitted.name.clone(),
            address: member.admitted.address.clone(),
            sealed_pki,
            tokens: self.tokens.clone(),
            timing: context.timing(),
            founding: context.founding(attempt),
        };
        (Job::Init { attempt }, step)
    }

    /// The cluster is made by another machine, and this one has not begun to join it.
    pub(super) fn next_join(&mut self, context: &mut Context<'_>, member: &Member) -> Option<(Job, Step)> {
        let ready = context.ledger.ready()?;
        let attempt = ready.attempt;
        let Some((_, ticket)) = context.ledger.ticket(context.me).filter(|(of, _)| *of == attempt) else {
            self.waits.push(Wait::Climb(Climb::NoTicket));
            return None;
        };
        let ticket = ticket.clone();
        let role = if planted("plane-joins-as-worker") { Role::Worker } else { member.admitted.role };
        // Its kubeadm can only make a worker of it, and it was made a control plane all the same: `explain` says so.
        if role == Role::ControlPlane && self.unable.is_some() {
            return None;
        }
        let sealed_pki: Option<Bytes> = match role {
            Role::ControlPlane => Some(self.own_ca(context)?),
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
        if marker.init && context.founds() == Some(attempt) {
            return self.next_of_founder(context, attempt, member);
        }
        if marker.init {
            if context.made_cluster() == Some(attempt) || planted("finish-before-ready") && self.initialised.is_some() {
                return Some((Job::InitFinish { attempt }, Step::InitFinish { attempt }));
            }
            // Lost: the attempt was given to another machine while this one was at it.
            if context.claims_init() != Some(attempt) {
                self.underway = None;
                return self.mend(context, marker);
            }
            return self.next_begun(context, attempt, member);
        }
        if context.ledger.ready().map(|ready| ready.attempt) != Some(attempt) {
            self.underway = None;
            return self.mend(context, marker);
        }
        match self.join_stage? {
            JoinStage::Begun => None,
            JoinStage::Kubelet if member.admitted.role == Role::Worker => Self::finish(context, attempt, member),
            JoinStage::Kubelet => {
                let (number, holder) = context.ledger.turn(TurnKind::Etcd)?;
                let ours = holder == context.me && self.turn_good(context, number);
                (ours || planted("etcd-turn-unwaited")).then(|| Self::join_etcd(context, attempt, number, member))
            }
            // A copy of the ledger from before the turn began says nothing of its end.
            JoinStage::Etcd(number) if context.ledger.last_turn(TurnKind::Etcd) < number => {
                self.waits.push(Wait::Climb(Climb::OldCopy(number)));
                None
            }
            // The turn's end is committed first, so that the next machine can begin while this one goes on. That etcd has had a member of
            // this machine says nothing of it: whoever made the cluster and joins anew had one before.
            JoinStage::Etcd(number) if context.ledger.turn(TurnKind::Etcd) == Some((number, context.me)) => None,
            JoinStage::Etcd(_) if context.ledger.has_etcd(context.me) => Self::finish(context, attempt, member),
            // The leader ended the turn before its success was known: what was added is taken away again.
            JoinStage::Etcd(_) => {
                self.underway = None;
                self.leave_join();
                context.durable.etcd_joined = TurnNumber::NONE;
                context.effects.persist(context.durable).done();
                self.mend(context, marker)
            }
        }
    }

    /// It is this machine's turn at etcd. Nobody else may be adding a member now, so whoever has one by no word of the ledger's left it behind.
    fn join_etcd(context: &Context<'_>, attempt: Attempt, number: TurnNumber, member: &Member) -> (Job, Step) {
        let others = context.ledger.control_planes().filter(|plane| *plane != context.me);
        let (with, without): (Vec<_>, Vec<_>) = others.partition(|plane| context.ledger.has_etcd(*plane));
        let at = |planes: Vec<MachineId>| {
            let members = planes.into_iter().filter_map(|plane| context.ledger.member(plane));
            members.map(|member| member.admitted.address.clone()).collect()
        };
        let address = member.admitted.address.clone();
        let step = Step::JoinEtcd { attempt, address, with: at(with), without: at(without) };
        (Job::JoinEtcd { attempt, number }, step)
    }

    /// The rest of a join, for as often as it takes.
    fn finish(context: &Context<'_>, attempt: Attempt, member: &Member) -> Option<(Job, Step)> {
        let Admitted { role, name, address, .. } = member.admitted.clone();
        let ticket = context.ledger.ticket(context.me).filter(|(of, _)| *of == attempt)?.1.clone();
        Some((Job::JoinFinish { attempt }, Step::JoinFinish { attempt, role, name, address, ticket }))
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
            return Some((Job::Reset, Step::Reset { member: None, node: None }));
        }
        if is_promoted(context, member) {
            // What was prepared was a worker's.
            self.prepared = false;
            let member_of = Some(member.admitted.address.clone());
            return Some((Job::Reset, Step::Reset { member: member_of, node: Some(member.admitted.name.clone()) }));
        }
        if let Some(epoch) = context.registers() {
            return Some((Job::Register { epoch }, Step::Register));
        }
        (!member.joined && !self.node_ready)
            .then(|| (Job::AwaitReady, Step::AwaitReady { name: member.admitted.name.clone() }))
    }

    /// etcd has worked here, and its data is gone. Nothing is taken away before this machine is known to be no member: until then the data
    /// may be put back, or its disk be mounted late.
    fn next_without_etcd(&mut self, context: &mut Context<'_>, member: &Member) -> Option<(Job, Step)> {
        let (since, marker) = (self.etcd_gone?, context.durable.started?);
        let made = marker.init && context.made_cluster() == Some(marker.attempt);
        let worked =
            context.durable.completed == Some(marker) || context.durable.etcd_joined != TurnNumber::NONE || made;
        let may = worked && member.admitted.role == Role::ControlPlane && context.ledger.level() >= level::FOUNDERS;
        if !may || context.ledger.ready().map(|ready| ready.attempt) != Some(marker.attempt) {
            return None;
        }
        let due = since + ETCD_PATIENCE;
        if context.now < due {
            context.wake_at(due, "etcd's data to be put back");
            return None;
        }
        Some((Job::LeaveEtcd, Step::LeaveEtcd { address: member.admitted.address.clone() }))
    }

    /// This machine is no member of etcd any more, whose data it has lost: what is left of it here is reset, and it joins anew.
    pub(super) fn take_back(&mut self, context: &mut Context<'_>) {
        let Some(marker) = context.durable.started else { return };
        if context.ledger.is_founder(context.me) {
            context.durable.founding = context.durable.founding.max(marker.attempt);
        }
        context.durable.started = Some(KubeadmMarker { attempt: marker.attempt, init: false });
        context.durable.completed = None;
        context.durable.etcd_joined = TurnNumber::NONE;
        self.underway = None;
        self.leave_join();
        context.effects.persist(context.durable).done();
        let text =
            "etcd's data was gone from this machine, and its member is taken out of etcd: it is reset, and joins anew";
        context.effects.notice(NoticeKind::DiskForgot, text.to_owned());
    }

    /// Work was begun and is not going on: by an earlier start of this machine, or it failed.
    pub(super) fn mend(&mut self, context: &mut Context<'_>, marker: KubeadmMarker) -> Option<(Job, Step)> {
        if marker.init && context.founds() == Some(marker.attempt) && !planted("founder-founds-again") {
            // What etcd promised the others is on this disk: a founder goes on with it, and never begins anew.
            self.underway = Some(marker);
            let member = context.member()?.clone();
            return self.next_of_founder(context, marker.attempt, &member);
        }
        if marker.init {
            if context.made_cluster() == Some(marker.attempt) {
                // It was committed before the machine stopped: what is left can be repeated safely.
                self.underway = Some(marker);
                let attempt = marker.attempt;
                return Some((Job::InitFinish { attempt }, Step::InitFinish { attempt }));
            }
            // First the ledger must say that the attempt is over; until then this copy may just be old.
            let live = context.claims_init() == Some(marker.attempt);
            if live || context.ledger.last_attempt() < marker.attempt {
                return None;
            }
        }
        // A join begins after InitReady, so a ledger without it is a copy from before, and says nothing of what came since.
        if !marker.init && context.ledger.ready().is_none() {
            return None;
        }
        if self.goes_on(context, marker) {
            let member = context.member()?.clone();
            return self.next_underway(context, marker, &member);
        }
        // An init's only member is itself. A join's may be one of several, and they must be told.
        let joining = context.member().filter(|_| !marker.init);
        let node = joining.map(|member| member.admitted.name.clone());
        let plane = joining.filter(|member| member.admitted.role == Role::ControlPlane);
        let member = plane.filter(|_| !planted("reset-keeps-member")).map(|plane| plane.admitted.address.clone());
        (!planted("abandoned-not-reset")).then_some((Job::Reset, Step::Reset { member, node }))
    }

    /// Whether a join of an earlier start is gone on with: its etcd member was in, so the machine works, and what is left can
    /// be done at any time. The disk says so itself; one that is an older copy does not, and is reset.
    fn goes_on(&mut self, context: &mut Context<'_>, marker: KubeadmMarker) -> bool {
        let of_cluster = context.ledger.ready().is_some_and(|ready| ready.attempt == marker.attempt);
        let number = context.durable.etcd_joined;
        if marker.init || number == TurnNumber::NONE || !of_cluster || planted("joined-begins-anew") {
            return false;
        }
        self.underway = Some(marker);
        self.join_stage = Some(JoinStage::Etcd(number));
        true
    }
}

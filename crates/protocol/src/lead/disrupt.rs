//! What is taken down on purpose, one thing at a time and under a turn to disrupt: a machine that is gone for good ([`super::replace`],
//! [`super::repair`]), one that somebody wished away, a worker that becomes a control plane, and what certificates are renewed for
//! ([`super::renewal`]).
//!
//! A machine that lives is drained first. Then it is taken out of etcd if it was a control plane, its Node is deleted, which would look
//! Ready for most of a minute and keep its successor out, and then it is taken out of the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_wire::{Entry, MachineId, Role, Turn, TurnChange, TurnKind, TurnNumber, level};

use super::backups::Backups;
use super::renewal::Renewing;
use super::repair::{self, Repair};
use super::runs::{Job, Runs};
use super::silence::{Silence, Why};
use super::{Context, replace};
use crate::ledger::Ledger;
use crate::planted::planted;
use crate::roster::Roster;
use crate::words::waits::{self, Removal, Wait};
use crate::{Step, Time};

/// Pause before a machine is drained once more after something held it; it doubles, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(30);

/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How long a worker that was promoted may take to join before the turn is ended: others wait for it.
const PROMOTION_MAX: Duration = Duration::from_secs(900);

/// Longest reason put into the ledger, in characters.
const WHY_CHARS_MAX: usize = 240;

/// How long something holds a machine before it is told, and pause until it is told anew.
const TELL_AFTER: Duration = Duration::from_secs(10);

/// What is to be done under the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// A machine is gone for good.
    Strike(MachineId),
    /// A machine lives, and is to leave.
    Dismiss(MachineId),
    /// A worker is to be a control plane.
    Promote(MachineId),
    /// It joins as one.
    Await(MachineId),
    /// This machine's certificates are to be renewed.
    Renew,
}

impl Task {
    /// The other machine that it is about, if it is about one.
    fn about(self) -> Option<MachineId> {
        match self {
            Task::Strike(machine) | Task::Dismiss(machine) | Task::Promote(machine) | Task::Await(machine) => {
                Some(machine)
            }
            Task::Renew => None,
        }
    }
}

/// Why a machine cannot be drained.
#[derive(Debug)]
struct Held {
    why: String,
    times: u32,
    until: Time,
}

/// This duty's notes.
#[derive(Debug, Default)]
pub(super) struct Disrupt {
    /// Who was taken out of etcd in this start, and is not out of the ledger yet.
    struck: Option<MachineId>,
    /// Whom this machine began to take out: how far that came nobody knows, until it is over.
    begun: BTreeSet<MachineId>,
    /// Whose vote in Raft is taken, since it is about to be taken out on a person's wish.
    pub(super) unvoted: Option<MachineId>,
    /// Who was drained last.
    drained: Option<MachineId>,
    /// Whose Node this machine has closed, in vain so far.
    closed: Option<MachineId>,
    held: BTreeMap<MachineId, Held>,
    /// Who was to leave at the last look.
    leaving: Option<MachineId>,
    /// Since when a machine is being drained, and when it was last told what holds it.
    draining: Option<Time>,
    told: Option<Time>,
    /// Since when a worker that was promoted is waited for.
    promoted: Option<Time>,
    repair: Repair,
    pub(super) renewing: Renewing,
    /// The turn that this machine asked for in this start.
    turn: Option<TurnNumber>,
    /// The turn whose end it has asked for: nothing is done in it any more, whenever that comes.
    ended: Option<TurnNumber>,
    /// When it last looked.
    looked: Option<Time>,
    /// Whether the removal that was wished is this machine's to do.
    dismisses: bool,
}

impl Disrupt {
    /// One thing at a time, a step further.
    pub(super) fn run(
        &mut self,
        context: &mut Context<'_>,
        silence: &mut Silence,
        backups: &mut Backups,
        runs: &mut Runs,
        leader: MachineId,
    ) {
        // Who stood still for so long does not know what became of its turn.
        let looked = self.looked.replace(context.now);
        let slept = looked.is_some_and(|looked| context.now.since(looked) >= context.tuning.etcd_turn_max);
        self.turn.take_if(|_| slept && !planted("stale-turn-used"));
        // What was done in a turn that is over says nothing of now: the machine may have come to etcd again.
        let ours = context.ledger.turn(TurnKind::Disrupt).is_some_and(|(_, holder)| holder == context.me());
        if !ours {
            self.struck = None;
        }
        self.dismisses = false;
        self.unvoted = context.ledger.leaving().filter(|_| planted("vote-taken-early"));
        // Whoever joins anew is a member again when it has.
        self.begun.retain(|begun| super::has_joined(context, *begun) && !context.ledger.holds_turn(*begun));
        let task = self.task(context, silence, leader);
        self.tell_held(context);
        let me = context.me();
        match (context.ledger.turn(TurnKind::Disrupt), task) {
            // One that an earlier start asked for may be over, and its end not be known here yet: it is given up.
            (Some((number, holder)), Some(_))
                if holder == me && self.turn != Some(number) && !planted("stale-turn-used") =>
            {
                self.leave(context, runs)
            }
            (Some((number, holder)), Some(task))
                if holder == me && (self.ended == Some(number) || self.closed_another(task)) =>
            {
                self.leave(context, runs)
            }
            (Some((_, holder)), Some(task)) if holder == me => {
                match matches!(task, Task::Await(_)) || backups.before(context, runs, task) {
                    true => self.carry_on(context, runs, task),
                    false => context.waits.push(Wait::Turn(waits::Turn::Backup)),
                }
            }
            // What waits for a join that was begun needs no other turn.
            (None, Some(Task::Await(_))) => {}
            (None, Some(task)) => match may_disrupt(context, task) {
                Ok(()) => {
                    let number = context.ledger.last_turn(TurnKind::Disrupt).next();
                    self.turn = Some(number);
                    want(context, number, TurnChange::Started);
                }
                // Of a worker nothing of the kind is expected: its kubelet renews its own certificate.
                Err(wait) => context.waits.extend(context.ledger.is_plane(me).then_some(Wait::Turn(wait))),
            },
            (_, None) => self.leave(context, runs),
            (Some((_, machine)), Some(_)) => {
                context.waits.push(Wait::Turn(waits::Turn::Taken { kind: TurnKind::Disrupt, machine }));
            }
        }
    }

    /// Whether another Node than the one that this is about is closed here: it is opened first.
    fn closed_another(&self, task: Task) -> bool {
        self.closed.is_some_and(|closed| task.about() != Some(closed))
    }

    /// Ends this machine's turn, if it has one: there is nothing to be done in it, or not by this machine any more.
    fn leave(&mut self, context: &mut Context<'_>, runs: &mut Runs) {
        let turn = context.ledger.turn(TurnKind::Disrupt).filter(|(_, holder)| *holder == context.me());
        let Some((number, _)) = turn else {
            (self.drained, self.promoted) = (None, None);
            return;
        };
        runs.end_drain(context);
        if self.opens(context, runs) {
            return;
        }
        if !runs.disrupts() {
            let change = if self.turn == Some(number) { TurnChange::Done } else { TurnChange::GaveUp };
            self.ended = Some(number).filter(|_| !planted("ended-turn-used"));
            want(context, number, change);
        }
    }

    /// What was closed for nothing is opened again. Returns whether that is under way.
    fn opens(&mut self, context: &mut Context<'_>, runs: &mut Runs) -> bool {
        let Some(machine) = self.closed else { return false };
        let Some(member) = context.ledger.member(machine).filter(|member| member.joined) else {
            self.closed = None;
            return false;
        };
        let step = Step::Open { node: member.admitted.name.clone() };
        if !runs.disrupts() {
            // Something may come to it again.
            self.drained.take_if(|drained| *drained == machine);
            runs.start(context, Job::Open { machine }, step);
        }
        true
    }

    fn task(&mut self, context: &mut Context<'_>, silence: &mut Silence, leader: MachineId) -> Option<Task> {
        // etcd has none of it any more: it must not stay a member here.
        if let Some(struck) = self.struck.filter(|struck| context.ledger.member(*struck).is_some()) {
            return Some(Task::Strike(struck));
        }
        // Begun, and here again: perhaps etcd has none of it any more, and nobody would know.
        let now = |begun: &MachineId| self.held.get(begun).is_none_or(|held| held.until <= context.now);
        let back = |begun: &MachineId| context.roster.is_alive(*begun) && context.ledger.leaving() != Some(*begun);
        if let Some(begun) = self.begun.iter().copied().find(|begun| back(begun) && now(begun)) {
            return Some(Task::Strike(begun));
        }
        let leads = leader == context.me();
        if leads && let Some(old) = replace::gone(context, silence) {
            return Some(Task::Strike(old));
        }
        if let Some(promoted) = self.awaited(context) {
            return Some(Task::Await(promoted));
        }
        // While it is held up, what is broken is repaired all the same.
        if let Some(leaving) = context.ledger.leaving()
            && let Some(task) = self.dismissal(context, silence, leader, leaving)
        {
            return Some(task);
        }
        if !leads {
            return self.renewing.task(context);
        }
        let held: Vec<MachineId> =
            self.held.iter().filter(|(_, held)| context.now < held.until).map(|(who, _)| *who).collect();
        repair::task(context, silence, &mut self.repair, &held).or_else(|| self.renewing.task(context))
    }

    /// The worker that was promoted and has not joined yet.
    fn awaited(&mut self, context: &mut Context<'_>) -> Option<MachineId> {
        let machine = self.drained.filter(|drained| context.ledger.leaving() != Some(*drained))?;
        let member = context.ledger.member(machine)?;
        if member.admitted.role != Role::ControlPlane || member.joined || !context.roster.is_alive(machine) {
            return None;
        }
        let until = *self.promoted.get_or_insert(context.now) + PROMOTION_MAX;
        context.wake_at(until, "a worker that becomes a control plane");
        let waits = context.now < until;
        context.waits.extend(waits.then_some(Wait::Repair(waits::Repair::Promoted { machine, until })));
        waits.then_some(machine)
    }

    /// Somebody wished a machine away. It is for the leader to do; if that is the machine itself, for another control plane.
    fn dismissal(
        &mut self,
        context: &mut Context<'_>,
        silence: &mut Silence,
        leader: MachineId,
        leaving: MachineId,
    ) -> Option<Task> {
        let me = context.me();
        let works = |plane: &MachineId| super::has_joined(context, *plane) && context.ledger.has_etcd(*plane);
        let alive = |plane: &MachineId| *plane == me || context.roster.is_alive(*plane);
        let mut others = context.ledger.control_planes().filter(|plane| *plane != leaving);
        let by = if leader == leaving { others.find(|plane| works(plane) && alive(plane)) } else { Some(leader) };
        if by.is_none() && leader == me {
            context.waits.push(Wait::Removal(Removal::NobodyToDo(leaving)));
        }
        if by != Some(me) {
            return None;
        }
        self.dismisses = true;
        if costs_majority(context, leaving) {
            context.waits.push(Wait::Removal(Removal::Majority(leaving)));
            return None;
        }
        if let Some(held) = self.held.get(&leaving).filter(|held| context.now < held.until) {
            let until = held.until;
            context.wake_at(until, "a machine to drain once more");
            context.waits.push(Wait::Removal(Removal::Held { machine: leaving, until }));
            return None;
        }
        if context.roster.is_alive(leaving) {
            // Its Node may come at any moment, and would stay.
            if !super::has_joined(context, leaving) && context.ledger.ticket(leaving).is_some() {
                context.waits.push(Wait::Removal(Removal::JoinsFirst(leaving)));
                return None;
            }
            silence.forget(Why::Leaving, leaving);
            return Some(Task::Dismiss(leaving));
        }
        let patience = context.tuning.initialiser_patience;
        let wait = |until| Some(Wait::Removal(Removal::Silent { machine: leaving, until }));
        silence.dead_for(context, Why::Leaving, leaving, patience, wait).then_some(Task::Strike(leaving))
    }

    fn carry_on(&mut self, context: &mut Context<'_>, runs: &mut Runs, task: Task) {
        match task {
            Task::Strike(machine) => self.strike(context, runs, machine),
            Task::Dismiss(machine) if self.drained == Some(machine) || planted("removal-undrained") => {
                self.strike(context, runs, machine)
            }
            Task::Promote(machine) if self.drained == Some(machine) => {
                context.wants.want(Entry::Promoted { machine });
            }
            Task::Dismiss(machine) | Task::Promote(machine) => self.drain(context, runs, machine),
            Task::Renew => Renewing::carry_on(context, runs),
            Task::Await(_) => {}
        }
    }

    fn drain(&mut self, context: &mut Context<'_>, runs: &mut Runs, machine: MachineId) {
        let Some(member) = context.ledger.member(machine) else { return };
        let step = Step::Drain { node: member.admitted.name.clone() };
        if !runs.disrupts() && runs.idle(context, machine, |job| matches!(job, Job::Drain { .. })) {
            self.closed = Some(machine);
            (self.draining, self.told) = (None, None);
            runs.start(context, Job::Drain { machine }, step);
        }
    }

    fn strike(&mut self, context: &mut Context<'_>, runs: &mut Runs, old: MachineId) {
        // Who lives gives its vote in Raft back before it is removed, since nobody hears it afterwards. Not sooner: whoever else is lost meanwhile
        // may leave too few votes without it.
        let wished = context.ledger.leaving() == Some(old) && context.ledger.is_plane(old);
        self.unvoted = Some(old).filter(|_| wished);
        if wished && context.roster.is_alive(old) && takes_part(context, old) {
            context.wake_at(context.now + context.tuning.resend, "Raft's voters");
            context.waits.push(Wait::Turn(waits::Turn::Vote(old)));
            return;
        }
        if self.struck == Some(old) || planted("member-left-in-etcd") {
            context.wants.want(Entry::Removed { machine: old });
            return;
        }
        let Some(member) = context.ledger.member(old) else { return };
        let plane = replace::may_be_in_etcd(context, old).then(|| member.admitted.address.clone());
        let back = self.begun.contains(&old) && !wished && context.roster.is_alive(old);
        let step = Step::Strike { member: plane, node: member.admitted.name.clone(), back };
        if !runs.disrupts() && runs.idle(context, old, |job| matches!(job, Job::Strike { .. })) {
            self.begun.extend(Some(old).filter(|_| !planted("strike-forgotten")));
            runs.start(context, Job::Strike { machine: old }, step);
        }
    }

    /// A member was taken out of etcd.
    pub(super) fn struck(&mut self, machine: MachineId) {
        self.struck = Some(machine);
        self.held.remove(&machine);
    }

    /// It is here again, and etcd has its member: nothing was taken from it.
    pub(super) fn spared(&mut self, machine: MachineId) {
        self.begun.remove(&machine);
        self.held.remove(&machine);
    }

    /// Nothing that is to be moved runs on a machine any more.
    pub(super) fn drained(&mut self, now: Time, machine: MachineId) {
        self.drained = Some(machine);
        // How often it was tried counts on, if etcd is next to hold it.
        if let Some(held) = self.held.get_mut(&machine) {
            held.until = now;
        }
    }

    /// What holds a machine that is being drained: told now and then, and not each time that it is something else. Returns whether it is.
    pub(super) fn held_up(&mut self, now: Time, machine: MachineId, why: &str) -> bool {
        let since = *self.draining.get_or_insert(now);
        let due = now.since(since) >= TELL_AFTER && self.told.is_none_or(|told| now.since(told) >= TELL_AFTER);
        if due {
            self.told = Some(now);
            self.holds(now, machine, why, 0);
        }
        due
    }

    /// A Node is open again, or nobody could open it.
    pub(super) fn opened(&mut self) {
        self.closed = None;
    }

    /// Something holds what runs on a machine, or etcd needs it. The turn ends, and others may have theirs.
    pub(super) fn failed(&mut self, now: Time, job: Job, why: &str) {
        let (Job::Drain { machine } | Job::Strike { machine }) = job else { return };
        let times = self.held.get(&machine).map_or(0, |held| held.times);
        let pause = (PAUSE * (1 << times.min(8))).min(PAUSE_MAX);
        (self.draining, self.told) = (None, None);
        self.holds(now + pause, machine, why, times + 1);
    }

    fn holds(&mut self, until: Time, machine: MachineId, why: &str, times: u32) {
        let why: String = why.chars().filter(|c| c.is_ascii() && !c.is_control()).take(WHY_CHARS_MAX).collect();
        let times = times.max(self.held.get(&machine).map_or(0, |held| held.times));
        self.held.insert(machine, Held { why, times, until });
    }

    /// Why a wished removal does not go on is for everybody to know.
    fn tell_held(&mut self, context: &mut Context<'_>) {
        let leaving = context.ledger.leaving();
        // What held it when it was wished away before says nothing of the next time.
        if let Some(stays) = std::mem::replace(&mut self.leaving, leaving).filter(|before| Some(*before) != leaving) {
            self.held.remove(&stays);
        }
        let waits = |machine: &MachineId| Some(*machine) == leaving;
        self.held.retain(|machine, held| waits(machine) || context.now < held.until + PAUSE_MAX);
        let Some((machine, held)) = self.held.iter().find(|(machine, _)| waits(machine)) else { return };
        // Two that tell of it would take it from each other for ever.
        let tells = self.dismisses || planted("everybody-tells");
        if tells && context.ledger.removal_held() != Some(&held.why) {
            let entry = Entry::RemovalHeld { machine: *machine, why: held.why.clone() };
            context.wants.want(entry);
        }
    }
}

/// Who is to leave and gives its vote back because another machine than this one, which leads, has the turn: that one may have come so far, be it that
/// this one is to leave itself. Only where the others are a majority without it; whoever leads then has it vote again, until its own turn comes so far.
pub(super) fn unvoted_by_another(context: &Context<'_>) -> Option<MachineId> {
    let others_turn = context.ledger.turn(TurnKind::Disrupt).is_some_and(|(_, holder)| holder != context.me());
    let leaving = context.ledger.leaving().filter(|leaving| others_turn && context.ledger.is_plane(*leaving))?;
    // Of another one than this machine only a vote that it gave back already: the turn may be for something else.
    let gives = leaving == context.me() && !costs_majority(context, leaving) || !takes_part(context, leaving);
    gives.then_some(leaving)
}

/// Whether a machine has, or may be given, a vote in Raft. Who knows nothing of that waits.
fn takes_part(context: &Context<'_>, machine: MachineId) -> bool {
    context.raft_members.all.is_empty() || context.raft_members.all.contains(&machine)
}

/// Whether the control planes that are here would be no majority without this one.
pub(crate) fn costs_majority(context: &Context<'_>, machine: MachineId) -> bool {
    stands_still_without(context.ledger, context.roster, context.me(), machine).is_some()
        && !planted("removal-costs-quorum")
}

/// The control planes that would stay without this one, and those of them that are away, if those that are here would be no majority of them.
pub(crate) fn stands_still_without(
    ledger: &Ledger,
    roster: &Roster,
    me: MachineId,
    machine: MachineId,
) -> Option<(Vec<MachineId>, Vec<MachineId>)> {
    if !ledger.is_plane(machine) {
        return None;
    }
    let others: Vec<MachineId> = ledger.control_planes().filter(|plane| *plane != machine).collect();
    // Control planes are connected with each other: a connection that ended says more, and sooner, than what SWIM holds for alive.
    let is_here = |plane| roster.is_alive(plane) && (roster.is_connected(plane) || !ledger.is_plane(me));
    let is_away = |plane: &&MachineId| **plane != me && !is_here(**plane);
    let away: Vec<MachineId> = others.iter().filter(is_away).copied().collect();
    ((others.len() - away.len()) * 2 <= others.len()).then_some((others, away))
}

fn want(context: &mut Context<'_>, number: TurnNumber, change: TurnChange) {
    let holder = context.me();
    let turn = Turn { kind: TurnKind::Disrupt, number, holder, change };
    context.wants.want(Entry::Turn(turn));
}

/// Whether this machine has what it takes: an etcd member that works, and nobody who is still joining etcd.
fn may_disrupt(context: &Context<'_>, task: Task) -> Result<(), waits::Turn> {
    let (ledger, me) = (context.ledger, context.me());
    let machine = task.about().unwrap_or(me);
    if let Some((_, holder)) = ledger.turn(TurnKind::Etcd).filter(|(_, holder)| *holder != machine) {
        return Err(waits::Turn::Taken { kind: TurnKind::Etcd, machine: holder });
    }
    let wished = !matches!(task, Task::Dismiss(_) | Task::Promote(_)) || ledger.level() >= level::LEAVING;
    let fit = super::has_joined(context, me) && ledger.has_etcd(me) && wished;
    fit.then_some(()).ok_or(waits::Turn::Unfit)
}

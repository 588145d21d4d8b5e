//! A control plane that stays dead is given up, and a worker takes its seat. One at a time, and only where the cluster is sound but for
//! that: a site that lost most of its machines at once waits for them.

use muster_wire::{MachineId, Role, level};

use super::Context;
use super::disrupt::Task;
use super::silence::{Silence, Why};
use crate::Time;
use crate::planted::planted;
use crate::words::waits::{self, Wait};

/// This duty's notes.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Whether a seat is free because this machine gave up who had it: then it has been waited long enough.
    vacated: bool,
}

/// Whose turn it is to be given up, or to take a seat. `held` are workers that cannot be drained now.
pub(super) fn task(
    context: &mut Context<'_>,
    silence: &mut Silence,
    repair: &mut Repair,
    held: &[MachineId],
) -> Option<Task> {
    let ledger = context.ledger;
    if ledger.ready().is_none() || ledger.level() < level::LEAVING || ledger.control_planes_wanted() == 0 {
        return None;
    }
    let Some(after) = context.tuning.replace_after else {
        let (me, roster) = (context.me(), context.roster);
        let away = ledger.control_planes().filter(|plane| *plane != me && !roster.is_alive(*plane));
        context.waits.extend(away.map(|plane| Wait::Repair(waits::Repair::Kept(plane))));
        return None;
    };
    let after = if planted("repair-impatient") { std::time::Duration::from_secs(1) } else { after };
    let candidate = candidate(context, held);
    // Any worker asks as well as another whether there is a seat.
    let vacant = ledger.members().iter().find(|(_, member)| member.admitted.role == Role::Worker);
    let vacant = vacant.is_some_and(|(worker, _)| ledger.has_seat(*worker));
    let me = context.me();
    if !vacant {
        silence.forget(Why::Vacancy, me);
        repair.vacated = false;
    }
    let planes: Vec<MachineId> = ledger.control_planes().collect();
    let (dead, here): (Vec<MachineId>, Vec<MachineId>) =
        planes.into_iter().partition(|plane| *plane != me && !context.roster.is_alive(*plane));
    // The next silence is counted anew.
    here.into_iter().for_each(|plane| silence.forget(Why::Repair, plane));
    if !vacant && dead.is_empty() {
        return None;
    }
    if !is_sound(context, &dead) {
        return None;
    }
    if vacant {
        let until =
            silence.since(context, Why::Vacancy, me) + if repair.vacated { std::time::Duration::ZERO } else { after };
        if context.now < until {
            context.wake_at(until, "a seat that nobody takes");
            context.waits.push(Wait::Repair(waits::Repair::Vacancy { until }));
            return None;
        }
        context.waits.extend(candidate.is_none().then_some(Wait::Repair(waits::Repair::NoWorker(None))));
        return candidate.map(Task::Promote);
    }
    let gone = dead
        .into_iter()
        .find(|plane| silence.dead_for(context, Why::Repair, *plane, after, |until| given_up(*plane, until)))?;
    // With nobody to take its seat it may as well keep it: it may come back whole.
    if candidate.is_none() {
        context.waits.push(Wait::Repair(waits::Repair::NoWorker(Some(gone))));
        return None;
    }
    repair.vacated = true;
    Some(Task::Strike(gone))
}

/// A voter of the charter that was not admitted yet is here, or nobody knows it: its next silence is counted anew.
pub(super) fn counts_anew(context: &mut Context<'_>, silence: &mut Silence, voter: MachineId) {
    silence.forget(Why::Repair, voter);
    let unknown = context.ledger.ready().is_some() && !context.roster.is_alive(voter);
    context.waits.extend(unknown.then_some(Wait::Repair(waits::Repair::Unadmitted(voter))));
}

/// Whether a voter of the charter that was never admitted, and is away, has been waited for long enough. Its seat is free and only its own; once it
/// is admitted, [`task`] gives it up like any other that is dead.
pub(super) fn gave_up(context: &mut Context<'_>, silence: &mut Silence, voter: MachineId) -> bool {
    if context.ledger.ready().is_none() || context.ledger.level() < level::LEAVING {
        return false;
    }
    let Some(after) = context.tuning.replace_after else {
        context.waits.push(Wait::Repair(waits::Repair::Unadmitted(voter)));
        return false;
    };
    silence.dead_for(context, Why::Repair, voter, after, |until| given_up(voter, until))
}

fn given_up(machine: MachineId, until: Time) -> Option<Wait> {
    Some(Wait::Repair(waits::Repair::Dead { machine, until }))
}

/// Whether nothing else is wrong: most machines are here, and every control plane that is here works.
fn is_sound(context: &mut Context<'_>, dead: &[MachineId]) -> bool {
    let ledger = context.ledger;
    let here = |machine: &MachineId| *machine == context.me() || context.roster.is_alive(*machine);
    let count = ledger.members().keys().filter(|machine| here(machine)).count();
    if count * 2 <= ledger.members().len() {
        context.waits.push(Wait::Repair(waits::Repair::MostAway));
        return false;
    }
    let joins = |plane: &MachineId| !super::has_joined(context, *plane) || !ledger.has_etcd(*plane);
    let joining = ledger.control_planes().filter(|plane| !dead.contains(plane)).find(joins);
    context.waits.extend(joining.map(|plane| Wait::Repair(waits::Repair::Joining(plane))));
    joining.is_none()
}

/// The worker that takes a seat: one that is here, works, and can be a control plane.
fn candidate(context: &Context<'_>, held: &[MachineId]) -> Option<MachineId> {
    // One that cannot read the ledger would never hear of it.
    let reads = |machine: MachineId| context.roster.card(machine).is_some_and(|card| card.level >= context.level);
    let able = |machine: &MachineId| context.able(*machine) && context.roster.is_alive(*machine) && reads(*machine);
    let mut workers = context.ledger.members().iter();
    let fit = workers.find(|(machine, member)| {
        member.admitted.role == Role::Worker && member.joined && able(machine) && !held.contains(machine)
    });
    fit.map(|(machine, _)| *machine)
}

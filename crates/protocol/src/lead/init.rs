//! Who has the right to init, and when it is taken back.

use std::time::Duration;

use muster_wire::{Attempt, Entry, MachineId, level};

use super::Context;
use super::silence::{Silence, Why};
use crate::Time;
use crate::planted::planted;
use crate::words::waits::{self, Wait};

/// This duty's notes.
#[derive(Debug, Default)]
pub(super) struct Init {
    claim_seen: Option<(Attempt, Time)>,
    /// The last attempt, and since when it is known to be over.
    claim_free: Option<(Attempt, Time)>,
}

impl Init {
    /// Gives the right to init, and takes it from a machine that died or takes too long (promises S4, L4).
    pub(super) fn watch_claim(&mut self, context: &mut Context<'_>, silence: &mut Silence, admitted_all: bool) {
        let ledger = context.ledger;
        if ledger.ready().is_some() {
            self.claim_seen = None;
            return;
        }
        let awaited = |machine: MachineId| !planted("claim-while-live") || context.roster.is_alive(machine);
        let Some((attempt, machine)) = ledger.live_claim().filter(|(_, machine)| awaited(*machine)) else {
            self.claim_seen = None;
            if admitted_all {
                match next_initialiser(context) {
                    Some((machine, failures)) => self.claim(context, machine, failures),
                    None => context.waits.push(Wait::Init(waits::Init::NobodyAble)),
                }
            }
            return;
        };
        let seen = match self.claim_seen {
            Some((known, seen)) if known == attempt => seen,
            _ => self.claim_seen.insert((attempt, context.now)).1,
        };
        let why = if silence.dead_for(context, Why::Claim, machine, context.tuning.initialiser_patience, |until| {
            Some(Wait::Init(waits::Init::Silent { machine, until }))
        }) {
            Some(format!("{machine} stopped answering while it initialised"))
        } else if context.now.since(seen) >= context.tuning.init_max {
            Some(format!("{machine} took longer than {} s", context.tuning.init_max.as_secs()))
        } else {
            context.wake_at(seen + context.tuning.init_max, "the end of the initialiser's time");
            None
        };
        if let Some(why) = why.filter(|_| !planted("initialiser-awaited")) {
            context.wants.want(Entry::InitAbandoned { attempt, why });
        }
    }

    /// Gives the right to init to a machine; after a pause if all have failed already, so that attempts that fail at once do
    /// not follow each other as fast as the ledger takes them (promise S10).
    fn claim(&mut self, context: &mut Context<'_>, machine: MachineId, failures: usize) {
        let last = context.ledger.last_attempt();
        let free = match self.claim_free {
            Some((known, free)) if known == last => free,
            _ => self.claim_free.insert((last, context.now)).1,
        };
        let doublings = failures.saturating_sub(1).min(6) as u32;
        let pause = Duration::from_secs(1) * (u32::from(failures > 0) << doublings);
        if context.now.since(free) < pause && !planted("claims-unpaused") {
            context.wake_at(free + pause, "the next attempt at init");
            context.waits.push(Wait::Init(waits::Init::NextAttempt(free + pause)));
            return;
        }
        let attempt = last.next();
        let founders = founders(context, machine);
        context.wants.want(Entry::InitClaimed { attempt, machine, founders });
    }
}

/// The living control plane with the fewest failed attempts, and how many; this machine before others, then the lowest.
fn next_initialiser(context: &Context<'_>) -> Option<(MachineId, usize)> {
    let ledger = context.ledger;
    let failures = |machine: &MachineId| ledger.abandoned().iter().filter(|(_, who, _)| who == machine).count();
    ledger
        .control_planes()
        .filter(|machine| context.roster.is_alive(*machine) && context.able(*machine))
        .map(|machine| (machine, failures(&machine)))
        .min_by_key(|(machine, failures)| (*failures, *machine != context.me(), *machine))
}

/// So many attempts at most are begun together.
const TOGETHER: Attempt = Attempt(2);

/// Who begins etcd together with the holder of the claim: the control planes that are there, an odd number of them. One more would have
/// to be awaited, and spare nothing. None where the holder begins alone.
fn founders(context: &Context<'_>, holder: MachineId) -> Vec<MachineId> {
    let ledger = context.ledger;
    // Together it takes a majority of them, alone it takes one: what failed together twice is begun alone.
    if ledger.level() < level::FOUNDERS || ledger.last_attempt() >= TOGETHER {
        return Vec::new();
    }
    let there = |machine: &MachineId| context.roster.is_alive(*machine) && context.able(*machine);
    let others = ledger.control_planes().filter(|machine| *machine != holder && there(machine));
    let mut founders: Vec<MachineId> = others.collect();
    founders.sort_by_key(|machine| (!context.charter.voters.contains(machine), *machine));
    founders.truncate(founders.len() / 2 * 2);
    if founders.is_empty() {
        return founders;
    }
    founders.push(holder);
    founders.sort_unstable();
    founders
}

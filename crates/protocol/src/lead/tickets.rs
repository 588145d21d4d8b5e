//! Every member that has not joined has join material for the present cluster.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_wire::{Attempt, Entry, MachineId, Role};

use super::runs::{Job, Runs};
use super::{Context, recipient};
use crate::ledger::Member;
use crate::planted::planted;
use crate::{Ledger, Step};

/// This duty's notes: tickets that were made and are not in the ledger yet, with their attempts.
#[derive(Debug, Default)]
pub(super) struct Tickets(BTreeMap<MachineId, (Attempt, Bytes)>);

impl Tickets {
    /// Forgets what is in the ledger by now, and what leads nowhere.
    pub(super) fn forget(&mut self, ledger: &Ledger, attempt: Attempt) {
        self.0.retain(|machine, (made_for, _)| {
            *made_for == attempt && ledger.member(*machine).is_some() && is_needed(ledger, *machine, attempt)
        });
    }

    pub(super) fn make(
        &mut self,
        context: &mut Context<'_>,
        runs: &mut Runs,
        member: &Member,
        attempt: Attempt,
        own: &Bytes,
    ) {
        let recipient = recipient(if planted("wrong-recipient") {
            context.ledger.member(context.me()).unwrap_or(member)
        } else {
            member
        });
        let machine = member.admitted.machine;
        if !runs.idle(context, machine, |job| matches!(job, Job::Ticket { .. })) || self.0.contains_key(&machine) {
            return;
        }
        // Before init is ready, whoever is admitted is on init's list; InitReady voids the tickets of those who are not.
        let by_init = context.ledger.ready().is_none_or(|ready| ready.tokens.contains(&machine));
        // A leader without an API server leaves it to one that has joined, or until it has.
        let token_registered = by_init || !super::has_joined(context, context.me());
        let worker = (member.admitted.role == Role::Worker).then(|| member.admitted.name.clone());
        let step = Step::IssueTicket { attempt, sealed_pki: own.clone(), recipient, token_registered, worker };
        runs.start(context, Job::Ticket { machine, attempt, registers: !token_registered }, step);
    }

    pub(super) fn made(&mut self, machine: MachineId, attempt: Attempt, ciphertext: Bytes) {
        self.0.insert(machine, (attempt, ciphertext));
    }

    pub(super) fn want(&self, context: &mut Context<'_>) {
        for (machine, (attempt, ciphertext)) in &self.0 {
            let entry = Entry::Ticket { machine: *machine, attempt: *attempt, ciphertext: ciphertext.clone() };
            context.wants.want(entry);
            if planted("leader-speaks-for-others") {
                context.wants.want(Entry::Joined { machine: *machine });
            }
        }
    }
}

/// Whether a machine has no ticket for the attempt's cluster.
pub(super) fn is_needed(ledger: &Ledger, machine: MachineId, attempt: Attempt) -> bool {
    ledger.ticket(machine).is_none_or(|(of, _)| *of != attempt)
}

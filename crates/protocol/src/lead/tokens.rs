//! Tokens are there for whoever waits, and go when they have served.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use muster_wire::{Attempt, MachineId};

use super::runs::{Job, RETRY_RESENDS, Runs};
use super::{AT_ONCE, Context, recipient, tickets};
use crate::ledger::{Ledger, Member};
use crate::planted::planted;
use crate::tuning::Tuning;
use crate::{Step, Time};

/// How long a machine may be there with its ticket and not join before its token is registered anew. Tokens live for a day,
/// and a machine may have been off for longer.
const PATIENCE: Duration = Duration::from_secs(300);

/// Pause after that until the next time: half a token's life.
const RENEWAL: Duration = Duration::from_secs(12 * 3_600);

/// How long a used token may stay while others join.
const DELETION: Duration = Duration::from_secs(60);

/// This duty's notes.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Whose tokens have served, and by when they go.
    to_delete: BTreeMap<MachineId, Time>,
    /// Machines that are there, have a ticket and have not joined: when their tokens are to be registered anew.
    to_renew: BTreeMap<MachineId, Time>,
    /// Machines whose tokens this one has registered.
    registered: BTreeSet<MachineId>,
}

impl Tokens {
    /// Registers the tokens of machines again that could have joined long since, and at once of those that init did not
    /// register: the ticket may have been made before InitReady and committed after it. Their tickets stay as they are: a
    /// machine's token is always the same.
    pub(super) fn renew(&mut self, context: &mut Context<'_>, runs: &mut Runs, attempt: Attempt, own: &Bytes) {
        let ledger = context.ledger;
        let waits = |machine: &MachineId, member: &Member| {
            !member.joined && !tickets::is_needed(ledger, *machine, attempt) && context.roster.is_alive(*machine)
        };
        let waiting: Vec<&Member> = context
            .ledger
            .members()
            .iter()
            .filter(|(machine, member)| waits(machine, member))
            .map(|(_, member)| member)
            .collect();
        self.to_renew.retain(|machine, _| waiting.iter().any(|member| member.admitted.machine == *machine));
        for member in waiting {
            let recipient = recipient(member);
            let machine = recipient.machine;
            let by_init = context.ledger.ready().is_some_and(|ready| ready.tokens.contains(&machine));
            let known = by_init || self.registered.contains(&machine) || planted("token-unregistered");
            let patience = if known { PATIENCE } else { Duration::ZERO };
            let due = *self.to_renew.entry(machine).or_insert(context.now + patience);
            context.wake_at(due, "a token to register anew");
            if due <= context.now && runs.count() < AT_ONCE {
                self.to_renew.insert(machine, context.now + RENEWAL);
                let (sealed_pki, token_registered, worker) = (own.clone(), false, None);
                let step = Step::IssueTicket { attempt, sealed_pki, recipient, token_registered, worker };
                runs.start(context, Job::RenewToken { machine, known }, step);
            }
        }
    }

    /// Has one used token deleted. While somebody who is here still joins, that waits: it would take the processor from them.
    pub(super) fn delete(&mut self, context: &mut Context<'_>, runs: &mut Runs, own: Bytes) {
        self.forget(context.ledger);
        // One at a time.
        if runs.deletes() {
            return;
        }
        let joins = |(machine, member): (&MachineId, &Member)| !member.joined && context.roster.is_alive(*machine);
        let busy = context.ledger.members().iter().any(joins);
        let Some((machine, due)) =
            self.to_delete.iter().map(|(machine, due)| (*machine, *due)).min_by_key(|(_, due)| *due)
        else {
            return;
        };
        if busy && context.now < due {
            return context.wake_at(due, "a used token to delete");
        }
        self.to_delete.remove(&machine);
        runs.start(context, Job::DeleteToken { machine }, Step::DeleteToken { sealed_pki: own, machine });
    }

    /// A machine that joins anew needs its token again: it is always the same.
    fn forget(&mut self, ledger: &Ledger) {
        self.to_delete.retain(|machine, _| ledger.member(*machine).is_none_or(|member| member.joined));
    }

    /// A machine's token has served.
    pub(super) fn served(&mut self, now: Time, machine: MachineId) {
        self.to_delete.insert(machine, now + DELETION);
        self.registered.remove(&machine);
    }

    pub(super) fn registered(&mut self, machine: MachineId) {
        self.registered.insert(machine);
    }

    /// A token could not be registered anew; `known` if it was registered before.
    pub(super) fn failed(&mut self, now: Time, machine: MachineId, known: bool, tuning: &Tuning) {
        let pause = if known { PATIENCE } else { tuning.resend * RETRY_RESENDS };
        self.to_renew.insert(machine, now + pause);
    }
}

#[cfg(test)]
mod tests {
    use muster_wire::entry::Admitted;
    use muster_wire::{Entry, Revision, Role};

    use super::*;

    #[test]
    fn a_token_stays_while_its_machine_joins_again() {
        let (joins, gone) = (MachineId([1; 32]), MachineId([2; 32]));
        let admitted = Admitted {
            machine: joins,
            role: Role::Worker,
            name: "node-1".to_owned(),
            sealing_key: [1; 32],
            address: "10.0.0.1".to_owned(),
        };
        let mut ledger = Ledger::default();
        ledger.apply(Revision(1), &Entry::Admitted(admitted)).expect("is admitted");
        let mut tokens = Tokens::default();
        [joins, gone].into_iter().for_each(|machine| tokens.served(Time(0), machine));
        tokens.forget(&ledger);
        assert_eq!(tokens.to_delete.keys().collect::<Vec<_>>(), [&gone]);
    }
}

//! Every control plane has a copy of the CA.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_wire::entry::Sealed;
use muster_wire::{Digest, Entry, MachineId, Role};

use super::runs::{Job, Runs};
use super::{Context, recipient};
use crate::Step;
use crate::ledger::{self, Member};

/// This duty's notes: copies that were made and are not in the ledger yet.
#[derive(Debug, Default)]
pub(super) struct Pki(BTreeMap<MachineId, (Digest, Vec<Sealed>)>);

impl Pki {
    /// What a control plane does for a leader that has no copy of the CA, and so cannot make tickets: it became one after the CA
    /// was sealed to those whom the initialiser knew of. Whoever has a copy seals one for it.
    pub(super) fn assist(&mut self, context: &mut Context<'_>, runs: &mut Runs, leader: MachineId) {
        let Some(pki) = context.ledger.pki() else { return };
        self.forget(pki);
        let Some(member) = context.ledger.member(leader).filter(|member| lacks(pki, member)) else { return };
        if let Some(own) = pki.sealed.get(&context.me()).cloned() {
            self.seal(context, runs, member, &own);
            self.want(context);
        }
    }

    /// Forgets what is in the ledger by now.
    pub(super) fn forget(&mut self, pki: &ledger::Pki) {
        self.0.retain(|machine, _| !pki.sealed.contains_key(machine));
    }

    pub(super) fn seal(&mut self, context: &mut Context<'_>, runs: &mut Runs, member: &Member, own: &Bytes) {
        let recipient = recipient(member);
        let machine = recipient.machine;
        if runs.idle(context, machine, |job| matches!(job, Job::SealPki { .. })) && !self.0.contains_key(&machine) {
            runs.start(context, Job::SealPki { machine }, Step::SealPki { sealed_pki: own.clone(), recipient });
        }
    }

    pub(super) fn made(&mut self, machine: MachineId, ca_hash: Digest, sealed: &[Sealed]) {
        self.0.insert(machine, (ca_hash, sealed.to_vec()));
    }

    pub(super) fn want(&self, context: &mut Context<'_>) {
        let Some(attempt) = context.ledger.cluster_attempt() else { return };
        for (ca_hash, sealed) in self.0.values() {
            let entry = Entry::PkiSealed { attempt, ca_hash: *ca_hash, sealed: sealed.clone() };
            context.wants.want(entry);
        }
    }
}

/// Whether a member is a control plane without a copy.
pub(super) fn lacks(pki: &ledger::Pki, member: &Member) -> bool {
    member.admitted.role == Role::ControlPlane && !pki.sealed.contains_key(&member.admitted.machine)
}

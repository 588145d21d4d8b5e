//! Turns: what only one machine of the cluster may do at a time.

use std::collections::BTreeSet;

use muster_wire::MachineId;

use super::Refusal;
use crate::planted::planted;

/// This part of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Turns {
    /// The etcd turn under way: its number and whose it is.
    pub(super) etcd: Option<(u32, MachineId)>,
    /// The number of the last etcd turn; 0 before the first.
    pub(super) etcd_count: u32,
    /// Who runs an etcd member.
    pub(super) etcd_members: BTreeSet<MachineId>,
}

impl Turns {
    /// # Errors
    /// Another turn is under way.
    pub(super) fn is_free(&self) -> Result<(), Refusal> {
        match self.etcd {
            Some((_, holder)) if !planted("two-etcd-turns") => Err(Refusal::EtcdBusy(holder)),
            _ => Ok(()),
        }
    }

    pub(super) fn start(&mut self, machine: MachineId, number: u32) -> Result<(), Refusal> {
        if number <= self.etcd_count && !planted("etcd-turn-repeated") {
            return Err(Refusal::NoSuchTurn);
        }
        self.etcd_count = number;
        self.etcd = Some((number, machine));
        Ok(())
    }

    /// Ends the turn; its holder runs an etcd member afterwards, or does not.
    pub(super) fn end(&mut self, machine: MachineId, number: u32, member: bool) -> Result<(), Refusal> {
        if self.etcd != Some((number, machine)) {
            return Err(Refusal::NoSuchTurn);
        }
        self.etcd = None;
        if member {
            self.etcd_members.insert(machine)
        } else {
            self.etcd_members.remove(&machine)
        };
        Ok(())
    }

    /// The machine is of the cluster no more.
    pub(super) fn remove(&mut self, machine: MachineId) {
        self.etcd_members.remove(&machine);
        self.etcd.take_if(|(_, holder)| *holder == machine);
    }
}

//! Backups of etcd: which there are, and on how many machines.

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_wire::{Backup, MachineId, WireError, limits, proto};

use super::Refusal;
use crate::planted::planted;

/// A backup, and who keeps a copy of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBackup {
    /// The backup.
    pub backup: Backup,
    /// Who keeps it.
    pub by: BTreeSet<MachineId>,
}

impl KeptBackup {
    /// Whether another machine is to keep it as well.
    pub fn lacks_copies(&self) -> bool {
        self.by.len() < self.backup.copies as usize
    }
}

/// This part of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Backups {
    /// Oldest first.
    all: Vec<KeptBackup>,
    last: u32,
}

impl Backups {
    pub(super) fn all(&self) -> &[KeptBackup] {
        &self.all
    }

    /// The number of the last that was taken; 0 before the first.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    /// A backup was taken, in this epoch: its taker keeps it, and the oldest go.
    pub(super) fn take(&mut self, backup: &Backup, epoch: u32) -> Result<(), Refusal> {
        let next = self.last.saturating_add(1);
        if backup.number != next {
            return Err(Refusal::WrongBackup { named: backup.number, next });
        }
        if backup.epoch != epoch {
            return Err(Refusal::OtherEpoch { named: backup.epoch, epoch });
        }
        self.last = next;
        self.all.push(KeptBackup { backup: backup.clone(), by: [backup.machine].into() });
        let over = self.all.len().saturating_sub(backup.keep as usize);
        self.all.drain(..over);
        Ok(())
    }

    /// A machine keeps a copy.
    pub(super) fn keep(&mut self, number: u32, machine: MachineId) -> Result<(), Refusal> {
        let kept = self.all.iter_mut().find(|kept| kept.backup.number == number);
        let kept = kept.ok_or(Refusal::NoBackup(number))?;
        if !kept.lacks_copies() || !kept.by.insert(machine) {
            return Err(Refusal::KeptAlready(number));
        }
        Ok(())
    }

    /// A machine has lost its copy. What nobody keeps is no backup any more.
    pub(super) fn lose(&mut self, number: u32, machine: MachineId) -> Result<(), Refusal> {
        let kept = self.all.iter_mut().find(|kept| kept.backup.number == number);
        if !kept.is_some_and(|kept| kept.by.remove(&machine)) {
            return Err(Refusal::NoBackup(number));
        }
        self.all.retain(|kept| !kept.by.is_empty());
        Ok(())
    }

    /// A machine is gone, and what it kept with it. What nobody keeps is no backup any more.
    pub(super) fn remove(&mut self, machine: MachineId) {
        if planted("backup-of-the-removed") {
            return;
        }
        self.all.retain_mut(|kept| {
            kept.by.remove(&machine);
            !kept.by.is_empty()
        });
    }

    pub(super) fn to_proto(&self) -> (Vec<proto::KeptBackup>, u32) {
        let kept = |kept: &KeptBackup| proto::KeptBackup {
            backup: Some(kept.backup.to_proto()),
            by: kept.by.iter().map(|machine| Bytes::copy_from_slice(&machine.0)).collect(),
        };
        (self.all.iter().map(kept).collect(), self.last)
    }

    pub(super) fn from_proto(all: Vec<proto::KeptBackup>, last: u32) -> Result<Self, WireError> {
        let wrong = |rule| WireError::Field { field: "ledger.backups", rule };
        if all.len() > limits::BACKUPS_MAX {
            return Err(wrong("has too many items"));
        }
        let kept = |kept: proto::KeptBackup| {
            let backup = kept.backup.ok_or(wrong("lacks a backup"))?;
            if kept.by.len() > limits::BACKUP_COPIES_MAX {
                return Err(wrong("has too many keepers"));
            }
            let by = kept.by.iter().map(|machine| MachineId::from_slice(machine, "ledger.backups"));
            Ok(KeptBackup { backup: Backup::from_proto(&backup)?, by: by.collect::<Result<_, _>>()? })
        };
        Ok(Self { all: all.into_iter().map(kept).collect::<Result<_, _>>()?, last })
    }
}

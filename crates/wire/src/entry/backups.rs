//! Backups of etcd: what was taken, and who keeps a copy.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::convert::machine_bytes;
use crate::{Digest, MachineId, WireError, limits, proto};

/// A backup that was taken. What is kept of it is a sealed file, which only control planes can open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Counts the backups of a cluster, from 1.
    pub number: u32,
    /// Who took it.
    pub machine: MachineId,
    /// The epoch of etcd's data.
    pub epoch: u32,
    /// When, in seconds since 1970, by its taker's clock. For people alone.
    pub taken_s: u64,
    /// etcd's revision before it was taken: the backup holds all up to there, and may hold more.
    pub revision: u64,
    /// Length of the sealed file, from 1 to [`limits::BACKUP_BYTES_MAX`].
    pub bytes: u64,
    /// SHA-256 of the sealed file.
    pub digest: Digest,
    /// On how many machines it is to be, from 1 to [`limits::BACKUP_COPIES_MAX`].
    pub copies: u32,
    /// How many backups are kept with it, from 1 to [`limits::BACKUPS_MAX`].
    pub keep: u32,
}

impl Backup {
    /// To the generated type.
    pub fn to_proto(&self) -> proto::BackedUp {
        proto::BackedUp {
            number: self.number,
            machine: machine_bytes(&self.machine),
            epoch: self.epoch,
            taken_s: self.taken_s,
            revision: self.revision,
            bytes: self.bytes,
            digest: Bytes::copy_from_slice(&self.digest.0),
            copies: self.copies,
            keep: self.keep,
        }
    }

    /// Checks form and bounds.
    pub fn from_proto(backup: &proto::BackedUp) -> Result<Self, WireError> {
        let wrong = |field, rule| Err(WireError::Field { field, rule });
        if backup.bytes == 0 || backup.bytes > limits::BACKUP_BYTES_MAX {
            return wrong("backup.bytes", "is none, or too many");
        }
        if backup.copies == 0 || backup.copies as usize > limits::BACKUP_COPIES_MAX {
            return wrong("backup.copies", "is none, or too many");
        }
        if backup.keep == 0 || backup.keep as usize > limits::BACKUPS_MAX {
            return wrong("backup.keep", "is none, or too many");
        }
        Ok(Self {
            number: backup.number,
            machine: MachineId::from_slice(&backup.machine, "backup.machine")?,
            epoch: backup.epoch,
            taken_s: backup.taken_s,
            revision: backup.revision,
            bytes: backup.bytes,
            digest: Digest::from_slice(&backup.digest, "backup.digest")?,
            copies: backup.copies,
            keep: backup.keep,
        })
    }
}

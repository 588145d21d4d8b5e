//! The cluster was rebuilt from what one machine had, since the others are gone for good.
//!
//! No entry does that: there is no majority that could commit one. The machine from whose data it is rebuilt makes the next ledger of its
//! own, and its epoch says so. Whoever is in an earlier epoch takes it over as a whole, and finds itself removed if it was one of the lost.

use bytes::Bytes;
use muster_wire::{Attempt, Digest, Entry, Epoch, MachineId, WireError, level, limits, proto};

use super::{Ledger, Refusal};

/// This part of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Recovered {
    pub(super) epoch: Epoch,
    /// The names of the lost control planes, whose Nodes whoever rebuilt the cluster deletes.
    pub(super) lost: Vec<String>,
    /// The backup from which etcd was restored; none if it was rebuilt from what that machine had.
    pub(super) backup: Option<Digest>,
}

impl Recovered {
    pub(super) fn to_proto(&self) -> Option<proto::Recovered> {
        let epoch = self.epoch.to_proto();
        let backup = self.backup.map(|digest| Bytes::copy_from_slice(&digest.0)).unwrap_or_default();
        epoch.map(|epoch| proto::Recovered { epoch: Some(epoch), lost: self.lost.clone(), backup })
    }

    pub(super) fn from_proto(recovered: Option<proto::Recovered>) -> Result<Self, WireError> {
        let Some(recovered) = recovered else { return Ok(Self::default()) };
        if recovered.lost.len() > limits::VOTERS_MAX {
            return Err(WireError::Field { field: "ledger.recovered.lost", rule: "has too many items" });
        }
        let backup = Some(recovered.backup).filter(|digest| !digest.is_empty());
        let backup = backup.map(|digest| Digest::from_slice(&digest, "ledger.recovered.backup")).transpose()?;
        Ok(Self { epoch: Epoch::from_proto(recovered.epoch)?, lost: recovered.lost, backup })
    }
}

/// The epoch that a machine begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextEpoch {
    /// Its number: above all that were heard of.
    pub number: u32,
    /// The backup with which its etcd begins; none: what the machine has.
    pub backup: Option<Digest>,
}

impl Ledger {
    /// How often the cluster was rebuilt, and by whom last.
    pub fn epoch(&self) -> Epoch {
        self.recovered.epoch
    }

    /// The names of the control planes that were lost before the last recovery.
    pub fn lost(&self) -> &[String] {
        &self.recovered.lost
    }

    /// The backup from which etcd was restored in the last recovery, if it was.
    pub fn restored_from(&self) -> Option<Digest> {
        self.recovered.backup
    }

    /// The control planes beside this one, and the voters of the charter that may still come: who is lost if it is the only one left.
    pub fn planes_beside(&self, machine: MachineId) -> Vec<MachineId> {
        let voters = self.members.seats.voters.iter().filter(|voter| !self.was_removed(**voter));
        let mut others: Vec<MachineId> = self.control_planes().chain(voters.copied()).collect();
        others.sort_unstable();
        others.dedup();
        others.retain(|other| *other != machine);
        others
    }

    /// The ledger of this epoch, a later one, in which this machine is the only control plane, and etcd has its member alone, which begins with what
    /// that machine has, or with a backup. Whatever was under way is given up.
    ///
    /// # Errors
    /// There is nothing to rebuild, or not from this machine: no cluster is made, or it has no member of etcd, or no other control plane.
    pub fn rebuilt(&self, by: MachineId, epoch: NextEpoch) -> Result<Self, Refusal> {
        self.members.control_plane(by)?;
        if self.init.ready.is_none() {
            return Err(Refusal::NotLive { named: Attempt::NONE, live: self.init.claim.map(|(live, _)| live) });
        }
        if !self.has_etcd(by) {
            return Err(Refusal::NotInEtcd(by));
        }
        let others = self.planes_beside(by);
        // Of the only one nothing is lost; but it may begin with a backup.
        if others.is_empty() && epoch.backup.is_none() {
            return Err(Refusal::LastControlPlane(by));
        }
        let mut next = self.clone();
        next.revision = next.revision.next();
        let needs = if epoch.backup.is_some() { level::BACKUPS } else { level::RECOVERY };
        next.level.0 = next.level.0.max(needs);
        next.recovered.backup = epoch.backup;
        next.recovered.epoch = Epoch { number: epoch.number.max(self.epoch().number.saturating_add(1)), by };
        next.recovered.lost =
            others.iter().filter_map(|other| Some(self.member(*other)?.admitted.name.clone())).collect();
        next.turns.end_all();
        for machine in others {
            next.members.lose(machine)?;
            next.consequences(&Entry::Removed { machine });
        }
        next.members.rejoins(by);
        next.wishes.open.clear();
        next.close_wishes();
        Ok(next)
    }

    /// Whether this one is to be followed rather than another, which is followed now: the later epoch counts, then the later revision.
    pub(crate) fn supersedes(&self, other: &Self) -> bool {
        (self.epoch(), self.revision) >= (other.epoch(), other.revision)
    }
}

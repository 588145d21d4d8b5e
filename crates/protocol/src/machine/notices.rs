//! What people are told of as it happens.

use muster_wire::{Entry, MachineId, TurnKind};

use super::Machine;
use crate::words::notices::NoticeKind;
use crate::{Effects, Phase};

impl Machine {
    /// Tells people what a committed entry means.
    pub(super) fn note_entry(&self, entry: &Entry, effects: &mut Effects) {
        let ledger = self.follow.ledger();
        let name = |machine: &MachineId| match ledger.member(*machine) {
            Some(member) => format!("{machine} ({})", member.admitted.name),
            None => machine.to_string(),
        };
        let (kind, text) = match entry {
            Entry::Admitted(admitted) => (
                NoticeKind::Admitted,
                format!("{} is admitted as {} at {}", name(&admitted.machine), admitted.role, admitted.address),
            ),
            Entry::Removed { machine } => (NoticeKind::Removed, format!("{machine} is removed")),
            Entry::InitClaimed { attempt, machine, founders } => {
                let others: Vec<_> = founders.iter().filter(|founder| *founder != machine).map(name).collect();
                let with =
                    if others.is_empty() { String::new() } else { format!(", together with {}", others.join(", ")) };
                (NoticeKind::InitClaimed, format!("attempt {attempt}: {} may run kubeadm init{with}", name(machine)))
            }
            Entry::Left { machine } => {
                (NoticeKind::Left, format!("{} has lost what it had joined with, and joins anew", name(machine)))
            }
            Entry::Promoted { machine } => {
                (NoticeKind::Promoted, format!("{} is to be a control plane, and joins anew", name(machine)))
            }
            Entry::RemovalHeld { machine, why } => (
                NoticeKind::RemovalHeld,
                format!("the removal of {} is held up: {why}; it is tried again", name(machine)),
            ),
            Entry::Founds { attempt, machine } => {
                (NoticeKind::Founds, format!("attempt {attempt}: {} starts etcd as a founder", name(machine)))
            }
            Entry::PkiSealed { sealed, .. } => {
                (NoticeKind::Pki, format!("the CA is sealed to {} control planes", sealed.len()))
            }
            Entry::InitReady { attempt, .. } => (NoticeKind::InitReady, format!("attempt {attempt} made the cluster")),
            Entry::InitAbandoned { attempt, why } => {
                (NoticeKind::InitAbandoned, format!("attempt {attempt} is abandoned: {why}"))
            }
            Entry::Ticket { machine, .. } => (NoticeKind::Ticket, format!("{} has its ticket", name(machine))),
            Entry::Turn(turn) => {
                let kind = match turn.kind {
                    TurnKind::Etcd => NoticeKind::Etcd,
                    TurnKind::Disrupt => NoticeKind::Disrupt,
                };
                (kind, format!("{}: {} turn {:?}", name(&turn.holder), turn.kind.word(), turn.change))
            }
            Entry::BackedUp(backup) => {
                (NoticeKind::Backup, format!("{} has taken backup {}", name(&backup.machine), backup.number))
            }
            Entry::BackupKept { number, machine } => {
                (NoticeKind::Backup, format!("{} keeps a copy of backup {number}", name(machine)))
            }
            Entry::BackupGone { number, machine } => {
                (NoticeKind::Backup, format!("{} has lost its copy of backup {number}", name(machine)))
            }
            Entry::LevelRaised { level } => (NoticeKind::Level, format!("the ledger is at level {level} now")),
            Entry::Wished(signed) => {
                (NoticeKind::Wish, format!("wished at {}: {}", name(&signed.machine), signed.wish))
            }
            Entry::Joined { machine } => (NoticeKind::Joined, format!("{} is Ready", name(machine))),
        };
        effects.notice(kind, text);
    }

    pub(super) fn note_phase(&mut self, effects: &mut Effects) {
        let phase = self.current_phase();
        if phase != self.phase {
            self.phase = phase;
            effects.notice(NoticeKind::Phase, phase.word().to_owned());
        }
    }

    pub(super) fn current_phase(&self) -> Phase {
        if self.stands_still() || self.follow.removal(self.id()).is_some() {
            Phase::Halted
        } else if self.durable.charter.is_some() {
            self.ladder.phase(self.id(), self.follow.ledger(), &self.durable)
        } else if self.founding.impediment().is_some() {
            Phase::Halted
        } else if self.founding.electorate().len() >= self.settings.quorum() as usize {
            Phase::Founding
        } else {
            Phase::Meeting
        }
    }
}

//! The ledger's rules once more, as `docs/protocol.md` states them and without the ledger's code: what every machine's copy
//! must come to, given the entries that were committed.

mod compare;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use muster_protocol::Ledger;
use muster_protocol::ledger::Member;
use muster_wire::entry::{Admitted, Sealed};
use muster_wire::{
    Attempt, Backup, Digest, Entry, MachineId, Removal, Revision, Role, SignedWish, Turn, TurnChange, TurnKind,
    TurnNumber, Wish,
};

/// The level of the ledger at which an entry can be read, by what `docs/protocol.md` says of levels.
pub(crate) fn needs(entry: &Entry) -> u32 {
    match entry {
        Entry::LevelRaised { level } => *level,
        Entry::BackedUp(_) | Entry::BackupKept { .. } | Entry::BackupGone { .. } => 6,
        Entry::Wished(signed) if matches!(signed.wish, Wish::AcceptImage(_)) => 2,
        Entry::Wished(_) | Entry::Promoted { .. } | Entry::RemovalHeld { .. } => 4,
        Entry::Turn(turn) if turn.kind == TurnKind::Disrupt => 2,
        Entry::Founds { .. } | Entry::Left { .. } => 3,
        Entry::InitClaimed { founders, .. } if !founders.is_empty() => 3,
        Entry::Admitted(_) | Entry::Removed { .. } | Entry::InitClaimed { .. } | Entry::PkiSealed { .. } => 1,
        Entry::InitReady { .. } | Entry::InitAbandoned { .. } | Entry::Ticket { .. } => 1,
        Entry::Turn(_) | Entry::Joined { .. } => 1,
    }
}

/// One machine, as the entries made it.
#[derive(Debug, Clone)]
struct Line {
    admitted: Admitted,
    ticket: Option<(Attempt, Bytes)>,
    joined: bool,
    /// It was a worker once.
    promoted: bool,
    etcd: bool,
}

/// The ledger as it must be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    revision: Revision,
    /// How many control planes the image asks for, and the charter's voters, each of which has a seat.
    wanted: usize,
    voters: BTreeSet<MachineId>,
    lines: BTreeMap<MachineId, Line>,
    removed: BTreeSet<MachineId>,
    /// Of these, who was wished away for good.
    dismissed: BTreeSet<MachineId>,
    /// Whose removal is said to be held up, and by what.
    held: Option<(MachineId, String)>,
    /// The number of the last wish of each machine that was asked.
    asked: BTreeMap<MachineId, u64>,
    level: u32,
    /// How often it was rebuilt, and by whom last.
    epoch: (u32, MachineId),
    /// The accepted images.
    images: Vec<Digest>,
    /// What was wished and is not so yet.
    open: Vec<SignedWish>,
    /// The backups that are kept, oldest first, and who has them; and the number of the last.
    backups: Vec<(Backup, BTreeSet<MachineId>)>,
    last_backup: u32,
    attempts: Attempt,
    claim: Option<(Attempt, MachineId)>,
    ready: Option<(Attempt, MachineId, Vec<String>, BTreeSet<MachineId>)>,
    abandoned: Vec<(Attempt, MachineId)>,
    ca: Option<Digest>,
    sealed: BTreeMap<MachineId, Bytes>,
    /// Who begins etcd together, and who has said that it does.
    founders: BTreeSet<MachineId>,
    begun: BTreeSet<MachineId>,
    /// For each kind its last turn, and who has it now.
    turns: BTreeMap<TurnKind, (TurnNumber, Option<MachineId>)>,
}

impl Book {
    /// A charter is followed.
    pub(crate) fn found(&mut self, wanted: usize, voters: &BTreeSet<MachineId>, image: Digest) {
        (self.level, self.images) = (1, vec![image]);
        self.wanted = wanted;
        self.voters = voters.clone();
    }

    /// One control plane rebuilt the cluster from what it had: nobody else is one, nothing is under way, and etcd has its member alone.
    pub(crate) fn rebuilt(&mut self, revision: Revision, by: MachineId, lost: &BTreeSet<MachineId>) {
        self.revision = revision;
        self.level = self.level.max(5);
        self.epoch = (self.epoch.0 + 1, by);
        for machine in lost {
            if self.leaving() == Some((*machine, false)) {
                self.dismissed.insert(*machine);
            }
            self.lines.remove(machine);
            self.removed.insert(*machine);
            self.founders.remove(machine);
            self.begun.remove(machine);
            self.asked.remove(machine);
            self.lose_copies(*machine);
        }
        self.turns.values_mut().for_each(|(_, holder)| *holder = None);
        self.lines.entry(by).and_modify(|line| line.joined = false);
        self.open.clear();
        self.held = None;
    }

    /// The last entry's place in the log.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether the rules would refuse an entry now.
    pub(crate) fn refuses(&self, entry: &Entry) -> bool {
        !self.clone().enter(self.revision, Some(entry))
    }

    /// The last attempt's number, and how many etcd turns there were.
    pub(crate) fn numbers(&self) -> (Attempt, TurnNumber) {
        (self.attempts, self.last_turn(TurnKind::Etcd))
    }

    /// Whether machines with this image may join.
    pub(crate) fn accepts(&self, image: Digest) -> bool {
        self.images.contains(&image)
    }

    /// The level that the ledger is at.
    pub(crate) fn level(&self) -> u32 {
        self.level
    }

    /// Who votes in Raft, or is about to.
    pub(crate) fn voting(&self) -> BTreeSet<MachineId> {
        let planes = self.lines.keys().copied().filter(|machine| self.control_plane(*machine));
        planes.chain(self.voters.difference(&self.removed).copied()).collect()
    }

    /// The CA's hash.
    pub(crate) fn ca(&self) -> Option<Digest> {
        self.ca
    }

    /// Who made the cluster.
    pub(crate) fn maker(&self) -> Option<MachineId> {
        self.ready.as_ref().map(|(_, machine, ..)| *machine)
    }

    /// The turn of a kind that is under way.
    pub(crate) fn turn(&self, kind: TurnKind) -> Option<(TurnNumber, MachineId)> {
        let (number, holder) = self.turns.get(&kind)?;
        holder.map(|holder| (*number, holder))
    }

    /// The number of a kind's last turn.
    pub(crate) fn last_turn(&self, kind: TurnKind) -> TurnNumber {
        self.turns.get(&kind).map(|(number, _)| *number).unwrap_or_default()
    }

    /// Who has the turn at etcd.
    pub(crate) fn turn_holder(&self) -> Option<MachineId> {
        self.turn(TurnKind::Etcd).map(|(_, machine)| machine)
    }

    /// Whether the ledger says that etcd has a member of it.
    pub(crate) fn etcd_member(&self, machine: MachineId) -> bool {
        self.lines.get(&machine).is_some_and(|line| line.etcd)
    }

    /// The machines that are in etcd, as the ledger says.
    pub(crate) fn etcd_members(&self) -> BTreeSet<MachineId> {
        self.lines.keys().copied().filter(|machine| self.etcd_member(*machine)).collect()
    }

    /// What is sealed to it as its ticket.
    pub(crate) fn ticket(&self, machine: MachineId) -> Option<Bytes> {
        self.lines.get(&machine)?.ticket.as_ref().map(|(_, ciphertext)| ciphertext.clone())
    }

    /// Whether init is claimed now.
    pub(crate) fn claimed(&self) -> bool {
        self.claim.is_some()
    }

    /// Who is admitted.
    pub(crate) fn members(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.lines.keys().copied()
    }

    /// The members that are workers.
    pub(crate) fn workers(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.lines.keys().copied().filter(|machine| !self.control_plane(*machine))
    }

    /// Writes an entry down. Says whether the rules let it take effect.
    pub(crate) fn enter(&mut self, revision: Revision, entry: Option<&Entry>) -> bool {
        let took_effect = self.write_down(revision, entry);
        let mut open = std::mem::take(&mut self.open);
        open.retain(|signed| !self.is_so(&signed.wish));
        self.open = open;
        let leaving = self.leaving().map(|(machine, _)| machine);
        self.held.take_if(|(machine, _)| Some(*machine) != leaving);
        took_effect
    }

    /// Who was wished away and is still there, and whether it comes back as another.
    pub(crate) fn leaving(&self) -> Option<(MachineId, bool)> {
        self.open.iter().find_map(|open| match open.wish {
            Wish::RemoveMachine { machine, returns } => Some((machine, returns)),
            _ => None,
        })
    }

    /// Whether it was wished away for good.
    pub(crate) fn is_dismissed(&self, machine: MachineId) -> bool {
        self.dismissed.contains(&machine)
    }

    /// The machine with that name.
    pub(crate) fn named(&self, name: &str) -> Option<MachineId> {
        self.lines.iter().find(|(_, line)| line.admitted.name == name).map(|(machine, _)| *machine)
    }

    /// Whether it was a worker and is to be a control plane, and has not joined as one.
    pub(crate) fn is_promoted(&self, machine: MachineId) -> bool {
        self.control_plane(machine) && self.lines.get(&machine).is_some_and(|line| line.promoted && !line.joined)
    }

    /// Whether what is wished is so.
    pub(crate) fn is_so(&self, wish: &Wish) -> bool {
        match wish {
            Wish::AcceptImage(image) => self.accepts(image.digest),
            Wish::RemoveMachine { machine, .. } => !self.lines.contains_key(machine),
            Wish::WithdrawRemoval { machine } => self.leaving().is_none_or(|(leaving, _)| leaving != *machine),
        }
    }

    /// Whether a wish is so, or stands open in the ledger.
    pub(crate) fn took(&self, wish: &Wish) -> bool {
        self.is_so(wish) || self.open.iter().any(|open| open.wish == *wish)
    }

    /// The admitted control planes.
    pub(crate) fn control_planes(&self) -> BTreeSet<MachineId> {
        self.lines.keys().copied().filter(|machine| self.control_plane(*machine)).collect()
    }

    fn control_plane(&self, machine: MachineId) -> bool {
        self.lines.get(&machine).is_some_and(|line| line.admitted.role == Role::ControlPlane)
    }

    fn live(&self, attempt: Attempt) -> Option<MachineId> {
        self.claim.filter(|(live, _)| *live == attempt).map(|(_, machine)| machine)
    }

    /// Whether a backup is kept by anybody.
    pub(crate) fn keeps(&self, number: u32) -> bool {
        self.backups.iter().any(|(backup, _)| backup.number == number)
    }
}

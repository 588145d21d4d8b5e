//! Turns: what only one machine of the cluster may do at a time. One rule for every kind.

use std::collections::{BTreeMap, BTreeSet};

use muster_wire::entry::turns::{kind_from_proto, kind_to_proto};
use muster_wire::{MachineId, Turn, TurnChange, TurnKind, TurnNumber, WireError, proto};

use super::Refusal;
use crate::planted::planted;

/// This part of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Turns {
    /// The turn of each kind that is under way: its number and whose it is.
    under_way: BTreeMap<TurnKind, (TurnNumber, MachineId)>,
    /// The number of each kind's last turn; a kind that was never taken is not there.
    last: BTreeMap<TurnKind, TurnNumber>,
    /// Who runs an etcd member.
    pub(super) etcd_members: BTreeSet<MachineId>,
}

impl Turns {
    pub(super) fn under_way(&self, kind: TurnKind) -> Option<(TurnNumber, MachineId)> {
        self.under_way.get(&kind).copied()
    }

    pub(super) fn last(&self, kind: TurnKind) -> TurnNumber {
        self.last.get(&kind).copied().unwrap_or_default()
    }

    /// Whether a machine has a turn of any kind.
    pub(super) fn holds(&self, machine: MachineId) -> bool {
        self.under_way.values().any(|(_, holder)| *holder == machine)
    }

    /// # Errors
    /// A turn of this kind is under way.
    pub(super) fn is_free(&self, kind: TurnKind) -> Result<(), Refusal> {
        match self.under_way(kind) {
            Some((_, holder)) if !planted("two-etcd-turns") => Err(Refusal::TurnTaken { kind, holder }),
            _ => Ok(()),
        }
    }

    /// Begins a turn, after [`Turns::is_free`].
    pub(super) fn start(&mut self, turn: &Turn) -> Result<(), Refusal> {
        if turn.number <= self.last(turn.kind) && !planted("etcd-turn-repeated") {
            return Err(Refusal::NoSuchTurn(turn.kind));
        }
        self.last.insert(turn.kind, turn.number);
        self.under_way.insert(turn.kind, (turn.number, turn.holder));
        Ok(())
    }

    /// Ends a turn. The holder of one at etcd runs a member afterwards, or does not.
    pub(super) fn end(&mut self, turn: &Turn) -> Result<(), Refusal> {
        if self.under_way(turn.kind) != Some((turn.number, turn.holder)) {
            return Err(Refusal::NoSuchTurn(turn.kind));
        }
        self.under_way.remove(&turn.kind);
        match (turn.kind, turn.change) {
            (TurnKind::Etcd, TurnChange::Done) => drop(self.etcd_members.insert(turn.holder)),
            (TurnKind::Etcd, _) => drop(self.etcd_members.remove(&turn.holder)),
            (TurnKind::Disrupt, _) => {}
        }
        Ok(())
    }

    /// Nobody goes on with what was under way. Their numbers are used up.
    pub(super) fn end_all(&mut self) {
        self.under_way.clear();
    }

    /// The machine is of the cluster no more.
    pub(super) fn remove(&mut self, machine: MachineId) {
        self.etcd_members.remove(&machine);
        self.under_way.retain(|_, (_, holder)| *holder != machine);
    }

    /// What a snapshot has of it, beside who runs an etcd member: the turns under way, and the last of each kind.
    pub(super) fn to_proto(&self) -> (Vec<proto::Turn>, Vec<proto::LastTurn>) {
        let turn = |(kind, (number, holder)): (&TurnKind, &(TurnNumber, MachineId))| {
            Turn { kind: *kind, number: *number, holder: *holder, change: TurnChange::Started }.to_proto()
        };
        let last = |(kind, number): (&TurnKind, &TurnNumber)| proto::LastTurn {
            kind: kind_to_proto(*kind).into(),
            number: number.0,
        };
        let last = self.last.iter().filter(|_| !planted("snapshot-loses-turns")).map(last);
        (self.under_way.iter().map(turn).collect(), last.collect())
    }

    pub(super) fn from_proto(turns: &[proto::Turn], last: &[proto::LastTurn]) -> Result<Self, WireError> {
        let turns =
            turns.iter().map(Turn::from_proto).map(|turn| turn.map(|turn| (turn.kind, (turn.number, turn.holder))));
        let last = last.iter().map(|last| Ok((kind_from_proto(last.kind())?, TurnNumber(last.number))));
        Ok(Self {
            under_way: turns.collect::<Result<_, _>>()?,
            last: last.collect::<Result<_, WireError>>()?,
            etcd_members: BTreeSet::new(),
        })
    }
}

//! A turn: what only one machine of the cluster may do at a time.

use serde::{Deserialize, Serialize};

use crate::convert::machine_bytes;
use crate::{MachineId, TurnNumber, WireError, proto};

/// What a turn is for. There is one turn of each kind at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TurnKind {
    /// To add an etcd member.
    Etcd,
    /// To take something down on purpose: a removal, a repair, a renewal, an upgrade.
    Disrupt,
}

impl TurnKind {
    /// All of them.
    pub const ALL: [TurnKind; 2] = [TurnKind::Etcd, TurnKind::Disrupt];

    /// What its holder does, as people read it: `it is the turn of m-4f2a91c0 to join etcd`.
    pub fn purpose(self) -> &'static str {
        match self {
            TurnKind::Etcd => "to join etcd",
            TurnKind::Disrupt => "to disrupt",
        }
    }

    /// A short name for traces.
    pub fn word(self) -> &'static str {
        match self {
            TurnKind::Etcd => "etcd",
            TurnKind::Disrupt => "disrupt",
        }
    }
}

/// What happens to a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TurnChange {
    /// Its holder is at it; nobody else may be.
    Started,
    /// It is over, and what it was for is done.
    Done,
    /// It is over, and what it was for is not done.
    GaveUp,
}

/// A turn, begun or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// What it is for.
    pub kind: TurnKind,
    /// Counts the turns of its kind: an end names the turn that it ends, a beginning is higher than every earlier one.
    pub number: TurnNumber,
    /// Whose turn it is.
    pub holder: MachineId,
    /// Its beginning or its end.
    pub change: TurnChange,
}

impl Turn {
    /// The same turn with another change.
    pub fn with(self, change: TurnChange) -> Self {
        Self { change, ..self }
    }

    /// To the generated type.
    pub fn to_proto(&self) -> proto::Turn {
        let change = match self.change {
            TurnChange::Started => proto::TurnChange::Started,
            TurnChange::GaveUp if crate::planted::planted("given-up-as-done") => proto::TurnChange::Done,
            TurnChange::GaveUp => proto::TurnChange::GaveUp,
            TurnChange::Done => proto::TurnChange::Done,
        };
        proto::Turn {
            kind: kind_to_proto(self.kind).into(),
            number: self.number.0,
            holder: machine_bytes(&self.holder),
            change: change.into(),
        }
    }

    /// Checks form and bounds.
    pub fn from_proto(turn: &proto::Turn) -> Result<Self, WireError> {
        Ok(Self {
            kind: kind_from_proto(turn.kind())?,
            number: TurnNumber(turn.number),
            holder: MachineId::from_slice(&turn.holder, "turn.holder")?,
            change: match turn.change() {
                proto::TurnChange::Started => TurnChange::Started,
                proto::TurnChange::Done => TurnChange::Done,
                proto::TurnChange::GaveUp => TurnChange::GaveUp,
                proto::TurnChange::Unspecified => {
                    return Err(WireError::Field { field: "turn.change", rule: "is unknown" });
                }
            },
        })
    }
}

/// To the generated type.
pub fn kind_to_proto(kind: TurnKind) -> proto::TurnKind {
    match kind {
        TurnKind::Etcd => proto::TurnKind::Etcd,
        TurnKind::Disrupt => proto::TurnKind::Disrupt,
    }
}

/// Checks that it is a kind that this version knows.
pub fn kind_from_proto(kind: proto::TurnKind) -> Result<TurnKind, WireError> {
    match kind {
        proto::TurnKind::Etcd => Ok(TurnKind::Etcd),
        proto::TurnKind::Disrupt => Ok(TurnKind::Disrupt),
        proto::TurnKind::Unspecified => Err(WireError::Field { field: "turn.kind", rule: "is unknown" }),
    }
}

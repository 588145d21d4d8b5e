//! What a duty of the leader's waits for, as a value: the duty says it where it decides, and `explain` tells it to people.

use muster_wire::{MachineId, TurnKind};

use crate::Time;

/// Why a duty wants nothing now, though something is still to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wait {
    /// A newcomer is not admitted: nobody reached it at an address that it has alone.
    Address(MachineId),
    /// A newcomer is not admitted: it does not know the ledger's level.
    TooOld(MachineId),
    /// A newcomer is not admitted before its predecessor on the same hardware is removed.
    Predecessor {
        /// The newcomer.
        machine: MachineId,
        /// Whose place it takes.
        old: MachineId,
    },
    /// The ledger's level does not rise: this voter does not know the next one, or was not heard of.
    Voter(MachineId),
    /// Nobody is given the right to init: no control plane that is here can run kubeadm.
    NobodyAble,
    /// All who could have failed to init, and the next attempt is made then.
    NextAttempt(Time),
    /// Whoever initialises the cluster is silent, and its attempt is given up then.
    Initialiser {
        /// Who.
        machine: MachineId,
        /// When, if it stays silent.
        until: Time,
    },
    /// Whoever holds a turn is silent, and the turn is ended then.
    Holder {
        /// Of which kind.
        kind: TurnKind,
        /// Who.
        machine: MachineId,
        /// When, if it stays silent.
        until: Time,
    },
    /// A machine that is to be removed is silent, and is given up then.
    Silent {
        /// Which.
        machine: MachineId,
        /// When, if it stays silent.
        until: Time,
    },
    /// A machine that is to be removed could not be drained; it is tried again then.
    Held {
        /// Which.
        machine: MachineId,
        /// When.
        until: Time,
    },
    /// A machine is to be removed, and the control planes that are here would be no majority without it.
    Majority(MachineId),
    /// The leader is to be removed, and no other control plane that is here could do that.
    NobodyToRemove(MachineId),
    /// A machine is to be removed that is just joining.
    JoinsFirst(MachineId),
    /// A control plane is dead, and a worker takes its seat then.
    Repair {
        /// Which.
        machine: MachineId,
        /// When, if it stays away.
        until: Time,
    },
    /// A control plane's seat is free, and a worker takes it then.
    Vacancy {
        /// When, if nobody comes.
        until: Time,
    },
    /// A voter of the charter was never admitted and is away: its seat waits for it, since nothing may be repaired or nobody knows it.
    SeatKept(MachineId),
    /// A seat is, or would be, free, and no worker can take it.
    NoWorker(Option<MachineId>),
    /// Nothing is repaired: most machines are away.
    MostAway,
    /// Nothing is repaired: this control plane is still joining.
    Joining(MachineId),
    /// Something that is made for a machine failed, and is tried again then.
    Retry {
        /// For whom.
        machine: MachineId,
        /// When.
        until: Time,
    },
}

impl Wait {
    /// Whether it only takes time: then who leads alone knows since when it waits.
    pub(crate) fn takes_time(self) -> bool {
        match self {
            Self::NextAttempt(_)
            | Self::Initialiser { .. }
            | Self::Holder { .. }
            | Self::Silent { .. }
            | Self::Held { .. }
            | Self::Repair { .. }
            | Self::Vacancy { .. }
            | Self::Retry { .. } => true,
            Self::Address(_)
            | Self::TooOld(_)
            | Self::Predecessor { .. }
            | Self::Voter(_)
            | Self::Majority(_)
            | Self::NobodyToRemove(_)
            | Self::JoinsFirst(_)
            | Self::SeatKept(_)
            | Self::NoWorker(_)
            | Self::MostAway
            | Self::Joining(_)
            | Self::NobodyAble => false,
        }
    }
}

//! What a duty of the leader's, or the machine's own climb, waits for, as a value: it is said where it is decided, and `explain` tells it to people.

use muster_wire::{MachineId, TurnKind, TurnNumber};

use crate::Time;

/// Why nothing is done now, though something is still to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wait {
    /// Somebody is not admitted yet.
    Admission(Admission),
    /// The ledger's level does not rise: this voter does not know the next one, or was not heard of.
    Voter(MachineId),
    /// The cluster is not made yet.
    Init(Init),
    /// Somebody's turn is not over, or none can be taken.
    Turn(Turn),
    /// A machine is to be removed.
    Removal(Removal),
    /// A control plane is missing.
    Repair(Repair),
    /// What is made for others is not made.
    Work(Work),
    /// This machine's own next step.
    Climb(Climb),
}

/// Why a newcomer is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Admission {
    /// Nobody reached it at an address that it has alone.
    Address(MachineId),
    /// It does not know the ledger's level.
    TooOld(MachineId),
    /// It has not looked at its kubeadm yet.
    Unchecked(MachineId),
    /// Its predecessor on the same hardware is not removed yet.
    Predecessor {
        /// The newcomer.
        machine: MachineId,
        /// Whose place it takes.
        old: MachineId,
    },
    /// So many come after those that are being admitted.
    Others(usize),
}

/// Why the cluster is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Init {
    /// Nobody is given the right to init: no control plane that is here can run kubeadm.
    NobodyAble,
    /// All who could have failed to init, and the next attempt is made then.
    NextAttempt(Time),
    /// Whoever initialises the cluster is silent, and its attempt is given up then.
    Silent {
        /// Who.
        machine: MachineId,
        /// When, if it stays silent.
        until: Time,
    },
}

/// Why nothing that disrupts goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// Whoever holds a turn is silent, and the turn is ended then.
    Silent {
        /// Of which kind.
        kind: TurnKind,
        /// Who.
        machine: MachineId,
        /// When, if it stays silent.
        until: Time,
    },
    /// Another one's turn is not over.
    Taken {
        /// Of which kind.
        kind: TurnKind,
        /// Whose.
        machine: MachineId,
    },
    /// This machine would have to do it, and has no etcd that works, or the ledger is of too low a level.
    Unfit,
    /// A backup is taken first.
    Backup,
    /// Raft is still to give this machine a vote, or to take it.
    Vote(MachineId),
    /// Certificates are renewed once more then.
    Renewal(Time),
}

/// Why a machine is not removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Removal {
    /// It is silent, and is given up then.
    Silent {
        /// Which.
        machine: MachineId,
        /// When, if it stays silent.
        until: Time,
    },
    /// It could not be drained; it is tried again then.
    Held {
        /// Which.
        machine: MachineId,
        /// When.
        until: Time,
    },
    /// The control planes that are here would be no majority without it.
    Majority(MachineId),
    /// It leads, and no other control plane that is here could do it.
    NobodyToDo(MachineId),
    /// It is just joining.
    JoinsFirst(MachineId),
}

/// Why there is a control plane too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Repair {
    /// One is dead, and a worker takes its seat then.
    Dead {
        /// Which.
        machine: MachineId,
        /// When, if it stays away.
        until: Time,
    },
    /// One is dead, and keeps its seat: nothing may be repaired.
    Kept(MachineId),
    /// A seat is free, and a worker takes it then.
    Vacancy {
        /// When, if nobody comes.
        until: Time,
    },
    /// A voter of the charter was never admitted and is away: its seat waits for it, since nothing may be repaired or nobody knows it.
    Unadmitted(MachineId),
    /// A seat is, or would be, free, and no worker can take it.
    NoWorker(Option<MachineId>),
    /// This worker takes a seat, and has until then to join as a control plane.
    Promoted {
        /// Which.
        machine: MachineId,
        /// Until when others wait for it.
        until: Time,
    },
    /// Most machines are away.
    MostAway,
    /// This control plane is still joining.
    Joining(MachineId),
}

/// Why something that the leader makes for others is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// It failed for this machine, and is tried again then.
    Retry {
        /// For whom.
        machine: MachineId,
        /// When.
        until: Time,
    },
    /// The leader has no copy of the CA, from which it would make tickets.
    NoCa,
    /// No backup is taken here: this machine has no etcd that works.
    NoEtcd,
}

/// Why a machine does not take its next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Climb {
    /// Its copy of the CA is not in the ledger yet.
    NoCa,
    /// Its ticket is not in the ledger yet.
    NoTicket,
    /// Its copy of the ledger is from before this turn at etcd, which it had.
    OldCopy(TurnNumber),
}

impl Wait {
    /// Whether who leads alone knows of it: since when it waits, or what it has itself.
    pub(crate) fn is_leaders_own(self) -> bool {
        match self {
            Self::Init(Init::NextAttempt(_) | Init::Silent { .. })
            | Self::Turn(_)
            | Self::Removal(Removal::Silent { .. } | Removal::Held { .. })
            | Self::Repair(Repair::Dead { .. } | Repair::Vacancy { .. } | Repair::Promoted { .. })
            | Self::Admission(Admission::Others(_))
            | Self::Work(_) => true,
            Self::Admission(_) | Self::Voter(_) | Self::Init(_) | Self::Removal(_) | Self::Repair(_) => false,
            Self::Climb(_) => false,
        }
    }
}

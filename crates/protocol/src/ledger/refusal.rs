//! Why an entry took no effect.

use muster_wire::{Attempt, Digest, MachineId, TurnKind};

/// Why an entry took no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The machine is not admitted.
    #[error("{0} is not admitted")]
    NotAdmitted(MachineId),
    /// The machine is admitted already.
    #[error("{0} is admitted already")]
    AlreadyAdmitted(MachineId),
    /// What it is to be admitted under is no IP address.
    #[error("{0} has no address to be admitted under")]
    NoAddress(MachineId),
    /// The identity was removed; a machine comes back with a new one (promise S9).
    #[error("{0} was removed and never returns under this identity")]
    WasRemoved(MachineId),
    /// Another machine has the name.
    #[error("the name {name:?} belongs to {holder}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        holder: MachineId,
    },
    /// The bytes are no entry that this version knows.
    #[error("unknown entry: {0}")]
    Unknown(String),
    /// The attempt named is not the live one.
    #[error("attempt {named} is not live (live: {live:?})")]
    NotLive {
        /// The attempt in the entry.
        named: Attempt,
        /// The live attempt, if any.
        live: Option<Attempt>,
    },
    /// The cluster is made; nobody claims init again.
    #[error("attempt {0} made the cluster already")]
    AlreadyReady(Attempt),
    /// A claim's number must be one above the last.
    #[error("the next attempt is {next}, not {named}")]
    WrongAttempt {
        /// The number in the entry.
        named: Attempt,
        /// The right number.
        next: Attempt,
    },
    /// Only a control plane may.
    #[error("{0} is not a control plane")]
    NotControlPlane(MachineId),
    /// Only a worker may.
    #[error("{0} is not a worker")]
    NotWorker(MachineId),
    /// A control plane that has joined is in etcd.
    #[error("{0} is a control plane, and no member of etcd")]
    NotInEtcd(MachineId),
    /// Nobody wished the machine away.
    #[error("no removal of {0} is wished")]
    NoRemoval(MachineId),
    /// Another CA is already in the ledger.
    #[error("the ledger holds another CA")]
    OtherCa,
    /// There is no sealed CA yet.
    #[error("no CA is in the ledger yet")]
    NoCa,
    /// Another machine has the turn of this kind (promise S8).
    #[error("it is the turn of {holder} {}", kind.purpose())]
    TurnTaken {
        /// What the turn is for.
        kind: TurnKind,
        /// Whose it is.
        holder: MachineId,
    },
    /// The turn named is not the one under way.
    #[error("no such {} turn is under way", .0.word())]
    NoSuchTurn(TurnKind),
    /// Only a founder of the attempt may.
    #[error("{0} is no founder of the attempt")]
    NoFounder(MachineId),
    /// Only who has joined can leave.
    #[error("{0} has not joined")]
    NotJoined(MachineId),
    /// A founder begins etcd once (promise S13).
    #[error("{0} has begun etcd already")]
    HasBegun(MachineId),
    /// The image asks for no more control planes (promise S11).
    #[error("{machine} can be no control plane: the charter names {count}, and their seats are taken")]
    NoSeat {
        /// Who was to be one.
        machine: MachineId,
        /// How many there may be.
        count: u32,
    },
    /// Levels rise one by one.
    #[error("the ledger's next level is {next}, not {named}")]
    WrongLevel {
        /// The level in the entry.
        named: u32,
        /// The right one.
        next: u32,
    },
    /// There is such an entry from a higher level on.
    #[error(
        "that needs level {needs} of the ledger, which is at {level}: it rises by itself as soon as every voter knows the next level, and a \
         voter that does not must boot a newer image"
    )]
    TooEarly {
        /// The level that it needs.
        needs: u32,
        /// The level at which the ledger is.
        level: u32,
    },
    /// Backups are counted one by one.
    #[error("the next backup is {next}, not {named}")]
    WrongBackup {
        /// The number in the entry.
        named: u32,
        /// The right one.
        next: u32,
    },
    /// It is of what etcd held before the cluster was rebuilt.
    #[error("it is a backup of epoch {named}, and the cluster is in epoch {epoch}")]
    OtherEpoch {
        /// The epoch in the entry.
        named: u32,
        /// The cluster's.
        epoch: u32,
    },
    /// There is no such backup, or none any more.
    #[error("backup {0} is not kept")]
    NoBackup(u32),
    /// On as many machines as it is to be, or on this one.
    #[error("backup {0} has its copies already")]
    KeptAlready(u32),
    /// It is wished of another cluster.
    #[error("it is wished under another charter")]
    OtherCharter,
    /// The same wish, or one that the machine was asked for before it, came once more.
    #[error("that wish came before, or comes too late")]
    Repeated,
    /// The image is on the list.
    #[error("image {0} is accepted already")]
    AcceptedAlready(Digest),
    /// Without it there would be no cluster.
    #[error("{0} is the last control plane")]
    LastControlPlane(MachineId),
    /// etcd has a member of it, or may have.
    #[error("{0} is, or may be, a member of etcd: it is removed under a turn to disrupt, when etcd has none of it")]
    InEtcd(MachineId),
    /// It is at something that must come to its end first.
    #[error("{0} has a turn, which must end first")]
    HoldsTurn(MachineId),
    /// One machine leaves at a time.
    #[error("the removal of {0} is under way")]
    RemovalUnderWay(MachineId),
    /// The ledger is full in this respect.
    #[error("{0}")]
    Full(&'static str),
}

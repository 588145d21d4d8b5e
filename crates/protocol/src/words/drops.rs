//! Why something that came from the network was dropped, or something that was to leave.

/// The reasons. People and `muster status --json` see them as words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum Dropped {
    /// A card of another cluster.
    ForeignCard,
    /// A card beyond the most machines that are remembered.
    TooManyMachines,
    /// A greeting in another machine's name.
    HelloOfAnother,
    /// A ballot that a machine refused which cannot follow what it asks for.
    BallotRefused,
    /// A ballot that has no place in this founding.
    BallotOutOfPlace,
    /// A vote in another machine's name, or for another cluster.
    VoteOutOfPlace,
    /// Raft's own frame where none belongs.
    RaftFrame,
    /// A call of Raft's by a machine that takes no part in it.
    RaftStranger,
    /// A call of Raft's in another machine's name.
    RaftImpostor,
    /// A call of Raft's that cannot be read.
    RaftMalformed,
    /// A question for a report, or a part of one, where none belongs.
    ReportFrame,
    /// A question for a part of a backup, or such a part, where none belongs.
    BackupFrame,
    /// A proposal by a machine that may not make it.
    ForbiddenProposal,
    /// A datagram of SWIM's that makes no sense, or is of another life.
    Swim,
    /// A datagram of SWIM's from a machine of another image or charter.
    StrangeGossip,
    /// A frame that cannot be read.
    MalformedFrame,
    /// A frame of another version of the protocol.
    OtherVersion,
    /// A frame that says of itself that it is too long.
    FrameTooLong,
    /// A frame in which a signature is wrong.
    WrongSignature,
    /// A handshake that failed.
    HandshakeFailed,
    /// A handshake that was cut off.
    HandshakeCutOff,
    /// A connection of a peer whose key is not a machine's.
    NoMachine,
    /// A connection for which there is no room.
    NoRoom,
    /// A frame for a machine to which there is no way.
    NotConnected,
    /// A frame for a machine whose frames wait already.
    QueueFull,
    /// A frame while too many wait for the mesh.
    MeshBusy,
}

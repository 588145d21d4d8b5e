//! What muster's machines say to each other and what the ledger keeps: types, bounds, codecs, signatures, sealing.
//!
//! Everything that arrives from outside becomes one of these types through a `decode` that checks its form and its
//! bounds, so the code behind never sees a half-right value. The formats are defined in `proto/` and nowhere else.

pub mod card;
pub mod charter;
mod convert;
pub mod entry;
pub mod epoch;
pub mod frame;
pub mod id;
pub mod limits;
pub mod number;
pub mod planted;
pub mod seal;
pub mod sign;
pub mod state;
pub mod wish;

/// The generated prost types. Code outside this crate uses the checked types above them.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/muster.v1.rs"));
}

pub use card::{Able, Card, Running, Settings, SignedCard, host_of};
pub use charter::{Ballot, Certificate, Charter, Vote};
pub use entry::{Backup, Entry, Role, Subject, Turn, TurnChange, TurnKind, level};
pub use epoch::Epoch;
pub use frame::{Frame, LedgerNews, Promise, Removal};
pub use id::{Digest, MachineId};
pub use number::{Attempt, BootCount, CallNumber, Revision, TurnNumber};
pub use sign::Identity;
pub use state::{Durable, KubeadmMarker};
pub use wish::{Image, SignedWish, Wish};

/// Why bytes were not taken for what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are not the expected protobuf message.
    #[error("not a valid {what}: {why}")]
    Malformed {
        /// The message that was expected.
        what: &'static str,
        /// What the decoder said.
        why: String,
    },
    /// A field breaks a rule or a bound.
    #[error("{field} {rule}")]
    Field {
        /// The field's name, dotted from its message.
        field: &'static str,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The frame is of another version of the protocol.
    #[error("protocol version {theirs}, this machine speaks {}", limits::PROTOCOL_VERSION)]
    Version {
        /// The version the frame carries.
        theirs: u32,
    },
    /// More bytes than the bound allows.
    #[error("{what} of {bytes} bytes is over the bound of {max}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        bytes: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// It is of a level of the ledger that is not known here.
    #[error("it is of the ledger's level {needs}, this machine knows level {known}")]
    Level {
        /// The level at which it can be read.
        needs: u32,
        /// The highest level that this machine knows.
        known: u32,
    },
    /// A signature does not fit what it should sign.
    #[error("the signature of {0} does not verify")]
    Signature(MachineId),
}

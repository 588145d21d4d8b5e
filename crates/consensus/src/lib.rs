//! Raft for the ledger: [openraft] on redb, in a shape that the agent and the simulator can both drive.
//!
//! [`Seat`] is what both run: it stands between the core's wants and [`Consensus`], and decides for both what a start means, which
//! store is trusted, and what becomes of a proposal. [`Consensus`] is a device without a network, a clock or a disk of its own:
//! - it hands out [`Call`]s to other machines as bytes and takes the answers' bytes; calls to this machine go to
//!   [`Consensus::handle_call`];
//! - its runtime is a type parameter, tokio's for the agent ([`openraft::TokioRuntime`]), [`seeded::Seeded`] in virtual
//!   time for the simulator;
//! - its [`Store`] is a redb database on a file or on any [`redb::StorageBackend`].
//!
//! What it says is done is on disk: a vote before it is given, a record before it is acknowledged.

mod calls;
mod config;
mod device;
mod disk;
mod event;
mod format;
mod inbound;
mod network;
mod rpc;
mod runtime;
mod seat;
pub mod seeded;
mod store;
mod types;

pub use calls::{CALLS_MAX, Call, Calls};
pub use config::Config;
pub use device::{Consensus, OpenError, ProposeError};
pub use disk::{Disk, DiskError};
pub use event::{Broke, Event};
pub use inbound::{CallRefused, Refusals};
pub use openraft::TokioRuntime;
pub use rpc::{CALL_BYTES_MAX, SNAPSHOT_BYTES_MAX};
pub use runtime::Runtime;
pub use seat::{Done, Opening, Seat, SeatError, Started, Then, Work};
pub use store::{LogReader, LogStore, Rebuilt, SnapshotBuilder, StateMachine, Store};
pub use types::{Applied, Types};

/// Directive for a `tracing_subscriber` `EnvFilter` that an agent should add to its own: openraft says ERROR when a voter
/// does not answer, a vote is late or it is asked to stop, which are a cluster's daily life. What is wrong for good comes as
/// [`Event::Stopped`] and as an ERROR of this crate.
pub const LOG_DIRECTIVE: &str = "openraft=off";

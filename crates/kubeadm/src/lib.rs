//! What muster has kubeadm do: from a step of the ladder to files and command lines, from their output to an outcome.
//!
//! Nothing here runs anything, reads a clock or draws entropy. A step under way is a [`Work`]: it asks for one thing after another,
//! which the agent carries out on a machine, and the simulator on a model of one:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use muster_kubeadm::work::{Answer, Ask, Next};
//! use muster_kubeadm::{Place, Plan, Work};
//! use muster_protocol::{Step, StepOutput};
//!
//! # fn take(place: Arc<Place>, plan: Arc<Plan>, step: Step) {
//! let mut work = Work::begin(place, Some(plan), step, [0; 32].into());
//! let mut answer = None;
//! let result = loop {
//!     match work.next(Duration::ZERO, answer.take()) {
//!         Next::Ask(Ask::Exists(path)) => answer = Some(Answer::Exists(path.exists())),
//!         Next::Ask(_) => { /* write files, run kubeadm, ask servers, wait */ }
//!         Next::Ended(result) => break result,
//!     }
//! };
//! # let _ = result;
//! # }
//! ```
//!
//! Secrets: [`PkiBundle`] and [`Ticket`] are made, sealed and opened here, and leave this crate only sealed, or as the contents of
//! files to write.

#![forbid(unsafe_code)]

pub mod action;
pub mod api;
pub mod backup;
mod codec;
pub mod dns;
mod document;
pub mod drain;
pub mod etcd;
pub mod farewell;
pub mod guard;
pub mod kubeconfig;
pub mod kubelet;
pub mod manifests;
pub mod outcome;
mod phases;
mod pki;
mod plan;
mod ports;
pub mod renewal;
pub mod schema;
mod secret;
mod settings;
mod version;
pub mod versions;
pub mod wal;
pub mod work;

pub use action::{Action, Command, Settled};
pub use api::{Readiness, Until, Wait, node_readiness};
pub use codec::{SECRET_LIMIT, Undecodable};
pub use dns::LocalDns;
pub use document::{DocumentError, Kind};
pub use kubeconfig::Kubeconfig;
pub use manifests::{ManifestError, ManifestFile, Manifests};
pub use muster_protocol::EtcdTiming;
pub use outcome::{Exit, Failure, FailureKind, OUTPUT_LIMIT, outcome, redact};
pub use pki::{Pair, PkiBundle, PkiError, Ticket};
pub use plan::{Founding, Node, Plan, PlanError, StepInput};
pub use ports::{ports, subnets};
pub use secret::{Secret, Token};
pub use settings::{Settings, UserFile};
pub use version::{ConfigApi, Version, VersionError};
pub use work::{Place, Work};

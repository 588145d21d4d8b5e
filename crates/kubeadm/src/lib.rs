//! What muster has kubeadm do: from a step of the ladder to files and command lines, from their output to an outcome.
//!
//! Nothing here runs anything, reads a clock or draws entropy. The agent carries the actions out on a machine, the
//! simulator on a model of one:
//!
//! ```
//! use muster_kubeadm::{Action, Exit, Node, Plan, Settings, StepInput, Version, outcome};
//! # fn settings() -> Settings {
//! #     Settings {
//! #         cluster: "site".into(), version: None, kubeadm: "/usr/bin/kubeadm".into(), dir: "/etc/kubernetes".into(),
//! #         kubelet_dir: "/var/lib/kubelet".into(), etcd_dir: "/var/lib/etcd".into(),
//! #         work_dir: "/run/muster/kubeadm".into(), hosts_file: "/etc/hosts".into(), endpoint: "api.site.muster:7443".into(), api_port: 6443,
//! #         pod_subnet: None, service_subnet: None, image_repository: None, cri_socket: None, documents: vec![],
//! #         skip_phases: vec![], ignore_preflight: vec![],
//! #     }
//! # }
//!
//! // Once: run `Command::version`, read its output, check the settings.
//! let version = Version::from_kubeadm(br#"{"clientVersion": {"gitVersion": "v1.31.4"}}"#)?;
//! let plan = Plan::new(&version, settings())?;
//!
//! // For every step: carry out its actions in order and stop at the first that fails.
//! for action in plan.step(&StepInput::JoinEtcd) {
//!     match action {
//!         Action::WriteFile { path, mode, contents } => { /* write contents.expose() */ }
//!         Action::RemoveFile { path } => { /* fine if it is not there */ }
//!         Action::EmptyDirectory { path } => { /* fine if it is not there */ }
//!         Action::Run(command) => {
//!             // Start command.program with command.args and command.env, kill its process group after command.limit.
//!             let (exit, stdout, stderr) = (Exit::Code(1), b"", b"error execution phase etcd-join: timed out");
//!             let failure = outcome(&command, &exit, stdout, stderr).unwrap_err();
//!             assert_eq!(failure.phase, "join/etcd-join");
//!             break;
//!         }
//!         Action::Require { phase, path } => { /* if it does not exist: Failure::left_undone(&phase, &path) */ }
//!         Action::KubeletServer(change) => { /* write change.rewrite(its text, ..) in its place */ }
//!         Action::LocalDns(dns) => { /* POST dns.config_map(..), if there is one; 409 is fine */ }
//!         Action::Await(wait) => { /* GET wait.path from wait.server until wait.met(status, body) is Ok */ }
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Secrets: [`PkiBundle`] and [`Ticket`] are made here as bytes in memory, sealed and opened by the agent with
//! `muster_wire::seal`, and leave this crate only as the `contents` of files to write.

#![forbid(unsafe_code)]

pub mod action;
pub mod api;
mod codec;
pub mod dns;
mod document;
pub mod etcd;
pub mod farewell;
pub mod kubeconfig;
pub mod kubelet;
pub mod manifests;
pub mod outcome;
mod phases;
mod pki;
mod plan;
mod ports;
pub mod schema;
mod secret;
mod settings;
mod version;
pub mod versions;

pub use action::{Action, Command, Settled};
pub use api::{Readiness, Until, Wait, node_readiness};
pub use codec::{SECRET_LIMIT, Undecodable};
pub use dns::LocalDns;
pub use document::{DocumentError, Kind};
pub use kubeconfig::Kubeconfig;
pub use manifests::{ManifestError, ManifestFile, Manifests};
pub use outcome::{Exit, Failure, FailureKind, OUTPUT_LIMIT, outcome, redact};
pub use pki::{PkiBundle, PkiError, Ticket};
pub use plan::{Node, Plan, PlanError, StepInput};
pub use ports::ports;
pub use secret::{Secret, Token};
pub use settings::{Settings, UserFile};
pub use version::{ConfigApi, Version, VersionError};

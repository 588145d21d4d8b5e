//! muster's agent: the shell around the pure machine. It decides nothing.
//!
//! One task owns the [`muster_protocol::Machine`], feeds it inputs, and carries out its effects in order; the rooms around
//! it are the mesh ([`net`]), the disk, Raft, the kubeadm device, the balancer and the local API.

mod api;
pub mod backups;
mod balancer;
mod config;
mod counters;
mod device;
mod disk;
pub mod endpoint;
mod files;
mod former;
pub mod guard;
mod hardware;
mod hosts;
mod https;
mod logs;
pub mod net;
mod observe;
mod process;
mod proxy;
mod raft;
mod record;
mod report;
pub mod salvage;
mod shell;
mod standby;
pub mod update;

pub use config::{AgentConfig, common};
pub use counters::Counters;
pub use device::PhaseTime;
pub use disk::DiskError;
pub use hardware::Hardware;
pub use logs::Ring;
pub use muster_consensus::LOG_DIRECTIVE;
pub use report::report_of_disk;
pub use shell::{AgentError, Ended, run};
pub use standby::StandBy;

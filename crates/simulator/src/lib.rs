//! A world in virtual time that tries to break muster.
//!
//! It runs the protocol's own code; network, disks, clocks and kubeadm's processes are modelled. One thread a seed, and
//! one seed gives one run, to the last bit: every result carries a hash of all that happened.

pub mod built_in;
pub mod calibrate;
pub mod changes;
pub mod check;
pub mod command;
pub mod cost;
pub mod guide;
pub mod junit;
pub mod name;
pub mod numbers;
#[cfg(feature = "planted-bugs")]
pub mod planted;
pub mod promises;
pub mod reach;
pub mod recording;
pub mod report;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod sometimes;
pub mod states;
pub mod sweep;
pub mod tables;
pub mod trace;
pub mod truth;
pub mod twice;
pub mod vary;
pub mod watch;
pub mod world;

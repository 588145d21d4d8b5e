//! Disk images with muster in them: built by a fixed recipe over well-kept tools, read and verified without mounting them, and
//! booted in virtual machines.
//!
//! The recipe is [`build()`]: each step is a file of `steps`, kept in a `cache` under a hash of its inputs. What an image is on a
//! machine stands in `docs/image.md`.

#![forbid(unsafe_code)]

pub mod boot;
mod build;
mod cache;
mod contents;
mod digest;
mod ethernet;
mod files;
mod host;
pub mod install;
mod layout;
pub mod memory;
mod partitions;
mod plan;
mod progress;
mod read;
pub mod slots;
mod steps;
mod unpack;
pub mod update;
mod verify;

pub use build::{Built, build};
pub use contents::{CONTENTS, Contents, Package};
pub use plan::{Cluster, From, Kernel, Kubernetes, Output, Plan};
pub use progress::{Progress, Step};
pub use read::{Disk, Slot, contents, disk};
pub use unpack::{LENGTH_MAX, room, sha256, unpacked};
pub use verify::{Verified, verify};

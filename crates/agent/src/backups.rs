//! Sealed backups of etcd: how they are taken and sealed, where they are kept, and how machines fetch copies from each other.

mod keeper;
mod seal;
mod store;
mod take;

pub(crate) use keeper::{Keeper, Part};
pub use seal::{BackupKey, label_of, open};
pub(crate) use store::{Store, digest_of, find, forget};
pub(crate) use take::take;

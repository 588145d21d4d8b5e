//! The steps of a build, in their order: tree, initrd, root, system, outputs.

pub(crate) mod disk;
pub(crate) mod initrd;
pub(crate) mod iso;
pub(crate) mod live;
pub(crate) mod oci;
pub(crate) mod root;
pub(crate) mod system;
pub(crate) mod tree;

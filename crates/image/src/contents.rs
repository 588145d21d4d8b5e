//! What an image says of itself: `manifest.json` beside its outputs, and in the EFI system partition of a disk.

use std::collections::BTreeMap;

/// Where a disk has it, in its EFI system partition.
pub const CONTENTS: &str = "muster/manifest.json";

/// The loader of a disk.
pub(crate) const LOADER: &str = "loader";
/// The EFI program of kernel, initrd and command line that a disk starts.
pub(crate) const PROGRAM: &str = "program";
/// The kernel in it, and what comes after the root file system in the initrd of what starts in memory.
pub(crate) const KERNEL: &str = "kernel";
pub(crate) const INITRD: &str = "initrd";

/// What an image is made of. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Contents {
    /// The cluster's name.
    pub cluster: String,
    /// Digest of the settings that all machines share, as the charter has it, in hexadecimal digits.
    pub settings: String,
    /// Root of the hash tree over the root file system, in hexadecimal digits.
    pub root_hash: String,
    /// The kernel's command line.
    pub command_line: String,
    /// The kernel's version, and which of Debian's it is.
    pub kernel: String,
    /// SHA-256 of what starts it, in hexadecimal digits: `loader`, `program`, `kernel` and `initrd`.
    #[serde(default)]
    pub starts: BTreeMap<String, String>,
    /// What went in, each with its hash or its version.
    pub inputs: BTreeMap<String, String>,
    /// The container images in it.
    pub images: Vec<String>,
    /// The packages in it.
    pub packages: Vec<Package>,
}

/// A package of the system below.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licences, as its copyright file names them; empty where that names none for programs to read.
    pub licences: Vec<String>,
}

impl Contents {
    /// As it is written.
    #[must_use]
    pub fn json(&self) -> Vec<u8> {
        // A structure of texts is always JSON.
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

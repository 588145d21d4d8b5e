//! Files of the image's own, besides those of its inputs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::cache;

/// A file: where it lies below the root, and what it says.
pub(crate) struct File {
    pub(crate) path: &'static str,
    pub(crate) text: &'static str,
    program: bool,
}

macro_rules! file {
    ($path:literal) => {
        File { path: $path, text: include_str!(concat!("../files/", $path)), program: false }
    };
    ($path:literal, program) => {
        File { path: $path, text: include_str!(concat!("../files/", $path)), program: true }
    };
    ($path:literal, $source:literal) => {
        File { path: $path, text: include_str!(concat!("../", $source)), program: false }
    };
}

/// Those of the root file system.
pub(crate) const ROOT: &[File] = &[
    file!("usr/lib/systemd/system/muster.service", "../cli/dist/muster.service"),
    file!("usr/lib/systemd/system/kubelet.service.d/20-muster.conf", "../cli/dist/kubelet.service.d/20-muster.conf"),
    file!("usr/lib/systemd/system/containerd.service"),
    file!("usr/lib/systemd/system/kubelet.service"),
    file!("usr/lib/systemd/system/muster-images.service"),
    file!("usr/lib/systemd/system/muster-settings.service"),
    file!("usr/lib/systemd/system/muster-volume.service"),
    file!("usr/lib/systemd/system/muster-install.service"),
    file!("usr/lib/systemd/system/muster-healthy.service"),
    file!("usr/lib/systemd/system/muster.service.d/10-image.conf"),
    file!("usr/lib/systemd/system/emergency.service.d/10-muster.conf"),
    file!("usr/lib/systemd/system/boot-complete.target.d/10-muster.conf"),
    file!("usr/lib/udev/rules.d/90-muster.rules"),
    file!("usr/lib/systemd/system/systemd-networkd-wait-online.service.d/10-muster.conf"),
    file!("usr/lib/muster/load-images", program),
    file!("usr/lib/systemd/network/90-muster.network"),
    file!("usr/lib/repart.d/10-esp.conf"),
    file!("usr/lib/repart.d/20-root-a.conf"),
    file!("usr/lib/repart.d/21-verity-a.conf"),
    file!("usr/lib/repart.d/30-root-b.conf"),
    file!("usr/lib/repart.d/31-verity-b.conf"),
    file!("usr/lib/repart.d/40-state.conf"),
    file!("usr/lib/tmpfiles.d/muster-image.conf"),
    file!("usr/lib/sysctl.d/90-muster-kubernetes.conf"),
    file!("usr/lib/modules-load.d/muster-kubernetes.conf"),
    file!("etc/systemd/journald.conf.d/muster.conf"),
    file!("etc/systemd/networkd.conf.d/muster.conf"),
    file!("etc/systemd/system.conf.d/muster.conf"),
];

/// Those of the initrd.
pub(crate) const INITRD: &[File] =
    &[file!("usr/lib/systemd/system/systemd-repart.service.d/10-muster.conf", "files/initrd/10-after-root.conf")];

/// What the initrd of a machine without a disk has besides: where, and what it says.
pub(crate) const LIVE: &[(&str, &str)] = &[
    ("etc/systemd/system/sysroot.mount", include_str!("../files/live/sysroot.mount")),
    ("etc/systemd/system/sysroot-var.mount", include_str!("../files/live/sysroot-var.mount")),
    ("etc/systemd/system/sysroot-etc.mount.d/10-live.conf", include_str!("../files/live/10-live.conf")),
    ("etc/systemd/system/muster-live.service", include_str!("../files/live/muster-live.service")),
    ("muster-live/prepare", include_str!("../files/live/prepare")),
    ("muster-live/var.mount", include_str!("../files/live/var.mount")),
];

pub(crate) const FSTAB: &str = include_str!("../files/fstab");
pub(crate) const CONTAINERD: &str = include_str!("../files/containerd.toml");

/// Writes files below a root, in place of what is there.
pub(crate) fn write(files: &[File], root: &Path) -> Result<()> {
    for File { path, text, program } in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        cache::remove(&path)?;
        fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(if *program { 0o755 } else { 0o644 }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    /// What lies in `files` and stands in no table is on no machine, and nothing says so.
    #[test]
    fn every_file_is_in_a_table() {
        fn below(directory: &Path, found: &mut BTreeSet<PathBuf>) {
            for entry in fs::read_dir(directory).expect("readable").flatten() {
                match entry.path() {
                    path if path.is_dir() => below(&path, found),
                    path => _ = found.insert(path),
                }
            }
        }
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("files");
        let mut found = BTreeSet::new();
        for place in ["usr", "etc"] {
            below(&directory.join(place), &mut found);
        }
        let listed: BTreeSet<PathBuf> = ROOT.iter().map(|file| directory.join(file.path)).collect();
        let missing: Vec<_> = found.difference(&listed).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

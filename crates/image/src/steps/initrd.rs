//! What runs before the root file system is there: made by the tree's own dracut, so that it fits the tree's systemd.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::tree;
use crate::digest::Key;
use crate::files;
use crate::host;

/// dracut's parts; the rest of what it knows (LVM, RAID, NFS, Plymouth) no machine of ours starts from.
const MODULES: &str = "bash systemd systemd-initrd systemd-sysctl systemd-modules-load systemd-udevd systemd-journald \
                       systemd-tmpfiles systemd-sysusers dracut-systemd systemd-veritysetup systemd-repart dm kernel-modules \
                       kernel-modules-extra rootfs-block udev-rules usrmount base fs-lib shutdown";

/// Kernel modules that the first steps need besides the disks' drivers.
const DRIVERS: &str = "dm-verity squashfs overlay loop ext4 vfat nls_cp437 nls_ascii nls_iso8859-1";

/// Programs that systemd-repart calls, and that check the state partition.
const PROGRAMS: &str = "mkfs.ext4 mke2fs e2fsck fsck.ext4 fsck /etc/mke2fs.conf";

/// Runs in a mount namespace of its own, in which the tree stays as it is: what is written there is written to memory.
const SCRIPT: &str = r#"
tree=$1 out=$2 version=$3
shift 3
for place in proc sys dev; do mount --rbind "/$place" "$tree/$place"; done
for place in run tmp var/tmp; do mount -t tmpfs tmpfs "$tree/$place"; done
mkdir "$tree/run/out"
mount --bind "$out" "$tree/run/out"
chroot "$tree" dracut "$@" --include /run/out/include / /run/out/initrd "$version"
"#;

pub(crate) fn key(tree: Key) -> Key {
    let files = files::INITRD.iter().flat_map(|file| [file.path, file.text]);
    let texts = [MODULES, DRIVERS, PROGRAMS, SCRIPT].into_iter().chain(files);
    texts.fold(Key::of("initrd").text(&tree.name()), Key::text)
}

/// Makes the initrd of a tree, at `path`.
pub(crate) fn make(tree: &Path, path: &Path) -> Result<()> {
    let (version, _) = tree::kernel(tree)?;
    let out = tempfile::tempdir().context("no temporary directory")?;
    let include = out.path().join("include");
    fs::create_dir(&include)?;
    files::write(files::INITRD, &include)?;
    let options = [
        "--quiet",
        "--force",
        "--no-hostonly",
        "--no-hostonly-cmdline",
        "--reproducible",
        "--no-early-microcode",
        "--zstd",
        "--modules",
        MODULES,
        "--add-drivers",
        DRIVERS,
        "--install",
        PROGRAMS,
    ];
    let mut unshare = host::command("unshare", ["--mount", "--propagation", "private", "sh", "-euc", SCRIPT, "initrd"]);
    unshare.args([tree, out.path()]).arg(&version).args(options);
    let said = host::output(&mut unshare)?;
    let made = out.path().join("initrd");
    if !made.is_file() {
        bail!("dracut made no initrd: {}", said.trim());
    }
    fs::copy(made, path).map(drop).context("the initrd cannot be kept")
}

//! The whole system of one site: its root file system with the site's own files, the hash tree over it, and the kernel that
//! knows the tree's root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::tree;
use crate::digest::Key;
use crate::host;
use crate::plan::{Kernel, Plan};

/// Compression of the root: slow to write, and as fast to read as any.
const SQUASH: [&str; 6] = ["-comp", "zstd", "-Xcompression-level", "15", "-b", "128K"];

/// All times are the same, so that the same files are the same bytes; appending would else make a root that everybody writes to.
const SAME: [&str; 8] = ["-all-time", "0", "-mkfs-time", "0", "-root-mode", "0755", "-no-progress", "-quiet"];

/// Where the sections of an EFI program lie in memory, above systemd's stub. A kernel has 64 MiB.
const SECTIONS: [(&str, u64); 4] =
    [(".osrel", 0x20000), (".cmdline", 0x30000), (".linux", 0x0200_0000), (".initrd", 0x0600_0000)];
const KERNEL_BYTES_MAX: u64 = 0x0400_0000;

/// The consoles of machines and of virtual ones (a serial port that is not there counts for nothing), and what a machine does that
/// cannot go on: it starts again. Of a partition table that is damaged the kernel reads the copy (`gpt`): power may fail while an update
/// writes it.
pub(crate) const COMMAND_LINE: &str = "ro console=tty0 console=ttyS0,115200 panic=10 rd.shell=0 rd.emergency=reboot gpt \
                            systemd.show_status=true loglevel=4";

/// The files of a system, below its directory.
pub(crate) struct System(PathBuf);

impl System {
    /// Its files.
    pub(crate) const PARTS: [&str; 6] =
        ["root.squashfs", "root.verity", "root.hash", "cmdline", "muster.efi", "loader.efi"];

    /// And what is told of it beside them, where it is carried along.
    pub(crate) const CONTENTS: &str = "manifest.json";

    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("root.squashfs")
    }

    pub(crate) fn verity(&self) -> PathBuf {
        self.0.join("root.verity")
    }

    /// Kernel, initrd and command line in one EFI program.
    pub(crate) fn kernel(&self) -> PathBuf {
        self.0.join("muster.efi")
    }

    pub(crate) fn loader(&self) -> PathBuf {
        self.0.join("loader.efi")
    }

    /// Root of the hash tree.
    pub(crate) fn root_hash(&self) -> Result<[u8; 32]> {
        let text = fs::read_to_string(self.0.join("root.hash"))?;
        let mut hash = [0; 32];
        hex::decode_to_slice(text.trim(), &mut hash).context("the kept root hash is none")?;
        Ok(hash)
    }

    pub(crate) fn command_line(&self) -> Result<String> {
        Ok(fs::read_to_string(self.0.join("cmdline"))?)
    }
}

pub(crate) fn base_key(root: Key) -> Key {
    SQUASH.iter().chain(&SAME).fold(Key::of("base").text(&root.name()), |key, word| key.text(word))
}

/// The root file system without what is the site's own: the long part, which lasts from one muster.toml to the next.
pub(crate) fn base(root: &Path, path: &Path) -> Result<()> {
    let words = [root.as_os_str(), path.as_os_str(), "-noappend".as_ref(), "-xattrs".as_ref()];
    squash(words.into_iter().chain(SQUASH.iter().chain(&SAME).map(AsRef::as_ref)))
}

/// Runs mksquashfs, which takes times from its arguments or from the environment, and refuses both.
fn squash<'a>(words: impl IntoIterator<Item = &'a std::ffi::OsStr>) -> Result<()> {
    host::output(host::command("mksquashfs", words).env_remove("SOURCE_DATE_EPOCH")).map(drop)
}

pub(crate) fn key(base: Key, initrd: Key, plan: &Plan) -> Result<Key> {
    let key = Key::of("system").text(&base.name()).text(&initrd.name()).text(COMMAND_LINE).text(&plan.command_line);
    key.text(&plan.cluster.name).text(&plan.cluster.settings).text(&format!("{SECTIONS:?}")).path(&plan.site)
}

/// Makes it at `path`, of the base, the initrd, and the tree's kernel.
pub(crate) fn make(base: &Path, initrd: &Path, tree: &Path, plan: &Plan, path: &Path) -> Result<()> {
    fs::create_dir(path)?;
    let system = System::at(path.to_owned());
    fs::copy(base, system.root()).context("the root file system cannot be copied")?;
    append(&plan.site, &system.root())?;
    let hash = verity(&system.root(), &system.verity())?;
    fs::write(path.join("root.hash"), &hash)?;
    let line = format!("roothash={hash} {COMMAND_LINE} {}", plan.command_line);
    fs::write(path.join("cmdline"), line.trim())?;
    fs::write(path.join("osrel"), release(plan))?;
    let (stub, loader) = tree::stub(tree)?;
    let (_, kernel) = tree::kernel(tree)?;
    join(&stub, &kernel, initrd, path, &system.kernel())?;
    fs::copy(loader, system.loader()).map(drop).context("the loader cannot be copied")
}

/// Adds the site's files as `/site`, readable by root alone: the mesh key is among them.
fn append(site: &Path, root: &Path) -> Result<()> {
    // Beside what is made of it, which goes with it if this ends here.
    let place = root.with_file_name("site");
    lay_out(site, &place)?;
    let words = [place.as_os_str(), root.as_os_str()].into_iter();
    let own = ["-keep-as-directory", "-all-root", "-no-recovery"].map(AsRef::as_ref);
    squash(words.chain(own).chain(SAME.map(AsRef::as_ref)))?;
    Ok(fs::remove_dir_all(&place)?)
}

/// Lays the site's own files out as a directory that root alone can read.
pub(crate) fn lay_out(site: &Path, place: &Path) -> Result<()> {
    let source = site.join(".");
    fs::create_dir(place)?;
    host::run("cp", ["-rL".as_ref(), source.as_os_str(), place.as_os_str()])?;
    host::run("chmod", ["-R".as_ref(), "u=rwX,go=".as_ref(), place.as_os_str()])
}

/// The hash tree of a file system. No salt, and an identity that is none: both would only differ between two builds.
fn verity(root: &Path, path: &Path) -> Result<String> {
    let options = ["--salt=-", "--uuid=00000000-0000-0000-0000-000000000000", "--hash=sha256"].map(AsRef::as_ref);
    let words = ["format".as_ref(), root.as_os_str(), path.as_os_str()];
    let said = host::output(&mut host::command("veritysetup", words.into_iter().chain(options)))?;
    let hash = said.lines().find_map(|line| line.strip_prefix("Root hash:")).map(str::trim);
    hash.map(str::to_owned).with_context(|| format!("veritysetup told no root hash: {said}"))
}

/// How the loader's menu calls it.
pub(crate) fn release(plan: &Plan) -> String {
    let short = &plan.cluster.settings[..12.min(plan.cluster.settings.len())];
    let name = &plan.cluster.name;
    format!("ID=muster\nNAME=muster\nVERSION_ID=1\nPRETTY_NAME=\"muster: {name} ({short})\"\n")
}

/// One EFI program of systemd's stub, a kernel, an initrd, and what `texts` says.
pub(crate) fn join(stub: &Path, kernel: &Path, initrd: &Path, texts: &Path, path: &Path) -> Result<()> {
    if kernel.metadata()?.len() > KERNEL_BYTES_MAX {
        bail!("{} is longer than {} MiB", kernel.display(), KERNEL_BYTES_MAX >> 20);
    }
    let files = [texts.join("osrel"), texts.join("cmdline"), kernel.to_owned(), initrd.to_owned()];
    let mut objcopy = host::command("objcopy", ["--preserve-dates"]);
    for ((section, address), file) in SECTIONS.iter().zip(files) {
        objcopy.arg("--add-section").arg(format!("{section}={}", file.display()));
        objcopy.arg("--change-section-vma").arg(format!("{section}={address:#x}"));
    }
    host::output(objcopy.arg(stub).arg(path)).map(drop)
}

/// The kernel in the image, for people.
pub(crate) fn kernel_name(tree: &Path, kernel: Kernel) -> Result<String> {
    Ok(format!("{} ({kernel})", tree::kernel(tree)?.0))
}

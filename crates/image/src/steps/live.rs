//! What starts without a disk: the root file system lies in the initrd, and all that a machine is in memory. A disk can be written of it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

use super::system::{self, System};
use super::tree;
use crate::cache;
use crate::files;
use crate::plan::Plan;

/// What is put together, and of what.
pub(crate) struct Live<'a> {
    pub(crate) system: &'a System,
    pub(crate) tree: &'a Path,
    /// The initrd of a machine with a disk.
    pub(crate) initrd: &'a Path,
    /// What the image says of itself.
    pub(crate) contents: &'a [u8],
    pub(crate) plan: &'a Plan,
}

/// Where the parts of a disk lie in the initrd.
pub(crate) const DISK: &str = "muster-live/disk";

impl Live<'_> {
    /// The kernel's command line.
    pub(crate) fn command_line(&self) -> String {
        // Whatever root file system is on a disk is not this one's.
        let line = format!("{} systemd.gpt_auto=0 {}", system::COMMAND_LINE, self.plan.command_line);
        line.trim().to_owned()
    }

    /// Writes the initrd: the root file system and what a disk has besides, and after it what every machine has.
    pub(crate) fn initrd(&self, path: &Path) -> Result<()> {
        let mut archive = io::BufWriter::new(created(path)?);
        let directories = ["etc/systemd/system", "etc/systemd/system/sysroot-etc.mount.d", DISK];
        let wants = "etc/systemd/system/initrd-root-fs.target.requires";
        let mut made: Vec<PathBuf> = Vec::new();
        for directory in directories.iter().chain([&wants]) {
            let above: Vec<&Path> = Path::new(directory).ancestors().filter(|path| *path != Path::new("")).collect();
            for path in above.into_iter().rev().filter(|path| *path != Path::new("")) {
                if !made.iter().any(|known| known == path) {
                    let entry = Builder::new(&path.display().to_string()).set_mode_file_type(ModeFileType::Directory);
                    entry.mode(0o040_755).nlink(2).write(&mut archive, 0).finish()?;
                    made.push(path.to_owned());
                }
            }
        }
        for (path, text) in files::LIVE {
            add(&mut archive, path, &mut text.as_bytes(), text.len() as u64)?;
        }
        link(&mut archive, &format!("{wants}/sysroot.mount"), "/etc/systemd/system/sysroot.mount")?;
        for name in System::PARTS {
            let file = self.system.part(name);
            let length = file.metadata().with_context(|| format!("{} cannot be read", file.display()))?.len();
            add(&mut archive, &format!("{DISK}/{name}"), &mut fs::File::open(file)?, length)?;
        }
        add(
            &mut archive,
            &format!("{DISK}/{}", System::CONTENTS),
            &mut &self.contents[..],
            self.contents.len() as u64,
        )?;
        trailer(&mut archive)?;
        // Where the next archive may begin.
        let written = archive.into_inner().map_err(io::IntoInnerError::into_error)?;
        let length = written.metadata()?.len();
        written.set_len(length.next_multiple_of(512))?;
        let mut written = fs::File::options().append(true).open(path)?;
        io::copy(&mut fs::File::open(self.initrd)?, &mut written).map(drop).context("the initrd cannot be written")
    }

    /// Writes the one EFI program that has all of it.
    pub(crate) fn program(&self, path: &Path) -> Result<()> {
        let place = path.with_extension("parts");
        cache::remove(&place)?;
        fs::create_dir(&place)?;
        let made = (|| {
            let initrd = place.join("initrd");
            self.initrd(&initrd)?;
            fs::write(place.join("cmdline"), self.command_line())?;
            fs::write(place.join("osrel"), system::release(self.plan))?;
            let (stub, _) = tree::stub(self.tree)?;
            let (_, kernel) = tree::kernel(self.tree)?;
            system::join(&stub, &kernel, &initrd, &place, path)
        })();
        cache::remove(&place)?;
        made
    }

    /// Writes kernel, initrd and command line into a directory of their own, with a script that iPXE reads.
    pub(crate) fn network_boot(&self, path: &Path) -> Result<()> {
        fs::create_dir(path)?;
        let (_, kernel) = tree::kernel(self.tree)?;
        fs::copy(kernel, path.join("vmlinuz")).context("the kernel cannot be copied")?;
        self.initrd(&path.join("initrd.img"))?;
        let line = self.command_line();
        fs::write(path.join("cmdline"), format!("{line}\n"))?;
        // EFI programs of kernels take the initrd by its name on their command line.
        let script =
            format!("#!ipxe\nkernel vmlinuz initrd=initrd.img {line} || exit\ninitrd initrd.img || exit\nboot\n");
        fs::write(path.join("boot.ipxe"), script).context("the script cannot be written")
    }
}

/// A file that root alone can read: the mesh key is in it.
fn created(path: &Path) -> Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    file.with_context(|| format!("{} cannot be written", path.display()))
}

fn add(archive: &mut impl Write, name: &str, source: &mut dyn io::Read, length: u64) -> Result<()> {
    // The format counts with 32 bits.
    let bytes = u32::try_from(length).with_context(|| format!("{name} is too long for an initrd"))?;
    let entry = Builder::new(name).set_mode_file_type(ModeFileType::Regular).mode(0o100_600);
    let mut entry = entry.nlink(1).write(archive, bytes);
    let copied = io::copy(source, &mut entry)?;
    anyhow::ensure!(copied == length, "{name} changed while it was copied");
    entry.finish().map(drop).context("the initrd cannot be written")
}

fn link(archive: &mut impl Write, name: &str, target: &str) -> Result<()> {
    let bytes = u32::try_from(target.len())?;
    let entry = Builder::new(name).set_mode_file_type(ModeFileType::Symlink).mode(0o120_777);
    let mut entry = entry.nlink(1).write(archive, bytes);
    entry.write_all(target.as_bytes())?;
    entry.finish().map(drop).context("the initrd cannot be written")
}

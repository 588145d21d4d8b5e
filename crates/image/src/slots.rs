//! The two places for an image on a machine's disk, and which kernel starts which.
//!
//! Boots are counted as systemd-boot does: <https://systemd.io/AUTOMATIC_BOOT_ASSESSMENT>. `muster_2+3.efi` has three tries left,
//! `muster_2+0-3.efi` none after three that nobody called good, and `muster_2.efi` is good.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::contents::Contents;
use crate::layout;
use crate::partitions;
use crate::read::{self, Partition};

/// Where the loader looks for kernels, in the EFI system partition.
pub(crate) const KERNELS: &str = "EFI/Linux";

/// Longest description that is read.
const CONTENTS_BYTES_MAX: u64 = 16 << 20;

/// This machine's disk, as far as it starts from one.
#[derive(Debug)]
pub struct Machine {
    /// The disk.
    pub disk: PathBuf,
    /// Root of the hash tree over the root file system that runs, in hexadecimal digits.
    pub running: String,
    esp: Esp,
}

impl Machine {
    /// Looks for the disk that this machine was started from.
    ///
    /// # Errors
    /// When it was started from something else, or its EFI system partition cannot be looked into.
    pub fn here() -> Result<Self> {
        let line = fs::read_to_string("/proc/cmdline").context("/proc is not there")?;
        let running = read::root_hash_of(&line)
            .context("this machine was not started from a disk that `muster image build` or `install` made")?;
        let disk = disk_below_root()?;
        // Power may have failed while an update wrote it; the copy was read then.
        let opened = fs::File::options().read(true).write(true).open(&disk);
        let mut opened = opened.with_context(|| format!("{} cannot be looked into (as root?)", disk.display()))?;
        partitions::mend(&mut opened)?;
        let esp = read::partitions(&disk)?.into_iter().find(|one| one.kind == layout::ESP);
        let esp = esp.with_context(|| format!("{} has no EFI system partition", disk.display()))?;
        Ok(Self { esp: Esp::mount(&device_of(&disk, &esp)?)?, disk, running })
    }

    /// What lies in the EFI system partition.
    #[must_use]
    pub fn efi(&self) -> &Path {
        &self.esp.0
    }

    /// Keeps every other update away as long as what is given is there.
    ///
    /// # Errors
    /// When one is under way.
    pub fn lock(&self) -> Result<fs::File> {
        let lock = fs::File::create("/run/muster-image.lock").context("/run cannot be written")?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .context("another update of this machine is under way")?;
        Ok(lock)
    }

    /// Its slots.
    ///
    /// # Errors
    /// When the disk has none, or cannot be read.
    pub fn slots(&self) -> Result<Vec<Slot>> {
        slots(&self.disk, self.efi(), &self.running)
    }
}

/// The disk that this machine runs from; none of one that was started in memory or otherwise.
#[must_use]
pub fn own_disk() -> Option<PathBuf> {
    disk_below_root().ok()
}

/// The disk whose blocks dm-verity hands on as the root file system. Another disk may have the same identities on it.
fn disk_below_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc is not there")?;
    // proc_pid_mountinfo(5): the third field is the device, and the fifth the place.
    let number = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let number = fields.next()?;
        (fields.nth(1)? == "/").then(|| number.to_owned())
    });
    let number = number.context("no root file system is mounted")?;
    let below = Path::new("/sys/dev/block").join(number).join("slaves");
    let mut partitions = fs::read_dir(&below).context("the root file system is not one that dm-verity checks")?;
    let partition = partitions.next().context("dm-verity has no disk below it")??.path();
    let whole = fs::canonicalize(partition)?;
    let disk = whole.parent().and_then(Path::file_name).context("a partition is on a disk")?;
    Ok(Path::new("/dev").join(disk))
}

/// The device of a partition, which begins where it does.
fn device_of(disk: &Path, partition: &Partition) -> Result<PathBuf> {
    let name = disk.file_name().context("a disk has a name")?;
    for entry in fs::read_dir(Path::new("/sys/class/block").join(name))?.flatten() {
        let start = fs::read_to_string(entry.path().join("start")).unwrap_or_default();
        if start.trim().parse() == Ok(partition.start / layout::SECTOR) {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    bail!("{} has no device for its partition {}", disk.display(), partition.name)
}

/// An EFI system partition that is mounted as long as this is there.
#[derive(Debug)]
struct Esp(PathBuf);

impl Esp {
    fn mount(device: &Path) -> Result<Self> {
        let place = PathBuf::from(format!("/run/muster-esp-{}", std::process::id()));
        fs::create_dir_all(&place)?;
        let flags = MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOSUID;
        // Who else has it mounted sees the same files.
        let options = c"umask=0077";
        rustix::mount::mount(device, &place, "vfat", flags, Some(options))
            // Somebody reads a stick's settings just now, or the loader's count: it is over in a moment.
            .or_else(|error| match error {
                rustix::io::Errno::BUSY => {
                    std::thread::sleep(std::time::Duration::from_secs(2));
                    rustix::mount::mount(device, &place, "vfat", flags, Some(options))
                }
                error => Err(error),
            })
            .inspect_err(|_| _ = fs::remove_dir(&place))
            .with_context(|| match rustix::process::geteuid().is_root() {
                true => format!("{} cannot be mounted: is it mounted elsewhere, to be read alone?", device.display()),
                false => format!("{} can be mounted by root alone", device.display()),
            })?;
        Ok(Self(place))
    }
}

impl Drop for Esp {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}

/// A place for an image.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Slot {
    /// Its letter.
    pub letter: char,
    /// The kernel that starts it; none if nothing can be started from it.
    pub kernel: Option<Kernel>,
    /// Whether this machine runs from it.
    pub running: bool,
    /// What its image says of itself.
    pub contents: Option<Contents>,
    #[serde(skip)]
    pub(crate) root: Partition,
    #[serde(skip)]
    pub(crate) verity: Partition,
}

/// A kernel in the EFI system partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Kernel {
    /// Its file's name.
    pub file: String,
    /// The later is started first.
    pub version: u32,
    /// How its boots went; none if one was good.
    pub tries: Option<Tries>,
    /// The root file system that it asks for.
    pub root_hash: String,
}

/// Boots of a kernel that nobody has called good yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Tries {
    /// How often it is started again.
    pub left: u32,
    /// How often it was.
    pub failed: u32,
}

impl Slot {
    /// What can be said of it in a few words.
    #[must_use]
    pub fn state(&self) -> String {
        let Some(kernel) = &self.kernel else { return "empty".to_owned() };
        let tries = |count: u32| if count == 1 { "1 try".to_owned() } else { format!("{count} tries") };
        match (self.running, kernel.tries) {
            (true, None) => "runs, good".to_owned(),
            (true, Some(Tries { left, .. })) => format!("runs, and is not known to be good yet; {} left", tries(left)),
            (false, None) => "good".to_owned(),
            (false, Some(Tries { left: 0, failed })) => {
                format!("was not well in {}: it is not started again", tries(failed))
            }
            (false, Some(Tries { left, .. })) => format!("is tried at the next start; {} left", tries(left)),
        }
    }
}

/// The slots of a disk whose EFI system partition is at `efi`.
pub(crate) fn slots(disk: &Path, efi: &Path, running: &str) -> Result<Vec<Slot>> {
    let partitions = read::partitions(disk)?;
    let kernels = kernels(efi)?;
    let described = described(efi);
    let of = |letter: char| -> Result<Slot> {
        let named = |what: &str| {
            let name = format!("{what}-{letter}");
            let found = partitions.iter().find(|one| one.name == name).cloned();
            found.with_context(|| format!("{} has no partition {name}", disk.display()))
        };
        let (root, verity) = (named("root")?, named("verity")?);
        let asks = |kernel: &&Kernel| read::identities(&kernel.root_hash).is_ok_and(|ids| ids == (root.id, verity.id));
        let kernel = kernels.iter().find(asks).cloned();
        let root_hash = kernel.as_ref().map(|kernel| kernel.root_hash.clone());
        Ok(Slot {
            letter,
            running: root_hash.as_deref() == Some(running),
            contents: described.iter().find(|one| Some(&one.root_hash) == root_hash.as_ref()).cloned(),
            kernel,
            root,
            verity,
        })
    };
    Ok(vec![of('A')?, of('B')?])
}

/// The kernels in an EFI system partition, the one first that is started first.
fn kernels(efi: &Path) -> Result<Vec<Kernel>> {
    let directory = efi.join(KERNELS);
    let listed = fs::read_dir(&directory).with_context(|| format!("the disk has no {KERNELS}"))?;
    let mut kernels = Vec::new();
    for entry in listed {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some((version, tries)) = counted(&file) else { continue };
        // One that cannot be read is no slot's.
        let Ok(root_hash) = fs::read(entry.path()).map_err(Into::into).and_then(|bytes| read::asks_for(&bytes)) else {
            continue;
        };
        kernels.push(Kernel { file, version, tries, root_hash });
    }
    kernels.sort_by_key(|kernel| std::cmp::Reverse(kernel.version));
    Ok(kernels)
}

/// What a kernel's name says: its version, and its tries.
pub(crate) fn counted(file: &str) -> Option<(u32, Option<Tries>)> {
    let name = file.to_ascii_lowercase();
    let rest = name.strip_prefix("muster_")?.strip_suffix(".efi")?;
    let Some((version, tries)) = rest.split_once('+') else { return Some((rest.parse().ok()?, None)) };
    let (left, failed) = tries.split_once('-').unwrap_or((tries, "0"));
    Some((version.parse().ok()?, Some(Tries { left: left.parse().ok()?, failed: failed.parse().ok()? })))
}

/// The descriptions in an EFI system partition.
fn described(efi: &Path) -> Vec<Contents> {
    use std::io::Read as _;
    let listed = fs::read_dir(efi.join("muster")).into_iter().flatten().flatten();
    let read = |entry: fs::DirEntry| {
        let mut text = Vec::new();
        fs::File::open(entry.path()).ok()?.take(CONTENTS_BYTES_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    };
    listed.filter_map(read).collect()
}

/// The slot that runs, which must be a good one, and the other.
pub(crate) fn running_and_other(slots: &[Slot]) -> Result<(&Slot, &Slot)> {
    let running = slots.iter().find(|slot| slot.running);
    let running = running.context("the kernel of what runs is not in the EFI system partition")?;
    if let Some(Tries { left, .. }) = running.kernel.as_ref().and_then(|kernel| kernel.tries) {
        bail!(
            "slot {} was started to be tried, and is not known to be good yet ({left} tries left): what it would fall back to is kept",
            running.letter
        );
    }
    let other = slots.iter().find(|slot| !slot.running).context("the disk has one slot")?;
    Ok((running, other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kernels_count_their_tries() {
        let tries = |left, failed| Some(Tries { left, failed });
        assert_eq!(counted("muster_1.efi"), Some((1, None)));
        assert_eq!(counted("MUSTER_2+3.EFI"), Some((2, tries(3, 0))));
        assert_eq!(counted("muster_12+0-3.efi"), Some((12, tries(0, 3))));
        for other in [
            "muster_.efi",
            "muster_1",
            "linux_1.efi",
            "muster_1+x.efi",
            "muster_1+.efi",
            "muster_-1.efi",
            "muster_2.part",
        ] {
            assert_eq!(counted(other), None, "{other}");
        }
    }
}

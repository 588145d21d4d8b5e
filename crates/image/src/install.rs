//! Writing an image to a disk of this machine: of what it was started with in memory, or of a file.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::contents::Contents;
use crate::layout::{MIB, SECTOR};
use crate::progress::{Progress, step};
use crate::read;
use crate::steps::disk::{self, length};
use crate::steps::system::System;
use crate::verify;

/// Where the initrd leaves the parts of a disk if it is told to.
const MEMORY: &str = "/run/muster-disk";

/// Name of the medium, by which it is not taken for a disk to write.
pub(crate) const MEDIUM: &str = "MUSTER_ISO";

/// How much of a disk's begin and of its end says that something is on it: tables of partitions, and most file systems' first blocks.
/// The first partition of an image begins after it, so that a disk whose writing was cut short is empty still.
const ENDS: u64 = MIB;

/// Where a disk's parts come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// What this machine was started with.
    Memory,
    /// A disk image.
    File(PathBuf),
}

impl Source {
    /// What the image says of itself.
    ///
    /// # Errors
    /// When there is none.
    pub fn contents(&self) -> Result<Contents> {
        match self {
            Self::File(file) => read::contents(file),
            Self::Memory => {
                let text = fs::read(Path::new(MEMORY).join(System::CONTENTS)).context(
                    "this machine was not started in memory to be installed (muster.install= on the kernel's command line)",
                )?;
                serde_json::from_slice(&text).context("what this machine was started with is damaged")
            }
        }
    }
}

/// A disk of this machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Disk {
    /// Its device.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Why it is not written; none if nothing is on it.
    pub occupied: Option<Occupied>,
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Occupied {
    /// It cannot be written, whatever is said.
    Unfit {
        /// Why.
        why: String,
    },
    /// Something; it goes if that is wanted.
    Data {
        /// What.
        what: String,
    },
    /// The image itself.
    Image,
}

impl Disk {
    /// What is on it, in a sentence.
    #[must_use]
    pub fn why(&self) -> String {
        let path = self.path.display();
        match &self.occupied {
            None => format!("{path} is empty"),
            Some(Occupied::Unfit { why }) => format!("{path} {why}"),
            Some(Occupied::Data { what }) => format!("{path} has {what}"),
            Some(Occupied::Image) => format!("{path} has this image"),
        }
    }
}

/// The disks of this machine, by their names.
///
/// # Errors
/// When they cannot be listed.
pub fn disks(contents: &Contents) -> Result<Vec<Disk>> {
    let mut disks = Vec::new();
    for entry in fs::read_dir("/sys/class/block").context("/sys is not there")?.flatten() {
        let (about, name) = (entry.path(), entry.file_name());
        // Partitions have a number, and what is no hardware has no device.
        if about.join("partition").exists()
            || !about.join("device").exists()
            || name.to_string_lossy().starts_with("sr")
        {
            continue;
        }
        let path = Path::new("/dev").join(&name);
        let word = |file: &str| fs::read_to_string(about.join(file)).unwrap_or_default().trim().to_owned();
        let bytes = word("size").parse::<u64>().unwrap_or_default() * SECTOR;
        if bytes == 0 {
            continue;
        }
        let unfit = |why: &str| Some(Occupied::Unfit { why: why.to_owned() });
        let occupied = match (word("ro").as_str(), word("queue/logical_block_size").as_str()) {
            ("1", _) => unfit("cannot be written"),
            (_, size) if size != "512" => unfit("has blocks of other than 512 bytes"),
            _ if bytes < disk::shortest() => unfit(&format!("has {} MiB, too few", bytes >> 20)),
            _ => match fs::File::open(&path) {
                Ok(file) => looked_at(file, contents, &path)?,
                Err(error) => unfit(&format!("cannot be read: {error}")),
            },
        };
        disks.push(Disk { path, bytes, occupied });
    }
    disks.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(disks)
}

/// What is on a disk, as far as its ends tell.
fn looked_at(mut disk: fs::File, contents: &Contents, path: &Path) -> Result<Option<Occupied>> {
    let bytes = length(&mut disk)?;
    let mut ends = [vec![0; ENDS as usize], vec![0; ENDS as usize]];
    disk.read_exact_at(&mut ends[0], 0).with_context(|| format!("{} cannot be read", path.display()))?;
    disk.read_exact_at(&mut ends[1], bytes - ENDS).with_context(|| format!("{} cannot be read", path.display()))?;
    // ECMA-119, 8.4: the primary volume descriptor and its volume identifier.
    let volume = &ends[0][0x8000..0x8000 + 72];
    if &volume[1..6] == b"CD001" && volume[40..72].starts_with(MEDIUM.as_bytes()) {
        return Ok(Some(Occupied::Unfit { why: "is a medium to install from".to_owned() }));
    }
    if ends.iter().flatten().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if read::disk(path).is_ok_and(|disk| disk.slots.iter().any(|slot| slot.root_hash == contents.root_hash)) {
        return Ok(Some(Occupied::Image));
    }
    let what = match (&ends[0][512..520] == b"EFI PART", &ends[0][510..512] == b"\x55\xaa") {
        (true, _) => "partitions",
        (_, true) => "partitions or a loader",
        _ => "data",
    };
    Ok(Some(Occupied::Data { what: what.to_owned() }))
}

/// Chooses a disk: by its device, or the `smallest` or `largest` of those that may be written. With `wipe` something may be on it.
///
/// # Errors
/// When there is none, with what is on each.
pub fn choose(disks: &[Disk], word: &str, wipe: bool) -> Result<Disk> {
    let may = |disk: &&Disk| match disk.occupied {
        None => true,
        Some(Occupied::Data { .. }) => wipe,
        Some(Occupied::Image | Occupied::Unfit { .. }) => false,
    };
    let listed = || {
        let all: Vec<String> = disks.iter().map(Disk::why).collect();
        if all.is_empty() { "it has none".to_owned() } else { all.join(", ") }
    };
    if ["smallest", "largest"].contains(&word) {
        // One that has it already is the one that was meant before.
        if let Some(done) = disks.iter().find(|disk| disk.occupied == Some(Occupied::Image)) {
            bail!("{}: take the medium away, or start from the disk", done.why());
        }
        let fit = disks.iter().filter(may);
        let key = |disk: &&Disk| (disk.bytes, disk.path.clone());
        let chosen = if word == "smallest" { fit.min_by_key(key) } else { fit.max_by_key(key) };
        return chosen.cloned().with_context(|| format!("this machine has no disk that may be written: {}", listed()));
    }
    let path = fs::canonicalize(word).with_context(|| format!("{word} is no disk of this machine"))?;
    let Some(disk) = disks.iter().find(|disk| disk.path == path) else {
        bail!("{word} is no disk of this machine: {}", listed());
    };
    match &disk.occupied {
        Some(Occupied::Unfit { .. }) => bail!("{}", disk.why()),
        Some(Occupied::Image) if !wipe => bail!("{}: take the medium away, or start from the disk", disk.why()),
        Some(Occupied::Data { .. }) if !wipe => bail!("{}: nothing is written over it unless that is said", disk.why()),
        _ => Ok(disk.clone()),
    }
}

/// Writes an image to a disk, and reads it back. `settings` is a muster.toml for this machine alone.
///
/// # Errors
/// When the disk is in use, cannot be written, or says something else afterwards.
pub fn write(source: &Source, to: &Path, settings: Option<&[u8]>, progress: &dyn Progress) -> Result<()> {
    let contents = source.contents()?;
    // Whoever has mounted it, or part of it, keeps it.
    let exclusive = i32::from_ne_bytes(rustix::fs::OFlags::EXCL.bits().to_ne_bytes());
    let opened = fs::File::options().read(true).write(true).custom_flags(exclusive).open(to);
    let mut disk = opened.with_context(|| format!("{} cannot be written: is it in use?", to.display()))?;
    let bytes = length(&mut disk)?;
    step(progress, &format!("{} is written", to.display()), 30, || {
        let nothing = vec![0; ENDS as usize];
        disk.write_all_at(&nothing, 0)?;
        disk.write_all_at(&nothing, bytes - ENDS)?;
        match source {
            Source::Memory => {
                let system = in_memory()?;
                disk::write(&system, &contents.json(), bytes, settings, &mut disk)?;
            }
            Source::File(file) => copied(file, bytes, settings, &mut disk)?,
        }
        disk.sync_all().with_context(|| format!("{} cannot be written", to.display())).map(|()| ((), false))
    })?;
    step(progress, "what was written is read back", 10, || {
        rustix::fs::fadvise(&disk, 0, None, rustix::fs::Advice::DontNeed)?;
        verify::verify(to).map(|_| ((), false))
    })
}

/// The parts that the initrd has left, with the root file system of which this machine runs.
fn in_memory() -> Result<System> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc is not there")?;
    // proc_pid_mountinfo(5): the fifth field is the place, and the second after " - " the source.
    let source = mounts.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        (fields.split(' ').nth(4)? == "/").then(|| rest.split(' ').nth(1).map(str::to_owned))?
    });
    let source = source.filter(|source| source.starts_with("/dev/loop"));
    let source = source.context("this machine's root file system is not in memory")?;
    let system = System::at(PathBuf::from(MEMORY));
    let link = system.root();
    if fs::read_link(&link).is_err() {
        std::os::unix::fs::symlink(&source, &link).context("/run cannot be written")?;
    }
    Ok(system)
}

/// Copies the partitions of a disk image to the same places, and makes a table for the longer disk.
fn copied(file: &Path, bytes: u64, settings: Option<&[u8]>, disk: &mut fs::File) -> Result<()> {
    let mut image = fs::File::open(file)?;
    let partitions = read::partitions(file)?;
    if partitions.iter().map(|one| one.start + one.bytes).max().unwrap_or_default() + MIB > bytes {
        bail!("it is shorter than the image");
    }
    for partition in &partitions {
        image.seek(SeekFrom::Start(partition.start))?;
        disk.seek(SeekFrom::Start(partition.start))?;
        let copied = io::copy(&mut (&mut image).take(partition.bytes), disk)?;
        anyhow::ensure!(copied == partition.bytes, "{} is cut short", file.display());
    }
    if let Some(settings) = settings {
        disk::with_settings(disk, settings)?;
    }
    disk.flush()?;
    disk.sync_all()?;
    disk::same_table(&read::identity(file)?, &partitions, bytes, disk)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::progress::Step;

    struct Silent;

    impl Progress for Silent {
        fn began(&self, _: &Step) {}
        fn ended(&self, _: &Step, _: Duration, _: bool) {}
    }

    fn disk(path: &str, gib: u64, occupied: Option<Occupied>) -> Disk {
        Disk { path: PathBuf::from(path), bytes: gib << 30, occupied }
    }

    fn data() -> Option<Occupied> {
        Some(Occupied::Data { what: "partitions".to_owned() })
    }

    #[test]
    fn of_disks_the_one_that_was_said_and_never_one_with_something_on_it() {
        let unfit = Some(Occupied::Unfit { why: "is a medium to install from".to_owned() });
        let disks = [
            disk("/dev/sda", 8, data()),
            disk("/dev/sdb", 32, None),
            disk("/dev/sdc", 16, None),
            disk("/dev/sdd", 4, unfit),
        ];
        let chosen = |word: &str, wipe: bool| choose(&disks, word, wipe).map(|disk| disk.path.display().to_string());
        assert_eq!(chosen("smallest", false).expect("one"), "/dev/sdc");
        assert_eq!(chosen("largest", false).expect("one"), "/dev/sdb");
        assert_eq!(chosen("smallest", true).expect("one"), "/dev/sda");
        let full = choose(&disks[..1], "smallest", false).expect_err("none is empty").to_string();
        assert_eq!(full, "this machine has no disk that may be written: /dev/sda has partitions");
        let none = choose(&[], "smallest", true).expect_err("none").to_string();
        assert!(none.ends_with("it has none"), "{none}");
        let done = [disk("/dev/sda", 8, Some(Occupied::Image)), disk("/dev/sdb", 8, None)];
        for wipe in [false, true] {
            let told = choose(&done, "smallest", wipe).expect_err("it is there").to_string();
            assert!(told.starts_with("/dev/sda has this image"), "{told}");
        }
    }

    #[test]
    fn a_disk_is_known_by_its_ends_and_an_image_is_written_to_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let image = crate::update::tests::image(directory.path(), 1);
        let contents = read::contents(&image).expect("read");
        let path = directory.path().join("disk");
        let make = || {
            let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(&path);
            let file = file.expect("made");
            file.set_len(4 << 30).expect("made");
            file
        };
        let look = |file: fs::File| looked_at(file, &contents, &path).expect("looked at");
        assert_eq!(look(make()), None);
        let last = make();
        last.write_all_at(b"EFI PART", (4 << 30) - 512).expect("written");
        assert!(matches!(look(last), Some(Occupied::Data { .. })));
        let medium = make();
        medium.write_all_at(b"\x01CD001", 0x8000).expect("written");
        medium.write_all_at(MEDIUM.as_bytes(), 0x8028).expect("written");
        assert!(matches!(look(medium), Some(Occupied::Unfit { .. })));
        make();
        write(&Source::File(image), &path, Some(b"name = \"left\"\n"), &Silent).expect("written");
        assert_eq!(look(fs::File::open(&path).expect("opened")), Some(Occupied::Image));
        let found = read::disk(&path).expect("a disk");
        assert_eq!((found.bytes, found.partitions.len()), (4 << 30, 3));
        assert_eq!(read::settings(&path).expect("read").as_deref(), Some(&b"name = \"left\"\n"[..]));
    }
}

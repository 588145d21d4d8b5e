//! Writing an image to a disk of this machine: of what it was started with in memory, or of a file.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::contents::Contents;
use crate::layout::{MACHINE_BYTES_MIN, MIB, SECTOR};
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
    /// Whether it is a stick, a card or the like: it is written if it is named, and never chosen.
    pub removable: bool,
    /// Why it is not written; none if nothing is on it.
    pub occupied: Option<Occupied>,
}

/// What may be written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wipe {
    /// Nothing.
    Nothing,
    /// What is on a disk, if that is no machine of muster's.
    Data,
    /// A machine of muster's as well.
    Machines,
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
    /// A machine of muster's, with another image.
    Machine,
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
            Some(Occupied::Machine) => format!("{path} has a machine of muster's"),
            Some(Occupied::Image) => format!("{path} has this image"),
        }
    }
}

/// The disks of this machine, by their names. `contents` is of the image that is to be written, if that is known.
///
/// # Errors
/// When they cannot be listed.
pub fn disks(contents: Option<&Contents>) -> Result<Vec<Disk>> {
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
        let unfit = |why: String| Some(Occupied::Unfit { why });
        let occupied = match (word("ro").as_str(), word("queue/logical_block_size").as_str()) {
            ("1", _) => unfit("cannot be written".to_owned()),
            (_, size) if size != "512" => unfit("has blocks of other than 512 bytes".to_owned()),
            _ if bytes < MACHINE_BYTES_MIN => {
                unfit(format!("has {} MiB, and a machine needs {}", bytes >> 20, MACHINE_BYTES_MIN >> 20))
            }
            _ => {
                let looked =
                    fs::File::open(&path).map_err(Into::into).and_then(|file| looked_at(file, contents, &path));
                looked.unwrap_or_else(|error| unfit(format!("cannot be read: {error:#}")))
            }
        };
        disks.push(Disk { removable: is_removable(&about), path, bytes, occupied });
    }
    disks.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(disks)
}

/// Whether a block device, by its place in `/sys`, is a stick, a card or the like, or on one.
#[must_use]
pub fn is_removable(device: &Path) -> bool {
    let Ok(place) = fs::canonicalize(device) else { return false };
    let says = |path: &Path| fs::read_to_string(path.join("removable")).is_ok_and(|word| word.trim() == "1");
    // What hangs on a USB has it in its path: .../usb1/1-2/1-2:1.0/host2/...
    place.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"))
        || says(&place)
        || place.parent().is_some_and(says)
}

/// What is on a disk, as far as its ends tell.
fn looked_at(mut disk: fs::File, contents: Option<&Contents>, path: &Path) -> Result<Option<Occupied>> {
    let bytes = length(&mut disk)?;
    if bytes < 2 * ENDS {
        bail!("it is {bytes} bytes long");
    }
    let mut ends = [vec![0; ENDS as usize], vec![0; ENDS as usize]];
    disk.read_exact_at(&mut ends[0], 0)?;
    disk.read_exact_at(&mut ends[1], bytes - ENDS)?;
    // ECMA-119, 8.4: the primary volume descriptor and its volume identifier.
    let volume = &ends[0][0x8000..0x8000 + 72];
    if &volume[1..6] == b"CD001" && volume[40..72].starts_with(MEDIUM.as_bytes()) {
        return Ok(Some(Occupied::Unfit { why: "is a medium to install from".to_owned() }));
    }
    if ends.iter().flatten().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let starts = read::disk(path).map(|disk| disk.slots).unwrap_or_default();
    if starts.iter().any(|slot| contents.is_some_and(|contents| contents.root_hash == slot.root_hash)) {
        return Ok(Some(Occupied::Image));
    }
    if read::partitions(path).is_ok_and(|all| all.iter().any(|one| one.name == "root-A")) {
        return Ok(Some(Occupied::Machine));
    }
    let what = match (&ends[0][512..520] == b"EFI PART", &ends[0][510..512] == b"\x55\xaa") {
        (true, _) => "partitions",
        (_, true) => "partitions or a loader",
        _ => "data",
    };
    Ok(Some(Occupied::Data { what: what.to_owned() }))
}

/// Chooses a disk: by its device, or the `smallest` or `largest` of those that are no sticks and may be written.
///
/// # Errors
/// When there is none, with what is on each.
pub fn choose(disks: &[Disk], word: &str, wipe: Wipe) -> Result<Disk> {
    let listed = || {
        let all: Vec<String> = disks.iter().map(Disk::why).collect();
        if all.is_empty() { "it has none".to_owned() } else { all.join(", ") }
    };
    // Whoever starts from the network each time, or left a medium in, would write it each time.
    let done = |disk: &Disk| format!("{}: take the medium away, or start from the disk", disk.why());
    if ["smallest", "largest"].contains(&word) {
        if let Some(there) = disks.iter().find(|disk| disk.occupied == Some(Occupied::Image)) {
            bail!(done(there));
        }
        let fit = disks.iter().filter(|disk| !disk.removable && may(disk, wipe));
        let key = |disk: &&Disk| (disk.bytes, disk.path.clone());
        let chosen = if word == "smallest" { fit.min_by_key(key) } else { fit.max_by_key(key) };
        return chosen.cloned().with_context(|| {
            format!("this machine has no disk that may be written (and is no stick or card): {}", listed())
        });
    }
    let path = fs::canonicalize(word).with_context(|| format!("{word} is no disk of this machine"))?;
    let Some(disk) = disks.iter().find(|disk| disk.path == path) else {
        bail!("{word} is no disk of this machine: {}", listed());
    };
    match &disk.occupied {
        _ if may(disk, wipe) => Ok(disk.clone()),
        Some(Occupied::Image) => bail!(done(disk)),
        Some(Occupied::Unfit { .. }) => bail!("{}", disk.why()),
        _ => bail!("{}: nothing is written over it unless that is said", disk.why()),
    }
}

fn may(disk: &Disk, wipe: Wipe) -> bool {
    match disk.occupied {
        None => true,
        Some(Occupied::Data { .. }) => wipe >= Wipe::Data,
        Some(Occupied::Machine) => wipe >= Wipe::Machines,
        Some(Occupied::Image | Occupied::Unfit { .. }) => false,
    }
}

/// Writes an image to a disk, and reads it back. `settings` is a muster.toml for this machine alone.
///
/// # Errors
/// When the image is damaged or has more than an image, or the disk is in use, is another one by now, cannot be written, or says something
/// else afterwards.
pub fn write(source: &Source, to: &Disk, settings: Option<&[u8]>, progress: &dyn Progress) -> Result<()> {
    let contents = source.contents()?;
    if let Source::File(file) = source {
        step(progress, &format!("{} is verified", file.display()), 5, || verify::verify(file).map(|_| ((), false)))?;
        fresh(file)?;
    }
    // Whoever has mounted it, or part of it, keeps it.
    let exclusive = i32::from_ne_bytes(rustix::fs::OFlags::EXCL.bits().to_ne_bytes());
    let opened = fs::File::options().read(true).write(true).custom_flags(exclusive).open(&to.path);
    let mut disk = opened.with_context(|| format!("{} cannot be written: is it in use?", to.path.display()))?;
    let bytes = length(&mut disk)?;
    // Names of disks may have moved while somebody was asked.
    if bytes != to.bytes || looked_at(disk.try_clone()?, Some(&contents), &to.path)? != to.occupied {
        bail!("{} is not what it was a moment ago: nothing is written", to.path.display());
    }
    step(progress, &format!("{} is written", to.path.display()), 30, || {
        let nothing = vec![0; ENDS as usize];
        disk.write_all_at(&nothing, 0)?;
        disk.write_all_at(&nothing, bytes - ENDS)?;
        disk.sync_all()?;
        match source {
            Source::Memory => {
                let system = in_memory()?;
                disk::write(&system, &contents.json(), bytes, settings, &mut disk)?;
            }
            Source::File(file) => copied(file, bytes, settings, &mut disk)?,
        }
        disk.sync_all().with_context(|| format!("{} cannot be written", to.path.display())).map(|()| ((), false))
    })?;
    step(progress, "what was written is read back", 10, || {
        rustix::fs::fadvise(&disk, 0, None, rustix::fs::Advice::DontNeed)?;
        verify::verify(&to.path).map(|_| ((), false))
    })
}

/// Sees that a file is an image as it was built: one that a machine was started from has that machine on it.
fn fresh(file: &Path) -> Result<()> {
    let names: Vec<String> = read::partitions(file)?.into_iter().map(|one| one.name).collect();
    if names != ["esp", "root-A", "verity-A"] {
        bail!("{} is no image as it was built, but a machine's disk: it has {}", file.display(), names.join(", "));
    }
    Ok(())
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
        Disk { path: PathBuf::from(path), bytes: gib << 30, removable: false, occupied }
    }

    fn data() -> Option<Occupied> {
        Some(Occupied::Data { what: "partitions".to_owned() })
    }

    #[test]
    fn of_disks_the_one_that_was_said_and_never_one_with_something_on_it() {
        let unfit = Some(Occupied::Unfit { why: "is a medium to install from".to_owned() });
        let stick = Disk { removable: true, ..disk("/dev/sde", 1, None) };
        let disks = [
            disk("/dev/sda", 8, data()),
            disk("/dev/sdb", 32, None),
            disk("/dev/sdc", 16, None),
            disk("/dev/sdd", 4, unfit),
            stick,
            disk("/dev/sdf", 2, Some(Occupied::Machine)),
        ];
        let chosen = |word: &str, wipe| choose(&disks, word, wipe).map(|disk| disk.path.display().to_string());
        assert_eq!(chosen("smallest", Wipe::Nothing).expect("one"), "/dev/sdc");
        assert_eq!(chosen("largest", Wipe::Nothing).expect("one"), "/dev/sdb");
        assert_eq!(chosen("smallest", Wipe::Data).expect("one"), "/dev/sda");
        assert_eq!(chosen("smallest", Wipe::Machines).expect("one"), "/dev/sdf");
        let full = choose(&disks[..1], "smallest", Wipe::Nothing).expect_err("none is empty").to_string();
        assert!(full.ends_with(": /dev/sda has partitions"), "{full}");
        let none = choose(&[], "smallest", Wipe::Machines).expect_err("none").to_string();
        assert!(none.ends_with("it has none"), "{none}");
    }

    #[test]
    fn what_is_there_already_is_written_by_no_word_and_no_name() {
        // A name must exist to be one.
        let done = [disk("/dev/null", 8, Some(Occupied::Image)), disk("/dev/zero", 8, None)];
        for wipe in [Wipe::Nothing, Wipe::Data, Wipe::Machines] {
            for word in ["smallest", "largest", "/dev/null"] {
                let told = choose(&done, word, wipe).expect_err("it is there").to_string();
                assert!(told.starts_with("/dev/null has this image"), "{told}");
            }
        }
        let machine = [disk("/dev/null", 8, Some(Occupied::Machine))];
        assert!(choose(&machine, "/dev/null", Wipe::Data).is_err());
        assert!(choose(&machine, "/dev/null", Wipe::Machines).is_ok());
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
        let look = |file: fs::File| looked_at(file, Some(&contents), &path).expect("looked at");
        assert_eq!(look(make()), None);
        let last = make();
        last.write_all_at(b"EFI PART", (4 << 30) - 512).expect("written");
        assert!(matches!(look(last), Some(Occupied::Data { .. })));
        let medium = make();
        medium.write_all_at(b"\x01CD001", 0x8000).expect("written");
        medium.write_all_at(MEDIUM.as_bytes(), 0x8028).expect("written");
        assert!(matches!(look(medium), Some(Occupied::Unfit { .. })));
        make();
        let there = |occupied| Disk { path: path.clone(), bytes: 4 << 30, removable: false, occupied };
        let settings = Some(&b"name = \"left\"\n"[..]);
        let moved = write(&Source::File(image.clone()), &there(data()), settings, &Silent).expect_err("another disk");
        assert!(moved.to_string().contains("is not what it was"), "{moved}");
        write(&Source::File(image), &there(None), settings, &Silent).expect("written");
        // With a machine on it it is no image any more.
        let used = Source::File(path.clone());
        crate::update::tests::grow(&path);
        let told = write(&used, &there(Some(Occupied::Image)), None, &Silent).expect_err("a machine's").to_string();
        assert!(told.contains("root-B"), "{told}");
        assert_eq!(look(fs::File::open(&path).expect("opened")), Some(Occupied::Image));
        let found = read::disk(&path).expect("a disk");
        assert_eq!((found.bytes, found.partitions.len()), (4 << 30, 5));
        assert_eq!(read::settings(&path).expect("read").as_deref(), Some(&b"name = \"left\"\n"[..]));
    }
}

//! Writing an image into the slot from which this machine does not run, so that the next start tries it and the one after a failure does
//! not.
//!
//! At no moment is there a disk that cannot be started: the other slot's kernel goes first, what it would start is written and read back,
//! and the new kernel comes last, in one piece.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::Advice;

use crate::contents::Contents;
use crate::layout::MIB;
use crate::partitions;
use crate::progress::{Progress, step};
use crate::read;
use crate::slots::{self, KERNELS, Slot};
use crate::verify::{self, Verified};

/// How often a new image is tried.
const TRIES: u32 = 3;

/// What an update would do.
#[derive(Debug)]
pub struct Update {
    /// What the image says of itself.
    pub contents: Contents,
    /// The slot that is written.
    pub slot: char,
    /// Bytes that are written.
    pub bytes: u64,
    image: std::path::PathBuf,
    from: read::Slot,
    verified: Verified,
    to: Slot,
    version: u32,
    running: String,
}

impl Update {
    /// Looks at an image for a machine, and changes nothing. None if the machine runs it.
    ///
    /// # Errors
    /// When it is damaged, no disk image, too large, or the machine is not in a state to take it.
    pub fn of(image: &Path, machine: &slots::Machine) -> Result<Option<Self>> {
        Self::between(image, &machine.slots()?, machine.efi())
    }

    fn between(image: &Path, slots: &[Slot], efi: &Path) -> Result<Option<Self>> {
        let contents = read::contents(image)?;
        let verified = verify::verify(image)?;
        let (running, other) = slots::running_and_other(slots)?;
        if running.kernel.as_ref().is_some_and(|kernel| kernel.root_hash == contents.root_hash) {
            return Ok(None);
        }
        let from = read::disk(image)?.slots.into_iter().find(|slot| slot.root_hash == contents.root_hash);
        let from = from.context("the image does not start what it says")?;
        let verified = verified.into_iter().find(|one| one.root_hash == contents.root_hash);
        let verified = verified.context("the image does not start what it says")?;
        for (what, wanted, place) in
            [("root file system", verified.bytes, &other.root), ("hash tree", from.verity.1, &other.verity)]
        {
            if wanted > place.bytes {
                bail!("its {what} has {} MiB, and {} has {}", wanted.div_ceil(1 << 20), place.name, place.bytes >> 20);
            }
        }
        // Before anything is taken away: the old kernel makes room for the new one.
        let goes = other
            .kernel
            .as_ref()
            .map_or(0, |kernel| efi.join(KERNELS).join(&kernel.file).metadata().map_or(0, |seen| seen.len()));
        let room = rustix::fs::statvfs(efi).context("the EFI system partition cannot be looked at")?;
        let (room, comes) = (room.f_bavail * room.f_frsize + goes, read::program(image, &from)?.len() as u64);
        if room < comes + MIB {
            let (room, comes) = (room >> 20, comes.div_ceil(MIB));
            bail!("its kernel has {comes} MiB, and the EFI system partition has room for {room}");
        }
        let latest = slots.iter().filter_map(|slot| slot.kernel.as_ref()).map(|kernel| kernel.version).max();
        Ok(Some(Self {
            slot: other.letter,
            bytes: verified.bytes + from.verity.1,
            image: image.to_owned(),
            to: other.clone(),
            version: latest.unwrap_or_default() + 1,
            running: running.kernel.as_ref().map(|kernel| kernel.root_hash.clone()).unwrap_or_default(),
            contents,
            from,
            verified,
        }))
    }

    /// Writes all but the kernel. Nothing can be started from the slot yet.
    ///
    /// # Errors
    /// When the disk cannot be written, or says something else afterwards: then it starts as before.
    pub fn write(&self, disk: &Path, efi: &Path, progress: &dyn Progress) -> Result<()> {
        let mut file = opened(disk)?;
        let slot = self.slot;
        step(progress, &format!("slot {slot} is emptied"), 1, || self.forget(efi).map(|()| ((), false)))?;
        step(progress, &format!("the root file system is written into slot {slot}"), 10, || {
            self.copy(&mut file, self.from.root.0, self.to.root.start, self.verified.bytes)?;
            self.copy(&mut file, self.from.verity.0, self.to.verity.start, self.from.verity.1)?;
            file.sync_all().context("the disk cannot be written").map(|()| ((), false))
        })?;
        step(progress, "what was written is read back", 5, || self.read_back(&mut file).map(|()| ((), false)))
    }

    /// Puts the kernel there, when [`Self::write`] is done: the next start of the machine tries it.
    ///
    /// # Errors
    /// When the disk cannot be written: then it starts as before.
    pub fn arm(&self, disk: &Path, efi: &Path, progress: &dyn Progress) -> Result<()> {
        let mut file = opened(disk)?;
        step(progress, "the next start is prepared", 1, || self.prepare(&mut file, efi).map(|()| ((), false)))?;
        // What is left of an earlier image's description says nothing wrong.
        let _ = self.tidy(efi);
        Ok(())
    }

    /// Takes the slot's kernel away, and what is said of it.
    fn forget(&self, efi: &Path) -> Result<()> {
        if let Some(kernel) = &self.to.kernel {
            fs::remove_file(efi.join(KERNELS).join(&kernel.file)).context("its kernel cannot be removed")?;
        }
        // What an earlier update has left.
        for entry in fs::read_dir(efi.join(KERNELS))? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "part") {
                fs::remove_file(path)?;
            }
        }
        synced(efi)
    }

    fn copy(&self, disk: &mut fs::File, from: u64, to: u64, bytes: u64) -> Result<()> {
        let mut image = fs::File::open(&self.image)?;
        image.seek(SeekFrom::Start(from))?;
        disk.seek(SeekFrom::Start(to))?;
        let copied = io::copy(&mut image.take(bytes), disk).context("the disk cannot be written")?;
        if copied == bytes { Ok(()) } else { bail!("the image is cut short") }
    }

    /// From the disk, and not from what is remembered of it.
    fn read_back(&self, disk: &mut fs::File) -> Result<()> {
        rustix::fs::fadvise(&*disk, 0, None, Advice::DontNeed).context("the disk cannot be read")?;
        let (root, verity) = (&self.to.root, &self.to.verity);
        let place =
            read::Slot { root: (root.start, root.bytes), verity: (verity.start, verity.bytes), ..self.from.clone() };
        verify::verify_slot(disk, &place).map(drop).context("the disk does not keep what is written to it")
    }

    fn prepare(&self, disk: &mut fs::File, efi: &Path) -> Result<()> {
        let (root, verity) = read::identities(&self.from.root_hash)?;
        partitions::rename(disk, &[(self.to.root.id, root), (self.to.verity.id, verity)])?;
        let about = efi.join("muster");
        fs::create_dir_all(&about)?;
        fs::write(about.join(format!("manifest-{}.json", self.slot)), self.contents.json())?;
        let program = read::program(&self.image, &self.from)?;
        let kernels = efi.join(KERNELS);
        let part = kernels.join(format!("muster_{}.part", self.version));
        fs::write(&part, program).context("the kernel cannot be written: is there room?")?;
        fs::File::open(&part)?.sync_all()?;
        synced(efi)?;
        fs::rename(&part, kernels.join(format!("muster_{}+{TRIES}.efi", self.version)))?;
        synced(efi)
    }

    /// Forgets what is said of images that are on the disk no more.
    fn tidy(&self, efi: &Path) -> Result<()> {
        for entry in fs::read_dir(efi.join("muster"))? {
            let path = entry?.path();
            let read = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Contents>(&text).ok());
            if !read.is_some_and(|contents| [&self.running, &self.from.root_hash].contains(&&contents.root_hash)) {
                fs::remove_file(path)?;
            }
        }
        synced(efi)
    }
}

fn opened(disk: &Path) -> Result<fs::File> {
    let file = fs::File::options().read(true).write(true).open(disk);
    file.with_context(|| format!("{} cannot be written", disk.display()))
}

/// Waits until all of a file system is on its disk.
fn synced(place: &Path) -> Result<()> {
    let directory = fs::File::open(place)?;
    rustix::fs::syncfs(&directory).context("the disk cannot be written")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::layout::{self, ALIGNMENT, SECTOR};
    use crate::progress::Step;
    use crate::read::tests::{described, program_of};
    use crate::steps::disk;
    use crate::steps::system::System;

    struct Silent;

    impl Progress for Silent {
        fn began(&self, _: &Step) {}
        fn ended(&self, _: &Step, _: Duration, _: bool) {}
    }

    /// A disk image whose root file system is some blocks of this byte.
    pub(crate) fn image(directory: &Path, byte: u8) -> PathBuf {
        use sha2::{Digest as _, Sha256};
        let place = directory.join(format!("image-{byte}"));
        fs::create_dir_all(&place).expect("made");
        let system = System::at(place.clone());
        let root = vec![byte; 5 * 4096];
        let mut level: Vec<u8> = root.chunks(4096).flat_map(Sha256::digest).collect();
        level.resize(4096, 0);
        let hash = hex::encode(Sha256::digest(&level));
        let mut tree = vec![0; 4096];
        tree[..8].copy_from_slice(b"verity\0\0");
        (tree[8], tree[12], tree[72]) = (1, 1, 5);
        tree[32..38].copy_from_slice(b"sha256");
        tree[64..72].copy_from_slice(&[0, 16, 0, 0, 0, 16, 0, 0]);
        tree.extend(level);
        fs::write(system.root(), root).expect("written");
        fs::write(system.verity(), tree).expect("written");
        fs::write(place.join("root.hash"), &hash).expect("written");
        fs::write(system.loader(), "loader").expect("written");
        let line = format!("roothash={hash} ro");
        fs::write(system.kernel(), program_of(&line)).expect("written");
        let starts = [("loader", system.loader()), ("program", system.kernel())];
        let starts = starts.map(|(name, file)| (name.to_owned(), crate::sha256(&file).expect("read")));
        let contents = Contents { root_hash: hash, command_line: line, starts: starts.into(), ..described() };
        let path = directory.join(format!("{byte}.raw"));
        disk::make(&system, &contents.json(), &path).expect("made");
        path
    }

    /// A machine that was started from an image: its disk has another slot, and its EFI system partition is a directory.
    struct Site {
        directory: tempfile::TempDir,
        disk: PathBuf,
        efi: PathBuf,
    }

    impl Site {
        fn begin() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let first = image(directory.path(), 1);
            let (disk, efi) = (directory.path().join("disk.raw"), directory.path().join("efi"));
            fs::copy(&first, &disk).expect("copied");
            grow(&disk);
            fs::create_dir_all(efi.join(KERNELS)).expect("made");
            fs::create_dir_all(efi.join("muster")).expect("made");
            let slot = read::disk(&first).expect("read").slots.remove(0);
            fs::write(efi.join("EFI/Linux/muster_1.efi"), read::program(&first, &slot).expect("read"))
                .expect("written");
            let contents = read::contents(&first).expect("read").json();
            fs::write(efi.join("muster/manifest.json"), contents).expect("written");
            Self { directory, disk, efi }
        }

        fn slots(&self, running: &str) -> Vec<Slot> {
            slots::slots(&self.disk, &self.efi, running).expect("slots")
        }

        fn update(&self, image: &Path, running: &str) -> Result<Option<Update>> {
            Update::between(image, &self.slots(running), &self.efi)
        }

        fn carry_out(&self, update: &Update) {
            update.write(&self.disk, &self.efi, &Silent).expect("written");
            assert!(
                self.slots("").iter().all(|slot| slot.letter != update.slot || slot.kernel.is_none()),
                "not armed yet"
            );
            update.arm(&self.disk, &self.efi, &Silent).expect("armed");
        }

        fn image(&self, byte: u8) -> (PathBuf, String) {
            let path = image(self.directory.path(), byte);
            let hash = read::contents(&path).expect("read").root_hash;
            (path, hash)
        }

        fn states(&self, running: &str) -> Vec<String> {
            self.slots(running).iter().map(Slot::state).collect()
        }

        /// As systemd-boot and systemd-bless-boot name kernels.
        fn renamed(&self, from: &str, to: &str) {
            let kernels = self.efi.join(KERNELS);
            fs::rename(kernels.join(from), kernels.join(to)).expect("renamed");
        }
    }

    /// Makes the second slot, as systemd-repart does.
    pub(crate) fn grow(disk: &Path) {
        use gpt::partition_types::{OperatingSystem, Type};
        let file = fs::File::options().read(true).write(true).open(disk).expect("opened");
        let bytes = 4 << 30;
        file.set_len(bytes).expect("grown");
        let config = gpt::GptConfig::new().writable(true).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
        let mut table = config.open_from_device(file).expect("a table");
        let mut all = table.partitions().clone();
        let mut at = all.values().map(|one| one.last_lba).max().expect("some") + 1;
        for (number, name, kind, bytes) in
            [(4, "root-B", layout::ROOT, layout::ROOT_BYTES), (5, "verity-B", layout::VERITY, layout::VERITY_BYTES)]
        {
            at = at.next_multiple_of(ALIGNMENT / SECTOR);
            let last_lba = at + bytes / SECTOR - 1;
            let part = gpt::partition::Partition {
                part_type_guid: Type { guid: kind, os: OperatingSystem::None },
                part_guid: uuid::Uuid::from_bytes([number as u8; 16]),
                first_lba: at,
                last_lba,
                flags: 0,
                name: name.to_owned(),
            };
            all.insert(number, part);
            at = last_lba + 1;
        }
        table.update_partitions(all).expect("taken");
        table.write().expect("written");
    }

    #[test]
    fn an_image_comes_into_the_other_slot_and_is_tried() {
        let site = Site::begin();
        let first = read::contents(&site.disk).expect("read").root_hash;
        assert_eq!(site.states(&first), ["runs, good", "empty"]);
        let (image, second) = site.image(2);
        let update = site.update(&image, &first).expect("fits").expect("another image");
        assert_eq!((update.slot, update.version), ('B', 2));
        site.carry_out(&update);
        assert_eq!(site.states(&first), ["runs, good", "is tried at the next start; 3 tries left"]);
        // What runs may not be the one that is tried when a third comes.
        assert_eq!(site.states(&second)[1], "runs, and is not known to be good yet; 3 tries left");
        let (third, _) = site.image(3);
        let refused = site.update(&third, &second).expect_err("not good yet").to_string();
        assert!(refused.starts_with("slot B was started to be tried"), "{refused}");
        site.renamed("muster_2+3.efi", "muster_2.efi");
        assert_eq!(site.states(&second), ["good", "runs, good"]);
        assert!(site.update(&image, &second).expect("looked at").is_none(), "it runs");
        let update = site.update(&third, &second).expect("fits").expect("another");
        assert_eq!((update.slot, update.version), ('A', 3));
        site.carry_out(&update);
        let told: Vec<_> = site.slots(&second).into_iter().map(|slot| slot.contents.expect("told").root_hash).collect();
        assert_eq!(told, [read::contents(&third).expect("read").root_hash, second]);
        assert_eq!(fs::read_dir(site.efi.join("muster")).expect("read").count(), 2);
    }

    #[test]
    fn an_image_that_was_not_well_is_told_and_may_be_written_over() {
        let site = Site::begin();
        let first = read::contents(&site.disk).expect("read").root_hash;
        let (image, _) = site.image(2);
        let update = |image: &Path| site.update(image, &first).expect("fits").expect("another");
        site.carry_out(&update(&image));
        site.renamed("muster_2+3.efi", "muster_2+0-3.efi");
        assert_eq!(site.states(&first), ["runs, good", "was not well in 3 tries: it is not started again"]);
        let (third, _) = site.image(3);
        site.carry_out(&update(&third));
        let kernels: Vec<_> =
            site.slots(&first).into_iter().filter_map(|slot| slot.kernel).map(|one| one.file).collect();
        assert_eq!(kernels, ["muster_1.efi", "muster_3+3.efi"]);
    }

    #[test]
    fn a_damaged_kernel_is_told_although_its_root_is_whole() {
        use std::os::unix::fs::FileExt as _;
        let site = Site::begin();
        let first = read::contents(&site.disk).expect("read").root_hash;
        let (image, _) = site.image(2);
        let file = fs::File::options().read(true).write(true).open(&image).expect("opened");
        let mut begin = vec![0; 8 << 20];
        file.read_exact_at(&mut begin, ALIGNMENT).expect("read");
        let section = begin.windows(8).position(|bytes| bytes == b".cmdline").expect("a kernel");
        // Of the header, where nobody reads anything: 0x148 bytes lie before the section's name.
        file.write_all_at(&[9], ALIGNMENT + (section - 0x148 + 0x10) as u64).expect("damaged");
        let told = site.update(&image, &first).expect_err("damaged");
        assert!(format!("{told:#}").contains("its program is damaged"), "{told:#}");
    }

    #[test]
    fn a_damaged_image_changes_nothing() {
        use std::os::unix::fs::FileExt as _;
        let site = Site::begin();
        let first = read::contents(&site.disk).expect("read").root_hash;
        let (image, _) = site.image(2);
        let at = read::disk(&image).expect("read").slots[0].root.0;
        fs::File::options().write(true).open(&image).expect("opened").write_all_at(&[9], at + 4096).expect("damaged");
        let told = site.update(&image, &first).expect_err("damaged");
        assert!(format!("{told:#}").contains("block 1 "), "{told:#}");
        assert_eq!(site.states(&first), ["runs, good", "empty"]);
    }
}

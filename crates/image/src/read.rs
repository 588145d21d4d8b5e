//! Reading a disk image without mounting it: its partition table, its EFI system partition, its kernels.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use object::read::pe::PeFile64;
use object::{Object as _, ObjectSection as _};

use crate::contents::{CONTENTS, Contents};
use crate::layout::{self, SECTOR};
use crate::steps::disk::{Part, length};

/// Longest kernel that is read, in bytes; and longest description.
const KERNEL_BYTES_MAX: u64 = 256 << 20;
const CONTENTS_BYTES_MAX: u64 = 16 << 20;
/// Most files in the directory of kernels, and most kernels.
const ENTRIES_MAX: usize = 64;
const KERNELS_MAX: usize = 4;

/// A disk image, as far as it says what it starts.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Disk {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its partitions: name, and length in bytes.
    pub partitions: Vec<(String, u64)>,
    /// What can be started, the later last.
    pub slots: Vec<Slot>,
}

/// A kernel, and the root file system that it asks for.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Slot {
    /// Its file in the EFI system partition.
    pub file: String,
    /// Its command line.
    pub command_line: String,
    /// Root of the hash tree, in hexadecimal digits.
    pub root_hash: String,
    /// Where the root file system is: first byte and length.
    pub root: (u64, u64),
    /// Where its hash tree is.
    pub verity: (u64, u64),
}

/// Reads a disk image.
///
/// # Errors
/// When it is none, or what it starts is not in it.
pub fn disk(path: &Path) -> Result<Disk> {
    let mut file = open(path)?;
    let bytes = length(&mut file)?;
    let table = table(&mut file).with_context(|| format!("{} is no disk image", path.display()))?;
    let partitions = table.iter().map(|one| (one.name.clone(), one.bytes)).collect();
    let kernels = efi(&mut file, &table, |root| {
        let linux = root.open_dir("EFI/Linux").context("it has no kernel: EFI/Linux is not there")?;
        let mut kernels = Vec::new();
        // A directory that leads to itself has no end.
        for entry in linux.iter().take(ENTRIES_MAX) {
            let entry = entry?;
            let name = entry.file_name();
            if entry.is_file() && name.to_lowercase().ends_with(".efi") {
                if entry.len() > KERNEL_BYTES_MAX {
                    bail!("EFI/Linux/{name} has {} MiB", entry.len() >> 20);
                }
                let mut bytes = Vec::new();
                entry.to_file().take(KERNEL_BYTES_MAX).read_to_end(&mut bytes)?;
                kernels.push((format!("EFI/Linux/{name}"), bytes));
                if kernels.len() > KERNELS_MAX {
                    bail!("it has more than {KERNELS_MAX} kernels");
                }
            }
        }
        Ok(kernels)
    })?;
    let mut slots = kernels.iter().map(|(file, bytes)| slot(file, bytes, &table)).collect::<Result<Vec<_>>>()?;
    // The later last: names count, so that 10 comes after 9.
    let version = |slot: &Slot| {
        let name = slot.file.rsplit('/').next().unwrap_or_default();
        crate::slots::counted(name).map(|(version, _)| version)
    };
    slots.sort_by_cached_key(|slot| (version(slot), slot.file.clone()));
    if slots.is_empty() {
        bail!("{} has no kernel", path.display());
    }
    Ok(Disk { bytes, partitions, slots })
}

/// What a disk image says of itself; of one that was updated, what its later image says.
///
/// # Errors
/// When it is no disk image, or says nothing.
pub fn contents(path: &Path) -> Result<Contents> {
    let starts: Vec<String> = disk(path)?.slots.into_iter().rev().map(|slot| slot.root_hash).collect();
    let mut file = open(path)?;
    let table = table(&mut file).with_context(|| format!("{} is no disk image", path.display()))?;
    let (directory, _) = CONTENTS.split_once('/').unwrap_or_default();
    let texts = efi(&mut file, &table, |root| {
        let directory = root.open_dir(directory).with_context(|| format!("{CONTENTS} is not in it"))?;
        let mut texts = Vec::new();
        for entry in directory.iter().take(ENTRIES_MAX) {
            let entry = entry?;
            if entry.is_file() && entry.file_name().to_lowercase().ends_with(".json") {
                let mut text = Vec::new();
                entry.to_file().take(CONTENTS_BYTES_MAX).read_to_end(&mut text)?;
                texts.push(text);
            }
        }
        Ok(texts)
    })?;
    let read =
        texts.iter().map(|text| serde_json::from_slice(text).with_context(|| format!("{CONTENTS} in it is damaged")));
    let all: Vec<Contents> = read.collect::<Result<_>>()?;
    let latest = starts.iter().find_map(|hash| all.iter().find(|one| one.root_hash == *hash));
    latest.or(all.first()).cloned().with_context(|| format!("{CONTENTS} is not in it"))
}

fn open(path: &Path) -> Result<fs::File> {
    // Before it is opened: a pipe would wait for somebody.
    let kind = path.metadata().with_context(|| format!("{} cannot be read", path.display()))?.file_type();
    let file = || fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()));
    if !kind.is_file() && !kind.is_block_device() {
        bail!("{} is neither a file nor a disk", path.display());
    }
    file()
}

/// Sees that the partition table's header speaks of a table as everybody has: what reads it takes its word.
fn header(file: &fs::File) -> Result<()> {
    const ENTRIES_MAX: u32 = 256;
    let mut bytes = [0; 92];
    file.read_exact_at(&mut bytes, SECTOR).context("it is too short for a partition table")?;
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    // UEFI 2.10, table 5.5: NumberOfPartitionEntries, SizeOfPartitionEntry.
    let (entries, size) = (word(80), word(84));
    if &bytes[..8] != b"EFI PART" || entries > ENTRIES_MAX || size != 128 {
        bail!("it has no partition table");
    }
    Ok(())
}

/// A partition of a disk.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    pub(crate) name: String,
    pub(crate) kind: uuid::Uuid,
    pub(crate) id: uuid::Uuid,
    /// First byte, and how many.
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

/// The partitions of a disk.
pub(crate) fn partitions(path: &Path) -> Result<Vec<Partition>> {
    table(&mut open(path)?).with_context(|| format!("{} has no partition table", path.display()))
}

/// The identity of a disk.
pub(crate) fn identity(path: &Path) -> Result<uuid::Uuid> {
    let file = open(path)?;
    header(&file)?;
    let config = gpt::GptConfig::new().writable(false).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
    Ok(*config.open_from_device(file)?.guid())
}

fn table(file: &mut fs::File) -> Result<Vec<Partition>> {
    let length = length(file)?;
    header(file)?;
    let config = gpt::GptConfig::new().writable(false).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
    let table = config.open_from_device(file.try_clone()?)?;
    let partition = |one: &gpt::partition::Partition| {
        let sectors = one.last_lba.checked_sub(one.first_lba)?.checked_add(1)?;
        let (start, bytes) = (one.first_lba.checked_mul(SECTOR)?, sectors.checked_mul(SECTOR)?);
        let within = start.checked_add(bytes)? <= length;
        within.then(|| Partition {
            name: one.name.clone(),
            kind: one.part_type_guid.guid,
            id: one.part_guid,
            start,
            bytes,
        })
    };
    let used = table.partitions().values().filter(|one| one.is_used());
    used.map(|one| partition(one).with_context(|| format!("partition {} is not within it", one.name))).collect()
}

/// Looks into the EFI system partition.
fn efi<T>(
    file: &mut fs::File,
    table: &[Partition],
    look: impl FnOnce(fatfs::Dir<'_, &mut Part<'_>>) -> Result<T>,
) -> Result<T> {
    let esp = table.iter().find(|one| one.kind == layout::ESP).context("it has no EFI system partition")?;
    let mut part = Part::of(file, esp.start, esp.bytes);
    let volume =
        fatfs::FileSystem::new(&mut part, fatfs::FsOptions::new()).context("its EFI system partition is damaged")?;
    look(volume.root_dir())
}

fn slot(file: &str, kernel: &[u8], table: &[Partition]) -> Result<Slot> {
    let command_line = section(kernel, ".cmdline").with_context(|| format!("{file} has no command line"))?;
    let root_hash = root_hash_of(&command_line).with_context(|| file.to_owned())?;
    let (root_id, verity_id) = identities(&root_hash)?;
    let place = |id: uuid::Uuid, what: &str| {
        let found = table.iter().find(|one| one.id == id).map(|one| (one.start, one.bytes));
        found.with_context(|| format!("{file} asks for a {what} that is not on this disk"))
    };
    Ok(Slot {
        file: file.to_owned(),
        root: place(root_id, "root file system")?,
        verity: place(verity_id, "hash tree")?,
        command_line,
        root_hash,
    })
}

/// What a section of an EFI program says, as text.
fn section(program: &[u8], name: &str) -> Result<String> {
    let program = PeFile64::parse(program).context("it is no EFI program")?;
    let section = program.section_by_name(name).with_context(|| format!("it has no section {name}"))?;
    let data = section.data().context("it is cut short")?;
    // Sections are filled up with zeros.
    Ok(String::from_utf8_lossy(data).trim_end_matches('\0').trim().to_owned())
}

/// A file in the EFI system partition of a disk or a medium.
pub(crate) fn esp_file(path: &Path, name: &str) -> Result<Vec<u8>> {
    /// Longest file that is copied: an image with a Kubernetes is some 400 MiB.
    const BYTES_MAX: u64 = 4 << 30;
    let mut file = open(path)?;
    let table = table(&mut file)?;
    efi(&mut file, &table, |root| {
        let mut bytes = Vec::new();
        let file = root.open_file(name).with_context(|| format!("{name} is not in it"))?;
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    })
}

/// The EFI program that a slot of a disk image starts.
pub(crate) fn program(path: &Path, slot: &Slot) -> Result<Vec<u8>> {
    esp_file(path, &slot.file)
}

/// The kernel proper of a disk image, out of its EFI program.
pub(crate) fn kernel(path: &Path) -> Result<Vec<u8>> {
    kernel_of(&program(path, &disk(path)?.slots.remove(0))?)
}

/// The kernel proper of an EFI program.
pub(crate) fn kernel_of(program: &[u8]) -> Result<Vec<u8>> {
    let program = PeFile64::parse(program).context("it is no EFI program")?;
    let section = program.section_by_name(".linux").context("it has no kernel")?;
    section.data().map(<[u8]>::to_vec).context("its kernel is cut short")
}

/// The root hash that an EFI program asks for.
pub(crate) fn asks_for(program: &[u8]) -> Result<String> {
    root_hash_of(&section(program, ".cmdline").context("it has no command line")?)
}

/// The root hash on a kernel's command line.
pub(crate) fn root_hash_of(command_line: &str) -> Result<String> {
    let word = command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("roothash="));
    let root_hash = word.context("it asks for no root file system by its hash")?;
    let mut hash = [0; 32];
    hex::decode_to_slice(root_hash, &mut hash).with_context(|| format!("{root_hash:?} is no root hash"))?;
    Ok(root_hash.to_owned())
}

/// The two identities that a root hash in hexadecimal digits gives its partitions.
pub(crate) fn identities(root_hash: &str) -> Result<(uuid::Uuid, uuid::Uuid)> {
    let mut hash = [0; 32];
    hex::decode_to_slice(root_hash, &mut hash).with_context(|| format!("{root_hash:?} is no root hash"))?;
    Ok(layout::identities(&hash))
}

/// One machine's settings in its disk's EFI system partition.
#[cfg(test)]
pub(crate) fn settings(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut file = open(path)?;
    let table = table(&mut file)?;
    efi(&mut file, &table, |root| {
        let Ok(file) = root.open_file(crate::steps::disk::SETTINGS) else { return Ok(None) };
        let mut text = Vec::new();
        file.take(CONTENTS_BYTES_MAX).read_to_end(&mut text)?;
        Ok(Some(text))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layout::ALIGNMENT;
    use crate::steps::system::System;

    /// An EFI program that starts nothing, and has a command line: the PE format, as `linuxx64.efi.stub` has it.
    pub(crate) fn program_of(command_line: &str) -> Vec<u8> {
        let mut program = vec![0; 0x200];
        program[..2].copy_from_slice(b"MZ");
        program[0x3c] = 0x40;
        program[0x40..0x44].copy_from_slice(b"PE\0\0");
        // Machine, one section, an optional header of 240 bytes; PE32+ with 16 directories.
        program[0x44..0x48].copy_from_slice(&[0x64, 0x86, 1, 0]);
        program[0x54..0x58].copy_from_slice(&[240, 0, 0x22, 0]);
        program[0x58..0x5a].copy_from_slice(&[0x0b, 0x02]);
        program[0x58 + 108] = 16;
        let section = 0x58 + 240;
        program[section..section + 8].copy_from_slice(b".cmdline");
        let length = command_line.len() as u32;
        for (at, value) in [(8, length), (12, 0x30000), (16, length), (20, 0x200)] {
            program[section + at..section + at + 4].copy_from_slice(&value.to_le_bytes());
        }
        program.extend(command_line.bytes());
        program
    }

    pub(crate) fn described() -> Contents {
        Contents {
            cluster: "site".to_owned(),
            settings: "5a".repeat(32),
            root_hash: "11".repeat(32),
            command_line: "ro".to_owned(),
            kernel: "6.1".to_owned(),
            starts: std::collections::BTreeMap::new(),
            inputs: std::collections::BTreeMap::new(),
            images: vec!["pause:3.10".to_owned()],
            packages: Vec::new(),
        }
    }

    /// A disk whose kernel is none, and all else as it is.
    fn image(directory: &Path) -> std::path::PathBuf {
        let system = System::at(directory.to_owned());
        for file in [system.root(), system.verity(), system.kernel(), system.loader()] {
            fs::write(file, vec![7; 10_000]).expect("written");
        }
        fs::write(directory.join("root.hash"), "11".repeat(32)).expect("written");
        let path = directory.join("disk.raw");
        crate::steps::disk::make(&system, &described().json(), &path).expect("made");
        path
    }

    #[test]
    fn a_disk_is_read_as_it_was_written() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let path = image(directory.path());
        let table = table(&mut open(&path).expect("opened")).expect("a table");
        let names: Vec<&str> = table.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["esp", "root-A", "verity-A"]);
        let told = disk(&path).expect_err("no kernel").to_string();
        assert_eq!(told, "EFI/Linux/muster_1.efi has no command line");
        let line = format!("roothash={} ro", "11".repeat(32));
        fs::write(directory.path().join("muster.efi"), program_of(&line)).expect("written");
        fs::remove_file(&path).expect("removed");
        let system = System::at(directory.path().to_owned());
        crate::steps::disk::make(&system, &described().json(), &path).expect("made");
        assert_eq!(disk(&path).expect("read").slots[0].command_line, line);
        assert_eq!(contents(&path).expect("read"), described());
        // The mesh key is in it.
        assert_eq!(path.metadata().expect("seen").permissions().mode() & 0o777, 0o600);
        let key = |path: &Path| crate::digest::sha256(path).expect("read");
        let twice = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let [one, other] = [&twice[0], &twice[1]].map(|directory| key(&image(directory.path())));
        assert_eq!(one, other);
    }

    #[test]
    fn no_damage_of_a_disk_makes_it_panic() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = image(directory.path());
        // The table, the file system's begin, and its directories.
        let places = prop_oneof![0..34 * SECTOR, ALIGNMENT..ALIGNMENT + 4096, ALIGNMENT..ALIGNMENT + (4 << 20)];
        let changes = proptest::collection::vec((places, any::<u8>()), 1..8);
        proptest!(ProptestConfig::with_cases(256), |(changes in changes)| {
            let file = fs::File::options().read(true).write(true).open(&path).expect("opened");
            let mut before = Vec::new();
            for (at, byte) in changes {
                let mut was = [0];
                file.read_exact_at(&mut was, at).expect("read");
                file.write_all_at(&[byte], at).expect("written");
                before.push((at, was));
            }
            let _ = disk(&path);
            let _ = contents(&path);
            for (at, was) in before.into_iter().rev() {
                file.write_all_at(&was, at).expect("written");
            }
        });
    }
}

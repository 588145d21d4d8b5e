//! A machine's disk as one file: a partition table, the EFI system partition, the root file system and its hash tree.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use gpt::partition::Partition;
use gpt::partition_types::{OperatingSystem, Type};
use uuid::Uuid;

use super::system::System;
use crate::contents::CONTENTS;
use crate::layout::{self, ALIGNMENT, ESP_BYTES, READ_ONLY, ROOT_BYTES, SECTOR, VERITY_BYTES};
use crate::read;

/// Where the loader looks for kernels; what it finds there it starts, the latest version first.
pub(crate) const KERNEL: &str = "EFI/Linux/muster_1.efi";

/// Where firmware looks for the loader.
pub(crate) const LOADER: &str = "EFI/BOOT/BOOTX64.EFI";

/// Nobody is asked which one.
const LOADER_CONF: &str = "timeout 0\nconsole-mode keep\n";

/// The shortest disk that has room for it, in bytes.
pub(crate) fn shortest() -> u64 {
    let root = Place::after(ALIGNMENT + ESP_BYTES, ROOT_BYTES);
    // The table's copy stands at the end.
    Place::after(root.end(), VERITY_BYTES).end() + ALIGNMENT
}

/// Writes the disk as a file at `path`. `contents` is what it tells of itself.
pub(crate) fn make(system: &System, contents: &[u8], path: &Path) -> Result<()> {
    let mut disk = fs::File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    disk.set_len(shortest())?;
    write(system, contents, shortest(), None, &mut disk)?;
    disk.sync_all().with_context(|| format!("{} cannot be written", path.display()))
}

/// Where a machine's own settings are, in the EFI system partition.
pub(crate) const SETTINGS: &str = "muster.toml";

/// Writes a disk of so many bytes, its table last: one whose writing is cut short has none. `settings` are those of one machine.
pub(crate) fn write(
    system: &System,
    contents: &[u8],
    bytes: u64,
    settings: Option<&[u8]>,
    disk: &mut fs::File,
) -> Result<()> {
    if bytes < shortest() {
        bail!("it has {} MiB, and the image wants {}", bytes >> 20, shortest() >> 20);
    }
    let hash = system.root_hash()?;
    let (root_id, verity_id) = layout::identities(&hash);
    let root = Place::after(ALIGNMENT + ESP_BYTES, ROOT_BYTES);
    let verity = Place::after(root.end(), VERITY_BYTES);
    let esp = Place { start: ALIGNMENT, bytes: ESP_BYTES };
    let own = |name: &[u8]| Uuid::from_bytes(named(&hash, name));
    let partitions = [
        partition("esp", layout::ESP, own(b"esp"), &esp, 0),
        partition("root-A", layout::ROOT, root_id, &root, READ_ONLY),
        partition("verity-A", layout::VERITY, verity_id, &verity, READ_ONLY),
    ];
    let disk_id = own(b"disk");
    place(disk, &system.root(), &root)?;
    place(disk, &system.verity(), &verity)?;
    let volume = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let mut part = Part::of(disk, esp.start, esp.bytes);
    let efi = fat(&mut part, volume, |write| {
        write(LOADER, &mut fs::File::open(system.loader())?)?;
        write(KERNEL, &mut fs::File::open(system.kernel())?)?;
        write("loader/loader.conf", &mut LOADER_CONF.as_bytes())?;
        if let Some(mut settings) = settings {
            write(SETTINGS, &mut settings)?;
        }
        write(CONTENTS, &mut &contents[..])
    });
    efi.context("the EFI system partition")?;
    disk.sync_all()?;
    table(disk, disk_id, partitions, bytes)
}

/// Puts one machine's settings into the EFI system partition of a disk whose partitions lie where an image has them.
pub(crate) fn with_settings(disk: &mut fs::File, mut settings: &[u8]) -> Result<()> {
    let mut part = Part::of(disk, ALIGNMENT, ESP_BYTES);
    let volume = fatfs::FileSystem::new(&mut part, fatfs::FsOptions::new())?;
    {
        let mut file = volume.root_dir().create_file(SETTINGS)?;
        file.truncate()?;
        io::copy(&mut settings, &mut file)?;
        file.flush()?;
    }
    Ok(volume.unmount()?)
}

/// Makes a table of the same partitions for a disk of another length.
pub(crate) fn same_table(id: &Uuid, partitions: &[read::Partition], bytes: u64, disk: &mut fs::File) -> Result<()> {
    let made = |one: &read::Partition| {
        let flags = if one.kind == layout::ESP { 0 } else { READ_ONLY };
        partition(&one.name, one.kind, one.id, &Place { start: one.start, bytes: one.bytes }, flags)
    };
    table(disk, *id, partitions.iter().map(made), bytes)
}

/// An identity that follows from the root hash, so that the same image has the same.
pub(crate) fn named(hash: &[u8; 32], name: &[u8]) -> [u8; 16] {
    use sha2::{Digest as _, Sha256};
    let whole: [u8; 32] = Sha256::new().chain_update(hash).chain_update(name).finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&whole[..16]);
    *uuid::Builder::from_random_bytes(bytes).as_uuid().as_bytes()
}

struct Place {
    start: u64,
    bytes: u64,
}

impl Place {
    fn after(end: u64, bytes: u64) -> Self {
        Self { start: end.next_multiple_of(ALIGNMENT), bytes }
    }

    fn end(&self) -> u64 {
        self.start + self.bytes
    }
}

fn partition(name: &str, kind: Uuid, id: Uuid, place: &Place, flags: u64) -> Partition {
    Partition {
        part_type_guid: Type { guid: kind, os: OperatingSystem::None },
        part_guid: id,
        first_lba: place.start / SECTOR,
        last_lba: place.end() / SECTOR - 1,
        flags,
        name: name.to_owned(),
    }
}

fn table(disk: &mut fs::File, id: Uuid, partitions: impl IntoIterator<Item = Partition>, length: u64) -> Result<()> {
    let config = gpt::GptConfig::new().writable(true).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
    let mut table = config.create_from_device(&mut *disk, Some(id)).context("the partition table")?;
    let numbered: BTreeMap<u32, Partition> = (1..).zip(partitions).collect();
    table.update_partitions(numbered).context("the partitions")?;
    table.write().context("the partition table")?;
    // What older programs take for a table comes last: a disk with it alone would be somebody's.
    disk.sync_all()?;
    let sectors = u32::try_from(length / SECTOR - 1).unwrap_or(u32::MAX);
    let protective = gpt::mbr::ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(disk);
    protective.map(drop).context("the protective partition table")
}

/// Copies a file to its place. What is zero there stays a hole.
fn place(disk: &mut fs::File, file: &Path, at: &Place) -> Result<()> {
    let mut source = fs::File::open(file)?;
    let length = length(&mut source)?;
    if length > at.bytes {
        bail!(
            "{} is {} MiB, and its place on the disk has {}: take something out of the image",
            file.file_name().unwrap_or_default().display(),
            length.div_ceil(1 << 20),
            at.bytes >> 20
        );
    }
    disk.seek(SeekFrom::Start(at.start))?;
    let copied = io::copy(&mut source, disk).context("the disk cannot be written")?;
    if copied != length { bail!("{} changed while it was copied", file.display()) } else { Ok(()) }
}

/// Bytes of a file or of a block device.
pub(crate) fn length(file: &mut fs::File) -> Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    Ok(length)
}

/// Makes a file system of a partition, with what `fill` writes. Its label has the machines look for a `muster.toml` in it.
pub(crate) fn fat(
    part: &mut Part<'_>,
    volume: u32,
    fill: impl FnOnce(&dyn Fn(&str, &mut dyn Read) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let options = fatfs::FormatVolumeOptions::new().volume_id(volume).volume_label(*b"MUSTER     ");
    fatfs::format_volume(&mut *part, options.fat_type(fatfs::FatType::Fat32))?;
    let volume = fatfs::FileSystem::new(&mut *part, fatfs::FsOptions::new())?;
    {
        let root = volume.root_dir();
        fill(&|path: &str, source: &mut dyn Read| -> Result<()> {
            let mut directory = root.clone();
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
            for name in above.split('/').filter(|name| !name.is_empty()) {
                directory = directory.create_dir(name)?;
            }
            let mut file = directory.create_file(name)?;
            io::copy(source, &mut file)?;
            Ok(file.flush()?)
        })?;
    }
    Ok(volume.unmount()?)
}

/// A part of a file as if it were one: a partition of a disk.
pub(crate) struct Part<'a> {
    file: &'a mut fs::File,
    start: u64,
    bytes: u64,
    at: u64,
}

impl<'a> Part<'a> {
    /// `bytes` of a file, from `start` on.
    pub(crate) fn of(file: &'a mut fs::File, start: u64, bytes: u64) -> Self {
        Self { file, start, bytes, at: 0 }
    }

    /// How much of a buffer lies within, with the file at its place.
    fn within(&mut self, wanted: usize) -> io::Result<usize> {
        self.file.seek(SeekFrom::Start(self.start + self.at))?;
        let left = self.bytes.saturating_sub(self.at);
        Ok(usize::try_from(left).unwrap_or(usize::MAX).min(wanted))
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.within(buffer.len())?;
        let read = self.file.read(&mut buffer[..count])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for Part<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.within(buffer.len())?;
        let written = self.file.write(&buffer[..count])?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Part<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

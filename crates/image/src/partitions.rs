//! Giving partitions another identity, in an order that leaves one of the disk's two tables whole whenever power fails.
//!
//! UEFI 2.10, section 5.3: the header at block 1 with its entries, and a copy of both at the end of the disk. Linux reads the copy where the
//! first is damaged if its command line says `gpt`, which an image's does; firmware does so anyway.

use std::fs;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail};
use uuid::Uuid;

use crate::layout::SECTOR;
use crate::steps::disk::length;

/// Bytes of a header, of an entry, and most entries.
const HEADER: usize = 92;
const ENTRY: usize = 128;
const ENTRIES_MAX: usize = 256;

/// What is written where, in this order, each when the one before is on the disk.
type Writes = Vec<(u64, Vec<u8>)>;

/// Gives each of the first identities the second in its place.
///
/// # Errors
/// When the disk has no table, or none of these partitions; or cannot be written.
pub(crate) fn rename(disk: &mut fs::File, changes: &[(Uuid, Uuid)]) -> Result<()> {
    for (at, bytes) in writes(disk, changes)? {
        disk.write_all_at(&bytes, at).context("the partition table cannot be written")?;
        disk.sync_all().context("the partition table cannot be written")?;
    }
    Ok(())
}

/// Writes the first table anew if it is damaged and the copy is not: power failed while it was written. Whether it was.
///
/// # Errors
/// When both are damaged, or the disk cannot be written.
pub(crate) fn mend(disk: &mut fs::File) -> Result<bool> {
    let Err(first) = Table::read(disk, 1) else { return Ok(false) };
    let last = length(disk)? / SECTOR - 1;
    let copy = Table::read(disk, last).map_err(|_| first)?;
    let header = copy.header_at(1, &copy.entries);
    for (at, bytes) in [(word(&header, 72) * SECTOR, copy.entries.clone()), (SECTOR, sector(&header))] {
        disk.write_all_at(&bytes, at).context("the partition table cannot be written")?;
        disk.sync_all().context("the partition table cannot be written")?;
    }
    Ok(true)
}

fn writes(disk: &mut fs::File, changes: &[(Uuid, Uuid)]) -> Result<Writes> {
    // With one table alone nothing may be changed: half of a write would be none.
    mend(disk)?;
    let table = Table::read(disk, 1)?;
    let mut entries = table.entries.clone();
    for (old, new) in changes {
        let mut found = entries.chunks_mut(ENTRY).filter(|entry| entry[16..32] == old.to_bytes_le());
        let entry = found.next().with_context(|| format!("no partition has the identity {old}"))?;
        entry[16..32].copy_from_slice(&new.to_bytes_le());
    }
    // The first table is right until the copy is, and the copy is from then on.
    let mut writes = Vec::new();
    for own in [table.copy(), 1] {
        let header = table.header_at(own, &entries);
        writes.push((word(&header, 72) * SECTOR, entries.clone()));
        writes.push((own * SECTOR, sector(&header)));
    }
    Ok(writes)
}

/// A table whose checksums are right.
struct Table {
    header: Vec<u8>,
    entries: Vec<u8>,
}

impl Table {
    fn read(disk: &fs::File, at: u64) -> Result<Self> {
        let mut header = vec![0; HEADER];
        disk.read_exact_at(&mut header, at * SECTOR).context("it is too short for a partition table")?;
        let (count, size) = (short(&header, 80), short(&header, 84));
        let is_whole = &header[..8] == b"EFI PART"
            && short(&header, 12) == HEADER
            && short(&header, 16) == checksum_of(&header)
            && word(&header, 24) == at;
        if !is_whole || size != ENTRY || !(1..=ENTRIES_MAX).contains(&count) {
            bail!("its partition table is damaged, or of a kind that is not known");
        }
        let mut entries = vec![0; count * ENTRY];
        let begin = word(&header, 72).checked_mul(SECTOR).context("its partition table is damaged")?;
        disk.read_exact_at(&mut entries, begin).context("its partition table is cut short")?;
        if short(&header, 88) != crc32fast::hash(&entries) as usize {
            bail!("its partition table is damaged");
        }
        Ok(Self { header, entries })
    }

    /// The block of the copy at the disk's end.
    fn copy(&self) -> u64 {
        word(&self.header, 24).max(word(&self.header, 32))
    }

    /// The header at a block, for these entries.
    fn header_at(&self, own: u64, entries: &[u8]) -> Vec<u8> {
        let mut header = self.header.clone();
        let blocks = (entries.len() as u64).div_ceil(SECTOR);
        let (other, begin) = if own == 1 { (self.copy(), 2) } else { (1, own - blocks) };
        // What was read has its own place right.
        let begin = if word(&self.header, 24) == own { word(&self.header, 72) } else { begin };
        for (at, value) in [(24, own), (32, other), (72, begin)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[88..92].copy_from_slice(&crc32fast::hash(entries).to_le_bytes());
        let checksum = checksum_of(&header) as u32;
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        header
    }
}

/// A header's checksum is over itself with the checksum's place empty.
fn checksum_of(header: &[u8]) -> usize {
    let mut header = header.to_vec();
    header[16..20].fill(0);
    crc32fast::hash(&header) as usize
}

fn short(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

fn word(bytes: &[u8], at: usize) -> u64 {
    short(bytes, at) as u64 | (short(bytes, at + 4) as u64) << 32
}

fn sector(header: &[u8]) -> Vec<u8> {
    let mut sector = header.to_vec();
    sector.resize(SECTOR as usize, 0);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::disk;
    use crate::steps::system::System;

    fn identities(table: &Table) -> Vec<Uuid> {
        let used = table.entries.chunks(ENTRY).filter(|entry| entry[..16] != [0; 16]);
        used.map(|entry| Uuid::from_bytes_le(entry[16..32].try_into().expect("16"))).collect()
    }

    /// What somebody reads who takes the copy where the first is damaged.
    fn read(disk: &fs::File, last: u64) -> Vec<Uuid> {
        let table = Table::read(disk, 1).or_else(|_| Table::read(disk, last));
        identities(&table.expect("one of both is whole"))
    }

    #[test]
    fn wherever_power_fails_one_table_is_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let system = System::at(directory.path().to_owned());
        for file in [system.root(), system.verity(), system.kernel(), system.loader()] {
            fs::write(file, vec![7; 10_000]).expect("written");
        }
        fs::write(directory.path().join("root.hash"), "11".repeat(32)).expect("written");
        let path = directory.path().join("disk.raw");
        disk::make(&system, b"{}", &path).expect("made");
        let open = || fs::File::options().read(true).write(true).open(&path).expect("opened");
        let mut disk = open();
        let last = length(&mut disk).expect("a length") / SECTOR - 1;
        let before = read(&disk, last);
        let (old, new) = (before[1], Uuid::from_bytes([9; 16]));
        let mut after = before.clone();
        after[1] = new;
        let steps = writes(&mut disk, &[(old, new)]).expect("a plan");
        assert_eq!(steps.len(), 4);
        for (at, bytes) in &steps {
            // Half of a write is on the disk.
            disk.write_all_at(&bytes[..bytes.len() / 2 - 3], *at).expect("written");
            let seen = read(&disk, last);
            assert!(seen == before || seen == after, "{seen:?}");
            disk.write_all_at(bytes, *at).expect("written");
            let seen = read(&disk, last);
            assert!(seen == before || seen == after, "{seen:?}");
        }
        assert_eq!(read(&disk, last), after);
        assert_eq!(identities(&Table::read(&disk, last).expect("the copy")), after);
        // What others make of it.
        let slots = crate::read::partitions(&path).expect("a table");
        assert!(slots.iter().any(|one| one.id == new));
        // And from a copy alone: it is mended before anything is changed, and what reads no copies reads it again.
        disk.write_all_at(&[0; 300], 2 * SECTOR).expect("damaged");
        assert!(crate::read::partitions(&path).is_err());
        assert!(mend(&mut disk).expect("mended") && !mend(&mut disk).expect("whole"));
        assert!(crate::read::partitions(&path).is_ok());
        disk.write_all_at(&[0; 512], SECTOR).expect("damaged");
        rename(&mut disk, &[(new, old)]).expect("mended");
        assert_eq!(identities(&Table::read(&disk, 1).expect("the first")), before);
        assert!(rename(&mut open(), &[(new, old)]).is_err());
    }
}

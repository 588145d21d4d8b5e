//! Whether a root file system is what its kernel asks for: the hash tree computed anew, without device mapper.
//!
//! The tree is that of dm-verity, format 1: `Documentation/admin-guide/device-mapper/verity.rst` of Linux; its superblock is that of
//! `lib/verity/verity.c` of cryptsetup.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::contents::{Contents, LOADER, PROGRAM};
use crate::digest::sha256_of;
use crate::read::{self, Slot};
use crate::steps::disk;

/// Bytes of a block, of data and of hashes; other sizes are not ours.
const BLOCK: usize = 4096;
const HASH: usize = 32;
/// Longest root file system that is looked at, in bytes: its hashes are held in memory.
const ROOT_BYTES_MAX: u64 = 64 << 30;

/// A slot that was looked at.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Verified {
    /// Its kernel's file.
    pub file: String,
    /// Its root hash, which is right.
    pub root_hash: String,
    /// Bytes of the root file system that it speaks for.
    pub bytes: u64,
}

/// Verifies every slot of a disk image, what starts it, and that it says of itself what it is.
///
/// # Errors
/// When anything differs, with what and where.
pub fn verify(path: &Path) -> Result<Vec<Verified>> {
    let disk = read::disk(path)?;
    let contents = read::contents(path)?;
    if !disk.slots.iter().any(|slot| slot.root_hash == contents.root_hash && slot.command_line == contents.command_line)
    {
        bail!(
            "{}: what the image says of itself is not what it starts: root hash {}",
            path.display(),
            contents.root_hash
        );
    }
    let mut file = fs::File::open(path)?;
    for slot in disk.slots.iter().filter(|slot| slot.root_hash == contents.root_hash) {
        same(&contents, PROGRAM, &read::program(path, slot)?).with_context(|| path.display().to_string())?;
    }
    same(&contents, LOADER, &read::esp_file(path, disk::LOADER)?).with_context(|| path.display().to_string())?;
    disk.slots
        .iter()
        .map(|slot| verify_slot(&mut file, slot).with_context(|| format!("{}: {}", path.display(), slot.file)))
        .collect()
}

/// Sees that bytes are what the image says of them.
pub(crate) fn same(contents: &Contents, name: &str, bytes: &[u8]) -> Result<()> {
    let told = contents.starts.get(name).with_context(|| format!("it does not say what its {name} is"))?;
    let hash = hex::encode(sha256_of(bytes));
    if hash != *told {
        bail!("its {name} is damaged: SHA-256 {hash}, and not {told}");
    }
    Ok(())
}

pub(crate) fn verify_slot(file: &mut fs::File, slot: &Slot) -> Result<Verified> {
    let tree = Tree::read(file, slot.verity)?;
    let bytes = tree.blocks * BLOCK as u64;
    if bytes > slot.root.1 || slot.root.1 > ROOT_BYTES_MAX {
        bail!("its hash tree is of {bytes} bytes, and its root file system has {}", slot.root.1);
    }
    let mut level = hashes(file, slot.root.0, tree.blocks, &tree.salt)?;
    // From the leaves up; the root's level lies first on the disk, after the superblock.
    let mut counts = vec![level.len().div_ceil(BLOCK)];
    while *counts.last().unwrap_or(&1) > 1 {
        counts.push((counts[counts.len() - 1] * HASH).div_ceil(BLOCK));
    }
    let length = (1 + counts.iter().sum::<usize>() as u64) * BLOCK as u64;
    if length > slot.verity.1 {
        bail!("its hash tree is of {length} bytes, and its place has {}", slot.verity.1);
    }
    let mut at = slot.verity.0 + length;
    for (above, count) in counts.into_iter().enumerate() {
        at -= (count * BLOCK) as u64;
        level.resize(count * BLOCK, 0);
        let mut stored = vec![0; level.len()];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut stored).context("its hash tree is cut short")?;
        if let Some(block) = level.chunks(HASH).zip(stored.chunks(HASH)).position(|(one, other)| one != other) {
            match above {
                0 => bail!("block {block} (of {BLOCK} bytes) is not what its hash tree says"),
                _ => bail!("its hash tree is damaged, {above} levels above the root file system"),
            }
        }
        level = level.chunks(BLOCK).flat_map(|block| hash(block, &tree.salt)).collect();
    }
    if hex::encode(&level) != slot.root_hash {
        bail!("its hash tree's root is {}, and it asks for {}", hex::encode(level), slot.root_hash);
    }
    Ok(Verified { file: slot.file.clone(), root_hash: slot.root_hash.clone(), bytes })
}

/// The superblock of a hash tree.
struct Tree {
    blocks: u64,
    salt: Vec<u8>,
}

impl Tree {
    fn read(file: &mut fs::File, at: (u64, u64)) -> Result<Self> {
        let mut bytes = [0; 512];
        file.seek(SeekFrom::Start(at.0))?;
        file.read_exact(&mut bytes).context("its hash tree is cut short")?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8; 512]) -> Result<Self> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if &bytes[..8] != b"verity\0\0" || word(8) != 1 || word(12) != 1 {
            bail!("it has no hash tree of format 1");
        }
        let algorithm: Vec<u8> = bytes[32..64].iter().copied().take_while(|byte| *byte != 0).collect();
        let sizes = [word(64), word(68)];
        if algorithm != b"sha256" || sizes != [BLOCK as u32; 2] {
            bail!("its hash tree is of {} over blocks of {sizes:?}", String::from_utf8_lossy(&algorithm));
        }
        let blocks = u64::from(word(72)) | u64::from(word(76)) << 32;
        let salt = usize::from(u16::from_le_bytes([bytes[80], bytes[81]]));
        match bytes.get(88..88 + salt) {
            Some(salt) if blocks > 0 && blocks <= u64::from(u32::MAX) => Ok(Self { blocks, salt: salt.to_vec() }),
            _ => bail!("its hash tree's beginning is damaged"),
        }
    }
}

fn hash(block: &[u8], salt: &[u8]) -> [u8; HASH] {
    Sha256::new().chain_update(salt).chain_update(block).finalize().into()
}

/// The hashes of blocks, one after the other.
fn hashes(file: &mut fs::File, start: u64, blocks: u64, salt: &[u8]) -> Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut reader = std::io::BufReader::with_capacity(1 << 20, file);
    let (mut all, mut block) = (Vec::new(), [0; BLOCK]);
    for _ in 0..blocks {
        reader.read_exact(&mut block).context("its root file system is cut short")?;
        all.extend(hash(&block, salt));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn superblock(blocks: u64, salt: &[u8]) -> [u8; 512] {
        let mut bytes = [0; 512];
        bytes[..8].copy_from_slice(b"verity\0\0");
        (bytes[8], bytes[12]) = (1, 1);
        bytes[32..38].copy_from_slice(b"sha256");
        bytes[64..68].copy_from_slice(&4096u32.to_le_bytes());
        bytes[68..72].copy_from_slice(&4096u32.to_le_bytes());
        bytes[72..80].copy_from_slice(&blocks.to_le_bytes());
        bytes[80..82].copy_from_slice(&(salt.len() as u16).to_le_bytes());
        bytes[88..88 + salt.len()].copy_from_slice(salt);
        bytes
    }

    #[test]
    fn a_superblock_is_read_and_what_is_none_is_refused() {
        let tree = Tree::parse(&superblock(300, b"salt")).expect("one");
        assert_eq!((tree.blocks, tree.salt.as_slice()), (300, b"salt".as_slice()));
        assert!(Tree::parse(&superblock(0, b"")).is_err());
        let mut other = superblock(300, b"");
        other[64] = 1;
        assert!(Tree::parse(&other).is_err_and(|error| error.to_string().contains("blocks of [4097, 4096]")));
    }

    proptest! {
        #[test]
        fn no_superblock_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 512), begin in any::<bool>()) {
            let mut bytes: [u8; 512] = bytes.try_into().expect("512");
            if begin {
                bytes[..72].copy_from_slice(&superblock(1, b"")[..72]);
            }
            let _ = Tree::parse(&bytes);
        }
    }
}

//! An image as it came: compressed or not.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::digest;
use crate::host;

/// How a file begins that zstd wrote: RFC 8878, section 3.1.1.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(file: &Path) -> Result<String> {
    digest::sha256(file).map(hex::encode)
}

/// A file that can be read in any order: itself, or what it holds, at `to`.
///
/// # Errors
/// When it cannot be read, or is damaged, or there is no room.
pub fn unpacked(file: &Path, to: &Path) -> Result<PathBuf> {
    let mut begin = [0; ZSTD.len()];
    let opened = fs::File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let read = opened.take(ZSTD.len() as u64).read(&mut begin)?;
    if read < ZSTD.len() || begin != ZSTD {
        return Ok(file.to_owned());
    }
    host::require(&[host::ZSTD])?;
    // What is empty in it takes no room.
    let words = ["--quiet", "--decompress", "--sparse", "-o"].map(AsRef::as_ref);
    host::run("zstd", words.into_iter().chain([to.as_os_str(), file.as_os_str()]))?;
    Ok(to.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_is_unpacked_and_else_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, to) = (directory.path().join("a"), directory.path().join("b"));
        for short in ["", "image"] {
            fs::write(&file, short).expect("written");
            assert_eq!(unpacked(&file, &to).expect("as it is"), file);
        }
        fs::write(&file, [&ZSTD[..], b"damaged"].concat()).expect("written");
        assert!(unpacked(&file, &to).is_err());
    }
}

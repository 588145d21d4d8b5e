//! An image as it came: compressed or not.

use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::digest;
use crate::host;

/// How a file begins that zstd wrote: RFC 8878, section 3.1.1.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Longest image, in bytes.
pub const LENGTH_MAX: u64 = 8 << 30;

/// What a machine's file system keeps free: etcd's data and containers are there.
const LEFT: u64 = 512 << 20;

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
    let words = ["--quiet", "--decompress", "--stdout"].map(AsRef::as_ref);
    let mut zstd = host::command("zstd", words.into_iter().chain([file.as_os_str()])).stderr(Stdio::piped()).spawn()?;
    let holds = zstd.stdout.take().context("zstd says nothing")?;
    let kept = keep(holds, to, LENGTH_MAX);
    if kept.is_err() {
        let _ = zstd.kill();
    }
    let ended = zstd.wait_with_output()?;
    kept?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    anyhow::ensure!(ended.status.success(), "{} cannot be unpacked: {}", file.display(), said.trim());
    Ok(to.to_owned())
}

/// Keeps what comes, but not more than a file system can do without, and with holes where it is empty.
fn keep(mut source: impl std::io::Read, to: &Path, max: u64) -> Result<()> {
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(to)?;
    let (mut buffer, mut length) = (vec![0; 1 << 20], 0);
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        length += count as u64;
        if length > max {
            bail!("it holds more than {} MiB, and no image does", max >> 20);
        }
        if buffer[..count].iter().all(|byte| *byte == 0) {
            file.seek_relative(count as i64)?;
        } else {
            room(to, count as u64)?;
            file.write_all(&buffer[..count])?;
        }
    }
    file.set_len(length).context("there is no room for it")
}

/// Sees that a file system has room for so many bytes, and for what else it is needed for.
///
/// # Errors
/// With how much there is.
pub fn room(at: &Path, bytes: u64) -> Result<()> {
    let place = at.parent().unwrap_or(at);
    let about = rustix::fs::statvfs(place).with_context(|| format!("{} cannot be looked at", place.display()))?;
    let free = about.f_bavail * about.f_frsize;
    if free < bytes + LEFT {
        bail!(
            "{} has {} MiB left: not enough for {} more",
            place.display(),
            free >> 20,
            (bytes + LEFT).div_ceil(1 << 20)
        );
    }
    Ok(())
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

    #[test]
    fn what_is_kept_is_what_came_and_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let to = directory.path().join("a");
        let mut came = vec![0; 3 << 20];
        came[2 << 20] = 7;
        keep(came.as_slice(), &to, LENGTH_MAX).expect("kept");
        assert_eq!(fs::read(&to).expect("read"), came);
        let told = keep(std::io::repeat(0), &directory.path().join("b"), 5 << 20).expect_err("no end").to_string();
        assert!(told.contains("more than 5 MiB"), "{told}");
        assert!(room(&to, u64::MAX >> 1).is_err());
    }
}

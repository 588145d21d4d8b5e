//! Whether a directory's files survive a restart, and whether a secret's file is a safe one.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What is known of the file system below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// Its files survive a restart.
    Lasting,
    /// It lives in memory.
    Memory,
    /// An overlay whose upper layer cannot be seen from here.
    Unseen,
}

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const OVERLAY: u64 = 0x794c_7630;

/// Looks at the file system that `dir`, or its nearest ancestor that exists, lies on.
pub(crate) fn below(dir: &Path) -> std::io::Result<Disk> {
    let there = dir.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    match file_system(there)? {
        TMPFS | RAMFS => Ok(Disk::Memory),
        OVERLAY => {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
            let Some(upper) = upper_layer(&mounts, &there.canonicalize()?) else { return Ok(Disk::Unseen) };
            match file_system(&upper) {
                Ok(TMPFS | RAMFS) => Ok(Disk::Memory),
                Ok(OVERLAY) | Err(_) => Ok(Disk::Unseen),
                Ok(_) => Ok(Disk::Lasting),
            }
        }
        _ => Ok(Disk::Lasting),
    }
}

fn file_system(path: &Path) -> std::io::Result<u64> {
    let known = rustix::fs::statfs(path)?.f_type;
    // The type of `f_type` differs between platforms; the magic numbers have 32 bits on all of them.
    Ok(u64::from(known as u32))
}

/// The upper layer of the overlay that is mounted nearest above `path`.
fn upper_layer(mounts: &str, path: &Path) -> Option<PathBuf> {
    let of_line = |line: &str| {
        let (mount, source) = line.split_once(" - ")?;
        let point = PathBuf::from(mount.split(' ').nth(4)?.replace("\\040", " "));
        let options = source.split(' ').nth(2).unwrap_or_default().to_owned();
        path.starts_with(&point).then_some((point.components().count(), options))
    };
    // Of two mounts at one point the later hides the earlier.
    let (_, options) = mounts.lines().filter_map(of_line).max_by_key(|(depth, _)| *depth)?;
    options.split(',').find_map(|option| option.strip_prefix("upperdir=")).map(PathBuf::from)
}

/// Whether only a file's owner may read it, and the owner is root or this process's user.
pub(crate) fn is_private(file: &Metadata) -> bool {
    let owner = file.uid();
    file.mode() & 0o077 == 0 && (owner == 0 || owner == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 0:20 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/run/upper,workdir=/run/work
23 22 0:21 / /var/lib rw - ext4 /dev/vda rw
24 22 0:22 / /opt\\040x rw - overlay overlay rw,lowerdir=/c,upperdir=/disk/upper,workdir=/disk/work
";

    #[test]
    fn finds_the_upper_layer_of_the_nearest_mount() {
        assert_eq!(upper_layer(MOUNTS, Path::new("/etc")), Some(PathBuf::from("/run/upper")));
        assert_eq!(upper_layer(MOUNTS, Path::new("/var/lib/muster")), None);
        assert_eq!(upper_layer(MOUNTS, Path::new("/opt x/y")), Some(PathBuf::from("/disk/upper")));
    }

    #[test]
    fn tells_memory_from_disk() {
        assert_eq!(below(Path::new("/dev/shm/not/there/yet")).expect("a file system"), Disk::Memory);
    }
}

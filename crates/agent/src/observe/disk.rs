//! How long the disk under etcd takes to sync what was written: etcd's elections are timed by it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

/// How often it is measured. The median counts: the longest tells more of what else a machine does as it boots than of its disk.
const SYNCS: usize = 65;

/// So long it is measured at most.
const LIMIT: Duration = Duration::from_secs(1);

/// Bytes written before each sync: an entry of etcd's log is rarely longer.
const BYTES: usize = 4 << 10;

/// The median of some syncs on the disk where `directory` is, or will be, in microseconds; 0 if nothing can be written there.
///
/// What it writes has no name, so that nobody takes it for somebody's data, and is gone when the process ends, however it does. File
/// systems that know no such files are not measured.
pub(super) fn typical_sync_us(directory: &Path) -> u32 {
    let Some(place) = directory.ancestors().find(|place| place.is_dir()) else { return 0 };
    let file = rustix::fs::open(place, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    file.map_err(Into::into).and_then(|file| measure(file.into())).unwrap_or_default()
}

fn measure(mut file: File) -> std::io::Result<u32> {
    let (mut syncs, begun) = (Vec::new(), Instant::now());
    while syncs.len() < SYNCS && begun.elapsed() < LIMIT {
        let from = Instant::now();
        file.write_all(&[0x6d; BYTES])?;
        file.sync_data()?;
        syncs.push(from.elapsed());
    }
    syncs.sort_unstable();
    let median = syncs.get(syncs.len() / 2).copied().unwrap_or_default();
    Ok(median.as_micros().clamp(1, u128::from(u32::MAX)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_measured_where_the_directory_will_be_and_nothing_stays() {
        let root = tempfile::tempdir().expect("a directory");
        assert!(typical_sync_us(&root.path().join("var/lib/etcd")) > 0);
        assert_eq!(std::fs::read_dir(root.path()).expect("reads").count(), 0);
        assert_eq!(typical_sync_us(Path::new("relative/and/not/there")), 0);
    }
}

//! The directory of sealed backups. A file is named after its backup's number and digest; what has another name was put there by a person, and is left
//! alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use muster_wire::Digest;
use muster_wire::limits::BACKUP_PART_BYTES_MAX;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

/// Room that a backup leaves on its disk, in bytes: what a machine has promised is written there, too.
pub(super) const RESERVE: u64 = 256 << 20;

const END: &str = "sealed";

/// A backup's number and digest, as the name of its file.
fn name(number: u32, digest: Digest) -> String {
    format!("{number}-{}.{END}", digest.to_hex())
}

fn named(file: &Path) -> Option<(u32, Digest)> {
    let (number, digest) = file.file_name()?.to_str()?.strip_suffix(".sealed")?.split_once('-')?;
    Some((number.parse().ok()?, Digest::from_hex(digest)?))
}

/// The backups on this machine's disk.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    /// Those that are whole, as far as was looked, and where.
    whole: Mutex<BTreeMap<Digest, PathBuf>>,
    /// Told whenever one was taken here.
    pub(super) taken: Notify,
}

impl Store {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, whole: Mutex::default(), taken: Notify::new() }
    }

    fn whole(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, PathBuf>> {
        self.whole.lock().expect("no holder panics")
    }

    /// Where one is, if it is here and whole.
    pub(crate) fn path(&self, digest: Digest) -> Option<PathBuf> {
        self.whole().get(&digest).cloned()
    }

    /// Which are here.
    pub(super) fn has(&self) -> BTreeSet<Digest> {
        self.whole().keys().copied().collect()
    }

    /// Reads all of them, and takes away what is damaged or was begun. Blocks.
    pub(super) fn look(&self) {
        let found = fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut whole = BTreeMap::new();
        for path in found {
            match named(&path) {
                Some((_, digest)) if digest_of(&path).is_ok_and(|found| found == digest) => {
                    whole.insert(digest, path);
                }
                Some((number, _)) => {
                    tracing::warn!(path = %path.display(), number, "a backup is damaged here, and is taken away");
                    let _ = fs::remove_file(&path);
                }
                None => {}
            }
        }
        *self.whole() = whole;
    }

    /// Takes away what is counted up to `last` and not wanted.
    pub(super) fn retain(&self, last: u32, wanted: &BTreeSet<Digest>) {
        self.whole().retain(|digest, path| {
            let goes = named(path).is_some_and(|(number, _)| number <= last) && !wanted.contains(digest);
            if goes {
                let _ = fs::remove_file(&*path);
            }
            !goes
        });
        let begun = fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_begun = |path: &PathBuf| path.extension().is_some_and(|end| end == "part");
        let digest = |path: &PathBuf| named(&path.with_extension("")).map(|(_, digest)| digest);
        for path in begun.filter(is_begun).filter(|path| digest(path).is_some_and(|digest| !wanted.contains(&digest))) {
            let _ = fs::remove_file(path);
        }
    }

    /// Files that are gone from the disk are not here any more.
    pub(super) fn look_for_missing(&self) {
        self.whole().retain(|_, path| path.exists());
    }

    /// Sees that there is room for so many bytes, beside what is to stay free.
    pub(super) fn has_room(&self, bytes: u64) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let disk = rustix::fs::statvfs(&self.directory)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= bytes.saturating_add(RESERVE) {
            return Ok(());
        }
        let why = format!(
            "{} has {} MB free: a backup of {} MB is to leave {} MB",
            self.directory.display(),
            free >> 20,
            bytes >> 20,
            RESERVE >> 20
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, why))
    }

    /// A file for a backup that is being taken, or one that is being fetched: what an earlier try has of that one stays.
    pub(super) fn begin(&self, fetched: Option<(u32, Digest)>) -> io::Result<(File, PathBuf)> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let (path, anew) = match fetched {
            Some((number, digest)) => (self.directory.join(name(number, digest) + ".part"), false),
            None => (self.directory.join("taken.part"), true),
        };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(anew).mode(0o600).open(&path)?;
        Ok((file, path))
    }

    /// One is whole: it is kept.
    pub(super) fn keep(&self, file: &File, begun: &Path, number: u32, digest: Digest) -> io::Result<()> {
        file.sync_all()?;
        let path = self.directory.join(name(number, digest));
        fs::rename(begun, &path)?;
        File::open(&self.directory)?.sync_all()?;
        self.whole().insert(digest, path);
        Ok(())
    }

    /// Takes over a file that a person has. Its digest.
    pub(crate) fn import(&self, from: &Path) -> Result<Digest, String> {
        let failed = |why: io::Error| format!("{}: {why}", from.display());
        let length = from.metadata().map_err(failed)?.len();
        self.has_room(length).map_err(|why| why.to_string())?;
        let digest = digest_of(from).map_err(failed)?;
        if self.path(digest).is_some() {
            return Ok(digest);
        }
        // Not by a number: it is no backup of the ledger's, and is never taken away by itself.
        let path = self.directory.join(format!("imported-{}.{END}", digest.to_hex()));
        let begun = path.with_extension("new");
        fs::copy(from, &begun).map_err(failed)?;
        let keep = || {
            fs::set_permissions(&begun, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            File::open(&begun)?.sync_all()?;
            fs::rename(&begun, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        keep().map_err(|why| format!("{}: {why}", path.display()))?;
        self.whole().insert(digest, path);
        Ok(digest)
    }

    /// A part of one, for a machine that asks for it; nothing if it is not here, or ends before.
    pub(crate) fn part(&self, digest: Digest, from: u64) -> Vec<u8> {
        let Some(file) = self.path(digest).and_then(|path| File::open(path).ok()) else { return Vec::new() };
        let mut part = vec![0; BACKUP_PART_BYTES_MAX];
        let mut length = 0;
        while let Ok(read) = file.read_at(&mut part[length..], from.saturating_add(length as u64)) {
            length += read;
            if read == 0 || length == part.len() {
                break;
            }
        }
        part.truncate(length);
        part
    }
}

/// The one of this digest among files in a directory, whatever it is called.
pub(crate) fn find(directory: &Path, digest: Digest) -> Result<PathBuf, String> {
    let hex = digest.to_hex();
    let found = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let ends = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with(&format!("-{hex}.{END}")));
    found.into_iter().find(ends).ok_or_else(|| format!("no backup {hex} is in {}", directory.display()))
}

/// SHA-256 of a file.
pub(super) fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest(hash.finalize().into())),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn put(store: &Store, number: u32, bytes: &[u8]) -> Digest {
        let digest = Digest(Sha256::digest(bytes).into());
        let (mut file, begun) = store.begin(Some((number, digest))).expect("begun");
        file.write_all(bytes).expect("written");
        store.keep(&file, &begun, number, digest).expect("kept");
        digest
    }

    #[test]
    fn what_is_damaged_is_not_here_and_what_is_not_wanted_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::new(directory.path().join("backups"));
        assert!(store.has().is_empty());
        let (one, two, three) = (put(&store, 1, b"one"), put(&store, 2, b"two"), put(&store, 3, b"three"));
        let mine = directory.path().join("backups/mine.sealed");
        fs::write(&mine, "a person's").expect("written");
        fs::write(store.path(two).expect("here"), "other bytes").expect("written");
        store.look();
        assert_eq!(store.has(), [one, three].into());
        assert_eq!(store.part(three, 1), b"hree");
        assert!(
            store.part(three, 5).is_empty() && store.part(two, 0).is_empty() && store.part(one, u64::MAX).is_empty()
        );
        let (_, begun) = store.begin(Some((4, two))).expect("begun");
        // What was taken since the last of the ledger may come into it yet.
        store.retain(2, &[].into());
        assert!(store.has() == [three].into() && !begun.exists() && mine.exists());
        assert_eq!(find(&directory.path().join("backups"), three), Ok(store.path(three).expect("here")));
        let imported = store.import(&mine).expect("imported");
        store.retain(9, &[].into());
        assert_eq!(store.has(), [imported].into());
        store.look();
        assert!(store.has().is_empty(), "what a person brought is asked for by its digest alone");
        assert!(find(&directory.path().join("backups"), imported).is_ok() && store.has_room(u64::MAX).is_err());
    }
}

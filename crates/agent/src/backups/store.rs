//! The directory of sealed backups. A file is named after its backup's number and digest; what has another name was put there by a person, and is left
//! alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use muster_protocol::copies::Tried;
use muster_wire::Digest;
use muster_wire::limits::BACKUP_PART_BYTES_MAX;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

/// Room that a backup leaves on its disk, in bytes: what a machine has promised is written there, too.
const RESERVE: u64 = 256 << 20;

const END: &str = "sealed";

/// A backup's number and digest, as the name of its file.
fn name(number: u32, digest: Digest) -> String {
    format!("{number}-{}.{END}", digest.to_hex())
}

fn named(file: &Path) -> Option<(u32, Digest)> {
    let (number, digest) = file.file_name()?.to_str()?.strip_suffix(END)?.strip_suffix('.')?.split_once('-')?;
    Some((number.parse().ok()?, Digest::from_hex(digest)?))
}

/// The backups on this machine's disk.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    /// Those that are whole, as far as was looked, and where.
    whole: Mutex<BTreeMap<Digest, PathBuf>>,
    /// What could not be had.
    in_vain: Mutex<BTreeMap<Digest, Tried>>,
    /// Told whenever one was taken here.
    pub(super) taken: Notify,
}

impl Store {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, whole: Mutex::default(), in_vain: Mutex::default(), taken: Notify::new() }
    }

    fn whole(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, PathBuf>> {
        self.whole.lock().expect("no holder panics")
    }

    /// What the keeper tried in vain.
    pub(super) fn in_vain(&self, tried: &BTreeMap<Digest, Tried>) {
        self.in_vain.lock().expect("no holder panics").clone_from(tried);
    }

    /// What could not be had, and why.
    pub(crate) fn tried(&self) -> BTreeMap<Digest, Tried> {
        self.in_vain.lock().expect("no holder panics").clone()
    }

    /// Where one is, if it is here and, read once more, whole: a disk may have changed it since. Blocks.
    pub(crate) fn read_again(&self, digest: Digest) -> Option<PathBuf> {
        let path = self.path(digest)?;
        if digest_of(&path).is_ok_and(|found| found == digest) {
            return Some(path);
        }
        tracing::warn!(path = %path.display(), "a backup is damaged here, and is taken away");
        self.whole().remove(&digest);
        let _ = fs::remove_file(path);
        self.taken.notify_one();
        None
    }

    /// Where one is, if it is here and was whole.
    pub(crate) fn path(&self, digest: Digest) -> Option<PathBuf> {
        self.whole().get(&digest).cloned()
    }

    /// Which are here.
    pub(super) fn has(&self) -> BTreeSet<Digest> {
        self.whole().keys().copied().collect()
    }

    /// Reads all of them, and takes away what is damaged. Blocks.
    pub(super) fn look(&self) {
        let found = fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut whole = BTreeMap::new();
        for path in found {
            // A try that an earlier start was at.
            if path.file_name().is_some_and(|name| name == "taken.part")
                || path.extension().is_some_and(|end| end == "new")
            {
                let _ = fs::remove_file(&path);
            }
            match named(&path) {
                Some((_, digest)) if digest_of(&path).is_ok_and(|found| found == digest) => {
                    whole.insert(digest, path);
                }
                Some((number, digest)) => {
                    self.whole().remove(&digest);
                    tracing::warn!(path = %path.display(), number, "a backup is damaged here, and is taken away");
                    let _ = fs::remove_file(&path);
                }
                None => {}
            }
        }
        // One that was taken meanwhile is here as well.
        self.whole().extend(whole);
    }

    /// The numbers of those that are here.
    pub(super) fn numbers(&self) -> BTreeMap<Digest, u32> {
        let number = |(digest, path): (&Digest, &PathBuf)| named(path).map(|(number, _)| (*digest, number));
        self.whole().iter().filter_map(number).collect()
    }

    /// Takes some away. Blocks.
    pub(super) fn remove(&self, go: &BTreeSet<Digest>) {
        for digest in go {
            if let Some(path) = self.whole().remove(digest) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Those of which a part is here.
    pub(super) fn begun(&self) -> BTreeMap<Digest, PathBuf> {
        let all = fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let begun = all.filter(|path| path.extension().is_some_and(|end| end == "part"));
        begun.filter_map(|path| Some((named(&path.with_extension(""))?.1, path))).collect()
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

    /// Takes over a file that a person has, or keeps one that is here whatever the ledger says of it, until [`forget`]. Its digest. Blocks.
    pub(crate) fn import(&self, from: &Path) -> Result<Digest, String> {
        let failed = |why: io::Error| format!("{}: {why}", from.display());
        let digest = digest_of(from).map_err(failed)?;
        // Not by a number: it is no backup of the ledger's, and is not taken away as one.
        let path = self.directory.join(format!("imported-{}.{END}", digest.to_hex()));
        if let Some(here) = self.path(digest) {
            return match fs::hard_link(here, &path) {
                Err(why) if why.kind() != io::ErrorKind::AlreadyExists => Err(format!("{}: {why}", path.display())),
                _ => Ok(digest),
            };
        }
        self.has_room(from.metadata().map_err(failed)?.len()).map_err(|why| why.to_string())?;
        let begun = path.with_extension("new");
        let keep = || {
            fs::copy(from, &begun)?;
            fs::set_permissions(&begun, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            File::open(&begun)?.sync_all()?;
            if digest_of(&begun)? != digest {
                return Err(io::Error::other("it has changed meanwhile"));
            }
            fs::rename(&begun, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        keep().inspect_err(|_| drop(fs::remove_file(&begun))).map_err(|why| format!("{}: {why}", path.display()))?;
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

/// Takes away what was kept to begin with: etcd has.
pub(crate) fn forget(directory: &Path, digest: Digest) {
    let _ = fs::remove_file(directory.join(format!("imported-{}.{END}", digest.to_hex())));
}

/// SHA-256 of a file.
pub(crate) fn digest_of(path: &Path) -> io::Result<Digest> {
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
        assert_eq!((store.numbers(), store.begun()), ([(one, 1), (three, 3)].into(), [(two, begun.clone())].into()));
        store.remove(&[one, two].into());
        assert!(store.has() == [three].into() && begun.exists() && mine.exists());
        let backups = directory.path().join("backups");
        assert_eq!(find(&backups, three), Ok(store.path(three).expect("here")));
        let imported = store.import(&mine).expect("imported");
        assert_eq!(store.import(&store.path(three).expect("here")), Ok(three), "it is kept under another name");
        store.remove(&store.has());
        assert!(store.has().is_empty() && find(&backups, three).is_ok() && find(&backups, imported).is_ok());
        forget(&backups, three);
        assert!(find(&backups, three).is_err() && store.has_room(u64::MAX).is_err());
    }
}

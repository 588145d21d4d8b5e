//! A redb database that is synced as Raft needs it, and says so when its bytes are not what was written.

use std::fs::{File, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Builder, Database, Durability, ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction};

/// redb's cache in bytes. A Raft state is some hundred kilobytes; redb's default of 1 GiB would let it grow with every
/// snapshot, and an agent has 15 MB in all.
const CACHE_BYTES: usize = 1 << 20;

/// What a redb file begins with, and its unit of writing (redb's design.md, "Database header").
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
const PAGE_BYTES: usize = 4096;

/// Why a database, or something in it, cannot be used. Every text names the file and, if there is one, the record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The file cannot be read or written: permissions, a full disk, a device error, or another process has it.
    #[error("{place}: {why}")]
    Unusable {
        /// The file.
        place: String,
        /// What was said about it.
        why: String,
    },
    /// The bytes are not those that were written. Nothing of it is used: a vote that is forgotten elects two leaders.
    #[error("{place} is damaged{}: {why}", at(.record))]
    Damaged {
        /// The file.
        place: String,
        /// The record in it, empty if the damage is in the file's own structure.
        record: String,
        /// What is wrong.
        why: String,
    },
    /// It is the state of another cluster or machine, or of another version of muster.
    #[error("{place} belongs to {theirs}, this is {ours}")]
    Foreign {
        /// The file.
        place: String,
        /// Whose it is.
        theirs: String,
        /// Who opened it.
        ours: String,
    },
}

fn at(record: &str) -> String {
    if record.is_empty() { String::new() } else { format!(" at {record}") }
}

/// An open database and its name for errors. Clones share it.
///
/// The agent may keep tables of its own in the same database, its identity before all: then losing the file loses the
/// identity with the promises made under it, and promise S9 (an identity is never used again after its disk was wiped)
/// holds by construction. Names of such tables must not begin with `raft-`.
#[derive(Debug, Clone)]
pub struct Disk {
    database: Arc<Database>,
    place: Arc<str>,
    /// Whether damage was found in it.
    damage: Arc<AtomicBool>,
}

impl Disk {
    /// Opens the database at `path`, or makes it, readable by its owner only.
    ///
    /// # Errors
    /// [`DiskError::Unusable`] and [`DiskError::Damaged`].
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let place = path.display().to_string();
        let unusable = |why: std::io::Error| DiskError::Unusable { place: place.clone(), why: why.to_string() };
        let fresh = !path.try_exists().map_err(unusable)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(unusable)?;
        if fresh && let Some(directory) = path.parent() {
            // A file is there after a power loss only if its name is.
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(unusable)?;
        }
        let backend = redb::backends::FileBackend::new(file).map_err(|why| opening(&place, &why))?;
        Self::open_on(&place, backend)
    }

    /// Opens the database that `backend` holds, or makes it. `place` names it in errors.
    ///
    /// # Errors
    /// [`DiskError::Unusable`] and [`DiskError::Damaged`].
    pub fn open_on(place: &str, backend: impl StorageBackend) -> Result<Self, DiskError> {
        if never_finished(&backend)
            .map_err(|why| DiskError::Unusable { place: place.to_owned(), why: why.to_string() })?
        {
            let cleared = backend.set_len(0);
            cleared.map_err(|why| DiskError::Unusable { place: place.to_owned(), why: why.to_string() })?;
        }
        // Every page is verified, and with two-phase commits a newest state that does not verify is damage: with one
        // phase redb takes it for a commit that was cut short and goes back to the state before, forgetting a vote.
        let open = || {
            Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create_with_backend(backend)
        };
        match catch_unwind(AssertUnwindSafe(open)) {
            Ok(Ok(database)) => Ok(Self { database: Arc::new(database), place: place.into(), damage: Arc::default() }),
            Ok(Err(why)) => Err(opening(place, &why)),
            // redb panics on some structures that it did not write.
            Err(_) => Err(DiskError::Damaged {
                place: place.to_owned(),
                record: String::new(),
                why: "its structure makes no sense".to_owned(),
            }),
        }
    }

    /// What the database is called in errors.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Runs `query` on one state of the database.
    ///
    /// # Errors
    /// What `query` said, as [`DiskError::Unusable`] or [`DiskError::Damaged`].
    pub fn read<T>(&self, query: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, DiskError> {
        let run = || query(&self.database.begin_read()?);
        run().map_err(|why| self.failed(&why))
    }

    /// Runs `change` in one transaction and syncs it to disk: when this returns, a power loss does not undo it.
    ///
    /// # Errors
    /// What `change` said, or [`DiskError::Unusable`]; nothing is changed then.
    pub fn write<T>(&self, change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, DiskError> {
        self.commit(Durability::Immediate, change)
    }

    /// Runs `change` in one transaction that the next [`Disk::write`] syncs. Until then a crash may undo it.
    pub(crate) fn write_later<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, DiskError> {
        self.commit(Durability::None, change)
    }

    pub(crate) fn commit<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, DiskError> {
        let run = || -> Result<T, redb::Error> {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(durability)?;
            transaction.set_two_phase_commit(true);
            let done = change(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        run().map_err(|why| self.failed(&why))
    }

    pub(crate) fn failed(&self, why: &redb::Error) -> DiskError {
        let place = self.place.to_string();
        match why {
            redb::Error::Corrupted(why) => self.damaged(String::new(), why.clone()),
            why => DiskError::Unusable { place, why: why.to_string() },
        }
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.damage.load(Ordering::Relaxed)
    }

    pub(crate) fn damaged(&self, record: impl Into<String>, why: impl Into<String>) -> DiskError {
        self.damage.store(true, Ordering::Relaxed);
        DiskError::Damaged { place: self.place.to_string(), record: record.into(), why: why.into() }
    }
}

/// Whether making the database was cut short before anything could be kept in it. redb writes its magic number last of
/// all, and refuses a file without it ever after; but a first page with nothing behind it never held a commit.
fn never_finished(backend: &impl StorageBackend) -> std::io::Result<bool> {
    let len = backend.len()?;
    let mut head = [0; MAGIC.len()];
    if len < PAGE_BYTES as u64 {
        return Ok(len > 0 && len < MAGIC.len() as u64);
    }
    backend.read(0, &mut head)?;
    if head == MAGIC {
        return Ok(false);
    }
    let mut page = [0; PAGE_BYTES];
    let mut at = PAGE_BYTES as u64;
    while at < len {
        let part = &mut page[..(len - at).min(PAGE_BYTES as u64) as usize];
        backend.read(at, part)?;
        if part.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += PAGE_BYTES as u64;
    }
    Ok(true)
}

fn opening(place: &str, why: &redb::DatabaseError) -> DiskError {
    let place = place.to_owned();
    let damaged = |why: &str| DiskError::Damaged { place: place.clone(), record: String::new(), why: why.to_owned() };
    match why {
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(why)) => damaged(why),
        redb::DatabaseError::Storage(redb::StorageError::Io(io)) if io.kind() == std::io::ErrorKind::InvalidData => {
            damaged(&io.to_string())
        }
        redb::DatabaseError::DatabaseAlreadyOpen => {
            DiskError::Unusable { place, why: "another process has it open".to_owned() }
        }
        why => DiskError::Unusable { place, why: why.to_string() },
    }
}

//! The state file: identity and promises in one file, so that losing one loses the other (promise S9).
//!
//! It is replaced whole: written beside, synced, renamed, and the directory synced. What is on disk is checked by length,
//! version and SHA-256 before it is used; what does not fit is an error for a person, never a guess.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use muster_wire::seal::SealingKey;
use muster_wire::{Digest, Durable, Identity, proto};
use prost::Message;
use zeroize::{Zeroize, Zeroizing};

use crate::Hardware;

const MAGIC: &[u8; 8] = b"muster\x00\x01";
const HEADER_BYTES: usize = MAGIC.len() + 32;

/// Largest state file in bytes: a certificate of the largest site, and room.
const STATE_BYTES_MAX: u64 = 4 << 20;

/// Why the state cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file or directory cannot be read or written.
    #[error("{path}: {what}: {why}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        why: std::io::Error,
    },
    /// The file is not what was written.
    #[error(
        "{path} is damaged ({why}): this machine cannot know what it promised. Wipe the directory and start it again; it \
         comes back as a new machine"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How that shows.
        why: String,
    },
    /// The state was made on other hardware.
    #[error(
        "{path} belongs to machine {machine}, made on other hardware: nothing of what its first boot saw (product UUID, \
         network cards) is here. A state directory must not be copied to a second machine. Wipe it here and start again; \
         if this is the same machine with another board and other network cards, wipe it as well: machines are recreated, \
         not repaired"
    )]
    OtherHardware {
        /// Which.
        path: PathBuf,
        /// Whose.
        machine: String,
    },
    /// Another agent uses the directory.
    #[error("{0} is in use by another agent on this machine")]
    InUse(PathBuf),
}

/// This machine's state.
pub(crate) struct Disk {
    path: PathBuf,
    directory: File,
    _lock: File,
    identity_seed: Zeroizing<[u8; 32]>,
    sealing_seed: Zeroizing<[u8; 32]>,
    fingerprint: Digest,
    /// What the first boot saw.
    parts: BTreeSet<Digest>,
    raft_begun: bool,
    durable: Durable,
}

/// What was on disk.
pub(crate) struct Loaded {
    /// The file, to be written from now on.
    pub(crate) disk: Disk,
    /// The core's part.
    pub(crate) durable: Durable,
}

impl Disk {
    /// Opens the state in `directory`, or makes a new identity from `entropy` if there is none.
    ///
    /// # Errors
    /// See [`DiskError`]. Nothing on disk is changed then.
    pub(crate) fn open(
        directory: &Path,
        hardware: Hardware,
        entropy: impl FnOnce() -> [Zeroizing<[u8; 32]>; 2],
    ) -> Result<Loaded, DiskError> {
        fs::create_dir_all(directory).map_err(io(directory, "cannot be made"))?;
        fs::set_permissions(directory, Permissions::from_mode(0o700))
            .map_err(io(directory, "cannot be made private"))?;
        let handle = File::open(directory).map_err(io(directory, "cannot be opened"))?;
        let lock_path = directory.join("lock");
        let lock = private(&lock_path).map_err(io(&lock_path, "cannot be written"))?;
        if lock.try_lock().is_err() {
            return Err(DiskError::InUse(directory.to_owned()));
        }
        let path = directory.join("state");
        let mut file = match read(&path)? {
            Some(bytes) => parse(&path, &bytes)?,
            None => {
                let [identity, sealing] = entropy();
                return Ok(Loaded {
                    disk: Self {
                        path,
                        directory: handle,
                        _lock: lock,
                        identity_seed: identity,
                        sealing_seed: sealing,
                        fingerprint: hardware.fingerprint,
                        parts: hardware.parts,
                        raft_begun: false,
                        durable: Durable::default(),
                    },
                    durable: Durable::default(),
                });
            }
        };
        let damaged = |why: &str| DiskError::Damaged { path: path.clone(), why: why.to_owned() };
        let seed =
            |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map(Zeroizing::new).map_err(|_| damaged("a key is too short"));
        let (identity_seed, sealing_seed) = (seed(&file.identity_seed)?, seed(&file.sealing_secret)?);
        let fingerprint =
            Digest::from_slice(&file.fingerprint, "fingerprint").map_err(|why| damaged(&why.to_string()))?;
        let parts = file.hardware.iter().map(|part| Digest::from_slice(part, "hardware"));
        let mut parts: BTreeSet<Digest> = parts.collect::<Result<_, _>>().map_err(|why| damaged(&why.to_string()))?;
        if parts.is_empty() && fingerprint == hardware.former {
            // Written before parts were kept; from the next change on they are.
            parts = hardware.parts;
        } else if parts.is_disjoint(&hardware.present) {
            let machine = Identity::from_seed(&identity_seed).machine().to_string();
            return Err(DiskError::OtherHardware { path, machine });
        }
        let raft_begun = file.raft_begun;
        let durable = Durable::from_proto(file.durable.take().unwrap_or_default());
        forget(file);
        let durable = durable.map_err(|why| damaged(&why.to_string()))?;
        let disk = Self {
            path,
            directory: handle,
            _lock: lock,
            identity_seed,
            sealing_seed,
            fingerprint,
            parts,
            raft_begun,
            durable: durable.clone(),
        };
        Ok(Loaded { disk, durable })
    }

    /// The identity.
    pub(crate) fn identity(&self) -> Identity {
        Identity::from_seed(&self.identity_seed)
    }

    /// What others tell the hardware apart by: as it was at the first boot.
    pub(crate) fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// The key that opens what is sealed to this machine.
    pub(crate) fn sealing_key(&self) -> SealingKey {
        SealingKey::from_seed(&self.sealing_seed)
    }

    /// Replaces the state, synced. When this returns an error the machine must stop: it may not speak of what it could not
    /// write.
    ///
    /// # Errors
    /// What the system said, with the file's name.
    pub(crate) fn persist(&mut self, durable: Durable) -> Result<(), DiskError> {
        self.durable = durable;
        self.write()
    }

    /// Where Raft's store is.
    pub(crate) fn raft_path(&self) -> PathBuf {
        self.path.with_file_name("raft.redb")
    }

    /// Whether this identity has had a Raft store.
    pub(crate) fn has_begun_raft(&self) -> bool {
        self.raft_begun
    }

    /// After Raft's store was made, before it is used.
    ///
    /// # Errors
    /// As [`Disk::persist`].
    pub(crate) fn raft_begun(&mut self) -> Result<(), DiskError> {
        if !self.raft_begun {
            self.raft_begun = true;
            self.write()?;
        }
        Ok(())
    }

    /// Forgets everything that was this machine's: it starts again as another. Raft's store goes first, which without the state says
    /// nothing; the lock is held to the end.
    ///
    /// # Errors
    /// What the system said, with the file's name. The machine is then who it was, or another.
    pub(crate) fn renew(self) -> Result<(), DiskError> {
        for path in [self.raft_path(), self.path.clone()] {
            match fs::remove_file(&path) {
                Err(why) if why.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io(&path, "cannot be removed")(why));
                }
                _ => self.directory.sync_all().map_err(io(&path, "its directory cannot be synced"))?,
            }
        }
        Ok(())
    }

    fn write(&self) -> Result<(), DiskError> {
        let file = proto::StateFile {
            identity_seed: bytes::Bytes::copy_from_slice(&*self.identity_seed),
            sealing_secret: bytes::Bytes::copy_from_slice(&*self.sealing_seed),
            fingerprint: bytes::Bytes::copy_from_slice(&self.fingerprint.0),
            durable: Some(self.durable.to_proto()),
            raft_begun: self.raft_begun,
            hardware: self.parts.iter().map(|part| bytes::Bytes::copy_from_slice(&part.0)).collect(),
        };
        let body = Zeroizing::new(file.encode_to_vec());
        forget(file);
        let digest = Digest::of("muster/state/v1", &[&body]);
        let beside = self.path.with_extension("new");
        let mut new = private(&beside).map_err(io(&beside, "cannot be written"))?;
        let bytes = Zeroizing::new([&MAGIC[..], &digest.0, &body].concat());
        new.write_all(&bytes).map_err(io(&beside, "cannot be written"))?;
        new.sync_all().map_err(io(&beside, "cannot be synced"))?;
        fs::rename(&beside, &self.path).map_err(io(&self.path, "cannot be replaced"))?;
        self.directory.sync_all().map_err(io(&self.path, "its directory cannot be synced"))
    }
}

/// Zeroes what a message holds of secrets, where nobody else holds the same bytes.
fn forget(file: proto::StateFile) {
    for secret in [file.identity_seed, file.sealing_secret] {
        if let Ok(mut secret) = secret.try_into_mut() {
            secret.zeroize();
        }
    }
}

fn io(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> DiskError {
    let path = path.to_owned();
    move |why| DiskError::Io { path, what, why }
}

fn private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, DiskError> {
    match fs::metadata(path) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(io(path, "cannot be read")(why)),
        Ok(about) if about.len() > STATE_BYTES_MAX => {
            Err(DiskError::Damaged { path: path.to_owned(), why: format!("{} bytes long", about.len()) })
        }
        Ok(_) => fs::read(path).map(|bytes| Some(Zeroizing::new(bytes))).map_err(io(path, "cannot be read")),
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<proto::StateFile, DiskError> {
    let damaged = |why: String| DiskError::Damaged { path: path.to_owned(), why };
    let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(damaged(format!("it ends at byte {}, within its header", bytes.len())));
    };
    let (magic, digest) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(damaged("it does not begin as a state file of this version".to_owned()));
    }
    if Digest::of("muster/state/v1", &[body]).0 != digest {
        return Err(damaged(format!("its {} bytes after byte {HEADER_BYTES} do not have their checksum", body.len())));
    }
    proto::StateFile::decode(body).map_err(|why| damaged(why.to_string()))
}

#[cfg(test)]
mod tests {
    use muster_wire::BootCount;

    use super::*;

    fn open(directory: &Path, hardware: u8) -> Result<Loaded, DiskError> {
        Disk::open(directory, Hardware::of(Digest([hardware; 32])), || {
            [Zeroizing::new([1; 32]), Zeroizing::new([2; 32])]
        })
    }

    fn durable(boot: BootCount) -> Durable {
        Durable { cluster: "site".into(), boot, ..Durable::default() }
    }

    #[test]
    fn what_was_written_is_read_and_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let Loaded { mut disk, durable: empty } = open(directory.path(), 1).expect("opens");
        assert_eq!(empty, Durable::default());
        disk.persist(durable(BootCount(1))).expect("writes");
        disk.persist(durable(BootCount(2))).expect("writes");
        let machine = disk.identity().machine();
        drop(disk);
        let again =
            Disk::open(directory.path(), Hardware::of(Digest([1; 32])), || unreachable!("there is an identity"))
                .expect("opens");
        assert_eq!(again.durable, durable(BootCount(2)));
        assert_eq!(again.disk.identity().machine(), machine);
        let mode = fs::metadata(directory.path().join("state")).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let directory = tempfile::tempdir().expect("a directory");
        open(directory.path(), 1).expect("opens").disk.persist(durable(BootCount(1))).expect("writes");
        let path = directory.path().join("state");
        let whole = fs::read(&path).expect("reads");
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("writes");
            assert!(matches!(open(directory.path(), 1), Err(DiskError::Damaged { .. })), "cut at {length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).expect("writes");
            assert!(matches!(open(directory.path(), 1), Err(DiskError::Damaged { .. })), "bit {bit}");
        }
    }

    #[test]
    fn a_torn_replacement_leaves_the_former_state() {
        let directory = tempfile::tempdir().expect("a directory");
        open(directory.path(), 1).expect("opens").disk.persist(durable(BootCount(1))).expect("writes");
        fs::write(directory.path().join("state.new"), b"torn").expect("writes");
        assert_eq!(open(directory.path(), 1).expect("opens").durable, durable(BootCount(1)));
    }

    #[test]
    fn a_copy_on_other_hardware_and_a_second_agent_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let Loaded { mut disk, .. } = open(directory.path(), 1).expect("opens");
        disk.persist(durable(BootCount(1))).expect("writes");
        assert!(matches!(open(directory.path(), 1), Err(DiskError::InUse(_))));
        drop(disk);
        let refused = open(directory.path(), 2).err().expect("refused").to_string();
        assert!(refused.contains("must not be copied"), "{refused}");
    }

    #[test]
    fn one_part_of_the_first_boot_is_enough_and_no_later_one_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let digests = |numbers: &[u8]| numbers.iter().map(|number| Digest([*number; 32])).collect::<BTreeSet<_>>();
        let open = |fingerprint: u8, parts: &[u8]| {
            let former = Digest([9; 32]);
            let fingerprint = Digest([fingerprint; 32]);
            let hardware = Hardware { fingerprint, parts: digests(parts), present: digests(parts), former };
            Disk::open(directory.path(), hardware, || [Zeroizing::new([1; 32]), Zeroizing::new([2; 32])])
        };
        open(1, &[1, 2]).expect("opens").disk.persist(durable(BootCount(1))).expect("writes");
        let Loaded { mut disk, .. } = open(3, &[2, 3]).expect("one is the same");
        assert_eq!(disk.fingerprint(), Digest([1; 32]), "to others it stays who it was");
        disk.persist(durable(BootCount(2))).expect("writes");
        drop(disk);
        assert!(matches!(open(3, &[3]), Err(DiskError::OtherHardware { .. })));
        open(4, &[1, 4]).expect("the other is the same");
        assert!(matches!(open(9, &[4]), Err(DiskError::OtherHardware { .. })), "parts were kept");
    }

    #[test]
    fn a_state_without_parts_goes_by_its_one_digest() {
        let directory = tempfile::tempdir().expect("a directory");
        let Loaded { mut disk, .. } = open(directory.path(), 1).expect("opens");
        disk.parts.clear();
        disk.persist(durable(BootCount(1))).expect("writes");
        drop(disk);
        assert!(matches!(open(directory.path(), 2), Err(DiskError::OtherHardware { .. })));
        let Loaded { disk, .. } = open(directory.path(), 1).expect("opens");
        assert!(!disk.parts.is_empty());
    }

    #[test]
    fn what_cannot_be_written_is_named_and_the_former_state_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let Loaded { mut disk, .. } = open(directory.path(), 1).expect("opens");
        disk.persist(durable(BootCount(1))).expect("writes");
        let beside = directory.path().join("state.new");
        std::os::unix::fs::symlink("/dev/full", &beside).expect("links");
        let refused = disk.persist(durable(BootCount(2))).expect_err("there is no room").to_string();
        assert!(refused.contains(&beside.display().to_string()), "{refused}");
        drop(disk);
        fs::remove_file(&beside).expect("removes");
        assert_eq!(open(directory.path(), 1).expect("opens").durable, durable(BootCount(1)));
    }

    #[test]
    fn who_is_renewed_is_another_and_remembers_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let Loaded { mut disk, .. } = open(directory.path(), 1).expect("opens");
        disk.persist(durable(BootCount(7))).expect("writes");
        disk.raft_begun().expect("writes");
        fs::write(disk.raft_path(), b"votes").expect("writes");
        disk.renew().expect("renews");
        let Loaded { disk, durable } = open(directory.path(), 1).expect("opens");
        assert_eq!(durable, Durable::default());
        assert!(!disk.has_begun_raft() && !disk.raft_path().exists());
    }

    #[test]
    fn that_a_raft_store_was_begun_is_on_the_disk() {
        let directory = tempfile::tempdir().expect("a directory");
        let Loaded { mut disk, .. } = open(directory.path(), 1).expect("opens");
        assert!(!disk.has_begun_raft());
        disk.raft_begun().expect("writes");
        drop(disk);
        assert!(open(directory.path(), 1).expect("opens").disk.has_begun_raft());
    }

    #[test]
    fn a_directory_that_cannot_be_one_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, b"").expect("writes");
        let refused = open(&file, 1).err().expect("refused").to_string();
        assert!(refused.contains(&file.display().to_string()), "{refused}");
    }
}

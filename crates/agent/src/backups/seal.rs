//! The sealed file. Whoever has the key of etcd's CA may read all of etcd anyway: that is who can open it, and every control plane is one.
//!
//! ```text
//! "muster-backup-1\n" | length of the label, 4 bytes | label, JSON | salt, 32 bytes | chunk | chunk | ...
//! key, nonce = HKDF-SHA256(CA key, salt, "muster/backup/v1")
//! chunk = ChaCha20-Poly1305 of 64 KiB of the gzipped database; the last may be shorter
//! ```
//!
//! The chunks are those of STREAM (Hoang, Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance",
//! CRYPTO 2015): none can be left out, moved or taken for the last. The label is bound into each. Numbers are big-endian.

use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use chacha20poly1305::aead::Payload;
use chacha20poly1305::aead::stream::{DecryptorBE32, EncryptorBE32};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use hkdf::Hkdf;
use muster_kubeadm::backup::Label;
use muster_wire::Digest;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const MAGIC: &[u8; 16] = b"muster-backup-1\n";
const INFO: &[u8] = b"muster/backup/v1";
const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 7;
const CHUNK_BYTES: usize = 64 << 10;
const TAG_BYTES: usize = 16;

/// Longest label in bytes.
const LABEL_BYTES_MAX: usize = 4 << 10;

/// What backups of a cluster are sealed with. Zeroed when dropped; prints as `[redacted]`.
pub struct BackupKey(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BackupKey([redacted])")
    }
}

impl BackupKey {
    /// That of the cluster whose etcd's CA has its key in this file.
    ///
    /// # Errors
    /// When there is no key in it.
    pub fn of(ca_key: &Path) -> Result<Self, String> {
        let named = |why: &dyn std::fmt::Display| format!("{}: {why}", ca_key.display());
        let pem = Zeroizing::new(std::fs::read(ca_key).map_err(|why| named(&why))?);
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|why| named(&why))?;
        Ok(Self(Zeroizing::new(key.secret_der().to_vec())))
    }

    fn derive(&self, salt: &[u8]) -> (ChaCha20Poly1305, [u8; NONCE_BYTES]) {
        let mut derived = Zeroizing::new([0; 32 + NONCE_BYTES]);
        // Far less than the 255 hashes that HKDF can give.
        Hkdf::<Sha256>::new(Some(salt), &self.0).expand(INFO, &mut derived[..]).expect("short enough");
        let (key, nonce) = derived.split_at(32);
        let cipher = ChaCha20Poly1305::new_from_slice(key).expect("32 bytes");
        (cipher, nonce.try_into().expect("7 bytes"))
    }
}

/// Seals what is written to it.
pub(super) struct Sealer<W: Write>(GzEncoder<Chunks<W>>);

struct Chunks<W: Write> {
    stream: Option<EncryptorBE32<ChaCha20Poly1305>>,
    bound: [u8; 32],
    buffer: Zeroizing<Vec<u8>>,
    file: Hashed<W>,
}

/// What is written, its length and its hash.
struct Hashed<W> {
    file: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl<W: Write> Sealer<W> {
    pub(super) fn begin(file: W, label: &Label, key: &BackupKey, salt: &[u8; SALT_BYTES]) -> io::Result<Self> {
        let label = serde_json::to_vec(label)?;
        let length = u32::try_from(label.len()).map_err(io::Error::other)?;
        let mut file = Hashed { file, hash: Sha256::new(), bytes: 0 };
        file.write(&[&MAGIC[..], &length.to_be_bytes(), &label, salt].concat())?;
        let (cipher, nonce) = key.derive(salt);
        let stream = Some(EncryptorBE32::from_aead(cipher, &nonce.into()));
        let buffer = Zeroizing::new(Vec::with_capacity(CHUNK_BYTES));
        let chunks = Chunks { stream, bound: bound(&label), buffer, file };
        Ok(Self(GzEncoder::new(chunks, Compression::fast())))
    }

    /// What it wrote to, the length of the sealed file, and its digest.
    pub(super) fn finish(self) -> io::Result<(W, u64, Digest)> {
        let Chunks { stream, bound, buffer, mut file } = self.0.finish()?;
        let stream = stream.ok_or_else(too_long)?;
        let last = stream.encrypt_last(Payload { msg: &buffer, aad: &bound }).map_err(|_| too_long())?;
        file.write(&last)?;
        Ok((file.file, file.bytes, Digest(file.hash.finalize().into())))
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Write for Chunks<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The last chunk is known as such only when nothing follows, so a full one waits for what comes.
        if self.buffer.len() == CHUNK_BYTES && !bytes.is_empty() {
            let stream = self.stream.as_mut().ok_or_else(too_long)?;
            let chunk = stream.encrypt_next(Payload { msg: &self.buffer, aad: &self.bound }).map_err(|_| too_long())?;
            self.file.write(&chunk)?;
            self.buffer.clear();
        }
        let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// 2^32 chunks are 256 TiB.
fn too_long() -> io::Error {
    io::Error::other("it is too long to be sealed")
}

/// What binds a label into each chunk.
fn bound(label: &[u8]) -> [u8; 32] {
    Sha256::digest(label).into()
}

/// What a sealed file says of itself. Only opening it shows whether that is true.
///
/// # Errors
/// When it is no such file.
pub fn label_of(file: &Path) -> Result<Label, String> {
    let named = |why: String| format!("{}: {why}", file.display());
    let opened = std::fs::File::open(file).map_err(|why| named(why.to_string()))?;
    let (label, _) = read_label(&mut BufReader::new(opened)).map_err(named)?;
    serde_json::from_slice(&label).map_err(|why| named(format!("its label cannot be read: {why}")))
}

fn read_label(file: &mut impl Read) -> Result<(Vec<u8>, [u8; SALT_BYTES]), String> {
    let mut head = [0; MAGIC.len() + 4];
    let none = |_: io::Error| "this is no backup of muster's".to_owned();
    file.read_exact(&mut head).map_err(none)?;
    let (magic, length) = head.split_at(MAGIC.len());
    let length = u32::from_be_bytes(length.try_into().expect("4 bytes")) as usize;
    if magic != MAGIC || length > LABEL_BYTES_MAX {
        return Err("this is no backup of muster's, or of a later version".to_owned());
    }
    let mut label = vec![0; length];
    file.read_exact(&mut label).map_err(none)?;
    let mut salt = [0; SALT_BYTES];
    file.read_exact(&mut salt).map_err(none)?;
    Ok((label, salt))
}

/// Opens a sealed file, and writes etcd's snapshot to `to`. What it has written counts for nothing if it fails.
///
/// # Errors
/// When it is no sealed file, is damaged or cut short, or is sealed with another key; or what cannot be written.
pub fn open(file: impl Read, key: &BackupKey, to: &mut impl Write) -> Result<Label, String> {
    let mut file = BufReader::with_capacity(CHUNK_BYTES + TAG_BYTES, file);
    let (label, salt) = read_label(&mut file)?;
    let (cipher, nonce) = key.derive(&salt);
    let stream = Some(DecryptorBE32::from_aead(cipher, &nonce.into()));
    let chunks = Opened { file, stream, bound: bound(&label), next: Vec::new(), chunk: Zeroizing::default(), at: 0 };
    let mut database = GzDecoder::new(chunks);
    io::copy(&mut database, to).map_err(|why| why.to_string())?;
    // What is behind the end of the database was never sealed, and what is cut off there was.
    let rest = io::copy(&mut database.into_inner(), &mut io::sink()).map_err(|why| why.to_string())?;
    if rest > 0 {
        return Err(BROKEN.to_owned());
    }
    serde_json::from_slice(&label).map_err(|why| format!("its label cannot be read: {why}"))
}

const BROKEN: &str = "it does not open: it is damaged, or of another cluster than this machine's keys";

struct Opened<R: Read> {
    file: R,
    stream: Option<DecryptorBE32<ChaCha20Poly1305>>,
    bound: [u8; 32],
    /// The chunk after the open one, sealed: whether it is the last is known when there is none after it.
    next: Vec<u8>,
    chunk: Zeroizing<Vec<u8>>,
    at: usize,
}

impl<R: Read> Opened<R> {
    fn read_chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES + TAG_BYTES);
        (&mut self.file).take((CHUNK_BYTES + TAG_BYTES) as u64).read_to_end(&mut chunk)?;
        Ok(chunk)
    }

    /// Opens the next chunk, unless the last was opened.
    fn advance(&mut self) -> io::Result<()> {
        let broken = |_| io::Error::new(io::ErrorKind::InvalidData, BROKEN);
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        let sealed = if self.next.is_empty() { self.read_chunk()? } else { std::mem::take(&mut self.next) };
        self.next = self.read_chunk()?;
        let payload = Payload { msg: &sealed, aad: &self.bound };
        self.chunk = Zeroizing::new(match self.next.is_empty() {
            true => stream.decrypt_last(payload).map_err(broken)?,
            false => {
                let chunk = stream.decrypt_next(payload).map_err(broken)?;
                self.stream = Some(stream);
                chunk
            }
        });
        self.at = 0;
        Ok(())
    }
}

impl<R: Read> Read for Opened<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() && self.stream.is_some() {
            self.advance()?;
        }
        let rest = &self.chunk[self.at..];
        let taken = rest.len().min(to.len());
        to[..taken].copy_from_slice(&rest[..taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn label(number: u32) -> Label {
        Label {
            charter: "0123".to_owned(),
            cluster: "site".to_owned(),
            number,
            epoch: 0,
            taken_s: 1_790_000_000,
            revision: 7,
            kubernetes: "v1.37.2".to_owned(),
            database_bytes: 0,
        }
    }

    pub(crate) fn key(byte: u8) -> BackupKey {
        BackupKey(Zeroizing::new(vec![byte; 121]))
    }

    pub(crate) fn sealed(database: &[u8], key: &BackupKey) -> Vec<u8> {
        let mut sealer = Sealer::begin(Vec::new(), &label(3), key, &[9; 32]).expect("begun");
        sealer.write_all(database).expect("sealed");
        let (file, bytes, digest) = sealer.finish().expect("sealed");
        assert_eq!(bytes, file.len() as u64);
        assert_eq!(digest.0, <[u8; 32]>::from(Sha256::digest(&file)));
        file
    }

    /// Bytes that do not become shorter.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..length).map(|_| byte()).collect()
    }

    #[test]
    fn what_was_sealed_opens_for_whoever_has_the_key_alone() {
        for length in [0, 1, CHUNK_BYTES - 30, CHUNK_BYTES, 3 * CHUNK_BYTES + 5] {
            let database = noise(length);
            let file = sealed(&database, &key(1));
            let mut opened = Vec::new();
            assert_eq!(open(&file[..], &key(1), &mut opened), Ok(label(3)));
            assert!(opened == database, "{length} bytes");
            assert!(open(&file[..], &key(2), &mut Vec::new()).is_err());
        }
        assert_eq!(format!("{:?}", key(1)), "BackupKey([redacted])");
    }

    #[test]
    fn nothing_can_be_changed_left_out_or_added() {
        let file = sealed(&noise(3 * CHUNK_BYTES), &key(1));
        let opens = |file: &[u8]| open(file, &key(1), &mut Vec::new()).is_ok();
        assert!(opens(&file));
        for at in (0..file.len()).step_by(1009).chain(0..200) {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(!opens(&changed), "byte {at}");
        }
        for length in (0..file.len()).step_by(4093).chain([file.len() - 1]) {
            assert!(!opens(&file[..length]), "cut to {length}");
        }
        assert!(!opens(&[&file[..], b"x"].concat()));
        let chunk = CHUNK_BYTES + TAG_BYTES;
        let whole = file.len() - 2 * chunk;
        assert!(!opens(&[&file[..whole], &file[whole + chunk..]].concat()), "a chunk is left out");
    }

    #[test]
    fn any_bytes_are_no_backup_and_nothing_panics() {
        use std::io::Cursor;
        for length in 0..300 {
            assert!(open(Cursor::new(noise(length)), &key(1), &mut io::sink()).is_err());
            let begun = [&MAGIC[..], &noise(length)].concat();
            assert!(open(Cursor::new(begun), &key(1), &mut io::sink()).is_err());
        }
    }
}

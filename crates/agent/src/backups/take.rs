//! Takes a snapshot of this machine's etcd member, as its JSON gateway streams it, and seals it on its way to the disk.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use muster_kubeadm::Settings;
use muster_kubeadm::backup::Label;
use muster_kubeadm::work::Request;
use muster_wire::Digest;
use muster_wire::limits::BACKUP_BYTES_MAX;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::seal::{BackupKey, Sealer};
use super::store::Store;
use crate::device;
use crate::https;

/// How long etcd may send nothing.
const STALLS: Duration = Duration::from_secs(20);

/// Longest line of the answer in bytes: etcd sends 32 KiB at a time.
const LINE_BYTES_MAX: usize = 4 << 20;

/// How many pieces of the answer wait for the disk.
const WAITING: usize = 16;

/// At the end of a snapshot stands the SHA-256 of all before.
const HASH_BYTES: usize = 32;

/// One line of the answer.
#[derive(Deserialize)]
struct Line {
    result: Option<Part>,
    error: Option<Failed>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    remaining_bytes: String,
    #[serde(default)]
    blob: String,
}

#[derive(Deserialize)]
struct Failed {
    #[serde(default)]
    message: String,
}

/// Length of the sealed file, and its digest.
///
/// # Errors
/// Why there is no backup. Nothing is left of it then.
pub(crate) async fn take(
    store: &std::sync::Arc<Store>,
    settings: &Settings,
    request: &Request,
    label: Label,
) -> Result<(u64, Digest), String> {
    let key = BackupKey::of(&settings.etcd_ca_key())?;
    let (pieces, coming) = mpsc::channel(WAITING);
    let kept = store.clone();
    let writes = tokio::task::spawn_blocking(move || write(&kept, &key, label, coming));
    let read = read(request, pieces).await;
    let written = writes.await.map_err(|why| why.to_string())?;
    // Where the disk takes nothing, etcd's answer is cut off for that.
    match (written, read) {
        (Err(why), Ok(())) | (Err(why), Err(Cut::Disk)) => Err(why),
        (_, Err(Cut::Etcd(why))) => Err(why),
        (Ok(done), _) => {
            store.taken.notify_one();
            Ok(done)
        }
    }
}

enum Cut {
    Etcd(String),
    Disk,
}

async fn read(request: &Request, pieces: mpsc::Sender<Option<Bytes>>) -> Result<(), Cut> {
    let at = request.at.ok_or_else(|| Cut::Etcd("it is not said where etcd is".to_owned()))?;
    let begun = tokio::time::timeout(request.patience, https::begin(request, at)).await;
    let silent = || Cut::Etcd(format!("{} sends nothing", request.server));
    let mut answer = begun.map_err(|_| silent())?.map_err(Cut::Etcd)?;
    if answer.status != 200 {
        return Err(Cut::Etcd(format!("etcd refuses a snapshot with status {}", answer.status)));
    }
    while let Some(frame) = tokio::time::timeout(STALLS, answer.body.frame()).await.map_err(|_| silent())? {
        let frame = frame.map_err(|why| Cut::Etcd(format!("{}: {why}", request.server)))?;
        if let Ok(piece) = frame.into_data() {
            pieces.send(Some(piece)).await.map_err(|_| Cut::Disk)?;
        }
    }
    pieces.send(None).await.map_err(|_| Cut::Disk)
}

/// Blocks. `None` is the end of the answer; without it the answer was cut off.
fn write(
    store: &Store,
    key: &BackupKey,
    label: Label,
    coming: mpsc::Receiver<Option<Bytes>>,
) -> Result<(u64, Digest), String> {
    let number = label.number;
    let (file, begun) = store.begin(None).map_err(|why| format!("a backup cannot be begun: {why}"))?;
    let done = (|| {
        let (file, bytes, digest) = seal(store, file, key, label, coming)?;
        let kept = store.keep(&file, &begun, number, digest);
        kept.map_err(|why| format!("a backup cannot be kept: {why}"))?;
        Ok((bytes, digest))
    })();
    if done.is_err() {
        let _ = std::fs::remove_file(&begun);
    }
    done
}

fn seal(
    store: &Store,
    file: File,
    key: &BackupKey,
    mut label: Label,
    mut coming: mpsc::Receiver<Option<Bytes>>,
) -> Result<(File, u64, Digest), String> {
    let disk = |why: std::io::Error| format!("a backup cannot be written: {why}");
    let mut file = Some(file);
    let mut sealer = None;
    let (mut snapshot, mut lines) = (Snapshot::default(), Vec::new());
    loop {
        let piece = coming.blocking_recv().ok_or("etcd's answer was cut off")?;
        let ends = piece.is_none();
        match &piece {
            Some(piece) => lines.extend_from_slice(piece),
            None => lines.push(b'\n'),
        }
        while let Some(end) = memchr::memchr(b'\n', &lines) {
            let line: Vec<u8> = lines.drain(..=end).collect();
            let Some((blob, remaining)) = read_line(&line)? else { continue };
            if let Some(file) = file.take() {
                label.database_bytes = remaining.saturating_add(blob.len() as u64);
                if label.database_bytes >= BACKUP_BYTES_MAX {
                    return Err("etcd's database is larger than etcd allows".to_owned());
                }
                store.has_room(label.database_bytes).map_err(|why| why.to_string())?;
                sealer = Some(Sealer::begin(file, &label, key, &device::seed()).map_err(disk)?);
            }
            snapshot.add(&blob, remaining);
            sealer.as_mut().ok_or("etcd sent no snapshot")?.write_all(&blob).map_err(disk)?;
        }
        if lines.len() > LINE_BYTES_MAX {
            return Err("etcd's answer is no snapshot: a line of it is too long".to_owned());
        }
        if ends {
            break;
        }
    }
    snapshot.whole()?;
    sealer.ok_or("etcd sent no snapshot")?.finish().map_err(disk)
}

/// A piece of the snapshot, and how many bytes are to come; nothing in an empty line.
fn read_line(line: &[u8]) -> Result<Option<(Vec<u8>, u64)>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let line: Line = serde_json::from_slice(line).map_err(|_| "etcd's answer is no snapshot".to_owned())?;
    if let Some(failed) = line.error {
        let words: String = failed.message.chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(format!("etcd refuses a snapshot: {words}"));
    }
    let part = line.result.ok_or("etcd's answer is no snapshot")?;
    let blob = BASE64_STANDARD.decode(&part.blob).map_err(|_| "etcd's snapshot cannot be read".to_owned())?;
    Ok(Some((blob, part.remaining_bytes.parse().unwrap_or_default())))
}

/// Sees whether a snapshot is whole, by its own hash.
#[derive(Default)]
struct Snapshot {
    hash: Sha256,
    /// The last bytes, which may be the hash.
    end: Vec<u8>,
    remaining: u64,
}

impl Snapshot {
    fn add(&mut self, blob: &[u8], remaining: u64) {
        self.remaining = remaining;
        self.end.extend_from_slice(blob);
        let before = self.end.len().saturating_sub(HASH_BYTES);
        self.hash.update(&self.end[..before]);
        self.end.drain(..before);
    }

    fn whole(self) -> Result<(), String> {
        let hash: [u8; 32] = self.hash.finalize().into();
        match self.remaining == 0 && self.end == hash {
            true => Ok(()),
            false => Err("etcd's snapshot is not whole: its hash is another".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backups::seal::tests::{key, label};
    use crate::backups::{find, open};

    /// An answer as etcd 3.7 gives it.
    fn answer(database: &[u8], piece: usize) -> Vec<u8> {
        let whole = [database, &Sha256::digest(database)[..]].concat();
        let mut remaining = whole.len();
        let mut lines = Vec::new();
        for blob in whole.chunks(piece) {
            remaining -= blob.len();
            let blob = BASE64_STANDARD.encode(blob);
            let line = serde_json::json!({"result": {"remaining_bytes": remaining.to_string(), "blob": blob, "version": "3.7.0"}});
            lines.extend_from_slice(format!("{line}\n").as_bytes());
        }
        lines
    }

    fn taken(answer: &[u8], ends: bool) -> Result<Vec<u8>, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::new(directory.path().join("backups"));
        let (pieces, coming) = mpsc::channel(answer.len() / 1000 + 2);
        for piece in answer.chunks(1000) {
            pieces.try_send(Some(Bytes::copy_from_slice(piece))).expect("room");
        }
        if ends {
            pieces.try_send(None).expect("room");
        }
        drop(pieces);
        let done = write(&store, &key(1), label(3), coming);
        let left = std::fs::read_dir(directory.path().join("backups")).expect("a directory").count();
        let Ok((_, digest)) = &done else {
            assert_eq!(left, 0, "nothing is left of what failed");
            return Err(done.expect_err("failed"));
        };
        assert_eq!((left, store.has()), (1, [*digest].into()));
        let mut opened = Vec::new();
        let file = File::open(find(&directory.path().join("backups"), *digest).expect("here")).expect("opens");
        let said = open(file, &key(1), &mut opened)?;
        assert_eq!(said.database_bytes, opened.len() as u64);
        Ok(opened)
    }

    #[test]
    fn a_whole_snapshot_is_kept_and_no_other() {
        let database = vec![7; 5000];
        let whole = answer(&database, 2048);
        let opened = taken(&whole, true).expect("is taken");
        assert!(opened.starts_with(&database) && opened.len() == database.len() + 32);
        assert!(taken(&whole, false).expect_err("cut off").contains("cut off"));
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        assert!(taken(&lines[..2].concat(), true).expect_err("cut off between lines").contains("hash"));
        assert!(taken(&[lines[0], lines[2]].concat(), true).expect_err("a piece is missing").contains("hash"));
        let refused = br#"{"error":{"code":14,"message":"etcdserver: no leader"}}"#;
        assert!(taken(refused, true).expect_err("refused").contains("no leader"));
        for nonsense in [&b""[..], b"<html>", b"{}", b"{\"result\":{\"blob\":\"!\"}}", b"\n\n"] {
            assert!(taken(nonsense, true).is_err(), "{}", String::from_utf8_lossy(nonsense));
        }
    }
}

//! Keeps the backups that this machine is to keep: fetches what is not here from machines that have it, part by part, and takes away the rest.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_protocol::copies::{Copies, Wanted};
use muster_protocol::{Input, Time, WantedBackup};
use muster_wire::limits::BACKUP_PART_BYTES_MAX;
use muster_wire::{Digest, Frame, MachineId};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::store::{Store, digest_of};
use crate::net::Command;

/// How long a machine may take to send a part.
const PART: Duration = Duration::from_secs(10);

/// How often it is looked whether files are still there.
const LOOK: Duration = Duration::from_secs(60);

/// A part that came: from whom, of what, from which byte on.
pub(crate) type Part = (MachineId, Digest, u64, Bytes);

pub(crate) struct Keeper {
    pub(crate) store: Arc<Store>,
    pub(crate) wanted: watch::Receiver<Option<Wanted>>,
    pub(crate) parts: mpsc::Receiver<Part>,
    pub(crate) net: mpsc::Sender<Command>,
    pub(crate) inputs: mpsc::Sender<Input>,
    /// When it began: the beginning of time.
    pub(crate) started: Instant,
    pub(crate) copies: Copies,
}

impl Keeper {
    /// For as long as the agent runs.
    pub(crate) async fn run(mut self) {
        let store = self.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.look()).await;
        let mut told = None;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.copies.want(wanted);
            let Some(has) = self.look().await else { return };
            if told.as_ref() != Some(&has) {
                if self.inputs.send(Input::Backups(has.clone())).await.is_err() {
                    return;
                }
                told = Some(has.clone());
            }
            let fetches = self.copies.fetches(self.now(), &has);
            self.store.in_vain(self.copies.tried());
            let store = self.store.clone();
            let mut changes = self.wanted.clone();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = store.taken.notified() => {}
                () = self.fetch(fetches) => {}
            }
        }
    }

    fn now(&self) -> Time {
        Time(self.started.elapsed().as_micros() as u64)
    }

    /// What is on the disk, once what is to go has gone. None if the agent ends.
    async fn look(&mut self) -> Option<BTreeSet<Digest>> {
        let store = self.store.clone();
        let look = move || {
            store.look_for_missing();
            (store.numbers(), store.begun())
        };
        let (here, mut begun) = tokio::task::spawn_blocking(look).await.ok()?;
        let go = self.copies.that_go(self.now(), &here);
        begun.retain(|digest, _| !self.copies.wants(*digest));
        let store = self.store.clone();
        let remove = move || {
            store.remove(&go);
            begun.values().for_each(|path| _ = std::fs::remove_file(path));
            store.has()
        };
        tokio::task::spawn_blocking(remove).await.ok()
    }

    /// Ends when one more is here, or could not be had, or it is time to look again.
    async fn fetch(&mut self, fetches: Result<WantedBackup, Option<Time>>) {
        match fetches {
            Ok(backup) => match self.fetch_one(&backup).await {
                Ok(from) => info!(number = backup.number, %from, "a copy of a backup is kept here"),
                Err(why) => {
                    let pause = self.copies.failed(self.now(), &backup, why.clone()).as_secs();
                    warn!(number = backup.number, "a copy of a backup cannot be had: {why}; again in {pause} s");
                }
            },
            Err(again) => {
                let pause = again.map_or(LOOK, |again| again.since(self.now()).min(LOOK));
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// From whom it came, or why from nobody.
    async fn fetch_one(&mut self, backup: &WantedBackup) -> Result<MachineId, String> {
        self.store.has_room(backup.bytes).map_err(|why| why.to_string())?;
        let mut all = Vec::new();
        for from in &backup.from {
            match self.fetch_from(backup, *from).await {
                Ok(()) => return Ok(*from),
                Err(why) => all.push(format!("{from}: {why}")),
            }
        }
        Err(if all.is_empty() { "no other machine has one".to_owned() } else { all.join("; ") })
    }

    async fn fetch_from(&mut self, backup: &WantedBackup, from: MachineId) -> Result<(), String> {
        let failed = |why: std::io::Error| why.to_string();
        let (file, begun) = self.store.begin(Some((backup.number, backup.digest))).map_err(failed)?;
        let mut at = file.metadata().map_err(failed)?.len();
        if at > backup.bytes {
            file.set_len(0).map_err(failed)?;
            at = 0;
        }
        while at < backup.bytes {
            let part = self.part(backup.digest, from, at).await?;
            if part.is_empty() {
                return Err("it does not have it".to_owned());
            }
            // Who sends less at a time would never come to an end.
            if part.len() as u64 != (backup.bytes - at).min(BACKUP_PART_BYTES_MAX as u64) {
                return Err("it sends more or less than it was asked for".to_owned());
            }
            at = written(&file, part, at).await?;
        }
        let (path, store, backup) = (begun, self.store.clone(), backup.clone());
        let ends = move || {
            // Which part is wrong, and whose, cannot be told any more.
            if digest_of(&path).map_err(failed)? != backup.digest {
                let _ = std::fs::remove_file(&path);
                return Err("it is another file than the one that the ledger names".to_owned());
            }
            store.keep(&file, &path, backup.number, backup.digest).map_err(failed)
        };
        tokio::task::spawn_blocking(ends).await.map_err(|why| why.to_string())?
    }

    async fn part(&mut self, digest: Digest, from: MachineId, at: u64) -> Result<Bytes, String> {
        // What came too late for an earlier question.
        while self.parts.try_recv().is_ok() {}
        let call = Frame::BackupCall { digest, from: at };
        self.net.send(Command::Send(from, call.encode())).await.map_err(|_| "the mesh has ended")?;
        let comes = async {
            while let Some((machine, of, begins, body)) = self.parts.recv().await {
                if (machine, of, begins) == (from, digest, at) {
                    return Some(body);
                }
                debug!(%machine, "a part of a backup that nobody waits for");
            }
            None
        };
        let came = tokio::time::timeout(PART, comes).await;
        came.ok().flatten().ok_or_else(|| format!("no answer within {} s", PART.as_secs()))
    }
}

async fn written(file: &File, part: Bytes, at: u64) -> Result<u64, String> {
    let ends = at + part.len() as u64;
    let file = file.try_clone().map_err(|why| why.to_string())?;
    let write = tokio::task::spawn_blocking(move || file.write_all_at(&part, at));
    write.await.map_err(|why| why.to_string())?.map_err(|why| why.to_string())?;
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write as _;

    use super::*;

    const HONEST: MachineId = MachineId([1; 32]);
    const LIAR: MachineId = MachineId([2; 32]);
    const NOBODY: MachineId = MachineId([9; 32]);
    const EMPTY: MachineId = MachineId([3; 32]);

    struct Site {
        directory: tempfile::TempDir,
        wanted: watch::Sender<Option<Wanted>>,
        inputs: mpsc::Receiver<Input>,
        backup: WantedBackup,
    }

    /// A machine whose mesh reaches one that has a backup of three parts, one that sends something else, and one that has nothing.
    fn site() -> Site {
        let directory = tempfile::tempdir().expect("a directory");
        let bytes: Vec<u8> = (0..2 * BACKUP_PART_BYTES_MAX + 7).map(|byte| (byte % 251) as u8).collect();
        let theirs = Store::new(directory.path().join("theirs"));
        let (mut file, begun) = theirs.begin(None).expect("begun");
        file.write_all(&bytes).expect("written");
        let digest = digest_of(&begun).expect("read");
        theirs.keep(&file, &begun, 7, digest).expect("kept");
        let (net, mut calls) = mpsc::channel(16);
        let (parts, coming) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(Command::Send(to, frame)) = calls.recv().await {
                let Ok(Frame::BackupCall { digest, from }) = Frame::decode(frame.into()) else { panic!("a call") };
                let body: Bytes = match to {
                    HONEST => theirs.part(digest, from).into(),
                    LIAR => vec![0; (bytes.len() - from as usize).min(BACKUP_PART_BYTES_MAX)].into(),
                    _ => Bytes::new(),
                };
                // What nobody asked for, and what comes twice, changes nothing.
                for part in [
                    (NOBODY, digest, from, Bytes::from_static(b"x")),
                    (to, digest, from, body.clone()),
                    (to, digest, from, body),
                ] {
                    let _ = parts.try_send(part);
                }
            }
        });
        let (wanted, changes) = watch::channel(None);
        let (tells, inputs) = mpsc::channel(16);
        let store = Arc::new(Store::new(directory.path().join("ours")));
        let (started, copies) = (Instant::now(), Copies::with_grace(Duration::ZERO));
        tokio::spawn(Keeper { store, wanted: changes, parts: coming, net, inputs: tells, started, copies }.run());
        let length = (2 * BACKUP_PART_BYTES_MAX + 7) as u64;
        let backup = WantedBackup { number: 7, digest, bytes: length, from: vec![EMPTY, LIAR, HONEST] };
        Site { directory, wanted, inputs, backup }
    }

    fn want(site: &Site, all: Vec<WantedBackup>) {
        site.wanted.send_replace(Some(Wanted { last: 7, all, asked: Vec::new() }));
    }

    async fn told(site: &mut Site) -> BTreeSet<Digest> {
        match site.inputs.recv().await {
            Some(Input::Backups(has)) => has,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_copy_comes_part_by_part_from_whoever_has_it_and_goes_when_it_is_not_wanted() {
        let mut site = site();
        assert!(told(&mut site).await.is_empty());
        let (backup, digest) = (site.backup.clone(), site.backup.digest);
        want(&site, vec![backup]);
        assert_eq!(told(&mut site).await, [digest].into());
        let path = super::super::find(&site.directory.path().join("ours"), digest).expect("here");
        assert_eq!(digest_of(&path).expect("read"), digest);
        want(&site, Vec::new());
        assert!(told(&mut site).await.is_empty());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_no_copy_is_not_kept() {
        let mut site = site();
        assert!(told(&mut site).await.is_empty());
        let backup = WantedBackup { from: vec![LIAR, EMPTY], ..site.backup.clone() };
        want(&site, vec![backup]);
        let came = tokio::time::timeout(Duration::from_secs(2), told(&mut site)).await;
        assert!(came.is_err(), "{came:?}");
        let left = std::fs::read_dir(site.directory.path().join("ours")).expect("a directory").flatten();
        assert!(left.map(|entry| entry.path()).all(|path| path.extension().is_some_and(|end| end == "part")));
    }
}

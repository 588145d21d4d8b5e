//! Backups: what others ask for, what a person asks for, and with which one a recovery begins.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_protocol::copies::{Copies, Tried, Wanted};
use muster_protocol::ledger::KeptBackup;
use muster_protocol::{Reason, Topic, WantedBackup};
use muster_wire::limits::BACKUP_BYTES_MAX;
use muster_wire::{Digest, Frame, MachineId};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::Shell;
use crate::backups::{BackupKey, Keeper, Part, Store, digest_of, open};
use crate::net::Command;

/// How many parts are read from the disk for others at a time; whoever is not answered asks again.
const AT_ONCE: usize = 4;

/// How many parts wait for the keeper: it asks for one at a time.
const PARTS_MAX: usize = 4;

/// How long a backup may take to be fetched that a person asks for, and stays here for that person afterwards.
const FETCH: Duration = Duration::from_secs(600);

/// Pause between two looks whether it is here.
const PAUSE: Duration = Duration::from_millis(100);

/// Most backups that people have asked for at a time.
const ASKED_MAX: usize = 8;

/// This machine's backups, and those of others.
pub(super) struct Backups {
    pub(super) store: Arc<Store>,
    wanted: watch::Sender<Option<Wanted>>,
    parts: mpsc::Sender<Part>,
    reads: Arc<Semaphore>,
}

impl Backups {
    /// Begins to keep them.
    pub(super) fn begin(
        store: Arc<Store>,
        net: mpsc::Sender<Command>,
        inputs: mpsc::Sender<muster_protocol::Input>,
    ) -> Self {
        let (wanted, changes) = watch::channel(None);
        let (parts, coming) = mpsc::channel(PARTS_MAX);
        let (started, copies) = (Instant::now(), Copies::default());
        let keeper = Keeper { store: store.clone(), wanted: changes, parts: coming, net, inputs, started, copies };
        tokio::spawn(keeper.run());
        Self { store, wanted, parts, reads: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The machine says which it is to keep.
    pub(super) fn keep(&self, last: u32, all: Vec<WantedBackup>) {
        self.wanted.send_modify(|wanted| {
            let wanted = wanted.get_or_insert_default();
            (wanted.last, wanted.all) = (last, all);
        });
    }

    /// A part came. Who sends one that nobody waits for is not heard.
    pub(super) fn came(&self, part: Part) {
        let _ = self.parts.try_send(part);
    }

    /// A person asks for one: where it is, when it is here. Ends as soon as nobody could give it; dropped, it asks for it no more.
    async fn fetched(
        store: Arc<Store>,
        wanted: watch::Sender<Option<Wanted>>,
        backup: WantedBackup,
    ) -> Result<PathBuf, String> {
        let (digest, number) = (backup.digest, backup.number);
        let read = |store: Arc<Store>| tokio::task::spawn_blocking(move || store.read_again(digest));
        if let Some(path) = read(store.clone()).await.ok().flatten() {
            return Ok(path);
        }
        let before = store.tried().get(&digest).map_or(0, |tried| tried.times);
        let asked = Asked::new(wanted, backup)?;
        let comes = async {
            loop {
                tokio::time::sleep(PAUSE).await;
                if let Some(path) = store.path(digest) {
                    return Ok(path);
                }
                if let Some(tried) = store.tried().get(&digest).filter(|tried| tried.times > before) {
                    return Err(format!("backup {number} cannot be had: {}", tried.why));
                }
            }
        };
        let came = tokio::time::timeout(FETCH, comes).await;
        let came =
            came.unwrap_or_else(|_| Err(format!("backup {number} did not come within {} s", FETCH.as_secs())))?;
        // Whoever asked for it has to read it yet.
        tokio::spawn(async move {
            tokio::time::sleep(FETCH).await;
            drop(asked);
        });
        Ok(came)
    }
}

/// What a person asks for, for as long as that is so.
struct Asked {
    wanted: watch::Sender<Option<Wanted>>,
    digest: Digest,
}

impl Asked {
    fn new(wanted: watch::Sender<Option<Wanted>>, backup: WantedBackup) -> Result<Self, String> {
        let mut room = true;
        let digest = backup.digest;
        wanted.send_modify(|wanted| {
            let wanted = wanted.get_or_insert_default();
            room = wanted.asked.len() < ASKED_MAX;
            if room {
                wanted.asked.push(backup);
            }
        });
        match room {
            true => Ok(Self { wanted, digest }),
            false => Err("too many backups are being fetched: ask again later".to_owned()),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.wanted.send_modify(|wanted| {
            let wanted = wanted.get_or_insert_default();
            if let Some(at) = wanted.asked.iter().position(|asked| asked.digest == self.digest) {
                wanted.asked.remove(at);
            }
        });
    }
}

impl Shell {
    /// Another machine asks for a part of a backup. Members alone are answered, about backups of the ledger's.
    pub(super) fn backup_asked(&self, machine: MachineId, digest: Digest, from: u64) {
        let Ok(permit) = self.backups.reads.clone().try_acquire_owned() else { return };
        if !self.machine.ledger().gives_backup(machine, digest) {
            self.counters.dropped(muster_protocol::Dropped::BackupFrame);
            return;
        }
        let (store, net) = (self.backups.store.clone(), self.net.clone());
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let body = store.part(digest, from).into();
            // A full queue may lose it: it is asked for again.
            let _ = net.try_send(Command::Send(machine, Frame::BackupPart { digest, from, body }.encode()));
        });
    }

    /// The backups of the ledger, for people.
    pub(super) fn list_backups(&self) -> Value {
        let ledger = self.machine.ledger();
        let name = |machine: MachineId| ledger.member(machine).map(|member| member.admitted.name.clone());
        let row = |kept: &KeptBackup| {
            let backup = &kept.backup;
            json!({
                "number": backup.number,
                "taken_s": backup.taken_s,
                "taken_by": name(backup.machine).unwrap_or_else(|| backup.machine.to_string()),
                "epoch": backup.epoch,
                "revision": backup.revision,
                "bytes": backup.bytes,
                "digest": backup.digest.to_hex(),
                "copies": (backup.copies as usize).min(ledger.members().len()),
                "by": kept.by.iter().map(|by| name(*by).unwrap_or_else(|| by.to_string())).collect::<Vec<_>>(),
                "here": self.backups.store.path(backup.digest),
            })
        };
        json!(ledger.backups().iter().map(row).collect::<Vec<_>>())
    }

    /// What people should know of copies that cannot be had.
    pub(super) fn missing_backups(&self) -> Vec<Reason> {
        let tried = self.backups.store.tried().into_values();
        let text = |tried: Tried| {
            format!("a copy of backup {} cannot be had ({} tries): {}", tried.number, tried.times, tried.why)
        };
        tried.map(|tried| Reason { about: Topic::Backup, text: text(tried), machines: Vec::new() }).collect()
    }

    /// Fetches one for a person, if it is not here.
    pub(super) fn fetch_backup(&self, number: u32, mut answer: oneshot::Sender<String>) {
        let found = self.find_backup(number);
        tokio::spawn(async move {
            let path = match found {
                Ok(fetched) => tokio::select! {
                    path = fetched => path,
                    () = answer.closed() => return,
                },
                Err(why) => Err(why),
            };
            let json = match path {
                Ok(path) => json!({ "path": path }),
                Err(why) => json!({ "why": why }),
            };
            let _ = answer.send(json.to_string());
        });
    }

    fn find_backup(&self, number: u32) -> Result<impl Future<Output = Result<PathBuf, String>> + use<>, String> {
        let ledger = self.machine.ledger();
        let kept = ledger.backups().iter().find(|kept| kept.backup.number == number);
        let kept = kept.ok_or_else(|| match ledger.backups().last() {
            Some(last) => format!("there is no backup {number}: the last is {}", last.backup.number),
            None => "there is no backup yet".to_owned(),
        })?;
        let me = self.machine.id();
        // Those that are here are asked first.
        let mut from: Vec<MachineId> = kept.by.iter().copied().filter(|by| *by != me).collect();
        from.sort_by_key(|by| !self.machine.holds_for_alive(*by));
        let backup = WantedBackup { number, digest: kept.backup.digest, bytes: kept.backup.bytes, from };
        Ok(Backups::fetched(self.backups.store.clone(), self.backups.wanted.clone(), backup))
    }

    /// Sees that the backup that a person names, by its number or as a file, is here and opens. Its digest.
    pub(super) fn backup_to_begin_with(
        &self,
        named: &str,
        dry_run: bool,
    ) -> Result<impl Future<Output = Result<Digest, String>> + use<>, String> {
        let numbered = match named.parse() {
            Ok(number) => Some(self.find_backup(number)?),
            Err(_) => None,
        };
        let file = PathBuf::from(named);
        let (store, settings) = (self.backups.store.clone(), self.device.place.settings.clone());
        let charter = hex::encode(self.machine.ledger().charter());
        Ok(async move {
            let path = match numbered {
                Some(fetched) => fetched.await?,
                None => {
                    let is = file.metadata().map_err(|why| format!("{}: {why}", file.display()))?;
                    if !is.is_file() || is.len() > BACKUP_BYTES_MAX {
                        return Err(format!("{} is no file, or longer than any backup", file.display()));
                    }
                    file
                }
            };
            let opens = move || {
                let key = BackupKey::of(&settings.etcd_ca_key())?;
                opens(&path, &key, &charter)?;
                // It stays until etcd has begun with it.
                if dry_run { digest_of(&path).map_err(|why| why.to_string()) } else { store.import(&path) }
            };
            tokio::task::spawn_blocking(opens).await.map_err(|why| why.to_string())?
        })
    }
}

fn opens(path: &Path, key: &BackupKey, charter: &str) -> Result<(), String> {
    let failed = |why: String| format!("{}: {why}", path.display());
    let file = std::fs::File::open(path).map_err(|why| failed(why.to_string()))?;
    let label = open(file, key, &mut std::io::sink()).map_err(failed)?;
    match label.charter == charter {
        true => Ok(()),
        false => {
            Err(failed(format!("it is a backup of another cluster than this one, which was called {}", label.cluster)))
        }
    }
}

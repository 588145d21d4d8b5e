//! Sealed backups on the disks of machines: a file each, whose content nothing looks at.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::copies::{Copies, Wanted};
use muster_protocol::{Input, Time, WantedBackup};
use muster_wire::{Digest, MachineId};

use super::World;
use super::chance::S;
use super::event::{At, Event, Slot};
use crate::watch::Seen;

const DIRECTORY: &str = "/var/lib/muster/backups/";

/// How long a copy takes to come, in seconds.
const FETCH: [f64; 2] = [0.05, 4.0];

/// Pause between two looks while something is to go.
const LOOK: At = 60_000_000;

/// What a machine does about its copies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keeper {
    copies: Copies,
    /// What is being fetched.
    fetched: Option<WantedBackup>,
    /// When it has come, or when it is looked again.
    due: At,
}

fn path(number: u32, digest: Digest) -> String {
    format!("{DIRECTORY}{number}-{}", digest.to_hex())
}

fn named(path: &str) -> Option<(u32, Digest)> {
    let (number, digest) = path.strip_prefix(DIRECTORY)?.split_once('-')?;
    Some((number.parse().ok()?, Digest::from_hex(digest)?))
}

impl World {
    /// The backups on a machine's disk.
    pub(crate) fn backups(&self, slot: Slot) -> BTreeSet<Digest> {
        let files = self.hosts[slot as usize].kube.files.keys();
        files.filter_map(|file| named(file)).map(|(_, digest)| digest).collect()
    }

    /// The names of the Nodes in a backup that is on a machine's disk.
    pub(super) fn backed_up(&self, slot: Slot, digest: &str) -> Option<&BTreeSet<String>> {
        let digest = Digest::from_hex(digest).filter(|digest| self.backups(slot).contains(digest))?;
        self.site.backups.get(&digest)
    }

    /// The last one on a machine's disk.
    pub(super) fn last_backup(&self, slot: Slot) -> Option<Digest> {
        let files = self.hosts[slot as usize].kube.files.keys();
        files.filter_map(|file| named(file)).max_by_key(|(number, _)| *number).map(|(_, digest)| digest)
    }

    /// The device says what is there.
    pub(super) fn tell_backups(&mut self, slot: Slot) {
        let has = self.backups(slot);
        self.feed(slot, Input::Backups(has));
    }

    /// A backup is taken of a member: etcd answers, and the file is on the disk.
    pub(super) fn take_backup(&mut self, slot: Slot, number: u32) -> (u64, Digest) {
        let taken = self.chance.fixed_bytes("backup", slot.into(), self.now);
        let digest = Digest::of("backup", &[&taken]);
        let cluster = self.hosts[slot as usize].kube.cluster.map(|cluster| &self.site.clusters[cluster]);
        let nodes = cluster.map(|cluster| cluster.nodes.keys().cloned().collect()).unwrap_or_default();
        self.site.backups.insert(digest, nodes);
        self.write_backup(slot, number, digest);
        (1_000_000, digest)
    }

    fn write_backup(&mut self, slot: Slot, number: u32, digest: Digest) {
        self.hosts[slot as usize].kube.files.insert(path(number, digest), b"sealed".to_vec());
        let machine = self.hosts[slot as usize].me;
        self.see(Seen::BackupWritten { slot, machine, digest });
        self.tell_backups(slot);
    }

    pub(super) fn keep_backups(&mut self, slot: Slot, last: u32, wanted: Vec<WantedBackup>) {
        let wanted = Wanted { last, all: wanted, asked: Vec::new() };
        self.hosts[slot as usize].backups.copies.want(Some(wanted));
        self.look_at_backups(slot);
    }

    /// What is to go goes, and what is missing is fetched.
    fn look_at_backups(&mut self, slot: Slot) {
        let now = Time(self.now);
        let host = &mut self.hosts[slot as usize];
        let here: BTreeMap<Digest, u32> =
            host.kube.files.keys().filter_map(|file| named(file)).map(|(number, digest)| (digest, number)).collect();
        let go = host.backups.copies.that_go(now, &here);
        host.kube.files.retain(|file, _| !named(file).is_some_and(|(_, digest)| go.contains(&digest)));
        if !go.is_empty() {
            self.tell_backups(slot);
        }
        let has = self.backups(slot);
        let takes = FETCH[0] * S + (self.chance.fixed("fetch", slot.into(), self.now) as f64) % (FETCH[1] * S);
        let host = &mut self.hosts[slot as usize];
        if host.backups.fetched.is_some() {
            return;
        }
        let unwanted = has.iter().any(|digest| !host.backups.copies.wants(*digest)).then(|| self.now + LOOK);
        let due = match host.backups.copies.fetches(now, &has) {
            Ok(missing) => {
                host.backups.fetched = Some(missing);
                Some(self.now + takes as At)
            }
            Err(again) => again.map(|again| again.0),
        };
        if let Some(due) = due.into_iter().chain(unwanted).min() {
            host.backups.due = due;
            let life = host.life;
            self.events.push(due, Event::Backup { slot, life });
        }
    }

    /// A copy comes, if a machine that has it can be reached; or it is time to look.
    pub(super) fn backup_comes(&mut self, slot: Slot) {
        if self.now < self.hosts[slot as usize].backups.due {
            return;
        }
        if let Some(missing) = self.hosts[slot as usize].backups.fetched.take() {
            if missing.from.iter().any(|from| self.gives(slot, *from, missing.digest)) {
                self.write_backup(slot, missing.number, missing.digest);
            } else {
                let why = "nobody gives it".to_owned();
                self.hosts[slot as usize].backups.copies.failed(Time(self.now), &missing, why);
            }
        }
        self.look_at_backups(slot);
    }

    fn gives(&self, slot: Slot, from: MachineId, digest: Digest) -> bool {
        let Some(other) = self.directory.get(&from).copied() else { return false };
        let host = &self.hosts[other as usize];
        let cut = self.net.cuts(slot, other) || self.net.cuts(other, slot);
        let asks = self.hosts[slot as usize].me;
        let may = host.machine.as_ref().is_some_and(|machine| machine.ledger().gives_backup(asks, digest));
        host.up() && host.me == from && !cut && may && self.backups(other).contains(&digest)
    }
}

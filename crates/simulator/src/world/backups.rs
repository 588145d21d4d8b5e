//! Sealed backups on the disks of machines: a file each, whose content nothing looks at.

use std::collections::BTreeSet;

use muster_protocol::{Input, WantedBackup};
use muster_wire::{Digest, MachineId};

use super::World;
use super::chance::S;
use super::event::{At, Event, Slot};
use crate::watch::Seen;

const DIRECTORY: &str = "/var/lib/muster/backups/";

/// How long a copy takes to come, in seconds.
const FETCH: [f64; 2] = [0.05, 4.0];

/// Pause after a try that failed.
const PAUSE: At = 15_000_000;

/// What a machine's device was told to keep.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    wanted: Vec<WantedBackup>,
    /// Whether a fetch is under way.
    fetches: bool,
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
        let is_wanted = |digest: &Digest| wanted.iter().any(|wanted| wanted.digest == *digest);
        let goes = |file: &str| named(file).is_some_and(|(number, digest)| number <= last && !is_wanted(&digest));
        let host = &mut self.hosts[slot as usize];
        let before = host.kube.files.len();
        host.kube.files.retain(|file, _| !goes(file));
        let gone = host.kube.files.len() < before;
        host.backups.wanted = wanted;
        if gone {
            self.tell_backups(slot);
        }
        self.fetch_backups(slot, self.chance.fixed("fetch", slot.into(), self.now) % ((FETCH[1] * S) as At));
    }

    fn fetch_backups(&mut self, slot: Slot, after: At) {
        let has = self.backups(slot);
        let host = &mut self.hosts[slot as usize];
        let lacks = host.backups.wanted.iter().any(|wanted| !has.contains(&wanted.digest));
        if lacks && !std::mem::replace(&mut host.backups.fetches, true) {
            let life = host.life;
            self.events.push(self.now + after + (FETCH[0] * S) as At, Event::Backup { slot, life });
        }
    }

    /// A copy comes, if a machine that has it can be reached.
    pub(super) fn backup_comes(&mut self, slot: Slot) {
        let has = self.backups(slot);
        self.hosts[slot as usize].backups.fetches = false;
        let missing = self.hosts[slot as usize].backups.wanted.iter().filter(|wanted| !has.contains(&wanted.digest));
        let missing: Vec<WantedBackup> = missing.cloned().collect();
        let found = missing.iter().find(|wanted| wanted.from.iter().any(|from| self.gives(slot, *from, wanted.digest)));
        if let Some(found) = found {
            self.write_backup(slot, found.number, found.digest);
        }
        self.fetch_backups(slot, PAUSE);
    }

    fn gives(&self, slot: Slot, from: MachineId, digest: Digest) -> bool {
        let Some(other) = self.directory.get(&from).copied() else { return false };
        let host = &self.hosts[other as usize];
        let cut = self.net.cuts(slot, other) || self.net.cuts(other, slot);
        host.up() && host.me == from && !cut && self.backups(other).contains(&digest)
    }
}

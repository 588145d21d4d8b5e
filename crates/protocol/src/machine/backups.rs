//! Which backups this machine keeps a copy of. Nobody assigns them: who is nearest to a backup, by its digest and the machines' identities, keeps it,
//! and the next ones as long as it has too few copies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_wire::{Digest, Entry, MachineId};

use super::Machine;
use crate::effect::WantedBackup;
use crate::follow::Wants;
use crate::ledger::KeptBackup;
use crate::planted::planted;
use crate::time::wake_by;
use crate::words::reasons::Topic;
use crate::{Effect, Effects, Time};

/// So long whoever is nearest may take to say that it keeps a copy before the next one does as well.
const TURN: Duration = Duration::from_secs(20);

/// Nobody waits for more turns than that.
const RANK_MAX: u32 = 1_000;

/// How long a machine may lack a copy that it was to keep before it says so.
const GONE_AFTER: Duration = Duration::from_secs(180);

/// And before people are told: what was just taken is told a moment later.
const GONE_TOLD: Duration = Duration::from_secs(5);

/// How long a backup may have too few copies before people are told.
const TELL_AFTER: Duration = Duration::from_secs(120);

/// What this machine keeps.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// What is on its disk, once its device has looked.
    has: Option<BTreeSet<Digest>>,
    /// When each backup was first seen in the ledger, or was first seen to lack copies again.
    since: BTreeMap<u32, Time>,
    /// Which of its own are not there, and since when.
    gone: BTreeMap<Digest, Time>,
    /// What its device was told to keep, and the number of the last.
    told: Option<(u32, Vec<WantedBackup>)>,
}

impl Machine {
    /// Its device says what is on the disk, whole.
    pub(super) fn keeps_backups(&mut self, has: BTreeSet<Digest>) {
        self.backups.gone.retain(|digest, _| !has.contains(digest));
        self.backups.has = Some(has);
    }

    /// Has its device keep what this machine is to keep, and says what it does.
    pub(super) fn keep_backups(
        &mut self,
        now: Time,
        wants: &mut Wants,
        due: &mut Option<(Time, &'static str)>,
        effects: &mut Effects,
    ) {
        let (ledger, me) = (self.follow.ledger(), self.identity.machine());
        if ledger.ready().is_none() || ledger.member(me).is_none() {
            return;
        }
        // With it etcd begins here, however long that takes.
        let begins = self.durable.rebuilt < ledger.epoch().number && ledger.epoch().by == me;
        let begins_with = ledger.restored_from().filter(|_| begins);
        let lacking: BTreeSet<u32> =
            ledger.backups().iter().filter(|kept| kept.lacks_copies()).map(|kept| kept.backup.number).collect();
        self.backups.since.retain(|number, _| lacking.contains(number));
        let (mut wanted, mut lost) = (Vec::new(), Vec::new());
        for kept in ledger.backups() {
            let (number, digest) = (kept.backup.number, kept.backup.digest);
            let mine = kept.by.contains(&me);
            let since = kept.lacks_copies().then(|| *self.backups.since.entry(number).or_insert(now));
            if mine {
                if self.backups.has.as_ref().is_some_and(|has| !has.contains(&digest)) {
                    let until = *self.backups.gone.entry(digest).or_insert(now) + GONE_AFTER;
                    lost.push((number, until));
                }
            } else if begins_with != Some(digest) {
                let Some(since) = since else { continue };
                let turn = since + TURN * self.rank(kept);
                if now < turn {
                    wake_by(due, turn, "a backup that may want another copy");
                    continue;
                }
                if planted("backup-kept-unread") || self.backups.has.as_ref().is_some_and(|has| has.contains(&digest)) {
                    wants.want(Entry::BackupKept { number, machine: me });
                }
            }
            let from = kept.by.iter().copied().filter(|by| *by != me).collect();
            wanted.push(WantedBackup { number, digest, bytes: kept.backup.bytes, from });
        }
        // A copy of its own that is gone, and does not come again, is not counted any more: another machine keeps one then.
        for (number, until) in lost {
            if until <= now {
                wants.want(Entry::BackupGone { number, machine: me });
            } else {
                wake_by(due, until, "a backup that is gone here");
            }
        }
        // Before the first there is nothing to say.
        let told = (ledger.last_backup(), wanted);
        if told.0 > 0 && self.backups.told.as_ref() != Some(&told) {
            effects.push(Effect::KeepBackups { last: told.0, wanted: told.1.clone() });
            self.backups.told = Some(told);
        }
    }

    /// How many turns it waits: none if it is among the nearest of those that are here, as many as copies are lacking.
    fn rank(&self, kept: &KeptBackup) -> u32 {
        let me = self.identity.machine();
        let others = self.follow.ledger().members().keys().filter(|other| **other != me && !kept.by.contains(other));
        let own = distance(kept.backup.digest, me);
        let nearer =
            others.filter(|other| self.roster.is_alive(**other) && distance(kept.backup.digest, **other) < own);
        let lacking = (kept.backup.copies as usize).saturating_sub(kept.by.len());
        u32::try_from((nearer.count() + 1).saturating_sub(lacking)).unwrap_or(u32::MAX).min(RANK_MAX)
    }

    /// What people should know of them.
    pub(super) fn explain_backups(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        if let Some((times, why)) = self.lead.backup_failure() {
            let times = if times == 1 { String::new() } else { format!(" ({times} times in a row)") };
            add(Topic::Backup, format!("no backup could be taken here{times}: {why}; it is tried again"), &[self.id()]);
        }
        let ledger = self.follow.ledger();
        for kept in ledger.backups() {
            let (number, me) = (kept.backup.number, self.id());
            let machines = ledger.members().len().min(kept.backup.copies as usize);
            let since = self.backups.since.get(&number).filter(|since| now.since(**since) >= TELL_AFTER);
            if kept.by.len() < machines && since.is_some() {
                let by: Vec<MachineId> = kept.by.iter().copied().collect();
                let text = format!("backup {number} is on {} machines, and is to be on {machines}", by.len());
                add(Topic::Backup, text, &by);
            }
            let gone = self.backups.gone.get(&kept.backup.digest);
            if kept.by.contains(&me) && gone.is_some_and(|since| now.since(*since) >= GONE_TOLD) {
                let text = format!(
                    "backup {number} is gone from this machine's disk: it is fetched again, if another machine has it"
                );
                add(Topic::Backup, text, &[me]);
            }
        }
    }
}

/// How near a machine is to a backup: any order that all machines have in common, and that spreads the copies.
fn distance(digest: Digest, machine: MachineId) -> [u8; 32] {
    std::array::from_fn(|at| digest.0[at] ^ machine.0[at])
}

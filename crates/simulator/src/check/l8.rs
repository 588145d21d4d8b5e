//! L8: a backup comes to as many machines as the image says, and a machine whose Node it does not have registers again. Looked at when a run ends, by
//! what lies on the disks.

use muster_wire::Backup;

use super::Verdict;
use crate::truth::Truth;
use crate::world::{At, Host, Power, World};

/// So long after heal it may take: some machines wait for others that do not come.
const COPIED: At = 150_000_000;

pub(super) fn end(world: &World, truth: &Truth, able: bool) -> Verdict {
    let Some(healed) = world.healed.filter(|_| able && truth.excused.is_empty() && truth.damaged.is_empty()) else {
        return Ok(());
    };
    let late = |since: At| world.now >= since.max(healed) + COPIED;
    let members: Vec<_> = truth.book.members().collect();
    let on = world.expected().filter(|host| host.power == Power::On && members.contains(&host.me));
    let on: Vec<_> = on.map(|host| host.slot).collect();
    // Whoever joined has a Node, whatever etcd was restored from.
    let joined = on.iter().map(|slot| &world.hosts[*slot as usize]).filter(|host| truth.joined.contains(&host.me));
    let registered = |host: &&Host| world.has_node(host.slot);
    if let Some(lost) = joined.into_iter().find(|host| late(healed) && !registered(host)) {
        return Err(format!("{} has joined, and has no Node in Kubernetes", lost.me));
    }
    // The last that has had its time, if it is kept still.
    let kept = |backup: &Backup| truth.book.keeps(backup.number);
    let last = truth.backups.iter().rev().find(|(backup, at)| late(*at) && kept(backup));
    let Some((backup, _)) = last else { return Ok(()) };
    // A copy on a machine that does not run counts for nothing here, and for one in the ledger.
    let away = members.len() - on.len();
    let has = on.iter().filter(|slot| world.backups(**slot).contains(&backup.digest)).count();
    let wanted = (backup.copies as usize).min(members.len());
    match has + away >= wanted {
        true => Ok(()),
        false => Err(format!("backup {} is on {has} machines, and is to be on {wanted}", backup.number)),
    }
}

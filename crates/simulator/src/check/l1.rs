//! L1: one cluster, every admitted machine joined.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::{Phase, Time};
use muster_wire::MachineId;

use crate::truth::Truth;
use crate::world::{Cluster, Power, Slot, World};

/// Whether everyone follows one charter.
pub(super) fn chartered(world: &World) -> Result<(), String> {
    let mut charters = BTreeSet::new();
    let mut without = Vec::new();
    for host in world.expected() {
        match world.machine(host.slot).and_then(|machine| machine.charter()) {
            Some(certificate) => drop(charters.insert(certificate.charter().id)),
            None => without.push(host.slot),
        }
    }
    match (without.len(), charters.len()) {
        (0, 1) => Ok(()),
        (0, 0) => Err("no machine is left".into()),
        (0, many) => Err(format!("{many} charters are followed")),
        (count, _) => Err(format!("{count} machines follow no charter: {}", stuck(world, &without))),
    }
}

/// Whether everyone is in the one Kubernetes cluster and Ready.
pub(super) fn joined(world: &World, truth: &Truth) -> Result<(), String> {
    chartered(world)?;
    let not_ready: Vec<Slot> =
        world.expected().map(|host| host.slot).filter(|slot| world.phase(*slot) != Some(Phase::Ready)).collect();
    if !not_ready.is_empty() {
        return Err(format!("{} machines are not Ready: {}", not_ready.len(), stuck(world, &not_ready)));
    }
    for host in world.expected() {
        let cluster = host.kube.cluster.map(|cluster| world.site.clusters[cluster].attempt);
        if cluster != truth.ready || !host.kube.ready {
            return Err(format!(
                "machine {} says Ready, but kubeadm left it in what attempt {cluster:?} made, Node Ready: {}",
                host.slot, host.kube.ready
            ));
        }
    }
    applied(world, truth)
}

/// Whether somebody has applied all objects of the manifests.
fn applied(world: &World, truth: &Truth) -> Result<(), String> {
    let wanted = world.scenario.image.manifests;
    let made = world.expected().find_map(|host| host.kube.cluster).map(|cluster| &world.site.clusters[cluster]);
    let made = made.filter(|cluster| Some(cluster.attempt) == truth.ready);
    let applied = made.map_or(0, |cluster| cluster.manifests.len() as u32);
    if applied < wanted { Err(format!("{applied} of {wanted} objects of the manifests are applied")) } else { Ok(()) }
}

/// Whether another machine than the one that made the cluster applied some of them.
pub(super) fn applied_by_another(world: &World) -> bool {
    let by_another = |cluster: &Cluster| {
        let maker = world.slot_of(cluster.machine);
        cluster.manifests.values().any(|(slot, _)| Some(*slot) != maker)
    };
    world.site.clusters.iter().any(by_another)
}

/// The same for what needs etcd as well: where it lost its majority with its disks only a person can have the cluster rebuilt.
pub(super) fn able_with_etcd(world: &World, truth: &Truth) -> Result<(), String> {
    able(world, truth)?;
    etcd_lost(world, truth).map_or(Ok(()), Err)
}

fn etcd_lost(world: &World, truth: &Truth) -> Option<String> {
    let voters = world.etcd_voters(truth.ready?)?;
    let gone = |slot: &&Slot| truth.etcd_of.get(*slot).is_some_and(|machine| truth.emptied.contains(machine));
    let lost = voters.iter().filter(gone).count();
    let left = voters.len() - lost;
    (lost > 0 && left * 2 <= voters.len())
        .then(|| format!("{lost} of {} members of etcd lost their disks", voters.len()))
}

/// Who votes in Raft, as it was led last; none without a charter.
pub(super) fn voters(world: &World, truth: &Truth) -> Option<Vec<MachineId>> {
    let charter = world.expected().filter_map(|host| world.machine(host.slot)).find_map(|machine| machine.charter());
    // Voters of the charter that were removed have been replaced, if enough others were left to agree to it.
    let now = truth.leader.and_then(|leader| world.slot_of(leader)).and_then(|leader| world.raft_members(leader));
    let now = now.filter(|members| !members.is_empty()).map(|members| members.into_iter().collect());
    // Where nobody's Raft runs that could tell: all of the control planes are a majority of whoever they made a voter.
    let alive = |machine: MachineId| world.slot_of(machine).is_some_and(|slot| *world.power(slot) == Power::On);
    let planes = &truth.control_planes;
    let whole = truth.ready.is_some() && planes.iter().all(|plane| alive(*plane));
    let now = now.or_else(|| whole.then(|| planes.iter().copied().collect()));
    charter.map(|certificate| now.unwrap_or_else(|| certificate.charter().voters.clone()))
}

/// Whether enough is left for it: T founders before the charter, a majority of the voters after it.
pub(super) fn able(world: &World, truth: &Truth) -> Result<(), String> {
    if truth.two_charters {
        return Err("two charters were founded, outside of what is assumed".into());
    }
    if truth.history_lost {
        return Err("a voter lost its records, and Raft went on from it".into());
    }
    // Whoever comes only when the ledger has risen beyond its image is not taken in, as it should be.
    let level = truth.book.level();
    let admitted = |machine: MachineId| truth.book.members().any(|member| member == machine);
    if let Some(old) = world.expected().find(|host| host.level < level && !admitted(host.me)) {
        return Err(format!(
            "machine {} knows level {} alone, and came when the ledger was at {level}",
            old.slot, old.level
        ));
    }
    let alive: BTreeSet<MachineId> =
        world.expected().filter(|host| *world.power(host.slot) == Power::On).map(|host| host.me).collect();
    match voters(world, truth) {
        Some(voters) => {
            let left = voters.iter().filter(|voter| alive.contains(voter) && !truth.excused.contains(voter)).count();
            if left * 2 > voters.len() { Ok(()) } else { Err(format!("{left} of {} voters are left", voters.len())) }
        }
        None if alive.len() < truth.quorum => {
            Err(format!("{} machines are left, founding needs {}", alive.len(), truth.quorum))
        }
        None if !truth.excused.is_empty() => Err("founding halts: a disk was copied, or forgot".into()),
        None if world.other_images() => Err("founding halts: machines of another image are there".into()),
        None if truth.identities() >= 2 * truth.quorum => {
            Err(format!("founding halts: {} identities were seen", truth.identities()))
        }
        None => Ok(()),
    }
}

/// Why these machines do not go on, in their own words: phases, and one machine's reasons.
fn stuck(world: &World, slots: &[Slot]) -> String {
    let mut phases: BTreeMap<String, u32> = BTreeMap::new();
    let mut reasons = String::new();
    for slot in slots {
        let Some(machine) = world.machine(*slot) else {
            *phases.entry("not running".into()).or_default() += 1;
            continue;
        };
        *phases.entry(machine.phase().word().into()).or_default() += 1;
        if reasons.is_empty() {
            let status = machine.status(world.shown(*slot).unwrap_or(Time(0)));
            let waiting: Vec<String> = status.waiting.iter().map(|reason| reason.text.clone()).collect();
            reasons = format!("; machine {slot}: {}", waiting.join("; "));
        }
    }
    let phases: Vec<String> = phases.into_iter().map(|(phase, count)| format!("{count} {phase}")).collect();
    format!("{}{reasons}", phases.join(", "))
}

//! L6: who is wished away leaves, and a control plane that stays dead has its seat taken by a worker. Looked at when a run ends: by
//! what runs, and by the entries that were committed.

use std::collections::{BTreeMap, BTreeSet};

use muster_wire::MachineId;

use crate::scenario::{Scenario, Sort};
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::{At, Host, Power, Slot, World};

/// So long after heal a wished machine has left: a join that is under way, a drain, and two turns.
const LEAVES: At = 150_000_000;

/// So long after its time a dead control plane is replaced.
const REPLACED: At = 180_000_000;

/// Remembers who was wished away, and since when identities do not run.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    replace_after: Option<At>,
    since: Option<At>,
    stopped: BTreeMap<MachineId, At>,
    /// When identities were removed.
    removed: BTreeMap<MachineId, At>,
    /// A budget holds something to the end, or nobody may be drained.
    held: bool,
}

impl Leaves {
    pub(super) fn begin(&mut self, scenario: &Scenario) {
        self.replace_after = scenario.image.replace_after_s.map(|seconds| (seconds * 1e6) as At);
    }

    pub(super) fn see(&mut self, now: At, seen: &Seen<'_>, truth: &Truth) {
        match seen {
            Seen::Applied { .. } => {
                self.since = truth.book.leaving().map(|_| self.since.unwrap_or(now));
                for machine in &truth.removed {
                    self.removed.entry(*machine).or_insert(now);
                }
            }
            Seen::Stopped { slot } => self.stopped.extend(truth.identity.get(slot).map(|machine| (*machine, now))),
            Seen::Booting { machine, .. } => drop(self.stopped.remove(machine)),
            Seen::FaultBegins { fault, .. } => self.held |= fault.kind == Sort::Budget,
            _ => {}
        }
    }

    pub(super) fn end(&self, world: &World, truth: &Truth, able: bool) -> Result<(), String> {
        // What takes a vote away may need it: who goes before leaves a majority behind that can never be.
        let removed_long_ago = |machine: &MachineId, healed: At| {
            self.removed.get(machine).is_some_and(|at| world.now >= healed.max(*at) + LEAVES)
        };
        if let Some(healed) = world.healed.filter(|_| truth.excused.is_empty() && truth.damaged.is_empty()) {
            // Whoever was removed itself knows what was.
            let on = |slot: &Slot| {
                let host = &world.hosts[*slot as usize];
                host.power == Power::On && !truth.removed.contains(&host.me)
            };
            let voting = world.image_slots().filter(on).filter_map(|slot| Some((slot, world.raft_members(slot)?)));
            let gone =
                |voters: &BTreeSet<MachineId>| voters.iter().find(|voter| removed_long_ago(voter, healed)).copied();
            if let Some((slot, gone)) = voting.into_iter().find_map(|(slot, voters)| Some((slot, gone(&voters)?))) {
                return Err(format!("{gone} was removed, and votes in the Raft of machine {slot} still"));
            }
        }
        let Some(healed) = world.healed.filter(|_| able && truth.excused.is_empty() && truth.damaged.is_empty()) else {
            return Ok(());
        };
        let all_run = world.image_slots().all(|slot| *world.power(slot) == Power::On);
        if let (Some((machine, _)), Some(since)) = (truth.book.leaving(), self.since)
            && world.now >= since.max(healed) + LEAVES
            && all_run
        {
            return Err(format!(
                "{machine} was wished away {} s ago, and is still a member",
                (world.now - since) / 1_000_000
            ));
        }
        let late = |machine: &MachineId| removed_long_ago(machine, healed);
        let left = |host: &&Host| host.power == Power::On && (host.kube.cluster.is_some() || host.kube.dirty);
        if let Some(host) = world.hosts.iter().filter(left).find(|host| late(&host.me)) {
            return Err(format!("{} was removed, and what Kubernetes made of it is still there", host.me));
        }
        self.seats(world, truth, healed)
    }

    fn seats(&self, world: &World, truth: &Truth, healed: At) -> Result<(), String> {
        let (Some(after), false) = (self.replace_after, self.held) else { return Ok(()) };
        let runs: BTreeSet<MachineId> =
            world.expected().filter(|host| host.power == Power::On).map(|host| host.me).collect();
        let members: BTreeSet<MachineId> = truth.book.members().collect();
        let most = members.iter().filter(|machine| runs.contains(*machine)).count() * 2 > members.len();
        let worker = truth.book.workers().any(|worker| runs.contains(&worker) && truth.joined.contains(&worker));
        let gone = truth.control_planes.iter().find(|plane| {
            let since = self.stopped.get(*plane).filter(|_| !runs.contains(*plane));
            since.is_some_and(|since| world.now >= since.max(&healed) + after + REPLACED)
        });
        match gone.filter(|_| most && worker) {
            Some(gone) => Err(format!("{gone} is dead for long, is a control plane, and a worker could take its seat")),
            None => Ok(()),
        }
    }
}

//! L5: an idle cluster is quiet, whoever else is on its network, and strangers make nobody hold a sound machine for dead.

use super::liveness::Look;
use crate::scenario::Bounds;
use crate::world::{At, Power, Slot, Strange, World};

/// From Ready to idle: what was still to be told has been told by then.
const SETTLE: At = 15_000_000;
/// For so long a cluster waits for machines that its image counts and that do not come, before it is quiet.
const WAITS_FOR_MISSING: At = 120_000_000;
/// Less time than this shows nothing.
const WINDOW: At = 15_000_000;

/// What every machine had sent when the cluster was idle first.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    from: Option<(At, Vec<u64>, Vec<Strange>)>,
    /// The most strangers that ran at once since then.
    strangers: usize,
    /// In which life each machine was then, and who was held for dead by whom since, though both have run all the time.
    lives: Vec<u32>,
    buried: Option<(Slot, Slot, At)>,
}

impl Quiet {
    pub(super) fn look(&mut self, world: &World, ready_at: Option<At>, _bounds: &Bounds) -> Look {
        let missing = world.expected().count() < world.scenario.image_machines() as usize;
        let settle = if missing { WAITS_FOR_MISSING + SETTLE } else { SETTLE };
        if self.from.is_none() && ready_at.is_some_and(|ready| world.now >= ready + settle) {
            let strange = world.hosts.iter().map(|host| host.strange).collect();
            self.from = Some((world.now, world.hosts.iter().map(|host| host.sent).collect(), strange));
            self.lives = world.hosts.iter().map(|host| host.life).collect();
        }
        if self.from.is_some() {
            self.strangers = self.strangers.max(world.strangers());
            if self.strangers > 0 && self.buried.is_none() {
                self.buried = self.bury(world);
            }
        }
        Look::Pointless("the cluster was not idle for long enough".into())
    }

    /// At the end: whether the busiest machine that is no voter, and the mean of all, stayed within the bound.
    pub(super) fn end(&self, world: &World, bounds: &Bounds) -> Option<Result<At, String>> {
        let (from, sent, strange) = self.from.as_ref()?;
        let window = world.now.saturating_sub(*from);
        if window < WINDOW {
            return None;
        }
        let rate = |slot: Slot| {
            let count = world.hosts[slot as usize].sent.saturating_sub(sent[slot as usize]);
            count as f64 / (window as f64 / 1e6)
        };
        let voters: Vec<Slot> = world.voters().collect();
        let others = world.expected().map(|host| host.slot).filter(|slot| !voters.contains(slot));
        let busiest = others.max_by(|a, b| rate(*a).total_cmp(&rate(*b)));
        if let Some(busiest) = busiest
            && rate(busiest) > bounds.idle_messages_per_s
        {
            return Some(Err(format!(
                "machine {busiest} sends {:.1} messages a second while idle, the bound is {}",
                rate(busiest),
                bounds.idle_messages_per_s
            )));
        }
        if let Some((by, whom, at)) = self.buried {
            let at = at as f64 / 1e6;
            return Some(Err(format!(
                "machine {by} held machine {whom} for dead at {at:.1} s, with strangers about: both ran all the time"
            )));
        }
        if let Err(why) = self.strangers_cost(world, strange, window, bounds) {
            return Some(Err(why));
        }
        Some(Ok(*from))
    }

    /// A machine that holds another for dead, though both have run since the cluster was idle.
    fn bury(&self, world: &World) -> Option<(Slot, Slot, At)> {
        let runs = |slot: Slot| {
            let life = self.lives.get(slot as usize);
            *world.power(slot) == Power::On && life == Some(&world.hosts[slot as usize].life)
        };
        let sound = || world.expected().filter(|host| runs(host.slot));
        let buried = |by: Slot| {
            let machine = world.machine(by)?;
            sound().find(|other| !machine.holds_for_alive(other.me)).map(|other| (by, other.slot, world.now))
        };
        sound().find_map(|host| buried(host.slot))
    }

    /// What strangers cost the busiest machine, voter or not. Their number is theirs; what each of them costs is bounded.
    fn strangers_cost(&self, world: &World, before: &[Strange], window: At, bounds: &Bounds) -> Result<(), String> {
        let each = window as f64 / 1e6 * self.strangers.max(1) as f64;
        for host in world.expected() {
            let (before, now) = (before[host.slot as usize], host.strange);
            let dials = (now.dials - before.dials) as f64 / each;
            let connections = (now.connections - before.connections) as f64 / each;
            let frames = (now.frames - before.frames) as f64 / each;
            if dials > bounds.stranger_dials_per_s || frames > bounds.stranger_frames_per_s {
                return Err(format!(
                    "each of {} strangers costs machine {} {dials:.2} dials, {connections:.2} connections and {frames:.2} frames a \
                     second while it is idle; the bounds are {} dials and {} frames",
                    self.strangers, host.slot, bounds.stranger_dials_per_s, bounds.stranger_frames_per_s
                ));
            }
        }
        Ok(())
    }
}

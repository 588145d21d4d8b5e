//! S10: every queue, cache and message is bounded.

use std::collections::{BTreeMap, VecDeque};

use muster_protocol::{Effect, Step};
use muster_wire::{Attempt, Entry, Frame, limits};

use super::Verdict;
use crate::watch::{Seen, decode};
use crate::world::{At, Slot, World};

/// Most bytes of a machine's durable state: two charters' worth of votes at the largest size, and room.
const DURABLE_BYTES_MAX: usize = 2 << 20;

/// Rosters grow slowly; listing them is not free.
const LOOK_EVERY: u32 = 10;

/// Most attempts at init in ten seconds: each machine's first failure costs nothing, and then the pauses grow.
const CLAIMS_MAX: u32 = 20;

/// Most abandoned attempts that a ledger keeps with their reasons.
const ABANDONED_MAX: usize = 16;

/// Looks at sizes.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// Ten seconds, the attempts at init in them, and the last one.
    claimed: (At, u32, Attempt),
    effects_max: usize,
    roster_max: usize,
    looks: u32,
    /// For every machine, a second and how many frames it sent in it.
    sent: BTreeMap<Slot, (At, usize)>,
    sent_max: usize,
    /// For every machine and step, ten seconds and how often it failed in them.
    failed: BTreeMap<(Slot, &'static str), (At, u32)>,
}

/// Most failures of one step of a machine's own climb in ten seconds: the pause after a failure grows.
const FAILURES_MAX: u32 = 12;

impl Bounds {
    pub(super) fn begin(&mut self, slots: Slot) {
        // One frame to every machine for each of a handful of reasons, twice over, since a machine may wait for its disk
        // while inputs pile up behind it.
        self.effects_max = slots as usize * 16 + 1_024;
        // A handful of reasons to write to everyone within a second, each tried a few times, and Raft's calls beside that.
        self.sent_max = slots as usize * 64 + 256;
        self.roster_max = slots as usize * 4 + 64;
    }

    pub(super) fn see(&mut self, now: At, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Livelock { last } => Err(format!("more and more happens at one moment, lastly: {last}")),
            Seen::Sent { slot, machine, frame, bytes, .. } => {
                let (second, count) = self.sent.entry(*slot).or_default();
                if std::mem::replace(second, now / 1_000_000) != now / 1_000_000 {
                    *count = 0;
                }
                *count += 1;
                if *count > self.sent_max {
                    return Err(format!("{machine} sent {count} frames in a second, lastly a {}", frame.kind()));
                }
                let most = match frame {
                    Frame::Swim(_) => limits::SWIM_BYTES_MAX + 64,
                    _ => limits::FRAME_BYTES_MAX,
                };
                if bytes.len() > most {
                    return Err(format!(
                        "{machine} sent a {} of {} bytes, the bound is {most}",
                        frame.kind(),
                        bytes.len()
                    ));
                }
                Ok(())
            }
            // Whoever stops a machine again and again ends its pauses, too.
            Seen::Stopped { slot } => {
                self.failed.retain(|(of, _), _| of != slot);
                Ok(())
            }
            Seen::StepEnded { slot, step, result: Err(_) } if !of_the_leader(step) => {
                let (begun, count) = self.failed.entry((*slot, step.name())).or_default();
                if std::mem::replace(begun, now / 10_000_000) != now / 10_000_000 {
                    *count = 0;
                }
                *count += 1;
                if *count > FAILURES_MAX {
                    return Err(format!("machine {slot} tries {} again and again without a pause", step.name()));
                }
                Ok(())
            }
            Seen::Applied { entry, .. } => match decode(entry) {
                Some(Entry::InitClaimed { attempt, .. }) if attempt > self.claimed.2 => {
                    let count = if self.claimed.0 == now / 10_000_000 { self.claimed.1 + 1 } else { 1 };
                    self.claimed = (now / 10_000_000, count, attempt);
                    if count > CLAIMS_MAX {
                        return Err(format!(
                            "init is claimed {count} times in ten seconds, lastly as attempt {attempt}"
                        ));
                    }
                    Ok(())
                }
                _ => Ok(()),
            },
            Seen::Persisted { machine, durable, .. } => {
                let bytes = durable.encode().len();
                if bytes > DURABLE_BYTES_MAX {
                    return Err(format!("{machine} keeps {bytes} bytes on disk, the bound is {DURABLE_BYTES_MAX}"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn after(&self, slot: Slot, effects: &VecDeque<Effect>) -> Verdict {
        if effects.len() > self.effects_max {
            return Err(format!(
                "machine {slot} has {} effects waiting, the bound is {}",
                effects.len(),
                self.effects_max
            ));
        }
        Ok(())
    }

    pub(super) fn look(&mut self, world: &World) -> Verdict {
        self.looks += 1;
        if !self.looks.is_multiple_of(LOOK_EVERY) {
            return Ok(());
        }
        for slot in 0..world.slots() {
            let Some(machine) = world.machine(slot) else { continue };
            let abandoned = machine.ledger().abandoned().len();
            if abandoned > ABANDONED_MAX {
                return Err(format!("the ledger of machine {slot} keeps {abandoned} abandoned attempts"));
            }
            let roster = machine.roster_alive_count();
            if roster > self.roster_max {
                return Err(format!("machine {slot} holds {roster} machines alive, the bound is {}", self.roster_max));
            }
        }
        Ok(())
    }
}

/// Steps that are done for other machines, many at a time, or for the cluster, beside a machine's own.
fn of_the_leader(step: &Step) -> bool {
    matches!(
        step,
        Step::IssueTicket { .. } | Step::SealPki { .. } | Step::DeleteToken { .. } | Step::ApplyManifests { .. }
    )
}

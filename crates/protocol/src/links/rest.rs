//! Machines that are left alone for a while: those this machine refuses, and those that close what was just opened, as one does that
//! refuses this machine. Without this, one of two would dial as fast as the other hangs up, for as long as both live.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_wire::MachineId;

use crate::Time;

/// How long a refused machine is left alone.
pub const REFUSED_FOR: Duration = Duration::from_secs(300);

/// How long one is that is refused for its image: whoever had the image accepted waits for this.
pub const IMAGE_REFUSED_FOR: Duration = Duration::from_secs(120);

/// How long one is left alone that sent too much that is no frame.
pub const OFFENDER_FOR: Duration = Duration::from_secs(30);

/// A connection that ends sooner than this was not wanted on the other side. Shorter than any that is closed for want of use.
const SHORT: Duration = Duration::from_secs(3);

/// Pause after the first connection of that kind, doubled with each up to the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = REFUSED_FOR;

/// Most machines remembered of each kind; the earliest to come back goes first.
const MACHINES_MAX: usize = 4_096;

/// Whom to leave alone, and until when.
#[derive(Debug, Default)]
pub(super) struct Resting {
    /// Refused by this machine: neither dialled nor heard.
    refused: BTreeMap<MachineId, Time>,
    /// Hangs up on this machine: not dialled; heard if it dials.
    hanging_up: BTreeMap<MachineId, Pause>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Time,
    length: Duration,
}

impl Resting {
    pub(super) fn refuse(&mut self, machine: MachineId, time: Duration, now: Time) {
        self.refused.retain(|_, until| *until > now);
        make_room(&mut self.refused, |until| *until);
        self.refused.insert(machine, now + time);
    }

    /// A machine's last connection is gone; it stood for so long.
    pub(super) fn left(&mut self, machine: MachineId, stood: Duration, now: Time) {
        let former = self.hanging_up.remove(&machine);
        if stood >= SHORT {
            return;
        }
        make_room(&mut self.hanging_up, |pause| pause.until);
        let length = former.map_or(PAUSE_MIN, |former| (former.length * 2).min(PAUSE_MAX));
        self.hanging_up.insert(machine, Pause { until: now + length, length });
    }

    pub(super) fn is_refused(&self, machine: MachineId, now: Time) -> bool {
        self.refused.get(&machine).is_some_and(|until| *until > now)
    }

    /// Those that are not to be dialled now, or were not a while ago.
    pub(super) fn machines(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.refused.keys().chain(self.hanging_up.keys()).copied()
    }

    /// Whether it is not to be dialled now.
    pub(super) fn rests(&self, machine: MachineId, now: Time) -> bool {
        self.is_refused(machine, now) || self.hanging_up.get(&machine).is_some_and(|pause| pause.until > now)
    }
}

fn make_room<T>(machines: &mut BTreeMap<MachineId, T>, until: impl Fn(&T) -> Time) {
    if machines.len() >= MACHINES_MAX
        && let Some(first) = machines.iter().min_by_key(|(_, rest)| until(rest)).map(|(machine, _)| *machine)
    {
        machines.remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: MachineId = MachineId([1; 32]);

    #[test]
    fn who_hangs_up_is_dialled_ever_less_often() {
        let (mut resting, mut now) = (Resting::default(), Time(1));
        let begun = now;
        let mut dials = 0;
        while now < begun + Duration::from_secs(3_600) {
            if !resting.rests(WHO, now) {
                dials += 1;
                resting.left(WHO, Duration::from_millis(1), now);
            }
            now = now + Duration::from_millis(100);
        }
        assert_eq!(dials, 20, "nine within eight and a half minutes, then one every five minutes");
        assert!(!resting.is_refused(WHO, now), "if it dials, it is heard");
    }

    #[test]
    fn a_connection_that_stood_is_forgiven_everything() {
        let (mut resting, now) = (Resting::default(), Time(1));
        for _ in 0..5 {
            resting.left(WHO, Duration::ZERO, now);
        }
        assert!(resting.rests(WHO, now + PAUSE_MIN * 15));
        resting.left(WHO, SHORT, now);
        assert!(!resting.rests(WHO, now));
        resting.left(WHO, Duration::ZERO, now);
        assert!(!resting.rests(WHO, now + PAUSE_MIN));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut resting, now) = (Resting::default(), Time(1));
        for number in 0..2 * MACHINES_MAX as u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            resting.left(MachineId(id), Duration::ZERO, now);
            resting.refuse(MachineId(id), REFUSED_FOR, now);
        }
        assert_eq!((resting.refused.len(), resting.hanging_up.len()), (MACHINES_MAX, MACHINES_MAX));
    }
}

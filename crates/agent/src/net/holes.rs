//! Ways on which small packets pass and large ones do not (an "MTU hole": a tunnel, bridge or card with a smaller MTU than its
//! neighbours', and nobody who says so). A handshake is small and succeeds; what follows it is never acknowledged, the system
//! gives the connection up, and the next one goes the same way, for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_wire::MachineId;
use tokio::time::Instant;

/// So many connections in a row are no accident.
const ROW_MIN: u32 = 2;

/// A connection that stood longer let something large pass: it would have ended after [`super::swarm::UNACKNOWLEDGED`].
const STANDS: Duration = Duration::from_secs(45);

/// A machine that lost its power is not back sooner than this; behind a hole the next handshake succeeds at once.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// How long after the last such connection people are told.
const TOLD_FOR: Duration = Duration::from_secs(300);

/// Bytes on a connection below which it says nothing of large packets: no link of IPv6 may carry less (RFC 8200, section 5), few of
/// IPv4 do.
pub(super) const LARGE: usize = 1_000;

/// Most machines remembered.
const MACHINES_MAX: usize = 1_024;

#[derive(Debug, Clone, Copy)]
struct Way {
    /// Connections in a row that were given up while bytes on them were not acknowledged.
    row: u32,
    /// When the last of them ended.
    ended: Instant,
    /// Since when one stands.
    stands: Option<Instant>,
}

/// The ways on which a connection was given up. Clones share them: the mesh notes, the shell tells.
#[derive(Clone, Default)]
pub struct Holes(Arc<Mutex<BTreeMap<MachineId, Way>>>);

impl Holes {
    fn ways(&self) -> MutexGuard<'_, BTreeMap<MachineId, Way>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to a machine stands.
    pub(super) fn connected(&self, machine: MachineId, now: Instant) {
        let mut ways = self.ways();
        if let Some(way) = ways.get_mut(&machine) {
            match now.duration_since(way.ended) <= BACK_WITHIN {
                true => way.stands = Some(now),
                false => drop(ways.remove(&machine)),
            }
        }
    }

    /// A machine's connection ended: after how long, and whether the system gave it up with large writes on it. One that ended
    /// otherwise says something if it stood long; else the other side may have given it up first.
    pub(super) fn ended(&self, machine: MachineId, stood: Duration, given_up: bool, now: Instant) {
        let mut ways = self.ways();
        if stood > STANDS {
            ways.remove(&machine);
        } else if given_up {
            ways.retain(|_, way| now.duration_since(way.ended) < TOLD_FOR || way.stands.is_some());
            let row = match ways.get(&machine) {
                // There were two, and they end together.
                Some(way) if way.stands.is_none() => return,
                Some(way) => way.row.saturating_add(1),
                None if ways.len() >= MACHINES_MAX => return,
                None => 1,
            };
            ways.insert(machine, Way { row, ended: now, stands: None });
        }
    }

    /// The machines to which there is such a way, and how many connections in a row say so.
    pub fn list(&self) -> Vec<(MachineId, u32)> {
        self.list_at(Instant::now())
    }

    fn list_at(&self, now: Instant) -> Vec<(MachineId, u32)> {
        let holds = |way: &Way| match way.stands {
            Some(since) => now.duration_since(since) <= STANDS,
            None => now.duration_since(way.ended) <= TOLD_FOR,
        };
        let ways = self.ways();
        let found = ways.iter().filter(|(_, way)| way.row >= ROW_MIN && holds(way));
        found.map(|(machine, way)| (*machine, way.row)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: MachineId = MachineId([1; 32]);
    const GIVEN_UP: Duration = Duration::from_secs(16);

    /// Connections that are given up one after the other, with so long between them.
    fn row(holes: &Holes, count: u32, pause: Duration) -> Instant {
        let mut now = Instant::now();
        for _ in 0..count {
            holes.connected(WHO, now);
            now += GIVEN_UP;
            holes.ended(WHO, GIVEN_UP, true, now);
            now += pause;
        }
        now
    }

    #[test]
    fn a_way_is_told_of_when_connection_after_connection_is_given_up_and_no_more_when_one_stands() {
        let holes = Holes::default();
        let mut now = row(&holes, 1, Duration::from_secs(1));
        assert_eq!(holes.list_at(now), [], "a machine lost its power");
        now = row(&holes, 3, Duration::from_secs(1)).max(now);
        assert_eq!(holes.list_at(now), [(WHO, 4)]);
        holes.connected(WHO, now);
        assert_eq!(holes.list_at(now + GIVEN_UP), [(WHO, 4)]);
        assert_eq!(holes.list_at(now + STANDS * 2), []);
        holes.ended(WHO, STANDS * 2, true, now + STANDS * 2);
        assert_eq!(holes.list_at(now + STANDS * 2), [], "the other side lost its power after it");
    }

    #[test]
    fn a_machine_that_loses_its_power_again_and_again_is_behind_no_hole() {
        let holes = Holes::default();
        let now = row(&holes, 9, BACK_WITHIN * 2);
        assert_eq!(holes.list_at(now), []);
        // Nor is one that says goodbye, or one of whose connections several were given up together.
        for given_up in [false, true] {
            let holes = Holes::default();
            holes.connected(WHO, now);
            (0..9).for_each(|_| holes.ended(WHO, GIVEN_UP, given_up, now));
            assert_eq!(holes.list_at(now), []);
        }
    }
}

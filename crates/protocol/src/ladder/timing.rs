//! How etcd's heartbeats and elections are timed: as fast as the slowest of the control planes' disks lets them be.
//!
//! A cluster whose etcd leader dies writes nothing until the others have elected one. With etcd's own timing that takes about 2 s,
//! with the fast one 0.3 s (measured with 3.7.3 on three machines). But a member answers nothing and sends no heartbeat while it
//! syncs its log (`raftNode.start` in etcd's server/etcdserver/raft.go), so on a slow disk a short election timeout takes leaders
//! down that are merely writing.

use std::time::Duration;

use super::Context;

/// How an etcd is timed. All members go by the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EtcdTiming {
    /// Where every disk syncs within 3 ms: heartbeats of 50 ms, elections after 300 ms.
    Fast,
    /// Where every disk syncs within 6 ms: heartbeats of 100 ms, elections after 500 ms.
    Steady,
    /// etcd's own, where a disk is slower, or was not measured: heartbeats of 100 ms, elections after 1,000 ms.
    #[default]
    Own,
}

/// Longest typical sync that allows the fast timing: that of an SSD. The longest syncs of one under load were some fifty times its
/// typical one (0.5 ms: of 2,422 by an etcd at work two took longer than 128 ms and none longer than 256), and the longest of them and
/// two lost heartbeats should fit into the time to an election, which etcd draws from its timeout up to twice that.
const FAST_SYNC: Duration = Duration::from_millis(3);

/// The same for the steady one. A disk that turns takes 8 ms and more.
const STEADY_SYNC: Duration = Duration::from_millis(6);

impl EtcdTiming {
    /// For disks of which these are the typical syncs, in microseconds; one of 0 was not measured.
    pub fn of(syncs_us: impl IntoIterator<Item = u32>) -> Self {
        let longest = syncs_us.into_iter().map(|sync| if sync == 0 { u32::MAX } else { sync }).max();
        let longest = Duration::from_micros(longest.unwrap_or(u32::MAX).into());
        match longest {
            sync if sync <= FAST_SYNC => Self::Fast,
            sync if sync <= STEADY_SYNC => Self::Steady,
            _ => Self::Own,
        }
    }

    /// `--heartbeat-interval` and `--election-timeout`, in milliseconds; none where etcd's own hold. etcd wants the second to be
    /// five times the first at least (`Config.Validate` in server/embed/config.go, 3.4 to 3.7).
    pub fn arguments_ms(self) -> Option<(u32, u32)> {
        match self {
            Self::Fast => Some((50, 300)),
            Self::Steady => Some((100, 500)),
            Self::Own => None,
        }
    }
}

impl Context<'_> {
    /// For the control planes that are admitted, as their cards say.
    pub(super) fn timing(&self) -> EtcdTiming {
        let mine = self.mine.card();
        let card = |machine| if machine == self.me { Some(mine) } else { self.roster.card(machine) };
        EtcdTiming::of(self.ledger.control_planes().map(|plane| card(plane).map_or(0, |card| card.running.sync_us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_disk_decides_and_one_that_nobody_measured_is_slow() {
        assert_eq!(EtcdTiming::of([900, 3_000, 10]), EtcdTiming::Fast);
        assert_eq!(EtcdTiming::of([900, 3_001]), EtcdTiming::Steady);
        assert_eq!(EtcdTiming::of([6_001, 900]), EtcdTiming::Own);
        assert_eq!(EtcdTiming::of([900, 0]), EtcdTiming::Own);
        assert_eq!(EtcdTiming::of([]), EtcdTiming::Own);
        for timing in [EtcdTiming::Fast, EtcdTiming::Steady] {
            let (heartbeat, election) = timing.arguments_ms().expect("not etcd's own");
            assert!(election >= heartbeat * 5, "etcd would not start");
        }
    }
}

//! What can be tuned.

use std::time::Duration;

use openraft::SnapshotPolicy;

use crate::device::OpenError;
use crate::rpc::SNAPSHOT_BYTES_MAX;

/// Raft's times and bounds, and what this machine can read.
///
/// The times are long because consensus shares its disk with `kubeadm init`, whose image layers and etcd keep it busy for
/// seconds: every vote and record waits for a sync, and an election that a slow sync caused only makes more of them. They
/// cost little, since after the cluster is formed nothing urgent waits for a leader.
///
/// openraft ticks every one and a half heartbeats: that is how often an idle leader calls each voter. Followers keep a
/// leader for a lease of `election_max` after they last heard it, and call an election at a random time between
/// `election_min` and `election_max` after that. A dead leader is replaced after 4.5 to 7 s with the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Time between heartbeats, and how long a call with records may take.
    pub heartbeat: Duration,
    /// Shortest time to an election after the lease, above `heartbeat`.
    pub election_min: Duration,
    /// Longest time to an election, and the lease; above `election_min`. How long a candidate's call may take.
    pub election_max: Duration,
    /// A snapshot is taken after so many entries.
    pub snapshot_after: u64,
    /// Entries kept in the log though a snapshot has them, for followers that are a little behind.
    pub keep: u64,
    /// How long a proposal may take until it is called unavailable.
    pub propose_deadline: Duration,
    /// How long a change of voters may take.
    pub voters_deadline: Duration,
    /// The highest level of the ledger that this machine knows. It stops where the ledger goes beyond it.
    pub level: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(500),
            election_min: Duration::from_millis(1500),
            election_max: Duration::from_millis(3000),
            snapshot_after: 500,
            keep: 200,
            propose_deadline: Duration::from_secs(10),
            voters_deadline: Duration::from_secs(30),
            level: muster_wire::level::KNOWN,
        }
    }
}

impl Config {
    pub(crate) fn raft(&self, cluster: [u8; 16]) -> Result<openraft::Config, OpenError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: cluster.iter().map(|byte| format!("{byte:02x}")).collect(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_after),
            max_in_snapshot_log_to_keep: self.keep,
            // A follower that is further behind gets the snapshot; it must be more than the time between snapshots.
            replication_lag_threshold: self.snapshot_after.saturating_mul(2),
            // The network adapter cuts snapshots itself.
            snapshot_max_chunk_size: SNAPSHOT_BYTES_MAX as u64,
            ..openraft::Config::default()
        }
        .validate()
        .map_err(|why| OpenError::Config(why.to_string()))
    }
}

//! The intervals that the core goes by.

use std::time::Duration;

/// Intervals. They only ever affect liveness and traffic, never safety.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// How long a roster must stay the same before its lowest machine proposes, when not all machines are there.
    pub settle: Duration,
    /// Longest wait of the others before one of them proposes as well; drawn anew every time.
    pub step_in_max: Duration,
    /// How often what was not answered is sent again.
    pub resend: Duration,
    /// SWIM's period while forming.
    pub swim_forming: Duration,
    /// SWIM's period once everyone is Ready, or nothing was committed for `quiet_after`.
    pub swim_idle: Duration,
    /// How long nothing must have been committed until those who are missing are waited for in quiet.
    pub quiet_after: Duration,
    /// How long a dead initialiser is waited for before its attempt is abandoned.
    pub initialiser_patience: Duration,
    /// Longest an init attempt may take.
    pub init_max: Duration,
    /// How long the holder of an etcd turn may take before it kills its own work.
    pub etcd_turn_max: Duration,
    /// How long a control plane may be dead before a worker takes its seat; none: no worker ever does.
    pub replace_after: Option<Duration>,
    /// How long a ledger poll is held when nothing changed.
    pub poll_hold: Duration,
    /// Which backups of etcd there are to be.
    pub backups: BackupPlan,
}

/// Which backups of etcd there are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupPlan {
    /// How often one is taken; none: never.
    pub every: Option<Duration>,
    /// On how many machines each is, from 1 to [`muster_wire::limits::BACKUP_COPIES_MAX`].
    pub copies: u32,
    /// How many are kept, from 1 to [`muster_wire::limits::BACKUPS_MAX`].
    pub keep: u32,
}

impl Default for BackupPlan {
    fn default() -> Self {
        Self { every: Some(Duration::from_secs(12 * 3600)), copies: 3, keep: 8 }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            settle: seconds(2),
            step_in_max: seconds(3),
            resend: Duration::from_millis(700),
            swim_forming: seconds(1),
            swim_idle: seconds(5),
            quiet_after: seconds(120),
            initialiser_patience: seconds(20),
            init_max: seconds(600),
            etcd_turn_max: seconds(180),
            replace_after: Some(seconds(900)),
            poll_hold: seconds(30),
            backups: BackupPlan::default(),
        }
    }
}

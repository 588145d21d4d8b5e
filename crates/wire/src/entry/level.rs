//! Levels: which formats the ledger may hold.
//!
//! A ledger is at one level, which only rises. Whoever does not know that level cannot read the ledger, and stops.

/// Every cluster begins here.
pub const FOUNDED: u32 = 1;

/// From here on there are wishes, accepted images, and turns to disrupt.
pub const WISHES: u32 = 2;

/// From here on a claim names the control planes that begin etcd together, and who has lost what it had joined with says so.
pub const FOUNDERS: u32 = 3;

/// From here on machines are removed because somebody wished so, and workers become control planes.
pub const LEAVING: u32 = 4;

/// A ledger of this level was rebuilt from what one machine had. It comes with that, and not because all voters know it.
pub const RECOVERY: u32 = 5;

/// From here on there are backups.
pub const BACKUPS: u32 = 6;

/// The highest level that this version knows.
pub const KNOWN: u32 = BACKUPS;

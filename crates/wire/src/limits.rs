//! Every bound of the wire, each with its reason (promise S10).

/// Version of the protocol; a frame with another one is dropped and its sender named.
pub const PROTOCOL_VERSION: u32 = 1;

/// Longest frame in bytes. A full [`crate::frame::Frame::Hello`] with [`CARDS_MAX`] cards of about 400 bytes fits.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Longest part of a report in bytes.
pub const REPORT_PART_BYTES_MAX: usize = 256 << 10;

/// Most parts of a report.
pub const REPORT_PARTS_MAX: u32 = 64;

/// Longest part of a backup in one frame, in bytes.
pub const BACKUP_PART_BYTES_MAX: usize = 256 << 10;

/// Longest sealed backup in bytes: etcd's own limit is 8 GiB, and what is sealed is a little longer.
pub const BACKUP_BYTES_MAX: u64 = 9 << 30;

/// Most backups that a ledger lists.
pub const BACKUPS_MAX: usize = 32;

/// Most machines that keep a copy of a backup.
pub const BACKUP_COPIES_MAX: usize = 16;

/// Most cards in one frame: a bounded sample, the rest comes with gossip.
pub const CARDS_MAX: usize = 256;

/// Most machines that a roster holds; further ones are dropped and counted.
pub const KNOWN_MAX: usize = 20_000;

/// Up to this many known machines a greeting carries the cards of all of them, and a site no larger is a full mesh: every
/// machine keeps a connection to every other one. In a larger one a machine looks for this many connections, makes others
/// when it has something to say, and closes those again that nobody uses.
pub const MESH_FULL: usize = 64;

/// Above this many connections a machine closes those that nobody used for a while: half as many again as it looks for, so
/// that what one machine closes another one does not make again at once.
pub const MESH_CROWDED: usize = MESH_FULL * 3 / 2;

/// Above this many it closes them after a much shorter while, so that there is room when all of a large site want to tell one
/// machine something.
pub const MESH_FILLED: usize = CONNECTIONS_MAX * 3 / 4;

/// Most connections of a machine. A proposer needs one to each machine of a founding quorum.
pub const CONNECTIONS_MAX: usize = 512;

/// Most frames that wait for a connection to one peer while it is being made. What matters is sent again.
pub const DIAL_QUEUE_MAX: usize = 32;

/// Longest signed card in bytes, so that [`CARDS_MAX`] of them fit a frame.
pub const CARD_BYTES_MAX: usize = 2_048;

/// Most addresses on a card: an interface or two with IPv4 and IPv6 each, and room.
pub const ADDRESSES_MAX: usize = 16;

/// Longest text field (names, reasons, versions) in bytes; DNS names have at most 253.
pub const TEXT_BYTES_MAX: usize = 256;

/// Longest ledger entry in bytes: sealed PKI for [`VOTERS_MAX`] control planes at under 16 KiB each.
pub const ENTRY_BYTES_MAX: usize = 256 * 1024;

/// Longest ciphertext sealed to one machine in bytes: a CA set is about 6 KiB with RSA keys.
pub const CIPHERTEXT_BYTES_MAX: usize = 32 * 1024;

/// Most voters of a charter. Raft gains nothing beyond seven; nine is etcd's practical bound as well.
pub const VOTERS_MAX: usize = 9;

/// Largest `machines` in the settings. Votes of a quorum travel in one certificate, 100 bytes each.
pub const MACHINES_MAX: u32 = 10_000;

/// Most entries in one answer to a ledger poll; the follower polls again at once for more.
pub const NEWS_ENTRIES_MAX: usize = 64;

/// Longest SWIM datagram in bytes, under the size at which links begin to swallow frames.
pub const SWIM_BYTES_MAX: usize = 1_400;

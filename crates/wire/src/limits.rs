//! Every bound of the wire, each with its reason (promise S10).

/// Version of the protocol; a frame with another one is dropped and its sender named.
pub const PROTOCOL_VERSION: u32 = 1;

/// Longest frame in bytes. A full [`crate::frame::Frame::Hello`] with [`CARDS_MAX`] cards of about 400 bytes fits.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Most cards in one frame: a bounded sample, the rest comes with gossip.
pub const CARDS_MAX: usize = 256;

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

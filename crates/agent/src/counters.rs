//! What the shell counts: frames, bytes, and what it dropped and why.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use muster_protocol::Dropped;

/// Counters of one agent. Counting never waits for long and never fails.
#[derive(Debug, Default)]
pub struct Counters {
    frames_sent: AtomicU64,
    frames_received: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    dropped: Mutex<BTreeMap<Dropped, u64>>,
}

impl Counters {
    pub(crate) fn sent(&self, bytes: usize) {
        self.frames_sent.fetch_add(1, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.frames_received.fetch_add(1, Ordering::Relaxed);
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self, why: Dropped) {
        if let Ok(mut dropped) = self.dropped.lock() {
            *dropped.entry(why).or_default() += 1;
        }
    }

    /// All counters by name; bytes are those of frames, before encryption and TCP.
    pub fn all(&self) -> BTreeMap<String, u64> {
        let mut all: BTreeMap<String, u64> = BTreeMap::from([
            ("frames_sent".to_owned(), self.frames_sent.load(Ordering::Relaxed)),
            ("frames_received".to_owned(), self.frames_received.load(Ordering::Relaxed)),
            ("bytes_sent".to_owned(), self.bytes_sent.load(Ordering::Relaxed)),
            ("bytes_received".to_owned(), self.bytes_received.load(Ordering::Relaxed)),
        ]);
        if let Ok(dropped) = self.dropped.lock() {
            all.extend(dropped.iter().map(|(why, count)| (format!("dropped: {why}"), *count)));
        }
        all
    }
}

//! A fixed piece of work, of the kinds that a run does. How long it takes says how fast this computer is just now, other
//! programs on it included: what is measured beside it can be compared with what another computer measured.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh3::xxh3_64;

use crate::cost;

/// Turns of the loop: about a fiftieth of a second of a core of 2023.
const TURNS: u64 = 60_000;
/// Values that are kept at once, and the longest of them in bytes: a few MB, more than the caches next to a core.
const KEPT: u64 = 4_096;
const BYTES_MAX: usize = 2_048;

/// Goes through the loop once, and says how long it was on a core.
pub fn once() -> Duration {
    let begun = cost::core_time();
    black_box(work(black_box(TURNS)));
    cost::core_time() - begun
}

/// Makes values, looks them up in a tree, copies and digests them, and frees them: the digest of all.
fn work(turns: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut kept: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut digest = 0u64;
    for turn in 0..turns {
        let mut value = vec![turn as u8; rng.random_range(16..BYTES_MAX)];
        let other = kept.range(rng.random::<u64>()..).next();
        if let Some((_, other)) = other {
            let common = value.len().min(other.len());
            value[..common].copy_from_slice(&other[..common]);
        }
        digest = digest.rotate_left(5) ^ xxh3_64(&value);
        kept.insert(digest, value);
        if kept.len() as u64 > KEPT {
            kept.pop_first();
        }
    }
    digest
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_loop_is_the_same_work_every_time() {
        assert_eq!(super::work(500), super::work(500));
        assert_ne!(super::work(500), super::work(501));
    }
}

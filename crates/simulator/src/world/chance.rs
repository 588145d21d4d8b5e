//! Chance: what is drawn in the order of events, and what depends on names alone.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh3::xxh3_64;

use super::event::At;
use crate::scenario::Range;

/// The run's randomness.
#[derive(Debug)]
pub(crate) struct Chance {
    seed: u64,
    rng: ChaCha8Rng,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The stream that is drawn from in the order of events.
    pub(crate) fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.rng
    }

    /// Whether a thing of this likelihood happens.
    pub(crate) fn happens(&mut self, rate: f64) -> bool {
        rate > 0.0 && self.rng.random_bool(rate.min(1.0))
    }

    /// Microseconds out of a range in units of `unit` microseconds.
    pub(crate) fn draw(&mut self, range: Range, unit: f64) -> At {
        between(range, unit, self.rng.random())
    }

    /// A number that depends on the seed and these names only: leaving a fault out of a run changes nothing else.
    pub(crate) fn fixed(&self, what: &str, a: u64, b: u64) -> u64 {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend_from_slice(&self.seed.to_le_bytes());
        bytes.extend_from_slice(&a.to_le_bytes());
        bytes.extend_from_slice(&b.to_le_bytes());
        bytes.extend_from_slice(what.as_bytes());
        xxh3_64(&bytes)
    }

    /// 32 bytes of the same kind.
    pub(crate) fn fixed_bytes(&self, what: &str, a: u64, b: u64) -> [u8; 32] {
        let mut bytes = [0; 32];
        ChaCha8Rng::seed_from_u64(self.fixed(what, a, b)).fill(&mut bytes);
        bytes
    }

    /// Microseconds out of a range, of the same kind.
    pub(crate) fn fixed_draw(&self, range: Range, unit: f64, what: &str, a: u64, b: u64) -> At {
        between(range, unit, (self.fixed(what, a, b) >> 11) as f64 / (1u64 << 53) as f64)
    }
}

fn between([least, most]: Range, unit: f64, share: f64) -> At {
    ((least + (most - least) * share) * unit) as At
}

/// Microseconds in a millisecond.
pub(crate) const MS: f64 = 1_000.0;
/// Microseconds in a second.
pub(crate) const S: f64 = 1_000_000.0;

/// Seconds as microseconds.
pub(crate) fn seconds(value: f64) -> At {
    (value * S) as At
}

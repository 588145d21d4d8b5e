//! A machine's monotonic clock, which may run too fast or too slow and jump ahead, and never goes back.

use muster_protocol::Time;

use super::event::At;

/// A clock as a function of the world's time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    since: At,
    shown: u64,
    ppm: i64,
}

impl Clock {
    pub(crate) fn new(now: At, shown: u64) -> Self {
        Self { since: now, shown, ppm: 0 }
    }

    /// What it shows at `now`.
    pub(crate) fn show(&self, now: At) -> Time {
        let passed = now.saturating_sub(self.since);
        if self.ppm == 0 {
            return Time(self.shown + passed);
        }
        let passed = i128::from(passed);
        Time(self.shown + (passed + passed * i128::from(self.ppm) / 1_000_000) as u64)
    }

    /// The world's time at which it shows at least `shown`.
    pub(crate) fn when(&self, shown: Time) -> At {
        let left = shown.0.saturating_sub(self.shown);
        if self.ppm == 0 {
            return self.since + left;
        }
        let rate = i128::from(1_000_000 + self.ppm);
        self.since + ((i128::from(left) * 1_000_000 + rate - 1) / rate) as u64 + 1
    }

    /// From `now` on it runs `ppm` parts in a million too fast.
    pub(crate) fn drift(&mut self, now: At, ppm: f64) {
        let shown = self.show(now).0;
        *self = Self { since: now, shown, ppm: (ppm as i64).clamp(-900_000, 10_000_000) };
    }

    /// It jumps ahead.
    pub(crate) fn jump(&mut self, now: At, by: At) {
        let shown = self.show(now).0 + by;
        *self = Self { since: now, shown, ppm: self.ppm };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_awake_when_it_asked_to_be() {
        for ppm in [-500_000.0, -37.0, 0.0, 13.0, 100_000.0] {
            let mut clock = Clock::new(5, 1_000);
            clock.drift(7_777, ppm);
            clock.jump(9_999, 123_456);
            for wanted in [140_000, 200_001, 99_999_999] {
                let at = clock.when(Time(wanted));
                assert!(clock.show(at) >= Time(wanted), "{ppm} {wanted}");
                assert!(clock.show(at.saturating_sub(4)) <= Time(wanted + 10), "{ppm} {wanted}");
            }
        }
    }
}

//! The one question muster asks the wall clock: whether it has been set at all.
//!
//! Nothing of muster's own depends on it. But kubeadm makes certificates that end a year after the clock of the machine
//! that makes them, so an init on a machine that thinks it is 1970 makes a cluster that every other machine refuses, and
//! that ends for good when time is set right.

use std::time::{Duration, SystemTime};

/// 2026-01-01T00:00:00Z, before the first muster: a clock that shows less is not set.
const FIRST: Duration = Duration::from_secs(1_767_225_600);

/// # Errors
/// When the clock cannot be right: why that matters, and what to do.
pub(crate) fn check(now: SystemTime) -> Result<(), String> {
    let shown = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if shown >= FIRST {
        return Ok(());
    }
    Err("this machine's clock is not set, it shows a time before 2026: the certificates that kubeadm makes here would be \
         refused everywhere else. It goes on when the clock is set, by NTP or `date -s`"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_is_told_from_one_that_is_merely_off() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
        for unset in [before, at(0), at(1_767_225_599)] {
            assert!(check(unset).unwrap_err().contains("clock is not set"));
        }
        assert_eq!(check(at(1_767_225_600)), Ok(()));
        assert_eq!(check(at(4_000_000_000)), Ok(()));
    }
}

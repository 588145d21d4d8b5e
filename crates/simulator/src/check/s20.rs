//! S20: no etcd of a cluster that was given up starts again where somebody could say so.

use super::Verdict;
use crate::truth::Truth;
use crate::watch::Seen;

pub(super) fn see(seen: &Seen<'_>, truth: &Truth) -> Verdict {
    match seen {
        Seen::OldEtcdStarts { slot, warned: true } if !truth.damaged.contains(slot) => Err(format!(
            "machine {slot} starts etcd of the cluster that was given up, although one of the cluster that counts is there"
        )),
        _ => Ok(()),
    }
}

//! S8: at most one etcd member is being added at a time.

use super::Verdict;
use crate::watch::Seen;

/// Looks at kubeadm's processes, not at what the ledger says of them.
#[derive(Debug, Default)]
pub(super) struct EtcdTurns;

impl EtcdTurns {
    pub(super) fn see(&mut self, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::EtcdAdding { slot, others } if *others > 0 => {
                Err(format!("machine {slot} adds its etcd member while {others} other is being added"))
            }
            _ => Ok(()),
        }
    }
}

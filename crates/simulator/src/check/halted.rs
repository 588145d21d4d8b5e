//! S1, where its assumption ends: a machine that has said that founding halts takes no part in it until it says otherwise.

use std::collections::BTreeSet;

use muster_wire::Frame;

use super::Verdict;
use crate::watch::Seen;
use crate::world::Slot;

/// Goes by what machines tell people, which they do when they stop and when they go on.
#[derive(Debug, Default)]
pub(super) struct Halted(BTreeSet<Slot>);

impl Halted {
    pub(super) fn see(&mut self, seen: &Seen<'_>) -> Verdict {
        match seen {
            Seen::Notice { slot, notice } if notice.kind == "founding-halted" => drop(self.0.insert(*slot)),
            Seen::Notice { slot, notice } if notice.kind == "founding-goes-on" || notice.kind == "charter" => {
                self.0.remove(slot);
            }
            Seen::Stopped { slot } => drop(self.0.remove(slot)),
            Seen::Said {
                slot,
                machine,
                frame: frame @ (Frame::Prepare(_) | Frame::Promise(_) | Frame::Accept { .. } | Frame::Accepted { .. }),
            } if self.0.contains(slot) => {
                return Err(format!("{machine} says that founding halts, and sends a {}", frame.kind()));
            }
            _ => {}
        }
        Ok(())
    }
}

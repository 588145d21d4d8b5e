//! S6: a machine that was not admitted is in no quorum, holds no ticket and reads no ledger.

use muster_wire::{Entry, Frame};

use super::{Facts, Verdict};
use crate::watch::{Seen, decode};

/// Looks at what leaves and at what is committed.
#[derive(Debug, Default)]
pub(super) struct Admission;

impl Admission {
    pub(super) fn see(&mut self, seen: &Seen<'_>, facts: &Facts) -> Verdict {
        match seen {
            Seen::Sent { machine, to, frame: Frame::LedgerNews(news), .. } => {
                let tells = news.state.is_some() || !news.entries.is_empty();
                if tells && !facts.admitted.contains(to) {
                    return Err(format!("{machine} told {to}, which is not admitted, what is in the ledger"));
                }
                Ok(())
            }
            Seen::Applied { revision, entry, .. } => match decode(entry) {
                Some(Entry::InitClaimed { machine, .. }) if !facts.admitted.contains(&machine) => {
                    Err(format!("entry {revision} lets {machine} run init, which is not admitted"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

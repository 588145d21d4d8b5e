//! A ledger above the level that this machine knows, and machines that keep it from rising.

use muster_wire::MachineId;

use super::Machine;
use crate::words::notices::NoticeKind;
use crate::words::reasons::Topic;
use crate::{Effect, Effects};

impl Machine {
    /// Whether it takes no part in the ledger any more: its identity runs twice, or it cannot read the ledger.
    pub(super) fn stands_still(&self) -> bool {
        self.cloned || self.follow.beyond().is_some()
    }

    /// A machine that cannot read the ledger must not go on with a part of it: it stops once, and says so.
    pub(super) fn stop_if_beyond(&mut self, effects: &mut Effects) {
        if self.told_beyond || self.follow.beyond().is_none() {
            return;
        }
        self.told_beyond = true;
        if self.follow.raft {
            effects.push(Effect::StopRaft);
        }
        effects.notice(NoticeKind::Outgrown, self.beyond_text());
    }

    fn beyond_text(&self) -> String {
        let Some(beyond) = self.follow.beyond() else { return String::new() };
        let name = self.follow.ledger().member(self.id()).map_or("", |member| member.admitted.name.as_str());
        let name = if name.is_empty() { &self.mine.card().hostname } else { name };
        let voter = if self.follow.raft { ", and votes no more" } else { "" };
        format!(
            "{} ({name}) cannot read {}: {}. It follows the ledger no further{voter}; what runs on it goes on. Start it with the \
             newer image, which the other machines run",
            self.id(),
            beyond.what,
            beyond.why,
        )
    }

    /// Why this machine stands still.
    pub(super) fn explain_level(&self, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        if self.follow.beyond().is_some() {
            add(Topic::Level, self.beyond_text(), &[self.id()]);
        }
    }
}

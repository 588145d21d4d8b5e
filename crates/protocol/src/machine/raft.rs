//! Who runs Raft, and since when.

use std::time::Duration;

use muster_wire::Revision;

use super::Machine;
use crate::planted::planted;
use crate::{Effect, Effects, Time};

/// Time given to the other voters to learn of the charter and start their Raft.
const RAFT_HEAD_START: Duration = Duration::from_millis(150);

impl Machine {
    /// Voters run Raft: those of the charter at once, control planes of later when the ledger names them, and at once when they start again.
    pub(super) fn start_raft_if_voter(&mut self, now: Time, effects: &mut Effects) {
        if self.follow.raft || self.cloned || self.is_past() {
            return;
        }
        let me = self.identity.machine();
        let Some(certificate) = &self.durable.charter else { return };
        let charter = certificate.charter();
        let place = charter.voters.iter().position(|voter| *voter == me);
        let later = self.follow.ledger().member(me).is_some_and(|member| {
            member.admitted.role == muster_wire::Role::ControlPlane || planted("worker-runs-raft")
        });
        // Who votes by no charter knows of it from its own store alone: where all of them were switched off, nobody else is there to say so.
        let before =
            self.raft_begun && self.follow.ledger().revision() == Revision::NONE && !planted("later-voters-wait");
        if place.is_none() && !later && !before {
            return;
        }
        self.follow.raft = true;
        effects.push(Effect::StartRaft { charter: Box::new(charter.clone()) });
        // The first voter calls the first election once the others have had time to start theirs: a vote that nobody hears costs a
        // whole election timeout. Were it dead, the others follow one after the other.
        self.election_at = place.map(|place| now + RAFT_HEAD_START + self.tuning.resend * 3 * place as u32);
    }

    pub(super) fn call_first_election(&mut self, now: Time, effects: &mut Effects) {
        if self.follow.leader.is_some() || self.follow.ledger().revision() > Revision::NONE {
            self.election_at = None;
        } else if self.election_at.is_some_and(|due| due <= now) {
            effects.push(Effect::CallElection);
            self.election_at = Some(now + self.tuning.resend * 10);
        }
    }
}

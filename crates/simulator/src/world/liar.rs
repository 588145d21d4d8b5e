//! A voter that answers two ways: it promises and votes for whatever it is asked, and tells of nothing that it did before.
//! That is outside of what the protocol assumes; what is looked at is that nothing else gives way.

use muster_wire::charter::charter_hash;
use muster_wire::{Frame, Identity, MachineId, Promise, Vote};

use super::World;
use super::event::Slot;
use crate::scenario::Sort;

impl World {
    /// Answers a proposer in the machine's name, before the machine does and without its knowledge.
    pub(super) fn answer_two_ways(&mut self, slot: Slot, from: MachineId, frame: &Frame) {
        let lies = self
            .active
            .iter()
            .any(|fault| self.plan[fault.index].kind == Sort::TwoFaced && fault.targets.contains(&slot));
        if !lies || !self.hosts[slot as usize].up() {
            return;
        }
        if matches!(frame, Frame::Prepare(_) | Frame::Accept { .. }) {
            self.took_on(slot, &[Sort::TwoFaced]);
        }
        match frame {
            Frame::Prepare(ballot) => {
                let promise = Promise { ballot: *ballot, accepted: None, cards: Vec::new() };
                self.send(slot, from, Frame::Promise(promise));
            }
            Frame::Accept { ballot, charter } => {
                let identity = Identity::from_seed(&self.hosts[slot as usize].identity_seed);
                let cluster = self.cluster_name(slot).to_owned();
                let vote = Vote::sign(&identity, &cluster, *ballot, charter_hash(charter));
                self.send(slot, from, Frame::Accepted { cluster, vote });
            }
            _ => {}
        }
    }
}

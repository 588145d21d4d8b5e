//! An ordered log, until the real one is here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use muster_protocol::Input;
use muster_wire::frame::ProposalOutcome;
use muster_wire::{Charter, Entry, MachineId};

use super::World;
use super::event::{Event, Slot};
use crate::watch::Seen;

#[derive(Debug)]
struct Log {
    id: [u8; 16],
    voters: Vec<MachineId>,
    started: BTreeMap<Slot, (u32, usize)>,
    entries: Vec<Bytes>,
    leader: Option<Slot>,
    term: u64,
    initialised: bool,
    answers: Vec<(Slot, u32, u64, u64)>,
}

#[derive(Debug, Default)]
pub(crate) struct Logs {
    logs: Vec<Log>,
    of: BTreeMap<Slot, usize>,
}

impl World {
    pub(super) fn raft_start(&mut self, slot: Slot, charter: &Charter) {
        let index = match self.logs.logs.iter().position(|log| log.id == charter.id) {
            Some(index) => index,
            None => {
                self.logs.logs.push(Log {
                    id: charter.id,
                    voters: charter.voters.clone(),
                    started: BTreeMap::new(),
                    entries: Vec::new(),
                    leader: None,
                    term: 0,
                    initialised: false,
                    answers: Vec::new(),
                });
                self.events.push(self.now + 200_000, Event::RaftTimer(self.logs.logs.len() as u64 - 1));
                self.logs.logs.len() - 1
            }
        };
        let life = self.hosts[slot as usize].life;
        self.logs.logs[index].started.insert(slot, (life, 0));
        self.logs.of.insert(slot, index);
    }

    pub(super) fn raft_initialize(&mut self, slot: Slot) {
        if let Some(index) = self.logs.of.get(&slot) {
            self.logs.logs[*index].initialised = true;
        }
    }

    pub(super) fn raft_voters(&mut self, _slot: Slot, _voters: BTreeSet<MachineId>) {}

    pub(super) fn raft_stops(&mut self, slot: Slot) {
        if let Some(index) = self.logs.of.remove(&slot) {
            self.logs.logs[index].started.remove(&slot);
        }
    }

    pub(super) fn raft_wiped(&mut self, _slot: Slot) {}
    pub(super) fn raft_restore(&mut self, _slot: Slot) {}
    pub(super) fn raft_resumes(&mut self, _slot: Slot) {}
    pub(super) fn raft_called(&mut self, _to: Slot, _from: MachineId, _call: u64, _body: Bytes) {}
    pub(super) fn raft_answered(&mut self, _to: Slot, _from: MachineId, _call: u64, _body: Bytes) {}

    pub(super) fn raft_timer(&mut self, timer: u64) {
        let index = timer as u32 as usize;
        if timer >> 32 == 0 {
            self.events.push(self.now + 200_000, Event::RaftTimer(timer));
        }
        let log = &self.logs.logs[index];
        if !log.initialised {
            return;
        }
        let reach = |a: Slot, b: Slot| {
            self.hosts[b as usize].up() && !self.net.blocked(a, b) && !self.net.blocked(b, a)
        };
        let able = |a: Slot| {
            let count = log.started.keys().filter(|b| reach(a, **b)).count();
            self.hosts[a as usize].up() && count * 2 > log.voters.len()
        };
        let kept = log.leader.filter(|leader| log.started.contains_key(leader) && able(*leader));
        let leader = kept.or_else(|| log.started.keys().copied().find(|slot| able(*slot)));
        if leader != log.leader {
            let log = &mut self.logs.logs[index];
            log.leader = leader;
            if let Some(leader) = leader {
                log.term += 1;
                let term = log.term;
                let id = self.hosts[leader as usize].me;
                let started: Vec<Slot> = self.logs.logs[index].started.keys().copied().collect();
                self.see(Seen::Leads { slot: leader, machine: id, term });
                for slot in started {
                    self.feed(slot, Input::Leading { term, leader: Some(id) });
                }
            }
        }
        if let Some(leader) = leader {
            let started: Vec<Slot> = self.logs.logs[index].started.keys().copied().collect();
            for slot in started {
                if self.hosts[slot as usize].up() && (slot == leader || !self.net.blocked(leader, slot)) {
                    self.bring_up(index, slot);
                }
            }
            for (slot, life, call, revision) in std::mem::take(&mut self.logs.logs[index].answers) {
                if self.hosts[slot as usize].life == life {
                    self.feed(slot, Input::Proposed { call, outcome: ProposalOutcome::Applied(revision) });
                }
            }
        }
    }

    fn bring_up(&mut self, index: usize, slot: Slot) {
        loop {
            let log = &mut self.logs.logs[index];
            let Some((life, applied)) = log.started.get_mut(&slot) else { return };
            if *life != self.hosts[slot as usize].life || *applied >= log.entries.len() {
                return;
            }
            let entry = log.entries[*applied].clone();
            *applied += 1;
            let revision = *applied as u64;
            if revision == 1 {
                let (term, leader) = (log.term, log.leader.map(|leader| self.hosts[leader as usize].me));
                self.feed(slot, Input::Leading { term, leader });
            }
            let machine = self.hosts[slot as usize].me;
            self.see(Seen::Applied { slot, machine, revision, entry: &entry });
            self.feed(slot, Input::Applied { revision, entry });
        }
    }

    pub(super) fn raft_propose(&mut self, slot: Slot, call: u64, entry: Entry) {
        let Some(index) = self.logs.of.get(&slot).copied() else {
            return self.feed(slot, Input::Proposed { call, outcome: ProposalOutcome::NotLeading(None) });
        };
        let log = &mut self.logs.logs[index];
        if log.leader != Some(slot) {
            let leader = log.leader.map(|leader| self.hosts[leader as usize].me);
            return self.feed(slot, Input::Proposed { call, outcome: ProposalOutcome::NotLeading(leader) });
        }
        log.entries.push(entry.encode());
        let revision = log.entries.len() as u64;
        log.answers.push((slot, self.hosts[slot as usize].life, call, revision));
        self.events.push(self.now + 3_000, Event::RaftTimer(1 << 32 | index as u64));
    }
}

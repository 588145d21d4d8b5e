//! Entries that the ledger's rules must refuse, whoever proposes them: what a leader of yesterday, or a broken one, may hand to
//! Raft. They are refused by the rules as the checkers have them, now and at any later time, so the sound code stays as it is.

use muster_wire::{Digest, Entry, EtcdTurn, MachineId};

use super::World;
use super::event::Slot;

/// How often an entry is looked for that must be refused.
const TRIES: u64 = 8;

impl World {
    /// Hands one to the Raft of this machine.
    pub(super) fn propose_stray(&mut self, slot: Slot) {
        if self.judged_apart(slot) {
            return;
        }
        let facts = &self.watch.checks.facts;
        let stray = (0..TRIES).find_map(|nth| {
            let draw = |what: &str| self.chance.fixed(what, u64::from(slot) << 8 | nth, self.now);
            let pick = facts.history.len().checked_sub(1)? as u64;
            let entry = &facts.history[(draw("stray") % (pick + 1)) as usize];
            let workers: Vec<MachineId> = facts.book.workers().collect();
            let worker = workers.get(draw("worker") as usize % workers.len().max(1)).copied();
            let stray = changed(entry, draw("change"), facts.book.numbers(), worker, facts.ready.is_some())?;
            facts.book.refuses(&stray).then_some(stray)
        });
        if let Some(stray) = stray {
            self.raft_propose_stray(slot, &stray);
        }
    }
}

/// The entry with something wrong about it. What is wrong must stay wrong, since a proposal may be committed much later: numbers
/// only ever grow, so one that is over is over.
fn changed(
    entry: &Entry,
    draw: u64,
    (attempts, turns): (u32, u32),
    worker: Option<MachineId>,
    ready: bool,
) -> Option<Entry> {
    let over = |last: u32| if last == 0 { 0 } else { (draw >> 8) as u32 % (last + 1) };
    let ca = Digest::of("a CA of nobody", &[]);
    let as_it_was = draw.is_multiple_of(4);
    Some(match entry {
        _ if as_it_was => entry.clone(),
        Entry::Admitted(admitted) => {
            let mut admitted = admitted.clone();
            admitted.address = "10.255.255.255".to_owned();
            Entry::Admitted(admitted)
        }
        Entry::Removed { .. } | Entry::Joined { .. } => entry.clone(),
        Entry::InitClaimed { .. } => match worker {
            Some(machine) if draw.is_multiple_of(3) => Entry::InitClaimed { attempt: attempts + 1, machine },
            _ => Entry::InitClaimed { attempt: attempts + u32::from(ready), machine: machine_of(entry)? },
        },
        Entry::PkiSealed { attempt, sealed, .. } => {
            Entry::PkiSealed { attempt: *attempt, ca_hash: ca, sealed: sealed.clone() }
        }
        Entry::InitReady { ca_hash, endpoints, tokens, .. } => Entry::InitReady {
            attempt: over(attempts),
            ca_hash: if draw.is_multiple_of(3) { ca } else { *ca_hash },
            endpoints: endpoints.clone(),
            tokens: tokens.clone(),
        },
        Entry::InitAbandoned { why, .. } => Entry::InitAbandoned { attempt: over(attempts), why: why.clone() },
        Entry::Ticket { machine, ciphertext, .. } => {
            Entry::Ticket { machine: *machine, attempt: over(attempts), ciphertext: ciphertext.clone() }
        }
        Entry::EtcdJoin { machine, .. } => match (draw >> 4) % 4 {
            0 => Entry::EtcdJoin { machine: worker?, turn: EtcdTurn::Started, number: turns + 1 },
            1 => Entry::EtcdJoin { machine: *machine, turn: EtcdTurn::Started, number: over(turns) },
            2 => Entry::EtcdJoin { machine: *machine, turn: EtcdTurn::GaveUp, number: over(turns) },
            _ => Entry::EtcdJoin { machine: *machine, turn: EtcdTurn::Done, number: over(turns) },
        },
    })
}

fn machine_of(entry: &Entry) -> Option<MachineId> {
    match entry {
        Entry::InitClaimed { machine, .. } => Some(*machine),
        _ => None,
    }
}

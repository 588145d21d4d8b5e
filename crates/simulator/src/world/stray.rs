//! Entries that the ledger's rules must refuse, whoever proposes them: what a leader of yesterday, or a broken one, may hand to
//! Raft. They are refused by the rules as the checkers have them, now and at any later time, so the sound code stays as it is.

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_wire::entry::{Admitted, Sealed};
use muster_wire::{Attempt, Digest, Entry, MachineId, Role, Turn, TurnChange, TurnKind, TurnNumber};

use super::World;
use super::event::Slot;
use crate::scenario::Sort;

/// How often an entry is looked for that must be refused.
const TRIES: u64 = 8;

impl World {
    /// Hands one to the Raft of this machine.
    pub(super) fn propose_stray(&mut self, slot: Slot) {
        if self.judged_apart(slot) {
            return;
        }
        let truth = &self.watch.truth;
        // Whoever is wiped is removed, and gives up its name and its seat: what asks for those is then no longer wrong.
        let kept = !self.plan.iter().any(|fault| fault.kind == Sort::Wipe);
        let stray = (0..TRIES).find_map(|nth| {
            let draw = |what: &str| self.chance.fixed(what, u64::from(slot) << 8 | nth, self.now);
            let pick = truth.history.len().checked_sub(1)? as u64;
            let entry = &truth.history[(draw("stray") % (pick + 1)) as usize];
            let workers: Vec<MachineId> = truth.book.workers().collect();
            let worker = workers.get(draw("worker") as usize % workers.len().max(1)).copied();
            let (attempts, turns) = truth.book.numbers();
            let ready = truth.ready.is_some();
            let (ca, claimed) = (truth.book.ca(), truth.book.claimed());
            let ticket = worker.and_then(|worker| truth.book.ticket(worker));
            let known = Known {
                level: truth.book.level(),
                attempts: attempts.0,
                turns: turns.0,
                ca,
                worker,
                ticket,
                members: truth.book.etcd_members(),
                ready,
                claimed,
                kept,
            };
            let stray = changed(entry, draw("change"), &known)?;
            truth.book.refuses(&stray).then_some(stray)
        });
        if let Some(stray) = stray {
            self.raft_propose_stray(slot, &stray);
        }
    }
}

impl World {
    /// Has this machine's Raft begin a turn to disrupt for a member that chance names, and end the one that is under way.
    pub(super) fn propose_disruption(&mut self, slot: Slot) {
        let book = &self.watch.truth.book;
        // Turns are for control planes to ask for.
        let members: Vec<MachineId> = self.watch.truth.control_planes.iter().copied().collect();
        let draw = self.chance.fixed("disruption", slot.into(), self.now) as usize;
        let Some(holder) = members.get(draw % members.len().max(1)).copied() else { return };
        let (kind, number) = (TurnKind::Disrupt, book.last_turn(TurnKind::Disrupt).next());
        let begin = Turn { kind, number, holder, change: TurnChange::Started };
        let ends = if draw.is_multiple_of(2) { TurnChange::Done } else { TurnChange::GaveUp };
        let end = book.turn(kind).map(|(number, holder)| Turn { kind, number, holder, change: ends });
        for turn in [Some(begin), end].into_iter().flatten() {
            self.raft_propose_stray(slot, &Entry::Turn(turn));
        }
    }
}

/// What is known of the ledger when an entry is made wrong.
struct Known {
    level: u32,
    attempts: u32,
    turns: u32,
    ca: Option<Digest>,
    worker: Option<MachineId>,
    ticket: Option<Bytes>,
    members: BTreeSet<MachineId>,
    ready: bool,
    claimed: bool,
    /// Nobody's name or seat will be given up.
    kept: bool,
}

/// The entry with something wrong about it, or one that may follow it, and not now. What is wrong must stay wrong, since a
/// proposal may be committed much later: numbers only ever grow, so one that is over is over.
fn changed(entry: &Entry, draw: u64, known: &Known) -> Option<Entry> {
    let &Known { attempts, turns, ca, worker, ref ticket, ready, .. } = known;
    let over = |last: u32| if last == 0 { 0 } else { (draw >> 8) as u32 % (last + 1) };
    let nobodys = Digest::of("a CA of nobody", &[]);
    let made =
        |attempt: Attempt, ca_hash: Digest| Entry::InitReady { attempt, ca_hash, endpoints: vec![], tokens: vec![] };
    let one_of = (draw >> 4) % 4;
    if draw.is_multiple_of(4) {
        return Some(entry.clone());
    }
    Some(match entry {
        Entry::Admitted(admitted) => otherwise_admitted(admitted, draw, known),
        // Late it is as true as it ever was: it would have a machine join anew that has.
        Entry::Left { .. } | Entry::RemovalHeld { .. } => return None,
        Entry::InitClaimed { machine, .. } => match (one_of, worker) {
            (0, Some(machine)) => Entry::InitClaimed { attempt: Attempt(attempts + 1), machine, founders: Vec::new() },
            // A worker begins no etcd.
            // Only where the ledger may hold one with founders: else it stops whoever cannot read it.
            (2, Some(worker)) if known.level >= 3 => Entry::InitClaimed {
                attempt: Attempt(attempts + 1),
                machine: *machine,
                founders: vec![*machine, worker],
            },
            (1, _) => made(Attempt(attempts), nobodys),
            _ => Entry::InitClaimed {
                attempt: Attempt(attempts + u32::from(ready)),
                machine: *machine,
                founders: Vec::new(),
            },
        },
        Entry::Founds { attempt, machine } => match (one_of, worker) {
            (0, Some(machine)) => Entry::Founds { attempt: *attempt, machine },
            _ => Entry::Founds { attempt: Attempt(over(attempts - 1)), machine: *machine },
        },
        Entry::PkiSealed { attempt, ca_hash, sealed } if one_of < 2 => {
            let stranger = Sealed { machine: worker?, ciphertext: ticket.clone()? };
            Entry::PkiSealed { attempt: *attempt, ca_hash: *ca_hash, sealed: [&sealed[..], &[stranger]].concat() }
        }
        Entry::PkiSealed { attempt, sealed, .. } => {
            Entry::PkiSealed { attempt: *attempt, ca_hash: nobodys, sealed: sealed.clone() }
        }
        Entry::InitReady { ca_hash, endpoints, tokens, .. } => Entry::InitReady {
            attempt: Attempt(over(attempts)),
            ca_hash: if one_of == 0 { nobodys } else { *ca_hash },
            endpoints: endpoints.clone(),
            tokens: tokens.clone(),
        },
        Entry::InitAbandoned { why, .. } => match one_of {
            0 => made(Attempt(over(attempts)), ca.unwrap_or(nobodys)),
            1 => Entry::PkiSealed {
                attempt: Attempt(over(attempts)),
                ca_hash: ca.unwrap_or(nobodys),
                sealed: Vec::new(),
            },
            _ => Entry::InitAbandoned { attempt: Attempt(over(attempts)), why: why.clone() },
        },
        Entry::Ticket { machine, ciphertext, .. } => {
            Entry::Ticket { machine: *machine, attempt: Attempt(over(attempts)), ciphertext: ciphertext.clone() }
        }
        Entry::Turn(turn) if turn.kind == TurnKind::Disrupt => entry.clone(),
        Entry::Turn(Turn { holder, .. }) => match one_of {
            0 => etcd_turn(worker?, TurnChange::Started, TurnNumber(turns + 1)),
            1 => etcd_turn(*holder, TurnChange::Started, TurnNumber(over(turns))),
            2 => etcd_turn(*holder, TurnChange::GaveUp, TurnNumber(over(turns))),
            _ => etcd_turn(*holder, TurnChange::Done, TurnNumber(over(turns))),
        },
        _ => entry.clone(),
    })
}

/// Another machine, another name, another address; or the turn at etcd of one that has nothing to join yet.
fn otherwise_admitted(admitted: &Admitted, draw: u64, known: &Known) -> Entry {
    let one_of = (draw >> 4) % 4;
    let (name, is_known) = (format!("stray-{}", draw >> 48), known.members.contains(&admitted.machine));
    let machine = MachineId(Digest::of("a machine of nobody", &[&draw.to_le_bytes()]).0);
    let founds = !known.ready && !known.claimed && admitted.role == Role::ControlPlane;
    match one_of {
        // Long before there is anything to join: init must be claimed first, and takes its time.
        0 | 1 if founds => etcd_turn(admitted.machine, TurnChange::Started, TurnNumber(1)),
        // An etcd member keeps its name as long as it is one.
        3 if known.kept && is_known => Entry::Admitted(Admitted { machine, role: Role::Worker, ..admitted.clone() }),
        // One control plane more than the image asks for.
        2 if known.kept => Entry::Admitted(Admitted { machine, role: Role::ControlPlane, name, ..admitted.clone() }),
        _ => {
            // Another address alone is wrong for good only once something was made with the former.
            let name = if one_of < 2 || !is_known { name } else { admitted.name.clone() };
            Entry::Admitted(Admitted { address: "10.255.255.255".into(), name, ..admitted.clone() })
        }
    }
}

fn etcd_turn(holder: MachineId, change: TurnChange, number: TurnNumber) -> Entry {
    Entry::Turn(Turn { kind: TurnKind::Etcd, number, holder, change })
}

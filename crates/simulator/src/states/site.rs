//! Follows a run and notes the states that it comes to. Nothing here changes a run.

use std::collections::BTreeMap;

use muster_protocol::{Machine, Phase, Step};
use muster_wire::frame::RefusalCause;
use muster_wire::{
    Attempt, Ballot, BootCount, Durable, Entry, Frame, MachineId, Revision, TurnChange, TurnKind, TurnNumber,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{DIMENSIONS, Moment, State, Way};
use crate::scenario::Sort;
use crate::truth::Truth;
use crate::watch::{Seen, decode};
use crate::world::{At, Slot};

/// Faults under which the machines that they name are silent though their processes may run.
pub(super) const SILENCED: [Sort; 4] = [Sort::Pause, Sort::Split, Sort::OneWay, Sort::Flap];

/// What is known of one machine.
#[derive(Debug, Default)]
struct Known {
    me: MachineId,
    /// Where it stands, while its process runs.
    phase: Option<Phase>,
    runs: bool,
    /// How many faults keep it silent.
    silenced: u32,
    boots: BootCount,
    promised: Option<Ballot>,
    /// The ballot of its last vote, and a digest of the charter that it voted for.
    accepted: Option<(Ballot, u64)>,
    charter: bool,
    /// A charter that it may not follow is on its disk.
    seen: bool,
    begun: bool,
    completed: bool,
}

impl Known {
    fn away(&self) -> bool {
        self.boots > BootCount::NONE && (!self.runs || self.silenced > 0)
    }
}

/// The site as far as states tell of it.
#[derive(Debug, Default)]
pub(crate) struct Site {
    machines: Vec<Known>,
    silenced: BTreeMap<usize, Vec<Slot>>,
    term: u64,
    /// How the last turn at etcd ended.
    turn_ended: Option<TurnChange>,
    revision: Revision,
    effective: usize,
    reached: BTreeMap<State, At>,
}

impl Site {
    /// Sees what the checkers saw, after them: `truth` are theirs.
    pub(crate) fn see(&mut self, now: At, seen: &Seen<'_>, truth: &Truth) {
        let moment = match seen {
            Seen::Booting { slot, machine, durable, .. } => {
                let known = self.machine(*slot);
                (known.me, known.runs) = (*machine, true);
                known.read(durable);
                Moment::Start
            }
            Seen::Stopped { slot } => {
                let known = self.machine(*slot);
                (known.runs, known.phase) = (false, None);
                Moment::Stop
            }
            Seen::RefusedStart { slot, .. } => {
                self.machine(*slot).runs = false;
                Moment::Refused
            }
            Seen::Persisted { slot, durable, .. } => match self.machine(*slot).read(durable) {
                Some(moment) => moment,
                None => return,
            },
            Seen::Sent { frame, .. } => match frame {
                Frame::Prepare(_) => Moment::Asked,
                Frame::Refusal { cause: RefusalCause::Outbid, .. } => Moment::Beaten,
                Frame::Promise(promise) if promise.accepted.is_some() => Moment::Told,
                Frame::LedgerNews(news) if news.state.is_some() => Moment::Whole,
                _ => return,
            },
            Seen::Leads { term, .. } => {
                self.term = self.term.max(*term);
                Moment::Leader
            }
            Seen::Restored { .. } => Moment::Whole,
            Seen::Applied { revision, entry, .. } if *revision > self.revision => {
                self.revision = *revision;
                match self.applied(decode(entry), truth) {
                    Some(moment) => moment,
                    None => return,
                }
            }
            Seen::StepBegan { step: Step::Reset { .. }, .. } => Moment::Reset,
            Seen::StepEnded { result: Err(_), .. } => Moment::StepFailed,
            Seen::FaultBegins { index, fault, targets } if SILENCED.contains(&fault.kind) => {
                targets.iter().for_each(|slot| self.machine(*slot).silenced += 1);
                self.silenced.insert(*index, targets.to_vec());
                return;
            }
            Seen::FaultEnds { index } => {
                for slot in self.silenced.remove(index).unwrap_or_default() {
                    self.machine(slot).silenced -= 1;
                }
                return;
            }
            _ => return,
        };
        self.come_to(now, moment, truth);
    }

    /// A machine has taken an input.
    pub(crate) fn after(&mut self, now: At, slot: Slot, machine: &Machine, truth: &Truth) {
        let phase = Some(machine.phase());
        if self.machine(slot).phase != phase {
            self.machine(slot).phase = phase;
            self.come_to(now, Moment::Phase, truth);
        }
    }

    /// The states that were come to.
    pub(crate) fn way(&self) -> Way {
        self.reached.iter().map(|(state, at)| (*state, *at)).collect()
    }

    fn machine(&mut self, slot: Slot) -> &mut Known {
        let needed = slot as usize + 1;
        if self.machines.len() < needed {
            self.machines.resize_with(needed, Known::default);
        }
        &mut self.machines[slot as usize]
    }

    fn applied(&mut self, entry: Option<Entry>, truth: &Truth) -> Option<Moment> {
        let effective = std::mem::replace(&mut self.effective, truth.history.len()) != truth.history.len();
        let moment = match entry? {
            _ if !effective => Moment::EntryRefused,
            Entry::Admitted(_) => Moment::Admitted,
            Entry::Removed { .. } => Moment::Removed,
            Entry::InitClaimed { .. } => Moment::Claimed,
            Entry::Founds { .. } => Moment::Begun,
            Entry::PkiSealed { .. } => Moment::Sealed,
            Entry::InitReady { .. } => Moment::Made,
            Entry::InitAbandoned { .. } => Moment::Abandoned,
            Entry::Ticket { .. } => Moment::Ticket,
            Entry::Turn(turn) => {
                self.turn_ended = Some(turn.change).filter(|_| turn.kind == TurnKind::Etcd).or(self.turn_ended);
                match turn.change {
                    TurnChange::Started => Moment::TurnBegun,
                    TurnChange::Done => Moment::TurnDone,
                    TurnChange::GaveUp => Moment::TurnGivenUp,
                }
            }
            Entry::Joined { .. } => Moment::Joined,
            // What comes after founding is not told apart by states.
            _ => return None,
        };
        Some(moment)
    }

    fn come_to(&mut self, now: At, moment: Moment, truth: &Truth) {
        let numbers: [u64; DIMENSIONS.len()] = [
            self.machines.iter().filter_map(|known| known.phase).fold(0, |phases, phase| phases | 1 << phase as u64),
            self.machines
                .iter()
                .filter_map(|known| known.promised.as_ref())
                .map(|ballot| ballot.round)
                .max()
                .unwrap_or(0)
                .min(3),
            self.votes(),
            self.charter(),
            attempt(truth),
            self.turn(truth),
            self.term.min(3),
            self.away(truth),
            self.machines.iter().map(|known| known.boots).max().unwrap_or_default().0.min(3),
            match truth.joined.len() {
                0 => 0,
                joined => 1 + u64::from(joined >= truth.admitted.len() - truth.removed.len().min(truth.admitted.len())),
            },
            u64::from(!truth.removed.is_empty()),
            moment as u64,
        ];
        self.reached.entry(State::pack(numbers)).or_insert(now);
    }

    /// Votes on disks: none, in one ballot, in several, for several charters.
    fn votes(&self) -> u64 {
        let mut votes = self.machines.iter().filter_map(|known| known.accepted.as_ref());
        let Some(first) = votes.next() else { return 0 };
        votes.fold(1, |most, (ballot, charter)| match (*ballot == first.0, *charter == first.1) {
            (_, false) => 3,
            (false, true) => most.max(2),
            (true, true) => most,
        })
    }

    fn charter(&self) -> u64 {
        let running = || self.machines.iter().filter(|known| known.runs);
        match running().filter(|known| known.charter).count() {
            _ if running().any(|known| known.seen) => 3,
            0 => 0,
            some => 1 + u64::from(some == running().count()),
        }
    }

    fn turn(&self, truth: &Truth) -> u64 {
        match (truth.book.turn_holder(), truth.book.numbers().1, self.turn_ended) {
            (Some(_), number, _) => 1 + u64::from(number > TurnNumber(1)),
            (None, TurnNumber::NONE, _) | (None, _, None) => 0,
            (None, _, Some(TurnChange::GaveUp)) => 4,
            (None, ..) => 3,
        }
    }

    /// Who is away, of several the one that matters most.
    fn away(&self, truth: &Truth) -> u64 {
        let away = || self.machines.iter().filter(|known| known.away());
        let is = |whom: Option<MachineId>| whom.is_some_and(|whom| away().any(|known| known.me == whom));
        let count = away().count();
        let planes = away().filter(|known| truth.control_planes.contains(&known.me)).count();
        let left = (truth.image_machines as usize).saturating_sub(count);
        match count {
            0 => 0,
            _ if truth.charter.is_none() && left < truth.quorum => 7,
            _ if planes * 2 >= truth.control_planes.len().max(1) && planes > 1 => 6,
            _ if is(truth.claim.map(|(_, machine)| machine)) => 5,
            _ if is(truth.book.turn_holder()) => 4,
            _ if is(truth.leader) => 3,
            _ if planes > 0 => 2,
            _ => 1,
        }
    }
}

fn attempt(truth: &Truth) -> u64 {
    match (truth.ready, truth.claim) {
        (Some(attempt), _) => 4 + u64::from(attempt > Attempt(1)),
        (None, Some((attempt, _))) => 1 + u64::from(attempt > Attempt(1)),
        (None, None) if truth.abandoned.is_empty() => 0,
        (None, None) => 3,
    }
}

impl Known {
    /// Takes what is on its disk now, and says what is new of it; of several things the one that comes last in a machine's life.
    fn read(&mut self, durable: &Durable) -> Option<Moment> {
        let accepted = durable.accepted.as_ref().map(|(ballot, charter)| (*ballot, xxh3_64(charter)));
        let news = [
            (durable.completed.is_some() && !self.completed, Moment::Completed),
            (durable.started.is_some() && !self.begun, Moment::Begun),
            (durable.seen.is_some() && !self.seen, Moment::Seen),
            (durable.charter.is_some() && !self.charter, Moment::Charter),
            (accepted.is_some() && accepted != self.accepted, Moment::Vote),
            (durable.promised.is_some() && durable.promised != self.promised, Moment::Promise),
        ];
        self.boots = durable.boot;
        self.promised = durable.promised;
        self.accepted = accepted;
        (self.charter, self.seen) = (durable.charter.is_some(), durable.seen.is_some());
        (self.begun, self.completed) = (durable.started.is_some(), durable.completed.is_some());
        news.into_iter().find_map(|(new, moment)| new.then_some(moment))
    }
}

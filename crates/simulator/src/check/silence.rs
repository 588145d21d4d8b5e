//! S15, of the dead: a leader ends what another machine is at, its attempt or its turn at etcd, only if that one is silent. Whom it
//! heard, and who heard it, again and again within the time that it must wait is not.
//!
//! Counted by what was delivered, not by anybody's failure detector.

use std::collections::{BTreeMap, VecDeque};

use muster_protocol::{Effect, Input, Machine};
use muster_wire::{Entry, Frame, MachineId, TurnChange};

use super::Verdict;
use crate::scenario::Sort;
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::{At, Slot};

/// So many frames in either direction, in so long, are no silence. A leader waits longer before it ends anything.
const FRAMES: usize = 5;
const WITHIN: At = 20_000_000;

/// What a machine's own clock or a standstill did to its patience is over after this time.
const CALM_AFTER: At = 60_000_000;

/// An attempt may be ended for the time that it takes, whoever is heard.
const INIT_MAX: At = 590_000_000;

/// Between more machines than this nothing is counted.
const MACHINES_MAX: u32 = 16;

/// When frames came, from whom to whom, the last few.
#[derive(Debug, Default)]
pub(super) struct Silence {
    came: BTreeMap<(MachineId, MachineId), VecDeque<At>>,
    /// Machines whose time was disturbed: by which fault, and until when.
    disturbed: BTreeMap<Slot, At>,
    faults: BTreeMap<usize, Vec<Slot>>,
    /// Who asks for an entry just now: what is proposed for that is its own word.
    asks: Option<MachineId>,
}

impl Silence {
    pub(super) fn see(&mut self, now: At, seen: &Seen<'_>) {
        match seen {
            Seen::FaultBegins { index, fault, targets } => {
                use Sort::{ClockDrift, ClockJump, Pause, Slow};
                if matches!(fault.kind, ClockDrift | ClockJump | Pause | Slow) {
                    self.disturbed.extend(targets.iter().map(|slot| (*slot, At::MAX)));
                    self.faults.insert(*index, targets.to_vec());
                }
            }
            Seen::FaultEnds { index } => {
                let over = self.faults.remove(index).into_iter().flatten();
                self.disturbed.extend(over.map(|slot| (slot, now + CALM_AFTER)));
            }
            _ => {}
        }
    }

    pub(super) fn before(&mut self, now: At, machine: &Machine, input: &Input, truth: &Truth) {
        self.asks = None;
        let Input::Received { from, frame } = input else { return };
        self.asks = matches!(frame, Frame::Proposal { .. }).then_some(*from);
        if truth.image_machines <= MACHINES_MAX {
            let came = self.came.entry((*from, machine.id())).or_default();
            came.push_back(now);
            if came.len() > FRAMES {
                came.pop_front();
            }
        }
    }

    pub(super) fn after(
        &self,
        now: At,
        slot: Slot,
        machine: &Machine,
        effects: &VecDeque<Effect>,
        truth: &Truth,
    ) -> Verdict {
        if self.disturbed.get(&slot).is_some_and(|until| now < *until) || truth.two_charters {
            return Ok(());
        }
        let ended = effects.iter().find_map(|effect| match effect {
            Effect::Propose { entry: Entry::InitAbandoned { attempt, .. }, .. } => truth
                .claim
                .filter(|(live, _)| live == attempt && now < truth.claimed_at + INIT_MAX)
                .map(|(_, holder)| (holder, "to init")),
            Effect::Propose { entry: Entry::Turn(turn), .. } if turn.change == TurnChange::GaveUp => {
                let live = truth.book.turn(turn.kind) == Some((turn.number, turn.holder));
                live.then_some((turn.holder, turn.kind.purpose()))
            }
            _ => None,
        });
        let me = machine.id();
        let another = |holder: MachineId| holder != me && self.asks != Some(holder) && !truth.excused.contains(&holder);
        let Some((holder, what)) = ended.filter(|(holder, _)| another(*holder)) else {
            return Ok(());
        };
        if self.speak(now, me, holder) && self.speak(now, holder, me) {
            return Err(format!("{me} ends the right of {holder} {what}, which it hears and which hears it"));
        }
        Ok(())
    }

    fn speak(&self, now: At, from: MachineId, to: MachineId) -> bool {
        let came = self.came.get(&(from, to));
        came.is_some_and(|came| came.len() == FRAMES && came.front().is_some_and(|first| now < first + WITHIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_frames_or_old_ones_are_a_silence() {
        let (one, other) = (MachineId([1; 32]), MachineId([2; 32]));
        let mut silence = Silence::default();
        let came = silence.came.entry((one, other)).or_default();
        came.extend((0..FRAMES as At).map(|nth| nth * 1_000_000));
        assert!(silence.speak(WITHIN - 1, one, other));
        assert!(!silence.speak(WITHIN, one, other), "the first of them is too old");
        assert!(!silence.speak(0, other, one), "nothing ever came");
    }
}

//! The frames of a run, as many as there is room for: all of a short run, of a long one an even sample, and all of its end.

use std::collections::VecDeque;

use crate::world::{At, Slot};

/// So many of the last frames are kept, however long the run was: a failure is at its end.
const LAST: usize = 4_000;

/// A frame on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Counts all frames of the run.
    pub number: u64,
    /// When it was sent, in microseconds.
    pub sent_us: At,
    /// When it arrives; never, if it is lost.
    pub arrives_us: Option<At>,
    /// From which machine.
    pub from: Slot,
    /// To which.
    pub to: Slot,
    /// Its kind.
    pub kind: &'static str,
}

/// Some of a run's frames. Gossip is thinned by itself, so that it leaves room for what is rare.
#[derive(Debug, Clone, Default)]
pub struct Frames {
    count: u64,
    gossip: Thinned,
    others: Thinned,
    last: VecDeque<Message>,
    last_max: usize,
}

#[derive(Debug, Clone, Default)]
struct Thinned {
    kept: Vec<Message>,
    seen: u64,
    /// Every so manieth is kept.
    every: u64,
    max: usize,
}

impl Frames {
    pub(super) fn new(max: usize) -> Self {
        let thinned = |max: usize| Thinned { every: 1, max, ..Thinned::default() };
        Self { gossip: thinned(max / 4), others: thinned(max - max / 4), last_max: LAST.min(max), ..Self::default() }
    }

    pub(crate) fn sent(&mut self, now: At, from: Slot, to: Slot, kind: &'static str, arrives_us: Option<At>) {
        let message = Message { number: self.count, sent_us: now, arrives_us, from, to, kind };
        self.count += 1;
        if self.last_max == 0 {
            return;
        }
        if is_gossip(kind) {
            self.gossip.take(message)
        } else {
            self.others.take(message)
        }
        if self.last.len() == self.last_max {
            self.last.pop_front();
        }
        self.last.push_back(message);
    }

    /// How many were sent.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Those that were kept, in order.
    pub fn kept(&self) -> Vec<Message> {
        let first_of_last = self.last.front().map_or(u64::MAX, |message| message.number);
        let earlier = self.gossip.kept.iter().chain(&self.others.kept).filter(|kept| kept.number < first_of_last);
        let mut all: Vec<Message> = earlier.chain(&self.last).copied().collect();
        all.sort_unstable_by_key(|message| message.number);
        all
    }
}

impl Thinned {
    fn take(&mut self, message: Message) {
        if self.seen.is_multiple_of(self.every) && self.max > 0 {
            if self.kept.len() == self.max {
                let mut nth = 0;
                self.kept.retain(|_| {
                    nth += 1;
                    nth % 2 == 1
                });
                self.every *= 2;
            }
            if self.seen.is_multiple_of(self.every) {
                self.kept.push(message);
            }
        }
        self.seen += 1;
    }
}

/// What machines say all the time.
pub(crate) fn is_gossip(kind: &str) -> bool {
    matches!(kind, "swim" | "cards")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_thinned_evenly_and_its_end_is_whole() {
        let mut frames = Frames::new(LAST * 4);
        let sent = 200_000;
        for at in 0..sent {
            frames.sent(at, 0, 1, if at % 10 == 0 { "prepare" } else { "swim" }, Some(at + 1));
        }
        let kept = frames.kept();
        assert!(kept.len() <= LAST * 5 && kept.windows(2).all(|pair| pair[0].number < pair[1].number));
        assert_eq!(kept.iter().rev().take_while(|kept| kept.number + LAST as u64 >= sent).count(), LAST);
        let in_tenth = |tenth: u64| kept.iter().filter(|kept| kept.number / (sent / 10) == tenth).count();
        assert!((1..9).all(|tenth| in_tenth(tenth).abs_diff(in_tenth(0)) <= 2), "{}", in_tenth(0));
        // Rare ones are kept more often than gossip.
        let rare = kept.iter().filter(|kept| kept.kind == "prepare" && kept.number < sent / 2).count();
        assert!(rare * 2 > kept.iter().filter(|kept| kept.kind == "swim" && kept.number < sent / 2).count());
    }

    #[test]
    fn without_room_none_is_kept() {
        let mut frames = Frames::new(0);
        frames.sent(1, 0, 1, "prepare", None);
        assert_eq!((frames.kept().len(), frames.count()), (0, 1));
    }
}

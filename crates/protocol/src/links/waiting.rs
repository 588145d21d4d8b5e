//! Frames for machines to which a connection is being made.

use std::collections::BTreeMap;

use muster_wire::{MachineId, limits};

/// Most bytes that wait, for all machines together: questions of founding to a large site fit, and some greetings' cards.
const BYTES_MAX: usize = 4 * limits::FRAME_BYTES_MAX;

/// Frames that leave as soon as their connection stands.
#[derive(Debug)]
pub(super) struct Waiting<F> {
    frames: BTreeMap<MachineId, Vec<(F, usize)>>,
    bytes: usize,
}

impl<F> Default for Waiting<F> {
    fn default() -> Self {
        Self { frames: BTreeMap::new(), bytes: 0 }
    }
}

impl<F> Waiting<F> {
    /// Keeps a frame of so many bytes; false if there is no room for it.
    pub(super) fn push(&mut self, to: MachineId, frame: F, bytes: usize) -> bool {
        let frames = self.frames.entry(to).or_default();
        let room = frames.len() < limits::DIAL_QUEUE_MAX && self.bytes + bytes <= BYTES_MAX;
        if room {
            self.bytes += bytes;
            frames.push((frame, bytes));
        } else if frames.is_empty() {
            self.frames.remove(&to);
        }
        room
    }

    /// Takes what waits for a machine, in order: its connection stands, or will not.
    pub(super) fn take(&mut self, to: MachineId) -> Vec<F> {
        let frames = self.frames.remove(&to).unwrap_or_default();
        self.bytes -= frames.iter().map(|(_, bytes)| bytes).sum::<usize>();
        frames.into_iter().map(|(frame, _)| frame).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_wait_in_order_and_within_bounds() {
        let (one, other) = (MachineId([1; 32]), MachineId([2; 32]));
        let mut waiting = Waiting::default();
        for number in 0..limits::DIAL_QUEUE_MAX {
            assert!(waiting.push(one, number, 1));
        }
        assert!(!waiting.push(one, 0, 1), "one machine's frames are bounded");
        assert!(!waiting.push(other, 0, BYTES_MAX), "so are all bytes");
        assert!(waiting.take(other).is_empty());
        assert!(waiting.take(one).into_iter().eq(0..limits::DIAL_QUEUE_MAX));
        assert!(waiting.push(other, 0, BYTES_MAX), "what was taken leaves its room");
        assert!(waiting.frames.len() == 1);
    }
}

//! Frames for machines to which a connection is being made.

use std::collections::BTreeMap;

use muster_wire::{MachineId, limits};

/// Most bytes that wait, for all machines together: questions of founding to a large site fit, and some greetings' cards.
const BYTES_MAX: usize = 4 * limits::FRAME_BYTES_MAX;

/// Frames that leave as soon as their connection stands.
#[derive(Default)]
pub(super) struct Waiting {
    frames: BTreeMap<MachineId, Vec<Vec<u8>>>,
    bytes: usize,
}

impl Waiting {
    /// Keeps a frame; false if there is no room for it.
    pub(super) fn push(&mut self, to: MachineId, frame: Vec<u8>) -> bool {
        let frames = self.frames.entry(to).or_default();
        let room = frames.len() < limits::DIAL_QUEUE_MAX && self.bytes + frame.len() <= BYTES_MAX;
        if room {
            self.bytes += frame.len();
            frames.push(frame);
        } else if frames.is_empty() {
            self.frames.remove(&to);
        }
        room
    }

    /// Takes what waits for a machine, in order: its connection stands, or will not.
    pub(super) fn take(&mut self, to: MachineId) -> Vec<Vec<u8>> {
        let frames = self.frames.remove(&to).unwrap_or_default();
        self.bytes -= frames.iter().map(Vec::len).sum::<usize>();
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_wait_in_order_and_within_bounds() {
        let (one, other) = (MachineId([1; 32]), MachineId([2; 32]));
        let mut waiting = Waiting::default();
        for number in 0..limits::DIAL_QUEUE_MAX as u8 {
            assert!(waiting.push(one, vec![number]));
        }
        assert!(!waiting.push(one, vec![0]), "one machine's frames are bounded");
        assert!(!waiting.push(other, vec![0; BYTES_MAX]), "so are all bytes");
        assert!(waiting.take(other).is_empty());
        assert!(waiting.take(one).iter().flatten().copied().eq(0..limits::DIAL_QUEUE_MAX as u8));
        assert!(waiting.push(other, vec![0; BYTES_MAX]), "what was taken leaves its room");
        assert!(waiting.frames.len() == 1);
    }
}

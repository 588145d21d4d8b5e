//! What a peer sends that is no frame: how it is called, and how much of it is too much.

use muster_wire::WireError;

use crate::Dropped;

/// After this many the peer is left alone for a while.
const BAD_FRAMES_MAX: u32 = 16;

/// How many of them came over one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BadFrames(u32);

impl BadFrames {
    /// One more came. Says how it is counted.
    pub fn came(&mut self, why: &WireError) -> Dropped {
        self.0 += 1;
        match why {
            WireError::Version { .. } => Dropped::OtherVersion,
            WireError::Signature(_) => Dropped::WrongSignature,
            _ => Dropped::MalformedFrame,
        }
    }

    /// What came was longer than any frame, so that nothing after it can be told apart.
    pub fn too_long(&mut self) -> Dropped {
        self.0 = BAD_FRAMES_MAX;
        Dropped::FrameTooLong
    }

    /// Whether they are too many: see [`super::Links::offended`].
    pub fn are_too_many(self) -> bool {
        self.0 >= BAD_FRAMES_MAX
    }
}

#[cfg(test)]
mod tests {
    use muster_wire::MachineId;

    use super::*;

    #[test]
    fn a_peer_is_heard_until_the_sixteenth_and_no_longer_than_to_one_without_an_end() {
        let mut bad = BadFrames::default();
        for _ in 0..15 {
            assert_eq!(bad.came(&WireError::Signature(MachineId([1; 32]))), Dropped::WrongSignature);
        }
        assert!(!bad.are_too_many());
        bad.came(&WireError::Signature(MachineId([1; 32])));
        assert!(bad.are_too_many());
        let mut bad = BadFrames::default();
        assert_eq!((bad.too_long(), bad.are_too_many()), (Dropped::FrameTooLong, true));
    }
}

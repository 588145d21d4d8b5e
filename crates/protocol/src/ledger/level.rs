//! Which format the ledger is in. It only rises, one level at a time.

use muster_wire::{Entry, level};

use super::Refusal;

/// This part of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Level(pub(super) u32);

impl Default for Level {
    fn default() -> Self {
        Self(level::FOUNDED)
    }
}

impl Level {
    /// # Errors
    /// It is not the next level.
    pub(super) fn raise(&mut self, level: u32) -> Result<(), Refusal> {
        let next = self.0 + 1;
        if level != next {
            return Err(Refusal::WrongLevel { named: level, next });
        }
        self.0 = level;
        Ok(())
    }

    /// Whether the ledger may hold such an entry now.
    ///
    /// # Errors
    /// There is such an entry from a higher level on.
    pub(super) fn permits(&self, entry: &Entry) -> Result<(), Refusal> {
        let needs = entry.level();
        if needs > self.0 { Err(Refusal::TooEarly { needs, level: self.0 }) } else { Ok(()) }
    }
}

//! The disk under a voter's Raft state: bytes in memory, with what a power loss would take back.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// A disk, as one start of the machine has it open. Clones are the same disk in the same start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Platter {
    state: Arc<Mutex<State>>,
    start: u64,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// What writes since the last sync replaced, oldest first; and how long the disk was before the first of them.
    undo: Vec<(usize, Vec<u8>)>,
    synced_len: usize,
    lying: bool,
    fails: bool,
    /// Whether a write failed since they do.
    failed: bool,
    /// What the write or sync after so many others meets.
    armed: Option<(Strike, u32)>,
    /// The process is dead since then, and does not know it yet.
    struck: Option<Strike>,
    /// Counts the starts: what an earlier one still writes comes to nothing.
    start: u64,
}

/// How a write kills the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike {
    /// Before the disk has anything of it.
    Before,
    /// When the disk has it.
    After,
    /// When the disk has half of it.
    Torn,
}

impl Platter {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another disk with the same bytes.
    pub(crate) fn copy(&self) -> Self {
        let bytes = self.state().bytes.clone();
        let synced_len = bytes.len();
        Self { state: Arc::new(Mutex::new(State { bytes, synced_len, ..State::default() })), start: 0 }
    }

    /// The process is killed. A database that is dropped would tidy up and sync, which no killed process does.
    pub(crate) fn cut_off(&mut self) {
        let start = {
            let state = &mut *self.state();
            state.start += 1;
            state.struck = None;
            state.start
        };
        self.start = start;
    }

    /// The disk, for a change by the start that is on now.
    fn to_change(&self) -> io::Result<Option<MutexGuard<'_, State>>> {
        let mut state = self.state();
        if state.start != self.start || state.struck.is_some() {
            return Ok(None);
        }
        if state.fails {
            state.failed = true;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(Some(state))
    }

    /// What was not synced is gone. Says whether something went that was believed to be synced.
    pub(crate) fn lose_power(&self) -> bool {
        let state = &mut *self.state();
        let lost = state.lying && !state.undo.is_empty();
        while let Some((offset, before)) = state.undo.pop() {
            let end = (offset + before.len()).min(state.bytes.len());
            if offset < end {
                state.bytes[offset..end].copy_from_slice(&before[..end - offset]);
            }
        }
        state.bytes.resize(state.synced_len, 0);
        lost
    }

    /// From now on syncs lie, or no longer do.
    pub(crate) fn set_lying(&self, lying: bool) {
        let state = &mut *self.state();
        state.lying = lying;
        if !lying {
            state.undo.clear();
            state.synced_len = state.bytes.len();
        }
    }

    /// From now on writes fail, or no longer do.
    pub(crate) fn set_failing(&self, fails: bool) {
        let state = &mut *self.state();
        state.failed &= state.fails && fails;
        state.fails = fails;
    }

    /// Whether a write failed since they do.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().failed
    }

    /// The write or sync after `after` others kills the process.
    pub(crate) fn arm(&self, strike: Strike, after: u32) {
        self.state().armed = Some((strike, after));
    }

    /// No write kills the process any more.
    pub(crate) fn disarm(&self) {
        self.state().armed = None;
    }

    /// How the process was killed, if a write has done that in this start.
    pub(crate) fn struck(&self) -> Option<Strike> {
        self.state().struck
    }

    /// Whether there is nothing on it.
    pub(crate) fn is_empty(&self) -> bool {
        self.state().bytes.is_empty()
    }

    /// What was meant for another file is written over a page.
    pub(crate) fn misdirect(&self, data: &[u8], at: u64) {
        const PAGE: usize = 4_096;
        let state = &mut *self.state();
        let pages = state.bytes.len() / PAGE;
        if pages > 0 {
            let place = (at % pages as u64) as usize * PAGE;
            let length = data.len().min(PAGE);
            state.bytes[place..place + length].copy_from_slice(&data[..length]);
        }
    }

    /// A bit turns.
    pub(crate) fn rot(&self, at: u64) {
        let state = &mut *self.state();
        if !state.bytes.is_empty() {
            let place = (at % state.bytes.len() as u64) as usize;
            state.bytes[place] ^= 1 << (at >> 32 & 7);
        }
    }
}

impl State {
    /// How this write or sync kills the process, if it does.
    fn strikes(&mut self) -> Option<Strike> {
        match &mut self.armed {
            Some((_, left)) if *left > 0 => {
                *left -= 1;
                None
            }
            _ => self.armed.take().map(|(strike, _)| strike),
        }
    }

    fn remember(&mut self, offset: usize, len: usize) {
        let end = (offset + len).min(self.bytes.len());
        if offset < end {
            let before = self.bytes[offset..end].to_vec();
            self.undo.push((offset, before));
        }
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let offset = offset as usize;
        let found = state.bytes.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let Some(mut state) = self.to_change()? else { return Ok(()) };
        let len = len as usize;
        if len < state.bytes.len() {
            let cut = state.bytes.len() - len;
            state.remember(len, cut);
        }
        state.bytes.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let Some(mut state) = self.to_change()? else { return Ok(()) };
        let strikes = state.strikes();
        state.struck = strikes;
        if matches!(strikes, Some(Strike::Before | Strike::Torn)) {
            return Ok(());
        }
        if !state.lying {
            state.undo.clear();
            state.synced_len = state.bytes.len();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Some(mut state) = self.to_change()? else { return Ok(()) };
        let offset = offset as usize;
        let strikes = state.strikes();
        state.struck = strikes;
        let data = match strikes {
            Some(Strike::Before) => return Ok(()),
            Some(Strike::Torn) => &data[..data.len() / 2],
            Some(Strike::After) | None => data,
        };
        state.remember(offset, data.len());
        let place = state.bytes.get_mut(offset..offset + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        place.copy_from_slice(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_loss_takes_back_what_was_not_synced_and_no_more() {
        let platter = Platter::default();
        platter.set_len(8).unwrap();
        platter.write(0, b"old data").unwrap();
        platter.sync_data().unwrap();
        platter.write(4, b"next").unwrap();
        platter.write(6, b"!!").unwrap();
        platter.set_len(12).unwrap();
        assert!(!platter.lose_power());
        let mut bytes = [0; 8];
        platter.read(0, &mut bytes).unwrap();
        assert_eq!((&bytes, platter.len().unwrap()), (b"old data", 8));
    }

    #[test]
    fn what_a_killed_process_would_tidy_up_stays_as_it_was() {
        let mut platter = Platter::default();
        platter.set_len(4).unwrap();
        platter.write(0, b"left").unwrap();
        let dropped_late = platter.clone();
        platter.cut_off();
        dropped_late.write(0, b"tidy").unwrap();
        dropped_late.sync_data().unwrap();
        let mut bytes = [0; 4];
        platter.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"left");
        assert!(!platter.lose_power());
        assert_eq!(platter.len().unwrap(), 0);
    }

    #[test]
    fn the_write_that_kills_is_there_half_or_whole_or_not_and_nothing_after_it() {
        for (strike, left) in [(Strike::Before, b"one ...."), (Strike::Torn, b"one !!.."), (Strike::After, b"one !!!!")]
        {
            let platter = Platter::default();
            platter.set_len(8).unwrap();
            platter.write(0, b"one ....").unwrap();
            platter.arm(strike, 1);
            platter.write(0, b"one ").unwrap();
            assert_eq!(platter.struck(), None);
            platter.write(4, b"!!!!").unwrap();
            assert_eq!(platter.struck(), Some(strike));
            platter.write(0, b"late").unwrap();
            let mut bytes = [0; 8];
            platter.read(0, &mut bytes).unwrap();
            assert_eq!(&bytes, left, "{strike:?}");
        }
    }

    #[test]
    fn a_sync_that_lies_loses_what_it_promised() {
        let platter = Platter::default();
        platter.set_len(4).unwrap();
        platter.sync_data().unwrap();
        platter.set_lying(true);
        platter.write(0, b"vote").unwrap();
        platter.sync_data().unwrap();
        assert!(platter.lose_power());
        let mut bytes = [0; 4];
        platter.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 4]);
    }
}

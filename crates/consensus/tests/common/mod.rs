//! A disk that loses its power, and a way to run code in virtual time.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use muster_consensus::seeded::Executor;
use redb::StorageBackend;

/// What was done to a disk, in order.
#[derive(Debug, Clone)]
pub(crate) enum Done {
    Resized(usize),
    Wrote(usize, Vec<u8>),
    Synced,
}

/// A disk in memory that remembers everything that was ever done to it. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Platter(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// What it held when it was new.
    first: Vec<u8>,
    history: Vec<Done>,
    broken: bool,
}

/// What a power loss does to the writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing: the process was killed, not the machine.
    None,
    /// All are gone.
    All,
    /// Some are gone, chosen by these bits in turn.
    Some(u64),
    /// Some are gone and each of the others reached the disk only up to a sector's end.
    Torn(u64),
}

impl Platter {
    /// A disk that holds these bytes.
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { first: bytes.clone(), bytes, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// How many things were done to it.
    pub(crate) fn age(&self) -> usize {
        self.state().history.len()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    /// From now on every write fails, as on a full disk.
    pub(crate) fn fill_up(&self) {
        self.state().broken = true;
    }

    /// The bytes after the power went when it was `age` old.
    pub(crate) fn after_power_loss(&self, age: usize, loss: Loss) -> Vec<u8> {
        let state = self.state();
        let history = &state.history[..age];
        let synced = history.iter().rposition(|done| matches!(done, Done::Synced)).map_or(0, |at| at + 1);
        let mut bytes = state.first.clone();
        for done in &history[..synced] {
            redo(&mut bytes, done, usize::MAX);
        }
        for (at, done) in history[synced..].iter().enumerate() {
            let kept = |bits: u64| bits.rotate_right((at * 7) as u32) & 1 == 1;
            match (loss, done) {
                (Loss::None, done) => redo(&mut bytes, done, usize::MAX),
                (Loss::Some(bits), done) if kept(bits) => redo(&mut bytes, done, usize::MAX),
                (Loss::Torn(bits), done) if kept(bits) => redo(&mut bytes, done, 512 * (1 + bits as usize % 4)),
                _ => {}
            }
        }
        bytes
    }
}

fn redo(bytes: &mut Vec<u8>, done: &Done, most: usize) {
    match done {
        Done::Resized(len) => bytes.resize(*len, 0),
        Done::Wrote(offset, data) => {
            let data = &data[..data.len().min(most)];
            if bytes.len() < offset + data.len() {
                bytes.resize(offset + data.len(), 0);
            }
            bytes[*offset..offset + data.len()].copy_from_slice(data);
        }
        Done::Synced => {}
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let from = offset as usize;
        let found = state.bytes.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.done(Done::Resized(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.done(Done::Synced)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.done(Done::Wrote(offset as usize, data.to_vec()))
    }
}

impl Platter {
    fn done(&self, done: Done) -> io::Result<()> {
        let mut state = self.state();
        if state.broken {
            return Err(io::ErrorKind::StorageFull.into());
        }
        redo(&mut state.bytes, &done, usize::MAX);
        state.history.push(done);
        Ok(())
    }
}

/// Runs `future` to its end in virtual time.
pub(crate) fn block<T: Send + 'static>(executor: &Executor, future: impl Future<Output = T> + Send + 'static) -> T {
    let slot = Arc::new(Mutex::new(None));
    let done = slot.clone();
    executor.spawn(async move { *done.lock().unwrap() = Some(future.await) });
    loop {
        executor.run(1_000_000);
        if let Some(value) = slot.lock().unwrap().take() {
            return value;
        }
        executor.advance(executor.next_timer().expect("it waits for nothing"));
    }
}

//! etcd's write-ahead log, as far as it must be read and written to lose nothing of it.
//!
//! `etcd --force-new-cluster` drops what the log holds beyond the commit that this member had heard of, acknowledged writes among it: a
//! follower hears of a commit with the next message (seen with etcd 3.7: 5 of 1,754). So in a copy of the log the commit is raised to its end
//! first. That adds at most what nobody was told about.
//!
//! The format is etcd's own (`server/storage/wal`, 3.4 to 3.7): frames of a length with padding to 8 bytes, each a protobuf record with a
//! running CRC-32C; a file ends with zeros or with its end.

use prost::Message;

/// A record's kind that is a raft entry.
const ENTRY: i64 = 2;
/// One that is a hard state.
const STATE: i64 = 3;
/// One that begins a file, with the sum of the files before.
const SUM: i64 = 4;

/// What a disk writes whole, in bytes.
const SECTOR: usize = 512;

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(uint32, tag = "2")]
    sum: u32,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
}

#[derive(Clone, PartialEq, Message)]
struct HardState {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    vote: u64,
    #[prost(uint64, tag = "3")]
    commit: u64,
}

/// Why a log is not what etcd writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// A record in its midst is not what was written.
    #[error("the record at byte {0} of the log is damaged")]
    Damaged(u64),
    /// There is no entry and no state in it.
    #[error("the log holds nothing")]
    Empty,
}

/// What is known of a log, after the files that were read so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wal {
    state: Option<HardState>,
    last: Option<(u64, u64)>,
    sum: u32,
    end: usize,
}

impl Wal {
    /// Reads the next file, whole. Begin with the last but one, if there is one: the last may hold no entry yet.
    ///
    /// # Errors
    /// [`WalError::Damaged`]. A record that was cut short at the end of the file is no damage: it was never acknowledged.
    pub fn read(&mut self, file: &[u8]) -> Result<(), WalError> {
        self.end = 0;
        loop {
            let Some(frame) = frame(file, self.end) else { return Ok(()) };
            let damaged = WalError::Damaged(self.end as u64);
            // A frame whose second half never came to the disk is the last one.
            let torn = || is_torn(file, self.end + 8, frame.next);
            let record = match Record::decode(frame.record) {
                Ok(record) => record,
                Err(_) if torn() => return Ok(()),
                Err(_) => return Err(damaged),
            };
            match record.kind {
                SUM => self.sum = record.sum,
                _ => {
                    let sum = crc32c::crc32c_append(self.sum, &record.data);
                    if sum != record.sum {
                        return if torn() { Ok(()) } else { Err(damaged) };
                    }
                    self.sum = sum;
                }
            }
            match record.kind {
                ENTRY => {
                    let entry = Entry::decode(&record.data[..]).map_err(|_| damaged)?;
                    self.last = Some((entry.term, entry.index));
                }
                STATE => self.state = Some(HardState::decode(&record.data[..]).map_err(|_| damaged)?),
                _ => {}
            }
            self.end = frame.next;
        }
    }

    /// Term and index of its last entry: of several members the one with the higher pair knows more.
    pub fn last(&self) -> Option<(u64, u64)> {
        self.last
    }

    /// Where in the last file to write, and what, so that the log's commit is its end; nothing if it is already.
    ///
    /// # Errors
    /// [`WalError::Empty`].
    pub fn raised(&self) -> Result<Option<(usize, Vec<u8>)>, WalError> {
        let mut state = self.state.clone().ok_or(WalError::Empty)?;
        let Some((term, index)) = self.last.filter(|(_, index)| *index > state.commit) else { return Ok(None) };
        state.commit = index;
        state.term = state.term.max(term);
        let data = state.encode_to_vec();
        let record = Record { kind: STATE, sum: crc32c::crc32c_append(self.sum, &data), data }.encode_to_vec();
        let padding = record.len().next_multiple_of(8) - record.len();
        let mark = if padding == 0 { 0 } else { (0x80 | padding as u64) << 56 };
        let mut bytes = (record.len() as u64 | mark).to_le_bytes().to_vec();
        bytes.extend_from_slice(&record);
        bytes.resize(bytes.len() + padding, 0);
        Ok(Some((self.end, bytes)))
    }
}

struct Frame<'a> {
    record: &'a [u8],
    next: usize,
}

/// Whether a sector of the disk in this part of a file holds nothing: it was never written (`isTornEntry` in etcd's `wal/decoder.go`).
fn is_torn(file: &[u8], mut from: usize, to: usize) -> bool {
    while from < to {
        let end = to.min((from / SECTOR + 1) * SECTOR);
        if file[from..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        from = end;
    }
    false
}

/// The frame at a place; none where the file ends, was written no further, or a frame was cut short.
fn frame(file: &[u8], at: usize) -> Option<Frame<'_>> {
    let length = u64::from_le_bytes(file.get(at..at.checked_add(8)?)?.try_into().ok()?);
    if length == 0 {
        return None;
    }
    let padding = if length >> 63 == 1 { (length >> 56 & 7) as usize } else { 0 };
    let size = usize::try_from(length & ((1 << 56) - 1)).ok()?;
    let begin = at + 8;
    let end = begin.checked_add(size)?;
    let next = end.checked_add(padding)?;
    (next <= file.len()).then(|| Frame { record: &file[begin..end], next })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(file: &mut Vec<u8>, sum: &mut u32, kind: i64, data: &[u8]) {
        if kind != SUM {
            *sum = crc32c::crc32c_append(*sum, data);
        }
        let record = Record { kind, sum: *sum, data: data.to_vec() }.encode_to_vec();
        let padding = (8 - record.len() % 8) % 8;
        let mark = if padding == 0 { 0 } else { (0x80 | padding as u64) << 56 };
        file.extend((record.len() as u64 | mark).to_le_bytes());
        file.extend(&record);
        file.extend(vec![0; padding]);
    }

    fn log(commit: u64, entries: &[(u64, u64)]) -> Vec<u8> {
        let (mut file, mut sum) = (Vec::new(), 0);
        put(&mut file, &mut sum, SUM, &[]);
        put(&mut file, &mut sum, 1, b"metadata");
        for (term, index) in entries {
            put(&mut file, &mut sum, ENTRY, &Entry { term: *term, index: *index }.encode_to_vec());
        }
        put(&mut file, &mut sum, STATE, &HardState { term: 2, vote: 7, commit }.encode_to_vec());
        file
    }

    fn read(file: &[u8]) -> Result<Wal, WalError> {
        let mut wal = Wal::default();
        wal.read(file).map(|()| wal)
    }

    #[test]
    fn the_commit_is_raised_to_the_end_and_no_further() {
        let mut file = log(3, &[(1, 1), (1, 2), (1, 3), (2, 4), (2, 5)]);
        let written = file.len();
        file.resize(written + 4096, 0);
        let wal = read(&file).expect("a log");
        assert_eq!(wal.last(), Some((2, 5)));
        let (at, bytes) = wal.raised().expect("a state").expect("it is behind");
        assert_eq!((at, bytes.len() % 8), (written, 0));
        file[at..at + bytes.len()].copy_from_slice(&bytes);
        let wal = read(&file).expect("still a log");
        assert_eq!(wal.state, Some(HardState { term: 2, vote: 7, commit: 5 }));
        assert_eq!(wal.raised(), Ok(None));
    }

    #[test]
    fn entries_that_were_overwritten_do_not_count() {
        let wal = read(&log(2, &[(1, 1), (1, 2), (1, 3), (1, 4), (2, 3)])).expect("a log");
        assert_eq!(wal.last(), Some((2, 3)), "what came after 3 in term 1 is gone");
    }

    #[test]
    fn the_last_file_may_hold_no_entry() {
        let (mut wal, first) = (Wal::default(), log(1, &[(1, 1), (1, 2)]));
        wal.read(&first).expect("a log");
        let (mut second, mut sum) = (Vec::new(), wal.sum);
        put(&mut second, &mut sum, SUM, &[]);
        put(&mut second, &mut sum, STATE, &HardState { term: 2, vote: 7, commit: 1 }.encode_to_vec());
        wal.read(&second).expect("goes on");
        let (at, _) = wal.raised().expect("a state").expect("it is behind");
        assert_eq!((at, wal.last()), (second.len(), Some((1, 2))));
    }

    #[test]
    fn what_was_cut_short_is_no_damage_and_what_was_changed_is() {
        let whole = log(1, &[(1, 1), (1, 2)]);
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_ok(), "cut at {end}");
        }
        let mut changed = whole.clone();
        let middle = whole.len() / 2;
        changed[middle] ^= 1;
        assert!(matches!(read(&changed), Err(WalError::Damaged(_))), "{:?}", read(&changed));
        assert_eq!(Wal::default().raised(), Err(WalError::Empty));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(wal) = read(&bytes) {
                let _ = wal.raised();
            }
        }
    }
}

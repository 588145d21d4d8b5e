//! What a run prints: a file that is read as it grows, and is gone when the run is over.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use muster_kubeadm::OUTPUT_LIMIT;

/// Longest line of output that is logged, in bytes; one that is longer is cut into such pieces.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Most bytes that are kept, the last ones.
pub(super) const KEPT_MAX: usize = OUTPUT_LIMIT * 2;

/// So long a file becomes before it is emptied: it may lie in memory.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// One of a run's two outputs.
pub(super) struct Output {
    path: PathBuf,
    file: File,
    at: u64,
    /// What has come of the line that is not at its end.
    line: Vec<u8>,
    kept: Vec<u8>,
}

impl Output {
    /// A new file that only this user reads, and what to give the process.
    pub(super) fn begin(path: &Path) -> std::io::Result<(Self, Stdio)> {
        let mut options = OpenOptions::new();
        // A run writes at the end, wherever that is by then.
        let file = options.read(true).append(true).create(true).mode(0o600).open(path)?;
        let given = file.try_clone()?;
        let output = Self { path: path.to_owned(), file, at: 0, line: Vec::new(), kept: Vec::new() };
        Ok((output, given.into()))
    }

    /// Takes what is new.
    pub(super) fn read(&mut self, seen: &impl Fn(&str)) {
        let mut part = [0; LINE_BYTES_MAX];
        // What is printed faster than it is read waits for the next look.
        for _ in 0..FILE_BYTES_MAX / LINE_BYTES_MAX as u64 {
            // The run writes through the same open file, whose place is not this reader's.
            let Ok(length @ 1..) = self.file.read_at(&mut part, self.at) else { break };
            self.at += length as u64;
            for byte in part.iter().take(length) {
                self.line.push(*byte);
                if *byte == b'\n' || self.line.len() == LINE_BYTES_MAX {
                    self.whole_line(seen);
                }
            }
        }
        if self.at > FILE_BYTES_MAX && self.file.set_len(0).is_ok() {
            self.at = 0;
        }
    }

    /// Bytes that are no text are shown as such.
    fn whole_line(&mut self, seen: &impl Fn(&str)) {
        let line = std::mem::take(&mut self.line);
        seen(String::from_utf8_lossy(&line).trim_end());
        self.kept.extend_from_slice(&line);
        if self.kept.len() > KEPT_MAX {
            self.kept.drain(..self.kept.len() - OUTPUT_LIMIT);
        }
    }

    /// The end of all that was printed.
    pub(super) fn end(mut self, seen: &impl Fn(&str)) -> Vec<u8> {
        self.read(seen);
        if !self.line.is_empty() {
            self.whole_line(seen);
        }
        std::mem::take(&mut self.kept)
    }
}

impl Drop for Output {
    /// Also of a run that goes on without this agent: nobody would read it.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

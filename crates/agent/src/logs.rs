//! The last lines of the log and the last events, kept in memory for `muster logs`, bounded.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::sync::broadcast;
use tracing_subscriber::fmt::MakeWriter;

/// Most lines kept.
const LINES_MAX: usize = 1_000;

/// Longest line kept, in bytes.
const LINE_BYTES_MAX: usize = 2_048;

/// A ring of lines that can be followed. Clones share it. As a writer of `tracing_subscriber` it keeps what is logged.
#[derive(Clone)]
pub struct Ring {
    lines: Arc<Mutex<VecDeque<String>>>,
    followers: broadcast::Sender<String>,
}

impl Default for Ring {
    fn default() -> Self {
        Self { lines: Arc::default(), followers: broadcast::channel(LINES_MAX).0 }
    }
}

impl Ring {
    /// Adds a line; the oldest goes when there are too many.
    pub fn push(&self, mut line: String) {
        if line.len() > LINE_BYTES_MAX {
            let end = (0..=LINE_BYTES_MAX).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
            line.truncate(end);
        }
        let mut lines = self.lines.lock().expect("no holder panics");
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line.clone());
        drop(lines);
        // Nobody may be following.
        let _ = self.followers.send(line);
    }

    /// The lines kept, and those to come.
    pub(crate) fn follow(&self) -> (Vec<String>, broadcast::Receiver<String>) {
        let lines = self.lines.lock().expect("no holder panics");
        (lines.iter().cloned().collect(), self.followers.subscribe())
    }
}

impl io::Write for Ring {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in String::from_utf8_lossy(bytes).lines() {
            self.push(line.to_owned());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Ring {
    type Writer = Ring;

    fn make_writer(&'a self) -> Ring {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded() {
        let ring = Ring::default();
        for line in 0..LINES_MAX + 5 {
            ring.push(format!("{line} {}", "é".repeat(LINE_BYTES_MAX)));
        }
        let (lines, _) = ring.follow();
        assert_eq!(lines.len(), LINES_MAX);
        assert!(lines[0].starts_with("5 ") && lines.iter().all(|line| line.len() <= LINE_BYTES_MAX));
    }
}

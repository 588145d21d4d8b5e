//! One direction of one connection: frames, each with its length before it.
//!
//! The side that accepts a stream says so with one byte before anything is written to it: libp2p-stream drops streams that
//! come faster than they are taken, and what was written to such a one would be lost without a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{PeerId, StreamProtocol};
use libp2p_stream::Control;
use muster_wire::limits::FRAME_BYTES_MAX;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

/// The stream protocol; frames carry a version of their own.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/muster/1");

/// Most frames waiting for one peer. At a burst of gossip, votes and Raft calls a dozen wait; a peer that takes none for
/// this long is not there, and what matters is sent again.
const QUEUE_FRAMES: usize = 256;

/// Most bytes waiting for one peer: a peer that asks much and reads nothing costs no more than this.
pub(super) const QUEUE_BYTES: usize = 4 * FRAME_BYTES_MAX;

/// A frame's bytes are read in parts of this size, so that a length alone claims no memory.
const PART_BYTES: usize = 64 * 1024;

/// Longest wait for a peer within a connection: for a stream to be opened, for the byte that accepts it, from a frame's length to its
/// end. (Two machines on slow processors that dial each other at the same instant both close the other's connection; what was
/// being opened on it would never have ended.)
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Longest wait for a peer to take what is written to it: it may be slow, and busy with what came before.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

/// So often a stream is opened anew on one connection before the connection is given up.
const TRIES: u32 = 8;

/// Pause before a stream is opened anew, times the failures so far.
const PAUSE: Duration = Duration::from_millis(10);

const ACCEPTED: [u8; 1] = [1];

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The stream ended or broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A length over the bound; what follows it cannot be told apart any more.
    #[error("a frame of {0} bytes is over the bound of {FRAME_BYTES_MAX}")]
    TooLong(usize),
}

/// The end of a peer's queue that the mesh fills.
pub(super) struct Queue {
    frames: mpsc::Sender<Vec<u8>>,
    bytes: Arc<AtomicUsize>,
}

/// The end of a peer's queue from which its stream is written.
pub(super) struct Outgoing {
    frames: mpsc::Receiver<Vec<u8>>,
    bytes: Arc<AtomicUsize>,
}

/// A queue for one peer.
pub(super) fn queue() -> (Queue, Outgoing) {
    let (sender, receiver) = mpsc::channel(QUEUE_FRAMES);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Queue { frames: sender, bytes: bytes.clone() }, Outgoing { frames: receiver, bytes })
}

impl Queue {
    /// Adds a frame; false if there is no room, and the frame is dropped: the peer has older ones to read first.
    pub(super) fn push(&self, frame: Vec<u8>) -> bool {
        let length = frame.len();
        if self.bytes.load(Ordering::Relaxed) + length > QUEUE_BYTES {
            return false;
        }
        self.bytes.fetch_add(length, Ordering::Relaxed);
        let pushed = self.frames.try_send(frame).is_ok();
        if !pushed {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
        }
        pushed
    }
}

impl Outgoing {
    fn taken(&self, frame: Vec<u8>, together: &mut Vec<u8>) {
        self.bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        together.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        together.extend_from_slice(&frame);
    }

    /// Writes what comes until the queue ends or the stream breaks. Frames that wait together leave together; those that
    /// may not have arrived stay in `together`.
    async fn write(&mut self, stream: &mut (impl AsyncWrite + Unpin), together: &mut Vec<u8>) -> std::io::Result<()> {
        loop {
            if !together.is_empty() {
                let written = async {
                    stream.write_all(together).await?;
                    stream.flush().await
                };
                timeout(WRITE_PATIENCE, written)
                    .await
                    .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
                // One large frame must not hold its memory for as long as the connection stands.
                *together = Vec::new();
            }
            let Some(frame) = self.frames.recv().await else { return Ok(()) };
            self.taken(frame, together);
            while together.len() < FRAME_BYTES_MAX
                && let Ok(frame) = self.frames.try_recv()
            {
                self.taken(frame, together);
            }
        }
    }
}

/// Delivers a peer's frames until its queue ends.
///
/// # Errors
/// When no stream can be had on the connection, or none holds.
pub(super) async fn deliver(mut streams: Control, peer: PeerId, mut queue: Outgoing) -> Result<(), String> {
    let mut together = Vec::new();
    let mut failures = 0;
    loop {
        let why = match open(&mut streams, peer).await {
            Ok(mut stream) => match queue.write(&mut stream, &mut together).await {
                Ok(()) => {
                    let closed = timeout(PATIENCE, stream.close()).await;
                    return closed
                        .map_or_else(|why| Err(why.to_string()), |closed| closed.map_err(|why| why.to_string()));
                }
                Err(why) => why.to_string(),
            },
            Err(why) => why,
        };
        failures += 1;
        debug!(%peer, why, failures, "a stream broke or was not taken");
        if failures >= TRIES {
            return Err(why);
        }
        tokio::time::sleep(PAUSE * failures).await;
    }
}

async fn open(streams: &mut Control, peer: PeerId) -> Result<libp2p::Stream, String> {
    let opened = timeout(PATIENCE, streams.open_stream(peer, PROTOCOL)).await;
    let opened = opened.map_err(|_| "no stream could be opened in time".to_owned())?;
    let mut stream = opened.map_err(|why| why.to_string())?;
    let mut answer = [0];
    match timeout(PATIENCE, stream.read_exact(&mut answer)).await {
        Ok(Ok(())) if answer == ACCEPTED => Ok(stream),
        Ok(Ok(())) => Err("the peer answers otherwise than muster does".to_owned()),
        Ok(Err(why)) => Err(why.to_string()),
        Err(_) => Err("the peer does not take the stream".to_owned()),
    }
}

/// Tells the peer that its stream is read from here.
pub(super) async fn accept(stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    let told = async {
        stream.write_all(&ACCEPTED).await?;
        stream.flush().await
    };
    timeout(PATIENCE, told).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

/// Reads one frame's bytes. Nothing is allocated before its length is known to be in bounds, and then only as it comes.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, ReadError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(ReadError::TooLong(length));
    }
    let body = async {
        let mut frame = BytesMut::new();
        while frame.len() < length {
            let (start, part) = (frame.len(), PART_BYTES.min(length - frame.len()));
            frame.resize(start + part, 0);
            stream.read_exact(&mut frame[start..]).await?;
        }
        Ok(frame.freeze())
    };
    timeout(PATIENCE, body).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    #[tokio::test]
    async fn frames_that_wait_together_come_apart_again() {
        let (queue, mut outgoing) = queue();
        for frame in [vec![1; 3], vec![], vec![2; 200_000]] {
            assert!(queue.push(frame));
        }
        drop(queue);
        let mut written = Cursor::new(Vec::new());
        outgoing.write(&mut written, &mut Vec::new()).await.expect("writes");
        assert_eq!(outgoing.bytes.load(Ordering::Relaxed), 0);
        let mut stream = Cursor::new(written.into_inner());
        for length in [3, 0, 200_000] {
            assert_eq!(read(&mut stream).await.expect("reads").len(), length);
        }
        assert!(matches!(read(&mut stream).await, Err(ReadError::Io(_))));
    }

    #[tokio::test]
    async fn a_frame_that_is_cut_or_too_long_is_none() {
        let whole = [&5_u32.to_be_bytes()[..], &[7; 5]].concat();
        for length in 0..whole.len() {
            assert!(matches!(read(&mut Cursor::new(&whole[..length])).await, Err(ReadError::Io(_))), "{length}");
        }
        let long = ((FRAME_BYTES_MAX + 1) as u32).to_be_bytes();
        assert!(matches!(read(&mut Cursor::new(&long)).await, Err(ReadError::TooLong(_))));
    }

    #[test]
    fn a_queue_nobody_reads_is_bounded_in_frames_and_bytes() {
        let (small, _unread) = queue();
        let taken = (0..10_000).filter(|_| small.push(vec![0; 10])).count();
        assert_eq!(taken, QUEUE_FRAMES);
        let (large, _unread) = queue();
        let taken = (0..100).filter(|_| large.push(vec![0; FRAME_BYTES_MAX])).count();
        assert_eq!(taken, QUEUE_BYTES / FRAME_BYTES_MAX);
    }
}

//! One direction of one connection: frames, each with its length before it.

use bytes::{Bytes, BytesMut};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::Stream;
use muster_wire::limits::FRAME_BYTES_MAX;
use tokio::sync::mpsc;

/// Most frames waiting for one peer. At a burst of gossip, votes and Raft calls a dozen wait; a peer that takes none for
/// this long is not there, and what matters is sent again.
pub(super) const QUEUE_FRAMES: usize = 256;

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

/// Reads one frame's bytes. Nothing is allocated before its length is known to be in bounds.
pub(super) async fn read(stream: &mut Stream) -> Result<Bytes, ReadError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(ReadError::TooLong(length));
    }
    let mut frame = BytesMut::zeroed(length);
    stream.read_exact(&mut frame).await?;
    Ok(frame.freeze())
}

/// Writes what comes from the queue until it ends or the stream breaks. Frames that wait together leave together.
pub(super) async fn write(mut stream: Stream, mut queue: mpsc::Receiver<Vec<u8>>) -> std::io::Result<()> {
    let mut together = Vec::new();
    while let Some(frame) = queue.recv().await {
        together.clear();
        append(&mut together, &frame);
        while together.len() < FRAME_BYTES_MAX
            && let Ok(frame) = queue.try_recv()
        {
            append(&mut together, &frame);
        }
        stream.write_all(&together).await?;
        stream.flush().await?;
    }
    stream.close().await
}

fn append(together: &mut Vec<u8>, frame: &[u8]) {
    together.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    together.extend_from_slice(frame);
}

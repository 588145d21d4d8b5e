//! Reading one peer: frames are decoded and checked here, what is none is counted and told.

use std::sync::Arc;

use libp2p::Stream;
use muster_protocol::links::BadFrames;
use muster_wire::{Frame, MachineId};
use tokio::sync::{Semaphore, mpsc};

use super::away::Away;
use super::{Event, link};
use crate::counters::Counters;

/// What even an empty frame is counted for, in bytes: it takes a place in a queue.
const FRAME_BYTES_MIN: usize = 256;

/// Its peer sends too much that is no frame.
pub(super) struct Offended;

/// Reads from one peer.
pub(super) struct Reader {
    pub(super) machine: MachineId,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) away: Away,
    pub(super) room: Arc<Semaphore>,
    pub(super) counters: Arc<Counters>,
}

impl Reader {
    /// Takes the stream and reads until it ends.
    pub(super) async fn read_all(self, mut stream: Stream) -> Result<(), Offended> {
        if link::accept(&mut stream).await.is_err() {
            return Ok(());
        }
        let mut bad = BadFrames::default();
        loop {
            let bytes = match link::read(&mut stream).await {
                Ok(bytes) => bytes,
                // The peer opens another stream, or its connection is gone.
                Err(link::ReadError::Io(_)) => return Ok(()),
                Err(why) => {
                    self.away.turned(bad.too_long(), self.machine.to_string(), why.to_string().into()).await;
                    return Err(Offended);
                }
            };
            self.counters.received(bytes.len());
            let size = bytes.len().max(FRAME_BYTES_MIN) as u32;
            match Frame::decode(bytes) {
                Ok(frame) => {
                    let Ok(room) = self.room.clone().acquire_many_owned(size).await else { return Ok(()) };
                    if self.events.send(Event::Received(self.machine, frame, room)).await.is_err() {
                        return Ok(());
                    }
                }
                Err(why) => {
                    self.away.turned(bad.came(&why), self.machine.to_string(), why.to_string().into()).await;
                    if bad.are_too_many() {
                        return Err(Offended);
                    }
                }
            }
        }
    }
}

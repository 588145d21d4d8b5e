//! Who was turned away: all of it is counted, some of it is told.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_protocol::links::{Failure, Handshakes, Stage};
use muster_protocol::{AwayCause, Dropped, Time};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use super::Event;
use crate::counters::Counters;

/// Counts and tells who was turned away. Clones share it.
#[derive(Clone)]
pub(super) struct Away {
    events: mpsc::Sender<Event>,
    counters: Arc<Counters>,
    handshakes: Arc<Mutex<Handshakes>>,
    started: Instant,
}

impl Away {
    pub(super) fn new(events: mpsc::Sender<Event>, counters: Arc<Counters>) -> Self {
        Self { events, counters, handshakes: Arc::default(), started: Instant::now() }
    }

    fn handshakes(&self) -> MutexGuard<'_, Handshakes> {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `kind`, and lets people know of `whom` unless that was done a moment ago.
    pub(super) async fn turned(&self, kind: Dropped, whom: String, why: AwayCause) {
        self.counters.dropped(kind);
        debug!(whom, %why, "turned away");
        let now = Time(self.started.elapsed().as_micros() as u64);
        let news = self.handshakes().is_news(now, &whom);
        if news {
            let _ = self.events.send(Event::TurnedAway(whom, why)).await;
        }
    }

    /// A handshake with `whom` failed.
    pub(super) async fn handshake_failed(&self, whom: String, ip: Option<IpAddr>, stage: Stage, error: &impl Debug) {
        let failure = self.handshakes().failed(ip, stage, is_cut_off(error));
        if failure != Failure::Nonsense {
            self.counters.dropped(Dropped::HandshakeCutOff);
        }
        if let Some(why) = failure.told() {
            self.turned(Dropped::HandshakeFailed, whom, why).await;
        }
    }

    /// A handshake with somebody at that address succeeded.
    pub(super) fn came_through(&self, ip: IpAddr) {
        self.handshakes().came_through(ip);
    }
}

/// Whether a connection merely ended, as when the other side loses its power, and nobody said the wrong things. Some of
/// libp2p's errors do not tell what they are made of but in their words for programmers.
pub(super) fn is_cut_off(error: &impl Debug) -> bool {
    const ENDS: [&str; 6] =
        ["UnexpectedEof", "ConnectionReset", "ConnectionAborted", "BrokenPipe", "TimedOut", "Timeout"];
    let words = format!("{error:?}");
    ENDS.iter().any(|end| words.contains(end))
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};

    use super::*;

    #[tokio::test]
    async fn what_merely_ended_is_counted_and_what_makes_no_sense_is_told() {
        let (events, mut told) = mpsc::channel(8);
        let counters = Arc::new(Counters::default());
        let away = Away::new(events, counters.clone());
        let cut = io::Error::other(io::Error::from(ErrorKind::ConnectionReset));
        away.handshake_failed("10.0.0.9".into(), None, Stage::Fenced, &cut).await;
        assert!(told.try_recv().is_err());
        let nonsense = io::Error::new(ErrorKind::InvalidData, "noise");
        for _ in 0..2 {
            away.handshake_failed("10.0.0.8".into(), None, Stage::Fenced, &nonsense).await;
        }
        assert!(matches!(told.try_recv(), Ok(Event::TurnedAway(whom, _)) if whom == "10.0.0.8"));
        assert!(told.try_recv().is_err(), "once is enough");
        let all = counters.all();
        assert_eq!((all["dropped: handshake-cut-off"], all["dropped: handshake-failed"]), (1, 2));
    }
}

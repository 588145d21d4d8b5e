//! Who was turned away: all of it is counted, some of it is told.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use muster_protocol::status::CUT_OFF;
use tokio::sync::mpsc;
use tracing::debug;

use super::Event;
use super::events::HANDSHAKE;
use super::progress::Stage;
use crate::counters::Counters;

/// Pause between two words on the same sender: people need to know who and why, not how often.
const PAUSE: Duration = Duration::from_secs(10);

/// Most senders of whom is spoken within one pause.
const SENDERS_MAX: usize = 32;

/// How many handshakes from one address must end in the middle, none of them coming through, before people are told: a
/// machine that restarts leaves one or two behind.
const CUT_OFF_MIN: u32 = 4;

/// Counts and tells who was turned away. Clones share it.
#[derive(Clone)]
pub(super) struct Away {
    events: mpsc::Sender<Event>,
    counters: Arc<Counters>,
    told: Arc<Mutex<BTreeMap<String, Instant>>>,
    /// Handshakes that ended in the middle since the last that did not.
    cut_off: Arc<Mutex<BTreeMap<IpAddr, u32>>>,
}

impl Away {
    pub(super) fn new(events: mpsc::Sender<Event>, counters: Arc<Counters>) -> Self {
        Self { events, counters, told: Arc::default(), cut_off: Arc::default() }
    }

    /// Counts `kind`, and lets people know of `whom` unless that was done a moment ago.
    pub(super) async fn turned(&self, kind: &'static str, whom: String, why: String) {
        self.counters.dropped(kind);
        debug!(whom, why, "turned away");
        if self.is_news(&whom, Instant::now()) {
            let _ = self.events.send(Event::TurnedAway(whom, why)).await;
        }
    }

    /// A handshake with `whom` failed. What makes no sense is another key's, or no muster's. One that merely ended, see
    /// [`is_cut_off`], is told of as a guess, and when it happens again and again. Whoever proved its identity has the key: it
    /// refused this machine, let go of one of two connections, or was killed.
    pub(super) async fn handshake_failed(&self, whom: String, ip: Option<IpAddr>, stage: Stage, error: &impl Debug) {
        if stage >= Stage::Known {
            ip.into_iter().for_each(|ip| self.came_through(ip));
            return self.counters.dropped("handshake cut off");
        }
        if !is_cut_off(error) {
            return self.turned("handshake failed", whom, HANDSHAKE.to_owned()).await;
        }
        self.counters.dropped("handshake cut off");
        if ip.is_some_and(|ip| self.is_cut_off_often(ip)) {
            self.turned("handshake failed", whom, CUT_OFF.to_owned()).await;
        }
    }

    fn is_cut_off_often(&self, ip: IpAddr) -> bool {
        let mut cut_off = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        if cut_off.len() >= SENDERS_MAX && !cut_off.contains_key(&ip) {
            cut_off.pop_first();
        }
        let times = cut_off.entry(ip).or_default();
        *times = times.saturating_add(1);
        *times >= CUT_OFF_MIN
    }

    /// A handshake with somebody at that address succeeded: what was cut off before was a restart, or the network.
    pub(super) fn came_through(&self, ip: IpAddr) {
        self.cut_off.lock().unwrap_or_else(PoisonError::into_inner).remove(&ip);
    }

    fn is_news(&self, whom: &str, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.duration_since(*at) < PAUSE);
        if told.len() >= SENDERS_MAX || told.contains_key(whom) {
            return false;
        }
        told.insert(whom.to_owned(), now);
        true
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
    async fn a_restart_is_not_told_and_somebody_who_never_comes_through_is() {
        let (events, mut told) = mpsc::channel(8);
        let away = Away::new(events, Arc::default());
        let ip: IpAddr = "10.0.0.9".parse().expect("an address");
        let cut = io::Error::other(io::Error::from(ErrorKind::ConnectionReset));
        let fail = |stage| away.handshake_failed(ip.to_string(), Some(ip), stage, &cut);
        for _ in 0..5 {
            for _ in 1..CUT_OFF_MIN {
                fail(Stage::Fenced).await;
            }
            away.came_through(ip);
        }
        assert!(told.try_recv().is_err());
        // Whoever has proved its identity has the key, however often it is cut off after that.
        for _ in 0..5 * CUT_OFF_MIN {
            fail(Stage::Known).await;
        }
        assert!(told.try_recv().is_err());
        for _ in 0..CUT_OFF_MIN {
            fail(Stage::Taken).await;
        }
        assert!(matches!(told.try_recv(), Ok(Event::TurnedAway(whom, why)) if whom == "10.0.0.9" && why == CUT_OFF));
        let nonsense = io::Error::new(ErrorKind::InvalidData, "noise");
        away.handshake_failed("10.0.0.8".into(), None, Stage::Fenced, &nonsense).await;
        assert!(matches!(told.try_recv(), Ok(Event::TurnedAway(whom, why)) if whom == "10.0.0.8" && why == HANDSHAKE));
    }

    #[test]
    fn the_addresses_of_those_cut_off_are_bounded() {
        let (events, _told) = mpsc::channel(1);
        let away = Away::new(events, Arc::default());
        (0..1_000_u32).for_each(|number| _ = away.is_cut_off_often(IpAddr::from(number.to_be_bytes())));
        assert_eq!(away.cut_off.lock().expect("no holder panics").len(), SENDERS_MAX);
    }

    #[test]
    fn a_flood_is_told_of_once_a_sender() {
        let (events, _told) = mpsc::channel(1);
        let away = Away::new(events, Arc::default());
        let now = Instant::now();
        assert!(away.is_news("a", now));
        assert!(!away.is_news("a", now));
        assert!(away.is_news("a", now + PAUSE));
        let news = (0..1_000).filter(|number| away.is_news(&number.to_string(), now + PAUSE)).count();
        assert_eq!(news, SENDERS_MAX - 1);
    }
}

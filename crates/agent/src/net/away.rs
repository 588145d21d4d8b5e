//! Who was turned away: all of it is counted, some of it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::debug;

use super::Event;
use crate::counters::Counters;

/// Pause between two words on the same sender: people need to know who and why, not how often.
const PAUSE: Duration = Duration::from_secs(10);

/// Most senders of whom is spoken within one pause.
const SENDERS_MAX: usize = 32;

/// Counts and tells who was turned away. Clones share it.
#[derive(Clone)]
pub(super) struct Away {
    events: mpsc::Sender<Event>,
    counters: Arc<Counters>,
    told: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl Away {
    pub(super) fn new(events: mpsc::Sender<Event>, counters: Arc<Counters>) -> Self {
        Self { events, counters, told: Arc::default() }
    }

    /// Counts `kind`, and lets people know of `whom` unless that was done a moment ago.
    pub(super) async fn turned(&self, kind: &'static str, whom: String, why: String) {
        self.counters.dropped(kind);
        debug!(whom, why, "turned away");
        if self.is_news(&whom, Instant::now()) {
            let _ = self.events.send(Event::TurnedAway(whom, why)).await;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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

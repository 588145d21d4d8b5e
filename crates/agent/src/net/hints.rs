//! Where machines may be: the image's list, names, mDNS. Each hint is tried again and again, ever less often.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Most hints; the image's own come first.
const HINTS_MAX: usize = 4_096;

/// Pause between two tries of a hint: short at first, when machines boot together, doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(150);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Tries after which a hint that was only heard is forgotten: anybody can make up addresses.
const TRIES_MAX: u32 = 10;

struct Hint {
    /// Whether the image names it; else it was heard.
    lasting: bool,
    pause: Duration,
    due: Instant,
    tries: u32,
}

/// All hints by their text: `ip:port` or `name:port`.
pub(super) struct Hints(BTreeMap<String, Hint>);

impl Hints {
    /// The image's own, due at once.
    pub(super) fn new(peers: Vec<String>) -> Self {
        let now = Instant::now();
        let hint = |peer| (peer, Hint { lasting: true, pause: PAUSE_MIN, due: now, tries: 0 });
        Self(peers.into_iter().take(HINTS_MAX).map(hint).collect())
    }

    /// A hint was heard, and is being tried already.
    pub(super) fn heard(&mut self, hint: String, now: Instant) {
        if self.0.len() < HINTS_MAX {
            let pause = PAUSE_MIN * 4;
            self.0.entry(hint).or_insert(Hint { lasting: false, pause, due: now + pause, tries: 0 });
        }
    }

    /// When the next one is due.
    pub(super) fn due(&self) -> Instant {
        self.0.values().map(|hint| hint.due).min().unwrap_or_else(|| Instant::now() + PAUSE_MAX)
    }

    /// Those that are due; each waits longer for its next turn.
    pub(super) fn take(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        self.0.retain(|text, hint| {
            if hint.due <= now {
                due.push(text.clone());
                hint.tries += 1;
                hint.pause = (hint.pause * 2).min(PAUSE_MAX);
                hint.due = now + hint.pause;
            }
            hint.lasting || hint.tries < TRIES_MAX
        });
        due
    }

    /// A machine was lost; one that merely restarts is soon there again.
    pub(super) fn hurry(&mut self) {
        let soon = Instant::now() + PAUSE_MIN;
        for hint in self.0.values_mut() {
            hint.pause = PAUSE_MIN;
            hint.due = hint.due.min(soon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_of_the_image_stay_and_heard_ones_go() {
        let mut now = Instant::now();
        let mut hints = Hints::new(vec!["image:1".to_owned()]);
        hints.heard("heard:1".to_owned(), now);
        now = Instant::now();
        assert_eq!(hints.take(now), ["image:1"]);
        for _ in 0..TRIES_MAX * 2 {
            now += PAUSE_MAX;
            assert!(hints.take(now).contains(&"image:1".to_owned()));
        }
        assert_eq!(hints.0.len(), 1);
        for number in 0..HINTS_MAX * 2 {
            hints.heard(number.to_string(), now);
        }
        assert_eq!(hints.0.len(), HINTS_MAX);
    }
}

//! Where machines may be: the image's list, names, mDNS. Each hint is tried again and again, ever less often.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Time;

/// Most hints; the image's own come first.
const HINTS_MAX: usize = 4_096;

/// Pause between two tries of a hint: short at first, when machines boot together, doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(150);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Tries after which a hint that was only heard is forgotten: anybody can make up addresses.
const TRIES_MAX: u32 = 10;

#[derive(Debug)]
struct Hint {
    /// Whether the image names it; else it was heard.
    lasting: bool,
    pause: Duration,
    due: Time,
    tries: u32,
}

/// All hints by their text: `ip:port` or `name:port`.
#[derive(Debug)]
pub(super) struct Hints(BTreeMap<String, Hint>);

impl Hints {
    /// The image's own, due at once.
    pub(super) fn new(peers: Vec<String>, now: Time) -> Self {
        let hint = |peer| (peer, Hint { lasting: true, pause: PAUSE_MIN, due: now, tries: 0 });
        Self(peers.into_iter().take(HINTS_MAX).map(hint).collect())
    }

    /// A hint was heard, and is being tried already.
    pub(super) fn heard(&mut self, hint: String, now: Time) {
        if self.0.len() < HINTS_MAX {
            let pause = PAUSE_MIN * 4;
            self.0.entry(hint).or_insert(Hint { lasting: false, pause, due: now + pause, tries: 0 });
        }
    }

    /// When the next one is due, if there is one.
    pub(super) fn due(&self) -> Option<Time> {
        self.0.values().map(|hint| hint.due).min()
    }

    /// Those that are due; each waits longer for its next turn.
    pub(super) fn take(&mut self, now: Time) -> Vec<String> {
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
    pub(super) fn hurry(&mut self, now: Time) {
        let soon = now + PAUSE_MIN;
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
        let mut now = Time(1);
        let mut hints = Hints::new(vec!["image:1".to_owned()], now);
        hints.heard("heard:1".to_owned(), now);
        assert_eq!(hints.take(now), ["image:1"]);
        for _ in 0..TRIES_MAX * 2 {
            now = now + PAUSE_MAX;
            assert!(hints.take(now).contains(&"image:1".to_owned()));
        }
        assert_eq!(hints.0.len(), 1);
        for number in 0..HINTS_MAX * 2 {
            hints.heard(number.to_string(), now);
        }
        assert_eq!(hints.0.len(), HINTS_MAX);
    }

    #[test]
    fn a_hint_is_tried_ever_less_often_and_in_a_hurry_soon() {
        let mut now = Time(0);
        let mut hints = Hints::new(vec!["image:1".to_owned()], now);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            hints.take(now);
            let due = hints.due().expect("it stays");
            pauses.push(due.since(now).as_millis());
            now = due;
        }
        assert_eq!(pauses, [300, 600, 1_200, 2_400, 4_800, 9_600, 15_000, 15_000, 15_000]);
        hints.take(now);
        hints.hurry(now);
        assert_eq!(hints.due(), Some(now + PAUSE_MIN));
        assert_eq!(Hints::new(Vec::new(), now).due(), None);
    }
}

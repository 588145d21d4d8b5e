//! Handshakes that failed: what that says of the other side, and what of it people are told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::AwayCause;
use crate::Time;

/// Pause between two words on the same sender: people need to know who and why, not how often.
const PAUSE: Duration = Duration::from_secs(10);

/// Most senders of whom is spoken within one pause.
const SENDERS_MAX: usize = 32;

/// How many handshakes from one address must end in the middle, none of them coming through, before people are told: a
/// machine that restarts leaves one or two behind.
const CUT_OFF_MIN: u32 = 4;

/// What the other side of a connection has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Somebody took the TCP connection.
    Taken,
    /// It sent the fence's first bytes, which any key has.
    Fenced,
    /// It proved its identity, through the fence: it has this mesh key.
    Known,
    /// It proved this machine's own identity: it is this machine.
    Myself,
}

/// What a failed handshake says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It ended in the middle, as when the other side is killed.
    CutOff,
    /// It ended in the middle, as it did again and again: that is told of as a guess.
    CutOffOften,
    /// The other side said what makes no sense.
    Nonsense,
}

impl Failure {
    /// What people are told of it, if anything.
    pub fn told(self) -> Option<AwayCause> {
        match self {
            Self::CutOff => None,
            Self::CutOffOften => Some(AwayCause::CutOff),
            Self::Nonsense => Some(AwayCause::Nonsense),
        }
    }
}

/// Who was turned away lately, in bounds.
#[derive(Debug, Default)]
pub struct Handshakes {
    told: BTreeMap<String, Time>,
    /// Handshakes that ended in the middle since the last that did not.
    cut_off: BTreeMap<IpAddr, u32>,
}

impl Handshakes {
    /// A handshake failed; `cut_off` if it merely ended. What makes no sense is another key's, or no muster's. Whoever proved its
    /// identity has the key: it refused this machine, let go of one of two connections, or was killed.
    pub fn failed(&mut self, ip: Option<IpAddr>, stage: Stage, cut_off: bool) -> Failure {
        if stage >= Stage::Known {
            ip.into_iter().for_each(|ip| self.came_through(ip));
            return Failure::CutOff;
        }
        if !cut_off {
            return Failure::Nonsense;
        }
        let often = ip.is_some_and(|ip| self.is_cut_off_often(ip));
        if often { Failure::CutOffOften } else { Failure::CutOff }
    }

    /// A handshake with somebody at that address succeeded: what was cut off before was a restart, or the network.
    pub fn came_through(&mut self, ip: IpAddr) {
        self.cut_off.remove(&ip);
    }

    /// Whether people are to be told of somebody who is turned away: they were not a moment ago.
    pub fn is_news(&mut self, now: Time, whom: &str) -> bool {
        self.told.retain(|_, at| now.since(*at) < PAUSE);
        if self.told.len() >= SENDERS_MAX || self.told.contains_key(whom) {
            return false;
        }
        self.told.insert(whom.to_owned(), now);
        true
    }

    fn is_cut_off_often(&mut self, ip: IpAddr) -> bool {
        if self.cut_off.len() >= SENDERS_MAX && !self.cut_off.contains_key(&ip) {
            self.cut_off.pop_first();
        }
        let times = self.cut_off.entry(ip).or_default();
        *times = times.saturating_add(1);
        *times >= CUT_OFF_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_not_told_and_somebody_who_never_comes_through_is() {
        let mut handshakes = Handshakes::default();
        let ip: IpAddr = "10.0.0.9".parse().expect("an address");
        for _ in 0..5 {
            for _ in 1..CUT_OFF_MIN {
                assert_eq!(handshakes.failed(Some(ip), Stage::Fenced, true), Failure::CutOff);
            }
            handshakes.came_through(ip);
        }
        // Whoever has proved its identity has the key, however often it is cut off after that.
        for _ in 0..5 * CUT_OFF_MIN {
            assert_eq!(handshakes.failed(Some(ip), Stage::Known, true), Failure::CutOff);
        }
        let last = (0..CUT_OFF_MIN).map(|_| handshakes.failed(Some(ip), Stage::Taken, true)).last();
        assert_eq!(last, Some(Failure::CutOffOften));
        assert_eq!(handshakes.failed(None, Stage::Fenced, false), Failure::Nonsense);
        assert_eq!(
            [Failure::CutOff, Failure::CutOffOften, Failure::Nonsense].map(Failure::told),
            [None, Some(AwayCause::CutOff), Some(AwayCause::Nonsense)]
        );
    }

    #[test]
    fn the_addresses_of_those_cut_off_are_bounded() {
        let mut handshakes = Handshakes::default();
        (0..1_000_u32).for_each(|number| _ = handshakes.is_cut_off_often(IpAddr::from(number.to_be_bytes())));
        assert_eq!(handshakes.cut_off.len(), SENDERS_MAX);
    }

    #[test]
    fn a_flood_is_told_of_once_a_sender() {
        let (mut handshakes, now) = (Handshakes::default(), Time(7));
        assert!(handshakes.is_news(now, "a"));
        assert!(!handshakes.is_news(now, "a"));
        assert!(handshakes.is_news(now + PAUSE, "a"));
        let news = (0..1_000).filter(|number| handshakes.is_news(now + PAUSE, &number.to_string())).count();
        assert_eq!(news, SENDERS_MAX - 1);
    }
}

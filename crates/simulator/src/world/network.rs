//! The network: who reaches whom, how long it takes, and what becomes of a frame on the way.

use std::cell::Cell;

use super::chance::{Chance, MS};
use super::event::{At, Slot};
use crate::scenario::{Fault, Network, Sort};

/// What a fault does to the network while it lasts.
#[derive(Debug)]
struct Rule {
    fault: usize,
    sort: Sort,
    /// Machines named by the fault.
    named: Vec<bool>,
    first: Slot,
    /// Of a bridge, one of the halves.
    half: Vec<bool>,
    rate: f64,
    us: f64,
    bytes: usize,
    kbit: f64,
    /// Whether a flapping one is in force now.
    on: bool,
    /// Whether anything became of it yet.
    took: Cell<bool>,
}

/// Why a frame does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lost {
    /// Nothing gets through between the two.
    Cut,
    /// The network loses some.
    Lost,
    /// The network loses long ones.
    Swallowed,
    /// It would wait too long for a slow link.
    Queue,
    /// Its connection is gone.
    LinkGone,
    /// The receiver refuses its sender.
    Refused,
    /// It was changed on its way.
    Corrupt,
}

/// What becomes of a frame: when it arrives, perhaps more than once, perhaps changed.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    pub(crate) arrivals: Vec<(At, bool)>,
    /// Why it does not arrive.
    pub(crate) lost: Option<Lost>,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Net {
    settings: Network,
    rules: Vec<Rule>,
    /// When each machine's link is free to send the next frame.
    free_at: Vec<At>,
}

/// Frames that would wait longer than this for a slow link are dropped, as a full queue would.
const QUEUE_MAX: At = 5_000_000;

impl Net {
    pub(crate) fn new(settings: Network, slots: usize) -> Self {
        Self { settings, rules: Vec::new(), free_at: vec![0; slots] }
    }

    pub(crate) fn connections_max(&self) -> usize {
        self.settings.connections_max as usize
    }

    /// A fault of the network begins. False if it is none.
    pub(crate) fn begin(&mut self, fault: usize, what: &Fault, targets: &[Slot]) -> bool {
        use Sort::*;
        let partition = matches!(what.kind, Split | OneWay | Ring | Bridge | Flap);
        if !partition && !matches!(what.kind, Loss | Delay | Duplicate | Corrupt | Bandwidth | Swallow) {
            return false;
        }
        let mut named = vec![false; self.free_at.len()];
        targets.iter().for_each(|slot| named[*slot as usize] = true);
        let lower = named.len() / 2;
        let half = |slot: usize| match &what.half {
            Some(half) => half.contains(&(slot as Slot)),
            None => slot < lower,
        };
        let half = if what.kind == Bridge { (0..named.len()).map(half).collect() } else { Vec::new() };
        self.rules.push(Rule {
            fault,
            sort: what.kind,
            named,
            half,
            first: targets.first().copied().unwrap_or(0),
            rate: what.rate.unwrap_or(0.0),
            us: what.ms.unwrap_or(0.0) * MS,
            bytes: what.bytes.unwrap_or(u32::MAX) as usize,
            kbit: what.kbit.unwrap_or(0.0),
            on: true,
            took: Cell::new(false),
        });
        true
    }

    /// A flapping fault turns on or off.
    pub(crate) fn turn(&mut self, fault: usize, on: bool) {
        self.rules.iter_mut().filter(|rule| rule.fault == fault).for_each(|rule| rule.on = on);
    }

    /// A fault ends. Says whether it took effect.
    pub(crate) fn end(&mut self, fault: usize) -> bool {
        let took = self.took(fault);
        self.rules.retain(|rule| rule.fault != fault);
        took
    }

    /// Whether a fault that is under way took effect.
    pub(crate) fn took(&self, fault: usize) -> bool {
        self.rules.iter().any(|rule| rule.fault == fault && rule.took.get())
    }

    /// The same as [`Net::blocked`] for something that is on its way now: who blocks it takes effect. What others block already
    /// is theirs.
    pub(crate) fn cuts(&self, from: Slot, to: Slot) -> bool {
        let blocks = self.rules.iter().find(|rule| rule.blocks(from, to));
        blocks.inspect(|rule| rule.took.set(true)).is_some()
    }

    /// Something that is no frame was lost between two machines.
    pub(crate) fn loses(&self, from: Slot, to: Slot) {
        let loses = |rule: &&Rule| rule.sort == Sort::Loss && rule.rate > 0.0 && rule.touches(from, to);
        self.rules.iter().filter(loses).for_each(|rule| rule.took.set(true));
    }

    /// Whether nothing of what `from` sends reaches `to`.
    pub(crate) fn blocked(&self, from: Slot, to: Slot) -> bool {
        self.rules.iter().any(|rule| rule.blocks(from, to))
    }

    /// Share of frames that are lost between two machines.
    pub(crate) fn loss(&self, from: Slot, to: Slot) -> f64 {
        let arrives = self.rules.iter().filter(|rule| rule.sort == Sort::Loss && rule.touches(from, to));
        1.0 - arrives.fold(1.0 - self.settings.loss, |arrives, rule| arrives * (1.0 - rule.rate))
    }

    /// One way between two machines, without jitter.
    pub(crate) fn latency(&self, chance: &Chance, from: Slot, to: Slot) -> At {
        let (low, high) = (from.min(to).into(), from.max(to).into());
        chance.fixed_draw(self.settings.latency_ms, MS, "latency", low, high)
    }

    /// What becomes of a frame of `bytes` sent at `now`.
    pub(crate) fn fate(&mut self, chance: &mut Chance, now: At, from: Slot, to: Slot, bytes: usize) -> Fate {
        let mut fate = Fate::default();
        if self.cuts(from, to) {
            fate.lost = Some(Lost::Cut);
            return fate;
        }
        if chance.happens(self.settings.loss) {
            fate.lost = Some(Lost::Lost);
            return fate;
        }
        let Some(sent) = self.depart(now, from, bytes) else {
            fate.lost = Some(Lost::Queue);
            return fate;
        };
        let mut arrival = sent + self.latency(chance, from, to) + chance.draw([0.0, self.settings.jitter_ms], MS);
        let mut again = None;
        let mut changed = false;
        let mut acted = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.touches(from, to)) {
            match rule.sort {
                Sort::Loss if chance.happens(rule.rate) => rule.loses(&mut fate, Lost::Lost),
                Sort::Swallow if bytes > rule.bytes => rule.loses(&mut fate, Lost::Swallowed),
                Sort::Delay => arrival += chance.draw([0.0, rule.us], 1.0),
                Sort::Duplicate if chance.happens(rule.rate) => again = Some(chance.draw([0.0, rule.us], 1.0)),
                Sort::Corrupt if chance.happens(rule.rate) => changed = true,
                _ => continue,
            }
            acted.push(rule);
        }
        if fate.lost.is_none() {
            // What befell a frame that was lost as well took no effect.
            acted.iter().for_each(|rule| rule.took.set(true));
            fate.arrivals.push((arrival, changed));
            fate.arrivals.extend(again.map(|later| (arrival + later, false)));
        }
        fate
    }

    /// When the last bit has left, or nothing if the queue is full.
    fn depart(&mut self, now: At, from: Slot, bytes: usize) -> Option<At> {
        let limits = || self.rules.iter().filter(|rule| rule.sort == Sort::Bandwidth && rule.named[from as usize]);
        let base = if self.settings.bandwidth_kbit > 0.0 { self.settings.bandwidth_kbit } else { f64::INFINITY };
        let kbit = limits().fold(base, |kbit, rule| kbit.min(rule.kbit));
        if kbit.is_infinite() {
            return Some(now);
        }
        let begin = self.free_at[from as usize].max(now);
        if begin - now > QUEUE_MAX {
            return None;
        }
        limits().filter(|rule| rule.kbit <= kbit).for_each(|rule| rule.took.set(true));
        let end = begin + (bytes as f64 * 8.0 / kbit * MS) as At;
        self.free_at[from as usize] = end;
        Some(end)
    }
}

impl Rule {
    fn touches(&self, from: Slot, to: Slot) -> bool {
        self.named[from as usize] || self.named[to as usize]
    }

    /// A frame is lost, by this rule unless by another one already.
    fn loses(&self, fate: &mut Fate, why: Lost) {
        if fate.lost.is_none() {
            self.took.set(true);
        }
        fate.lost = Some(why);
    }

    fn blocks(&self, from: Slot, to: Slot) -> bool {
        let (a, b) = (self.named[from as usize], self.named[to as usize]);
        match self.sort {
            Sort::Split => a != b,
            Sort::Flap => self.on && a != b,
            Sort::OneWay => a && !b,
            Sort::Ring => {
                let count = self.named.len() as u32;
                let apart = from.abs_diff(to);
                apart > 1 && apart + 1 != count
            }
            Sort::Bridge => {
                let apart = self.half[from as usize] != self.half[to as usize];
                from != self.first && to != self.first && apart
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Pick;

    fn net(sort: Sort, targets: &[Slot]) -> Net {
        let mut net = Net::new(Network::default(), 6);
        assert!(net.begin(0, &Fault::new(sort, 0.0, 1.0, Pick::All), targets));
        net
    }

    fn reached(net: &Net, from: Slot) -> Vec<Slot> {
        (0..6).filter(|to| *to != from && !net.blocked(from, *to)).collect()
    }

    #[test]
    fn partitions_block_whom_they_should() {
        assert_eq!(reached(&net(Sort::Split, &[0, 1]), 0), [1]);
        assert_eq!(reached(&net(Sort::OneWay, &[0]), 0), [] as [Slot; 0]);
        assert_eq!(reached(&net(Sort::OneWay, &[0]), 3), [0, 1, 2, 4, 5]);
        assert_eq!(reached(&net(Sort::Ring, &[]), 0), [1, 5]);
        assert_eq!(reached(&net(Sort::Bridge, &[2]), 0), [1, 2]);
        assert_eq!(reached(&net(Sort::Bridge, &[2]), 2), [0, 1, 3, 4, 5]);
        let mut odds = Net::new(Network::default(), 6);
        let mut odd = Fault::new(Sort::Bridge, 0.0, 1.0, Pick::All);
        odd.half = Some(vec![1, 3]);
        assert!(odds.begin(0, &odd, &[5]));
        assert_eq!(reached(&odds, 0), [2, 4, 5]);
        assert_eq!(reached(&odds, 3), [1, 5]);
        assert_eq!(reached(&odds, 5), [0, 1, 2, 3, 4]);
        let mut flapping = net(Sort::Flap, &[0]);
        assert_eq!(reached(&flapping, 0), [] as [Slot; 0]);
        flapping.turn(0, false);
        assert_eq!(reached(&flapping, 0).len(), 5);
        flapping.end(0);
        assert_eq!(reached(&flapping, 0).len(), 5);
    }
}

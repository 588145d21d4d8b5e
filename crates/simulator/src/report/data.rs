//! What the page's script draws. Words are written once and numbers stand for them: a page of 500 machines stays small.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::run::Outcome;
use crate::trace::{Line, Message, Trace, is_gossip};
use crate::world::{At, World};

#[derive(Serialize)]
pub(super) struct Data {
    end: At,
    healed: Option<At>,
    broken: Option<At>,
    machines: u32,
    /// From, to, sort, whom.
    faults: Vec<(At, At, String, Vec<u32>)>,
    words: Vec<String>,
    /// Four numbers a line: microseconds since the line before, machine or -1, kind, text (both places in `words`).
    lines: Vec<i64>,
    kinds: Vec<&'static str>,
    gossip: Vec<bool>,
    /// Five numbers a frame: microseconds since the frame before, those on its way or -1, from, to, place in `kinds`.
    frames: Vec<i64>,
    frames_sent: u64,
    /// Three numbers a step: microseconds, machines with a charter, machines that are Ready.
    curve: Vec<u64>,
}

impl Data {
    pub(super) fn new(outcome: &Outcome, world: &World, trace: &Trace) -> Self {
        let end = outcome.virtual_us.max(1);
        let mut words = Words::default();
        let mut all = trace.lines.clone();
        if let Some(broken) = &outcome.broken {
            let place = all.partition_point(|line| line.at_us <= broken.at_us);
            let text = format!("{}: {}", broken.promise, broken.what);
            all.insert(place, Line { at_us: broken.at_us, slot: None, kind: "BROKEN", text });
        }
        let lines = lines(&all, &mut words);
        let (frames, kinds) = frames(&trace.frames.kept());
        let faults = trace.faults.iter();
        Self {
            end,
            healed: world.healed,
            broken: outcome.broken.as_ref().map(|broken| broken.at_us),
            machines: world.slots(),
            faults: faults
                .map(|span| (span.from_us, span.to_us.unwrap_or(end), span.kind.clone(), span.targets.clone()))
                .collect(),
            words: words.all,
            lines,
            gossip: kinds.iter().map(|kind| is_gossip(kind)).collect(),
            kinds,
            frames,
            frames_sent: trace.frames.count(),
            curve: curve(&trace.lines),
        }
    }
}

#[derive(Default)]
struct Words {
    all: Vec<String>,
    places: BTreeMap<String, usize>,
}

impl Words {
    fn place(&mut self, word: &str) -> i64 {
        if let Some(place) = self.places.get(word) {
            return *place as i64;
        }
        self.places.insert(word.to_owned(), self.all.len());
        self.all.push(word.to_owned());
        self.all.len() as i64 - 1
    }
}

fn lines(lines: &[Line], words: &mut Words) -> Vec<i64> {
    let mut before = 0;
    let numbers = lines.iter().flat_map(|line| {
        let since = line.at_us - before;
        before = line.at_us;
        [since as i64, line.slot.map_or(-1, i64::from), words.place(line.kind), words.place(&line.text)]
    });
    numbers.collect()
}

fn frames(messages: &[Message]) -> (Vec<i64>, Vec<&'static str>) {
    let mut kinds: Vec<&'static str> = Vec::new();
    let mut before = 0;
    let mut numbers = Vec::with_capacity(messages.len() * 5);
    for message in messages {
        let kind = kinds.iter().position(|kind| *kind == message.kind).unwrap_or_else(|| {
            kinds.push(message.kind);
            kinds.len() - 1
        });
        let takes = message.arrives_us.map_or(-1, |at| (at - message.sent_us) as i64);
        let since = (message.sent_us - before) as i64;
        before = message.sent_us;
        numbers.extend([since, takes, message.from.into(), message.to.into(), kind as i64]);
    }
    (numbers, kinds)
}

/// How many machines follow a charter, and how many are Ready, whenever that changes.
fn curve(lines: &[Line]) -> Vec<u64> {
    let (mut charter, mut ready) = (BTreeSet::new(), BTreeSet::new());
    let mut curve = vec![0, 0, 0];
    for line in lines {
        match (line.kind, line.slot) {
            ("charter", Some(slot)) => drop(charter.insert(slot)),
            ("phase", Some(slot)) if line.text == "Ready" => drop(ready.insert(slot)),
            ("phase" | "stop", Some(slot)) => drop(ready.remove(&slot)),
            _ => continue,
        }
        curve.extend([line.at_us, charter.len() as u64, ready.len() as u64]);
    }
    curve
}

//! A trace of one run: what a person wants to read, and what the report draws.

mod frames;

use serde::Serialize;

pub(crate) use frames::is_gossip;
pub use frames::{Frames, Message};

use crate::watch::Seen;
use crate::world::{At, Slot};

/// One line.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Microseconds since the start of the run.
    pub at_us: At,
    /// Which machine; none for what concerns all.
    pub slot: Option<Slot>,
    /// A short stable word.
    pub kind: &'static str,
    /// What happened.
    pub text: String,
}

/// A fault as it happened.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its place in the run's plan.
    pub index: usize,
    /// Its sort.
    pub kind: String,
    /// When it began, in microseconds.
    pub from_us: At,
    /// When it ended, if it did.
    pub to_us: Option<At>,
    /// Whom it hit.
    pub targets: Vec<Slot>,
}

/// The trace.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// Lines in order.
    pub lines: Vec<Line>,
    /// Faults in order.
    pub faults: Vec<Span>,
    /// Frames.
    pub frames: Frames,
}

impl Trace {
    /// Keeps about so many frames.
    pub fn new(frames_max: usize) -> Self {
        Self { frames: Frames::new(frames_max), ..Self::default() }
    }

    pub(crate) fn see(&mut self, now: At, seen: &Seen<'_>) {
        let (slot, kind, text) = match seen {
            Seen::Booting { slot, machine, durable, .. } => {
                (Some(*slot), "boot", format!("{machine} boots, its disk counted {} boots", durable.boot))
            }
            Seen::RefusedStart { slot, why, .. } => (Some(*slot), "refuses", format!("refuses to start: {why}")),
            Seen::Stopped { slot } => (Some(*slot), "stop", "stops".into()),
            Seen::Refused { slot, whom, why } => (Some(*slot), "refuse", format!("refuses {whom}: {why}")),
            Seen::Leads { slot, term, .. } => (Some(*slot), "leads", format!("leads in term {term}")),
            Seen::StepBegan { slot, step, .. } => (Some(*slot), "step", format!("kubeadm: {} begins", step.name())),
            Seen::StepEnded { slot, step, result } => {
                let how = match result {
                    Ok(_) => "is done".to_owned(),
                    Err(failure) => format!("fails: {failure}"),
                };
                (Some(*slot), "step", format!("kubeadm: {} {how}", step.name()))
            }
            Seen::Notice { slot, notice } => (Some(*slot), notice.kind.word(), notice.text.clone()),
            Seen::FaultBegins { index, fault, targets } => {
                let (kind, targets) = (fault.kind.word(), targets.to_vec());
                let whom = machines(&targets);
                let span = Span { index: *index, kind: kind.clone(), from_us: now, to_us: None, targets };
                self.faults.push(span);
                (None, "fault", format!("{kind} begins on {whom} for {} s", fault.for_s))
            }
            Seen::FaultEnds { index } => {
                let span = self.faults.iter_mut().rev().find(|span| span.index == *index);
                let kind = span.map_or(String::new(), |span| {
                    span.to_us = Some(now);
                    format!("{} on {}", span.kind, machines(&span.targets))
                });
                (None, "fault", format!("{kind} ends"))
            }
            Seen::Copied { copy, original } => {
                (None, "disk", format!("machine {copy} has a copy of {original}'s disk"))
            }
            Seen::Damaged { slot } => (Some(*slot), "disk", "a file on the disk is damaged".into()),
            Seen::LogGone { slot } => (Some(*slot), "disk", "Raft's file is gone".into()),
            Seen::Forgot { slot } => (Some(*slot), "disk", "the disk forgot something".into()),
            Seen::Wiped { slot } => (Some(*slot), "disk", "the disk is empty".into()),
            Seen::Renewed { slot } => {
                (Some(*slot), "disk", "it was removed, and starts again as another machine".into())
            }
            Seen::Healed => (None, "heal", "all faults end".into()),
            _ => return,
        };
        self.lines.push(Line { at_us: now, slot, kind, text });
    }
}

/// Machines by number, at most eight of them.
fn machines(slots: &[Slot]) -> String {
    const NAMED: usize = 8;
    let named: Vec<String> = slots.iter().take(NAMED).map(|slot| format!("node-{slot}")).collect();
    match slots.len().saturating_sub(NAMED) {
        0 if slots.is_empty() => "nobody".to_owned(),
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

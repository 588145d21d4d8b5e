//! A trace of one run: what a person wants to read, and what the report draws.

use muster_protocol::Input;
use muster_wire::{Frame, MachineId};
use serde::Serialize;

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

/// A frame on its way.
#[derive(Debug, Clone, Serialize)]
pub struct Message {
    /// When it arrived, in microseconds.
    pub at_us: At,
    /// From which machine.
    pub from: MachineId,
    /// To which.
    pub to: Slot,
    /// Its kind.
    pub kind: &'static str,
}

/// The trace.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// Lines in order.
    pub lines: Vec<Line>,
    /// Frames in order of arrival, as many as `messages_max` allows.
    pub messages: Vec<Message>,
    messages_max: usize,
}

impl Trace {
    /// Keeps at most so many frames.
    pub fn new(messages_max: usize) -> Self {
        Self { messages_max, ..Self::default() }
    }

    pub(crate) fn delivered(&mut self, now: At, to: Slot, from: MachineId, frame: &Frame) {
        if self.messages.len() < self.messages_max {
            self.messages.push(Message { at_us: now, from, to, kind: frame.kind() });
        }
    }

    pub(crate) fn input(&mut self, _now: At, _slot: Slot, _input: &Input) {}

    pub(crate) fn see(&mut self, now: At, seen: &Seen<'_>) {
        let (slot, kind, text) = match seen {
            Seen::Booting { slot, machine, durable, .. } => {
                (Some(*slot), "boot", format!("{machine} boots, its disk counted {} boots", durable.boot))
            }
            Seen::RefusedStart { slot, why } => (Some(*slot), "refuses", format!("refuses to start: {why}")),
            Seen::Stopped { slot } => (Some(*slot), "stop", "stops".into()),
            Seen::Refused { slot, whom, why } => (Some(*slot), "refuse", format!("refuses {whom}: {why}")),
            Seen::Leads { slot, term, .. } => (Some(*slot), "leads", format!("leads in term {term}")),
            Seen::StepBegan { slot, step } => (Some(*slot), "step", format!("kubeadm: {} begins", step.name())),
            Seen::StepEnded { slot, step, result } => {
                let how = match result {
                    Ok(_) => "is done".to_owned(),
                    Err(failure) => format!("fails: {failure}"),
                };
                (Some(*slot), "step", format!("kubeadm: {} {how}", step.name()))
            }
            Seen::Notice { slot, notice } => (Some(*slot), notice.kind, notice.text.clone()),
            Seen::FaultBegins { fault, targets, .. } => {
                (None, "fault", format!("{} begins on {targets:?} for {} s", fault.kind.word(), fault.for_s))
            }
            Seen::FaultEnds { index } => (None, "fault", format!("fault {index} ends")),
            Seen::Copied { copy, original } => {
                (None, "disk", format!("machine {copy} has a copy of {original}'s disk"))
            }
            Seen::Forgot { slot } => (Some(*slot), "disk", "the disk forgot something".into()),
            Seen::Wiped { slot } => (Some(*slot), "disk", "the disk is empty".into()),
            Seen::Healed => (None, "heal", "all faults end".into()),
            _ => return,
        };
        self.lines.push(Line { at_us: now, slot, kind, text });
    }
}

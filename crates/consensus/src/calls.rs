//! Calls on their way to other machines.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_wire::{CallNumber, MachineId};
use tokio::sync::oneshot;

/// Most calls that wait for an answer at a time. Raft has one call to each voter under way, two while a snapshot goes
/// out; those whose time is up no longer count.
pub const CALLS_MAX: usize = 128;

/// A call that consensus wants made. Dropping it says that it cannot be: consensus then waits before it tries again.
#[derive(Debug)]
pub struct Call {
    /// Whom to call.
    pub to: MachineId,
    /// What to say, at most [`crate::CALL_BYTES_MAX`] bytes.
    pub body: Bytes,
    /// Takes the answer's body. Closed once the caller's deadline has passed.
    pub answer: oneshot::Sender<Bytes>,
}

/// Numbers calls, and finds the call that an answer is for.
#[derive(Debug, Default)]
pub struct Calls {
    last: CallNumber,
    waiting: BTreeMap<CallNumber, (MachineId, oneshot::Sender<Bytes>)>,
}

impl Calls {
    /// Keeps a call until it is answered, and returns its number and body to send. `None`, and the call fails, if
    /// [`CALLS_MAX`] others wait.
    pub fn begin(&mut self, call: Call) -> Option<(CallNumber, Bytes)> {
        if self.waiting.len() >= CALLS_MAX {
            self.waiting.retain(|_, (_, answer)| !answer.is_closed());
        }
        if self.waiting.len() >= CALLS_MAX {
            return None;
        }
        self.last = self.last.next();
        self.waiting.insert(self.last, (call.to, call.answer));
        Some((self.last, call.body))
    }

    /// An answer came. Returns whether a call waited for it: answers that are late, twice, or another machine's are
    /// dropped.
    pub fn answered(&mut self, from: MachineId, number: CallNumber, body: Bytes) -> bool {
        match self.waiting.remove(&number) {
            Some((to, answer)) if to == from => answer.send(body).is_ok(),
            // Somebody else's answer must not end the call.
            Some(other) => {
                self.waiting.insert(number, other);
                false
            }
            None => false,
        }
    }

    /// This machine cannot be reached: its calls fail now and not at their deadlines.
    pub fn lost(&mut self, to: MachineId) {
        self.waiting.retain(|_, (whom, answer)| *whom != to && !answer.is_closed());
    }

    /// Nobody waits for an answer any more. The numbers go on, so that a late answer finds no other call.
    pub(crate) fn all_lost(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(to: u8) -> (Call, oneshot::Receiver<Bytes>) {
        let (answer, answered) = oneshot::channel();
        (Call { to: MachineId([to; 32]), body: Bytes::from_static(b"?"), answer }, answered)
    }

    #[test]
    fn an_answer_finds_its_call_and_no_other() {
        let mut calls = Calls::default();
        let (first, mut first_answered) = call(1);
        let (second, mut second_answered) = call(2);
        let (first, _) = calls.begin(first).unwrap();
        let (second, _) = calls.begin(second).unwrap();
        assert!(!calls.answered(MachineId([2; 32]), first, Bytes::from_static(b"forged")));
        assert!(calls.answered(MachineId([1; 32]), first, Bytes::from_static(b"one")));
        assert!(!calls.answered(MachineId([1; 32]), first, Bytes::from_static(b"again")));
        assert_eq!(first_answered.try_recv().unwrap(), "one");
        calls.lost(MachineId([2; 32]));
        assert!(second_answered.try_recv().is_err());
        assert!(!calls.answered(MachineId([2; 32]), second, Bytes::new()));
    }

    #[test]
    fn calls_that_gave_up_make_room_and_others_do_not() {
        let mut calls = Calls::default();
        let mut kept = Vec::new();
        for _ in 0..CALLS_MAX {
            let (one, answered) = call(1);
            assert!(calls.begin(one).is_some());
            kept.push(answered);
        }
        assert!(calls.begin(call(1).0).is_none());
        kept.pop();
        assert!(calls.begin(call(1).0).is_some());
    }
}

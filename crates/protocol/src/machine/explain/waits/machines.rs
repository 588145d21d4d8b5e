//! What is to become of single machines: whom to admit, to remove, and to replace.

use super::{Told, in_s};
use crate::Time;
use crate::machine::Machine;
use crate::words::reasons::Topic;
use crate::words::waits::{Admission, Removal, Repair};

impl Machine {
    pub(super) fn tell_admission(&self, why: Admission, now: Time) -> Told {
        match why {
            Admission::Address(machine) => self.tell_address(machine),
            Admission::TooOld(machine) => {
                let level = self.roster.card(machine).map_or(0, |card| card.level);
                let text = format!(
                    "{} is not admitted: it knows the ledger up to level {level}, and this one is at {}. Start it with a newer image",
                    self.called(machine),
                    self.follow.ledger().level()
                );
                (Topic::Level, text, vec![machine])
            }
            Admission::Unchecked(machine) => {
                let text = format!("{} is not admitted before it has looked at its kubeadm", self.called(machine));
                (Topic::Admission, text, vec![machine])
            }
            Admission::Predecessor { machine, old } => {
                let text = format!(
                    "{} is not admitted before {} is removed, whose hardware it shows: a wiped machine takes the place of what it was",
                    self.called(machine),
                    self.heard(old, now)
                );
                (Topic::Hardware, text, vec![machine, old])
            }
            Admission::Others(count) => {
                let text = format!("{count} more machines are admitted after those that are being admitted now");
                (Topic::Admission, text, Vec::new())
            }
        }
    }

    pub(super) fn tell_removal(&self, why: Removal, now: Time) -> Told {
        let (machine, text) = match why {
            Removal::Silent { machine, until } => {
                (machine, format!("is to be removed, and is silent: it is taken for dead {}", in_s(until, now)))
            }
            Removal::Held { machine, until } => (machine, format!("is drained once more {}", in_s(until, now))),
            Removal::Majority(machine) => {
                (machine, "is not removed: the control planes that are here would be no majority without it".to_owned())
            }
            Removal::NobodyToDo(machine) => (
                machine,
                "leads and is to be removed, which another control plane has to do: none that works is here".to_owned(),
            ),
            Removal::JoinsFirst(machine) => {
                (machine, "is just joining: it is removed when it has joined, or answers no more".to_owned())
            }
        };
        (Topic::Removal, format!("{} {text}", self.called(machine)), vec![machine])
    }

    pub(super) fn tell_repair(&self, why: Repair, now: Time) -> Told {
        let (text, machine) = match why {
            Repair::Dead { machine, until } => {
                let who = self.called(machine);
                let text = format!("{who} is dead: it is given up, and a worker takes its seat, {}", in_s(until, now));
                (text, Some(machine))
            }
            Repair::Kept(machine) => {
                let who = self.called(machine);
                (format!("{who} is dead, and keeps its seat: repair.replace_after is \"never\""), Some(machine))
            }
            Repair::Unadmitted(machine) => {
                let who = self.called(machine);
                let text = format!(
                    "{who} signed the charter, was never admitted, and is away: its seat stays free until it comes"
                );
                (text, Some(machine))
            }
            Repair::Vacancy { until } => {
                let when = in_s(until, now);
                let text = format!(
                    "there is a control plane too few: a worker becomes one {when}, unless a new machine comes"
                );
                (text, None)
            }
            Repair::NoWorker(Some(dead)) => {
                let who = self.called(dead);
                (format!("{who} is dead, and no worker that is here can take its seat"), Some(dead))
            }
            Repair::NoWorker(None) => {
                ("there is a control plane too few, and no worker that is here can become one".to_owned(), None)
            }
            Repair::Promoted { machine, until } => {
                let (who, when) = (self.called(machine), in_s(until, now));
                let text =
                    format!("{who} becomes a control plane; if it has not joined as one by then, others go on {when}");
                (text, Some(machine))
            }
            Repair::MostAway => {
                let text = "control planes are missing, and nothing is repaired as long as most machines are away: this looks like a site \
                            that lost its power, or a cut";
                (text.to_owned(), None)
            }
            Repair::Joining(machine) => {
                let who = self.called(machine);
                (format!("nothing is repaired before control plane {who} has joined"), Some(machine))
            }
        };
        (Topic::Repair, text, machine.into_iter().collect())
    }
}

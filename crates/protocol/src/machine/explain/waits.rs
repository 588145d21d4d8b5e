//! What the leader's duties wait for, in sentences.

use std::collections::BTreeMap;

use muster_wire::MachineId;

use crate::lead::{self, Lead};
use crate::machine::Machine;
use crate::words::reasons::Topic;
use crate::words::waits::Wait;
use crate::{Effects, Time};

impl Machine {
    /// What they wait for; on a machine that does not lead what they would wait for here, as far as that does not take time.
    fn waits(&self, now: Time) -> Vec<Wait> {
        let (Some(leader), Some(certificate)) = (self.follow.leader, &self.durable.charter) else { return Vec::new() };
        if leader == self.id() || self.stands_still() {
            return self.lead.waits().to_vec();
        }
        // The duties themselves look, at nothing but what is known here, and what they want is forgotten.
        let (mut waits, mut effects, mut wants) = (Vec::new(), Effects::default(), BTreeMap::new());
        Lead::default().run(&mut lead::Context {
            now,
            mine: &self.mine,
            charter: certificate.charter(),
            control_planes: self.control_planes_wanted(),
            tuning: &self.tuning,
            roster: &self.roster,
            ledger: self.follow.ledger(),
            raft_members: self.follow.members(),
            renewal: self.ladder.renewal(),
            runs: &mut 0,
            wants: &mut wants,
            waits: &mut waits,
            due: &mut None,
            effects: &mut effects,
        });
        waits.retain(|wait| !wait.takes_time());
        // A control plane does some of a leader's duties that cannot do them itself, and knows alone what it waits for.
        waits.extend(self.lead.waits());
        waits.sort_unstable();
        waits.dedup();
        waits
    }

    /// Each of them.
    pub(super) fn explain_waits(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let ledger = self.follow.ledger();
        let in_s = |until: Time| format!("in {} s", until.since(now).as_secs() + 1);
        for wait in self.waits(now) {
            match wait {
                Wait::Address(machine) => self.explain_address(machine, add),
                Wait::TooOld(machine) => {
                    let level = self.roster.card(machine).map_or(0, |card| card.level);
                    let text = format!(
                        "{} is not admitted: it knows the ledger up to level {level}, and this one is at {}. Start it with a \
                         newer image",
                        self.called(machine),
                        ledger.level()
                    );
                    add(Topic::Level, text, &[machine]);
                }
                Wait::Predecessor { machine, old } => {
                    let text = format!(
                        "{} is not admitted before {} is removed, whose hardware it shows: a wiped machine takes the place of what it \
                         was",
                        self.called(machine),
                        self.heard(old, now)
                    );
                    add(Topic::Hardware, text, &[machine, old]);
                }
                Wait::Voter(machine) => {
                    let knows = match self.roster.card(machine) {
                        Some(card) => format!("knows level {} alone. Start it with the newer image", card.level),
                        None => "was not heard of since this machine started".to_owned(),
                    };
                    let text =
                        format!("the ledger stays at level {}: {} {knows}", ledger.level(), self.called(machine));
                    add(Topic::Level, text, &[machine]);
                }
                Wait::NobodyAble => {
                    let text = "nobody is given the right to init: no control plane that is here can run kubeadm";
                    add(Topic::Init, text.to_owned(), &ledger.control_planes().collect::<Vec<_>>());
                }
                Wait::NextAttempt(until) => {
                    add(Topic::Init, format!("the next attempt at init is made {}", in_s(until)), &[]);
                }
                Wait::Initialiser { machine, until } => {
                    let (who, when) = (self.heard(machine, now), in_s(until));
                    let text =
                        format!("whoever initialises the cluster is silent ({who}): its attempt is given up {when}");
                    add(Topic::Init, text, &[machine]);
                }
                Wait::Holder { kind, machine, until } => {
                    let (who, when) = (self.heard(machine, now), in_s(until));
                    let text =
                        format!("whoever holds the {} turn is silent ({who}): the turn is ended {when}", kind.word());
                    add(Topic::Turn, text, &[machine]);
                }
                Wait::Silent { machine, until } => {
                    let text = format!(
                        "{} is to be removed, and is silent: it is taken for dead {}",
                        self.called(machine),
                        in_s(until)
                    );
                    add(Topic::Removal, text, &[machine]);
                }
                Wait::Held { machine, until } => {
                    add(
                        Topic::Removal,
                        format!("{} is drained once more {}", self.called(machine), in_s(until)),
                        &[machine],
                    );
                }
                Wait::Majority(machine) => {
                    let text = format!(
                        "{} is not removed: the control planes that are here would be no majority without it",
                        self.called(machine)
                    );
                    add(Topic::Removal, text, &[machine]);
                }
                Wait::NobodyToRemove(machine) => {
                    let text = format!(
                        "{} leads and is to be removed, which another control plane has to do: none that works is here",
                        self.called(machine)
                    );
                    add(Topic::Removal, text, &[machine]);
                }
                Wait::JoinsFirst(machine) => {
                    let text = format!(
                        "{} is just joining: it is removed when it has joined, or answers no more",
                        self.called(machine)
                    );
                    add(Topic::Removal, text, &[machine]);
                }
                Wait::Repair { machine, until } => {
                    let text = format!(
                        "{} is dead: it is given up, and a worker takes its seat, {}",
                        self.called(machine),
                        in_s(until)
                    );
                    add(Topic::Repair, text, &[machine]);
                }
                Wait::SeatKept(machine) => {
                    let text = format!(
                        "{} signed the charter, was never admitted, and is away: its seat stays free until it comes",
                        self.called(machine)
                    );
                    add(Topic::Repair, text, &[machine]);
                }
                Wait::Vacancy { until } => {
                    let text = format!(
                        "there is a control plane too few: a worker becomes one {}, unless a new machine comes",
                        in_s(until)
                    );
                    add(Topic::Repair, text, &[]);
                }
                Wait::NoWorker(dead) => {
                    let text = match dead {
                        Some(dead) => {
                            format!("{} is dead, and no worker that is here can take its seat", self.called(dead))
                        }
                        None => {
                            "there is a control plane too few, and no worker that is here can become one".to_owned()
                        }
                    };
                    add(Topic::Repair, text, dead.as_slice());
                }
                Wait::MostAway => {
                    let text = "control planes are missing, and nothing is repaired as long as most machines are away: this looks like a site \
                                that lost its power, or a cut";
                    add(Topic::Repair, text.to_owned(), &[]);
                }
                Wait::Joining(machine) => {
                    let text = format!("nothing is repaired before control plane {} has joined", self.called(machine));
                    add(Topic::Repair, text, &[machine]);
                }
                Wait::Retry { machine, until } => {
                    let text = format!("what failed for {} is tried again {}", self.called(machine), in_s(until));
                    add(Topic::Ticket, text, &[machine]);
                }
            }
        }
    }

    /// A machine with its name, as people know it.
    fn called(&self, machine: MachineId) -> String {
        let card = if machine == self.id() { Some(self.mine.card()) } else { self.roster.card(machine) };
        match (self.follow.ledger().member(machine), card) {
            (Some(member), _) => format!("{machine} ({})", member.admitted.name),
            (None, Some(card)) => format!("{machine} ({})", card.hostname),
            (None, None) => machine.to_string(),
        }
    }
}

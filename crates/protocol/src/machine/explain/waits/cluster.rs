//! What the cluster as a whole waits for: its level, its making, its turns, and what is made for others.

use muster_wire::MachineId;

use super::{Told, in_s};
use crate::Time;
use crate::machine::Machine;
use crate::status::list;
use crate::words::reasons::Topic;
use crate::words::waits::{Climb, Init, Turn, Work};

impl Machine {
    pub(super) fn tell_voter(&self, machine: MachineId) -> Told {
        let card = if machine == self.id() { Some(self.mine.card()) } else { self.roster.card(machine) };
        let knows = match card {
            Some(card) => format!("knows level {} alone. Start it with the newer image", card.level),
            None => "was not heard of since this machine started".to_owned(),
        };
        let level = self.follow.ledger().level();
        (Topic::Level, format!("the ledger stays at level {level}: {} {knows}", self.called(machine)), vec![machine])
    }

    pub(super) fn tell_init(&self, why: Init, now: Time) -> Told {
        let (text, machines) = match why {
            Init::NobodyAble => (
                "nobody is given the right to init: no control plane that is here can run kubeadm".to_owned(),
                self.follow.ledger().control_planes().collect(),
            ),
            Init::NextAttempt(until) => (format!("the next attempt at init is made {}", in_s(until, now)), Vec::new()),
            Init::Silent { machine, until } => {
                let (who, when) = (self.heard(machine, now), in_s(until, now));
                let text = format!("whoever initialises the cluster is silent ({who}): its attempt is given up {when}");
                (text, vec![machine])
            }
        };
        (Topic::Init, text, machines)
    }

    pub(super) fn tell_turn(&self, why: Turn, now: Time) -> Told {
        match why {
            Turn::Silent { kind, machine, until } => {
                let (who, when) = (self.heard(machine, now), in_s(until, now));
                let text =
                    format!("whoever holds the {} turn is silent ({who}): the turn is ended {when}", kind.word());
                (Topic::Turn, text, vec![machine])
            }
            Turn::Taken { kind, machine } => {
                let text = format!(
                    "nothing is taken down before the {} turn of {} is over",
                    kind.word(),
                    self.called(machine)
                );
                (Topic::Turn, text, vec![machine])
            }
            Turn::Unfit => {
                let text = "nothing is taken down: this machine would do it, and has no etcd member of its own yet, or the ledger's level is \
                            too low for it";
                (Topic::Turn, text.to_owned(), vec![self.id()])
            }
            Turn::Backup => {
                (Topic::Backup, "a backup is taken before anything is taken down".to_owned(), vec![self.id()])
            }
            Turn::Vote(machine) => {
                let text = format!("Raft's voters change: {} is given a vote, or gives it back", self.called(machine));
                (Topic::Turn, text, vec![machine])
            }
            Turn::Renewal(until) => {
                let text = format!("certificates are renewed once more {}", in_s(until, now));
                (Topic::Certificates, text, vec![self.id()])
            }
        }
    }

    pub(super) fn tell_work(&self, why: Work, now: Time) -> Told {
        match why {
            Work::Retry { machine, until } => {
                let text = format!("what failed for {} is tried again {}", self.called(machine), in_s(until, now));
                (Topic::Ticket, text, vec![machine])
            }
            Work::NoCa => {
                let text = "no tickets are made: this machine leads, and no control plane has sealed a copy of the CA for it yet";
                (Topic::Ticket, text.to_owned(), vec![self.id()])
            }
            Work::NoEtcd => {
                let text = "no backups are taken here: this machine has no etcd member of its own yet";
                (Topic::Backup, text.to_owned(), vec![self.id()])
            }
        }
    }

    pub(super) fn tell_climb(&self, why: Climb) -> Told {
        let leader: Vec<MachineId> = self.follow.leader.into_iter().collect();
        match why {
            Climb::NoCa => {
                let text = "waiting for this machine's copy of the CA, from who initialises the cluster, or leads";
                (Topic::Ticket, text.to_owned(), leader)
            }
            Climb::NoTicket => {
                let text = format!("waiting for this machine's ticket from the leader {}", list(&leader));
                (Topic::Ticket, text, leader)
            }
            Climb::OldCopy(turn) => {
                let text = format!("this machine's copy of the ledger is from before its own turn {turn} at etcd");
                (Topic::Etcd, text, vec![self.id()])
            }
        }
    }
}

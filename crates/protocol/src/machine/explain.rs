//! `muster explain`: what this machine waits for, and for whom. What the leader's duties wait for they say themselves, as
//! [`crate::words::waits::Wait`]; the rest is told by subject, a file each.

mod addresses;
mod certificates;
mod founding;
mod joining;
mod waits;

use std::time::Duration;

use muster_wire::{MachineId, Role};

pub(super) use founding::differing;

use super::Machine;
use crate::words::reasons::Topic;
use crate::{Reason, Time};

/// Whoever was heard within this time is here, by frames that are not Raft's: those go to its device.
const HERE: Duration = Duration::from_secs(10);

impl Machine {
    /// Why nothing seems to happen, and whom this machine is waiting for.
    pub fn reasons(&self, now: Time) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut add = |about: Topic, text: String, machines: &[MachineId]| {
            let machines = machines.iter().map(|machine| machine.to_hex()).collect();
            reasons.push(Reason { about, text, machines });
        };
        for clone in self.roster.clones() {
            let whose = if clone == self.id() { "this machine's identity" } else { "one identity" };
            add(
                Topic::Clone,
                format!("{whose} ({clone}) runs on two machines: wipe the state of one of them"),
                &[clone],
            );
        }
        let ledger_role = self.follow.ledger().member(self.id()).map(|member| member.admitted.role);
        if let Some(why) = self.ladder.unable() {
            let worker = ledger_role == Some(Role::Worker);
            match (self.ladder.checked(), worker) {
                // It is what it can be.
                (true, true) => {}
                (true, false) => {
                    add(Topic::Kubeadm, format!("this machine can be no control plane: {why}"), &[self.id()])
                }
                (false, _) => add(Topic::Kubeadm, format!("this machine cannot run kubeadm: {why}"), &[self.id()]),
            }
        }
        if self.ladder.unable().is_none() || self.ladder.checked() {
            for (step, failed) in self.ladder.failures() {
                let times =
                    if failed.times == 1 { "once".to_owned() } else { format!("{} times in a row", failed.times) };
                let next = match self.ladder.pauses_until(now) {
                    Some(due) => format!("the next try is in {} s", due.since(now).as_secs() + 1),
                    None => "it is tried again".to_owned(),
                };
                add(Topic::Step, format!("{step} failed {times}, and {next}: {}", failed.why), &[self.id()]);
            }
        }
        match &self.durable.charter {
            None => self.explain_founding(now, &mut add),
            // Who was removed waits for nothing.
            Some(_) if self.follow.removal(self.id()).is_some() => {}
            Some(_) => self.explain_joining(now, &mut add),
        }
        self.explain_recovery(now, &mut add);
        self.explain_leaving(&mut add);
        self.explain_certificates(&mut add);
        self.explain_backups(now, &mut add);
        self.explain_former(&mut add);
        for trouble in &self.former_troubles {
            add(Topic::Address, trouble.clone(), &[self.id()]);
        }
        self.explain_level(&mut add);
        self.explain_waits(now, &mut add);
        self.explain_look_alikes(now, &mut add);
        self.explain_addresses(now, &mut add);
        self.explain_manifests(&mut add);
        for trouble in &self.endpoint_troubles {
            add(Topic::Hosts, trouble.clone(), &[]);
        }
        self.explain_strangers(now, &mut add);
        reasons
    }

    /// Who votes in Raft, as far as this machine knows.
    fn raft_voters(&self) -> Vec<MachineId> {
        let charter = self.durable.charter.as_ref().map(|certificate| certificate.charter());
        charter.map(|charter| self.follow.ledger().raft_callers(charter).into_iter().collect()).unwrap_or_default()
    }

    /// Whether more than half of Raft's voters are here, this machine included.
    pub(super) fn hears_majority(&self) -> bool {
        let voters = self.raft_voters();
        let here = voters.iter().filter(|voter| **voter == self.id() || self.roster.is_alive(**voter)).count();
        here * 2 > voters.len()
    }

    /// Whether it is held for alive and anything came from it within [`HERE`].
    fn was_heard_lately(&self, machine: MachineId, now: Time) -> bool {
        let heard = self.roster.known().get(&machine).and_then(|known| known.heard);
        self.roster.is_alive(machine) && heard.is_some_and(|heard| now.since(heard) <= HERE)
    }

    pub(super) fn heard_ago(&self, machine: MachineId, now: Time) -> String {
        match self.roster.known().get(&machine).and_then(|known| known.heard) {
            Some(heard) => format!("last heard {} s ago", now.since(heard).as_secs()),
            None => "never heard".to_owned(),
        }
    }

    pub(super) fn heard(&self, machine: MachineId, now: Time) -> String {
        let yet = match self.roster.card(machine) {
            Some(card) if !card.has_looked() => ", which has not looked at its kubeadm yet",
            Some(card) if card.addresses.is_empty() => {
                ", which lists no address (see discovery.subnets; those in kubernetes.pod_subnet and service_subnet do not count)"
            }
            _ => "",
        };
        format!("{machine}, {}{yet}", self.heard_ago(machine, now))
    }
}

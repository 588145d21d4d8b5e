//! `muster status`: what a machine says of itself and of the others.

use std::collections::BTreeMap;

use muster_wire::MachineId;

use super::Machine;
use crate::status::Peer;
use crate::{Status, Time};

impl Machine {
    /// What it says of itself to people.
    pub fn status(&self, now: Time) -> Status {
        let ledger = self.follow.ledger();
        let me = self.id();
        let member = ledger.member(me);
        let charter = self.durable.charter.as_ref().map(|certificate| certificate.charter());
        let mut dropped: BTreeMap<String, u64> =
            self.roster.dropped().map(|(what, count)| (what.to_string(), count)).collect();
        dropped.extend(self.turned_away.counts());
        // What was founded holds, whatever this machine's image says by now.
        let (machines, control_planes) = match (ledger.machines(), ledger.control_planes_wanted()) {
            (0, _) => (self.settings.machines, self.settings.control_planes),
            (machines, 0) => (machines, self.settings.control_planes),
            in_force => in_force,
        };
        Status {
            machine: me.to_hex(),
            short: me.to_string(),
            name: member.map_or_else(|| self.mine.card().hostname.clone(), |member| member.admitted.name.clone()),
            cluster: self.cluster.clone(),
            phase: self.phase,
            role: member.map(|member| member.admitted.role),
            charter: charter.map(|charter| charter.id_hex()),
            voters: charter
                .map(|charter| charter.voters.iter().map(|voter| voter.to_hex()).collect())
                .unwrap_or_default(),
            // Raft's word for a leader is a hint: one that hears no majority decides nothing any more.
            leader: self.follow.leader.filter(|_| !self.follow.raft || self.hears_majority()).map(MachineId::to_hex),
            term: self.follow.term,
            revision: ledger.revision(),
            attempt: ledger.cluster_attempt(),
            doing: self.ladder.doing().map(|(text, since)| format!("{text} ({} s)", now.since(since).as_secs())),
            resets: self.ladder.resets(),
            removed: self.departure_status(),
            leaving: self.leaving_status(),
            waiting: self.reasons(now),
            manifests: self.manifests.status(),
            peers: self.peers(now),
            strangers: self.strangers_now(now),
            hints: Vec::new(),
            machines,
            control_planes,
            dropped,
        }
    }

    fn peers(&self, now: Time) -> Vec<Peer> {
        let ledger = self.follow.ledger();
        let ours = self.roster.known().iter().filter(|(_, known)| self.strangeness(known.card.card()).is_none());
        let known = ours.map(|(machine, known)| {
            let member = ledger.member(*machine);
            let card = known.card.card();
            Peer {
                machine: machine.to_hex(),
                short: machine.to_string(),
                name: member.map_or_else(|| card.hostname.clone(), |member| member.admitted.name.clone()),
                role: member.map(|member| member.admitted.role),
                alive: self.roster.is_alive(*machine),
                connected: self.roster.is_connected(*machine),
                heard_ms_ago: known.heard.map(|heard| now.since(heard).as_millis() as u64),
                joined: member.is_some_and(|member| member.joined),
                addresses: card.addresses.clone(),
            }
        });
        known.collect()
    }
}

//! What keeps this machine from being Ready, and what is wrong with the others of its cluster.

use muster_wire::{Able, MachineId, Role, TurnKind};

use crate::machine::Machine;
use crate::words::reasons::Topic;
use crate::{Phase, Time};

impl Machine {
    pub(super) fn explain_joining(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let ledger = self.follow.ledger();
        let me = self.id();
        let voters = self.raft_voters();
        if self.follow.raft && (self.follow.leader.is_none() || !self.hears_majority()) {
            // SWIM needs its time to miss somebody; what was heard is known at once.
            let lost: Vec<MachineId> =
                voters.iter().copied().filter(|voter| *voter != me && !self.was_heard_lately(*voter, now)).collect();
            let names: Vec<String> = lost.iter().map(|machine| self.heard(*machine, now)).collect();
            let names = if names.is_empty() { "the election is under way".to_owned() } else { names.join("; ") };
            let here = voters.len() - lost.len();
            add(Topic::Leader, format!("no leader: {here} of {} voters are here; {names}", voters.len()), &lost);
        }
        self.explain_others(now, add);
        if let Some((attempt, machine, why)) = ledger.abandoned().last()
            && ledger.ready().is_none()
        {
            let text = format!("attempt {attempt} of {machine} to initialise the cluster was given up: {why}");
            add(Topic::Init, text, &[*machine]);
        }
        if let Some(why) = self.ladder.lost_etcd() {
            add(Topic::Etcd, why.to_owned(), &[me]);
        }
        let founds = ledger.live_claim().map(|(attempt, _)| attempt).or(ledger.ready().map(|ready| ready.attempt));
        if ledger.is_founder(me)
            && self.durable.completed.is_none()
            && founds.is_none_or(|attempt| self.durable.founded != attempt)
            && let Err(why) = self.may_begin_etcd(now)
        {
            add(Topic::Etcd, format!("etcd is not begun here: {why}"), &[me]);
        }
        if let Some((doing, since)) = self.ladder.doing() {
            add(Topic::Step, format!("{doing}, since {} s", now.since(since).as_secs()), &[me]);
        }
        for entry in self.follow.waiting_for().take(3) {
            add(Topic::Proposal, format!("waiting for the entry `{}` to be committed", entry.kind()), &[]);
        }
        let Some(member) = ledger.member(me) else {
            let why = if self.follow.turned_down {
                "a voter says that this machine is not admitted yet"
            } else {
                "no voter has answered yet"
            };
            add(Topic::Admission, format!("waiting to be admitted by the leader; {why}"), &voters);
            return;
        };
        if member.joined || self.phase == Phase::Halted {
            return;
        }
        match (ledger.ready(), ledger.live_claim()) {
            (None, None) => {
                add(Topic::Init, "waiting for the leader to give one machine the right to init".to_owned(), &[])
            }
            (None, Some((attempt, machine))) if machine != me => {
                let text =
                    format!("waiting for {} to initialise the cluster (attempt {attempt})", self.heard(machine, now));
                add(Topic::Init, text, &[machine]);
            }
            _ => {}
        }
        if let Some((number, holder)) = ledger.turn(TurnKind::Etcd)
            && holder != me
            && member.admitted.role == Role::ControlPlane
            && !ledger.has_etcd(me)
        {
            add(
                Topic::Etcd,
                format!("waiting for {} to join etcd (turn {number})", self.heard(holder, now)),
                &[holder],
            );
        }
    }

    /// What is wrong with the others of its cluster.
    fn explain_others(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let (ledger, me) = (self.follow.ledger(), self.id());
        for (machine, member) in ledger.members().iter().filter(|(machine, member)| !member.joined && **machine != me) {
            let card = self.roster.card(*machine).filter(|card| matches!(card.able, Able::No(_)));
            if let Some(card) = card {
                add(
                    Topic::Unable,
                    format!("{} cannot run kubeadm: {}", member.admitted.name, card.able.why_not()),
                    &[*machine],
                );
            }
        }
        for (machine, member) in ledger.members() {
            let control_plane = member.admitted.role == Role::ControlPlane && member.joined;
            if control_plane && *machine != me && !self.roster.is_alive(*machine) {
                let text =
                    format!("control plane {} ({}) does not answer", member.admitted.name, self.heard(*machine, now));
                add(Topic::ControlPlane, text, &[*machine]);
            }
        }
    }

    pub(super) fn explain_manifests(&self, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let Some(status) = self.manifests.status().filter(|status| status.applied < status.total) else { return };
        for why in &status.refused {
            add(Topic::Manifests, format!("a manifest is refused and tried again rarely: {why}"), &[]);
        }
        let so_far = format!("manifests: {} of {} objects are applied", status.applied, status.total);
        let text = match status.waiting.first() {
            Some(why) => format!("{so_far}; waiting: {why}"),
            None => so_far,
        };
        add(Topic::Manifests, text, &[]);
    }
}

//! `muster status` and `muster explain`: what this machine waits for, and for whom, from its own reasons.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use muster_wire::{Card, MachineId, Role, Settings, TurnKind, host_of};

use super::Machine;
use crate::founding::Impediment;
use crate::planted::planted;
use crate::roster;
use crate::status::{Peer, list};
use crate::words::reasons::Topic;
use crate::{Phase, Reason, Status, Time};

/// Whoever was heard within this time is about, even if SWIM holds it for dead.
const LATELY: Duration = Duration::from_secs(60);

/// Whoever was heard within this time is here. A voter asks for votes at least every 6 s while nobody leads.
const HERE: Duration = Duration::from_secs(10);

impl Machine {
    /// What it says of itself to people.
    pub fn status(&self, now: Time) -> Status {
        let ledger = self.follow.ledger();
        let me = self.id();
        let member = ledger.member(me);
        let charter = self.durable.charter.as_ref().map(|certificate| certificate.charter());
        let mut dropped: BTreeMap<String, u64> =
            self.roster.dropped().map(|(what, count)| (what.to_owned(), count)).collect();
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
            Some(_) => self.explain_joining(now, &mut add),
        }
        self.explain_level(&mut add);
        self.explain_look_alikes(now, &mut add);
        self.explain_addresses(now, &mut add);
        self.explain_manifests(&mut add);
        for trouble in &self.endpoint_troubles {
            add(Topic::Hosts, trouble.clone(), &[]);
        }
        self.explain_strangers(now, &mut add);
        reasons
    }

    /// Whether more than half of the charter's voters are here, this machine included.
    fn hears_majority(&self) -> bool {
        let charter = self.durable.charter.as_ref().map(|certificate| certificate.charter());
        let voters = charter.map(|charter| charter.voters.as_slice()).unwrap_or_default();
        let here = voters.iter().filter(|voter| **voter == self.id() || self.roster.is_alive(**voter)).count();
        here * 2 > voters.len()
    }

    fn explain_manifests(&self, add: &mut impl FnMut(Topic, String, &[MachineId])) {
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

    /// Machines that nobody reached at an address of their own, and two machines with one address.
    fn explain_addresses(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let ledger = self.follow.ledger();
        let (mine, leads) = (self.mine.card(), self.follow.leader == Some(self.id()));
        let others = self.roster.known().values().map(|known| known.card.card());
        let living = others.filter(|card| leads && self.roster.is_alive(card.machine)).chain([mine]);
        let alone = self.roster.known().is_empty();
        for card in living.filter(|card| card.reached == 0 && ledger.member(card.machine).is_none()) {
            if self.durable.charter.is_none() || alone && !card.addresses.is_empty() {
                continue;
            }
            let which = match card.addresses.is_empty() {
                true => "it has none (link-local ones, and those outside discovery.subnets, do not count)".to_owned(),
                false => format!("nobody has reached it at any of {}", card.addresses.join(", ")),
            };
            let text = format!("{} ({}) is not admitted for want of an address: {which}", card.machine, card.hostname);
            add(Topic::Address, text, &[card.machine]);
        }
        for (address, machines) in self.shared_addresses(now) {
            let text = format!("{} have one address, {address}: give one of them another", list(&machines));
            add(Topic::SharedAddress, text, &machines);
        }
        for (card, address, holder) in self.addresses_taken() {
            let text = format!(
                "{} ({}) is not admitted: its address {address} is the one under which {holder} joined, which is elsewhere now: \
                 give one of them another",
                card.machine, card.hostname
            );
            add(Topic::Address, text, &[card.machine, holder]);
        }
    }

    /// Newcomers whose only addresses are in the ledger as those of living machines, which have moved since.
    fn addresses_taken(&self) -> Vec<(&Card, IpAddr, MachineId)> {
        let ledger = self.follow.ledger();
        let members = ledger.members().iter().filter(|(machine, _)| self.roster.is_alive(**machine));
        let joined: BTreeMap<IpAddr, MachineId> =
            members.filter_map(|(machine, member)| Some((member.admitted.address.parse().ok()?, *machine))).collect();
        let others = self.roster.known().values().map(|known| known.card.card());
        let living = others.filter(|card| self.roster.is_alive(card.machine)).chain([self.mine.card()]);
        let newcomers = living.filter(|card| ledger.member(card.machine).is_none() && card.reached > 0);
        let taken = newcomers.filter_map(|card| {
            let mut reached = card.reached_at().filter_map(|address| host_of(address));
            let first = reached.next()?;
            let holder = *joined.get(&first)?;
            let card_of =
                |machine| if machine == self.id() { Some(self.mine.card()) } else { self.roster.card(machine) };
            let moved = card_of(holder).is_some_and(|card| card.hosts().all(|own| own != first));
            (moved && reached.all(|address| joined.contains_key(&address))).then_some((card, first, holder))
        });
        taken.collect()
    }

    /// Addresses at which one machine is reached or admitted, and which another one that is about has as well. Whoever is
    /// reached elsewhere has it on a bridge of its own, which harms nobody; who looks like the other may be the same machine.
    /// An address in the ledger that its machine lists no more is history: it stays there once the machine has joined, and a
    /// lease may have gone to another one since.
    fn shared_addresses(&self, now: Time) -> Vec<(IpAddr, Vec<MachineId>)> {
        let ledger = self.follow.ledger();
        let joined = |machine| ledger.member(machine).is_some_and(|member| member.joined);
        let about = self.roster.known().iter().filter(|(machine, known)| {
            let lately = known.heard.is_some_and(|heard| now.since(heard) < LATELY);
            // One that stands in this machine's way may be out of its reach because of that.
            self.roster.is_alive(**machine) || lately || !joined(self.id())
        });
        let mut claims: BTreeMap<IpAddr, BTreeMap<MachineId, bool>> = BTreeMap::new();
        for card in about.map(|(_, known)| known.card.card()).chain([self.mine.card()]) {
            let member = ledger.member(card.machine);
            let admitted = member.and_then(|member| member.admitted.address.parse::<IpAddr>().ok());
            let admitted = admitted.filter(|address| card.hosts().any(|own| own == *address));
            let reached = card.reached_at().filter_map(|address| host_of(address)).chain(admitted);
            let listed = card.hosts().filter(|_| card.reached == 0).map(|address| (address, false));
            let part = |address: IpAddr| match address {
                IpAddr::V4(v4) if planted("addresses-half-compared") => {
                    IpAddr::from([v4.octets()[0], v4.octets()[1], 0, 0])
                }
                address => address,
            };
            for (address, firm) in listed.chain(reached.map(|address| (address, true))) {
                *claims.entry(part(address)).or_default().entry(card.machine).or_default() |= firm;
            }
        }
        let shared = claims.into_iter().filter_map(|(address, machines)| {
            let firm = machines.values().any(|firm| *firm);
            let machines: Vec<MachineId> = machines.into_keys().collect();
            let alike =
                |machine: &MachineId| self.roster.on_same_hardware(*machine).any(|other| machines.contains(&other));
            (firm && machines.len() > 1 && !machines.iter().any(alike)).then_some((address, machines))
        });
        shared.collect()
    }

    /// Identities that are left out because they may be one machine, where that matters: to founding, or to an admission.
    fn explain_look_alikes(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let (ledger, founded) = (self.follow.ledger(), self.durable.charter.is_some());
        let waits = |machine: &MachineId| ledger.member(*machine).is_none() && !ledger.was_removed(*machine);
        for machines in self.roster.look_alikes().values() {
            let here = |machine: &&MachineId| **machine == self.id() || self.roster.is_alive(**machine);
            if !machines.iter().filter(here).any(|machine| !founded || waits(machine)) {
                continue;
            }
            let named = machines.iter().take(5).map(|machine| {
                let card = if *machine == self.id() { Some(self.mine.card()) } else { self.roster.card(*machine) };
                let (host, at) = card.map_or(("", ""), |card| {
                    (card.hostname.as_str(), card.addresses.first().map_or("no address", String::as_str))
                });
                let heard = if *machine == self.id() { "this one".to_owned() } else { self.heard_ago(*machine, now) };
                format!("{machine} ({host}, {at}, {heard})")
            });
            let named = named.collect::<Vec<_>>().join(" and ");
            let what = if founded { "the newcomer is not admitted yet" } else { "none of them votes" };
            let text = format!(
                "{named} show the same hardware, and {what}: either a disk was wiped, or they are machines without a product \
                 UUID whose network cards have one address. Once both were heard for {} s with different addresses they \
                 count as two machines",
                roster::BOTH_HEARD.as_secs()
            );
            add(Topic::Hardware, text, machines);
        }
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

    fn heard(&self, machine: MachineId, now: Time) -> String {
        let yet = match self.roster.card(machine) {
            Some(card) if !card.has_looked() => ", which has not looked at its kubeadm yet",
            Some(card) if card.addresses.is_empty() => ", which lists no address (see discovery.subnets)",
            _ => "",
        };
        format!("{machine}, {}{yet}", self.heard_ago(machine, now))
    }

    fn explain_founding(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let quorum = self.settings.quorum();
        if let Some(impediment) = self.founding.impediment() {
            let machines = match impediment {
                Impediment::OtherSettings(machines) => machines.clone(),
                Impediment::TooMany { .. } => self.roster.known().keys().copied().collect(),
                Impediment::Cloned | Impediment::Founded { .. } => vec![self.id()],
            };
            let about = match impediment {
                Impediment::OtherSettings(_) => Topic::OtherSettings,
                Impediment::TooMany { .. } => Topic::TooMany,
                Impediment::Cloned => Topic::Clone,
                Impediment::Founded { .. } => Topic::Founded,
            };
            let text = match impediment {
                Impediment::OtherSettings(_) => format!(
                    "founding halts: this image says machines = {} (settings {}), and {} carry others: boot one image \
                     everywhere",
                    self.settings.machines,
                    self.settings.digest,
                    self.other_settings(&machines),
                ),
                Impediment::TooMany { .. } => format!(
                    "founding halts: {impediment} ({}). Set `machines` to the true number, or wipe what is left over",
                    list(&machines)
                ),
                Impediment::Cloned => format!("founding halts: {impediment}"),
                Impediment::Founded { .. } => format!(
                    "founding halts for good: {impediment}; this image says machines = {} (settings {}). A second cluster \
                     would have the same name and mesh key, so this machine waits, whether or not that one is in sight. Boot \
                     the image of that cluster here, and this machine joins it; or have this image accepted there \
                     (`muster image accept FILE` on one of its machines); or wipe its state, and boot an image with \
                     another `cluster` or `mesh_key`; or, if that cluster is gone for good, wipe the state of all that saw it",
                    self.settings.machines, self.settings.digest
                ),
            };
            add(about, text, &machines);
            return;
        }
        let electorate = self.founding.electorate();
        if let Some(answers) = self.founding.answers() {
            let missing: Vec<MachineId> = electorate.difference(&answers).copied().collect();
            let names: Vec<String> = missing.iter().take(5).map(|machine| self.heard(*machine, now)).collect();
            let text = format!("founding: {} of {quorum} votes; missing {}", answers.len(), names.join("; "));
            add(Topic::Founding, text, &missing);
            return;
        }
        let away: Vec<MachineId> =
            self.roster.known().keys().copied().filter(|machine| !electorate.contains(machine)).collect();
        if electorate.len() < quorum as usize {
            let names: Vec<String> = away.iter().take(5).map(|machine| self.heard(*machine, now)).collect();
            let known =
                if names.is_empty() { String::new() } else { format!("; known but not voting: {}", names.join("; ")) };
            let text = format!(
                "meeting: {} of {} machines are here, founding needs {quorum}{known}",
                electorate.len(),
                self.settings.machines
            );
            add(Topic::Meeting, text, &away);
        } else {
            let first = electorate.first().copied().into_iter().collect::<Vec<_>>();
            let text = format!(
                "founding: {} of {} machines are here, enough to found; {} is to propose the charter",
                electorate.len(),
                self.settings.machines,
                list(&first)
            );
            add(Topic::Founding, text, &first);
        }
    }

    fn other_settings(&self, machines: &[MachineId]) -> String {
        let described = machines.iter().take(5).map(|machine| match self.roster.card(*machine) {
            Some(card) => format!(
                "{machine} ({}, machines = {}, settings {}; {})",
                card.hostname,
                card.settings.machines,
                card.settings.digest,
                differing(&self.settings, &card.settings)
            ),
            None => machine.to_string(),
        });
        described.collect::<Vec<_>>().join(", ")
    }

    fn explain_joining(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let ledger = self.follow.ledger();
        let me = self.id();
        let charter = self.durable.charter.as_ref().map(|certificate| certificate.charter().voters.clone());
        let voters = charter.unwrap_or_default();
        if self.follow.raft && (self.follow.leader.is_none() || !self.hears_majority()) {
            // SWIM needs its time to miss somebody; what was heard is known at once.
            let lost: Vec<MachineId> =
                voters.iter().copied().filter(|voter| *voter != me && !self.was_heard_lately(*voter, now)).collect();
            let names: Vec<String> = lost.iter().map(|machine| self.heard(*machine, now)).collect();
            let names = if names.is_empty() { "the election is under way".to_owned() } else { names.join("; ") };
            let here = voters.len() - lost.len();
            add(Topic::Leader, format!("no leader: {here} of {} voters are here; {names}", voters.len()), &lost);
        }
        for (machine, member) in ledger.members().iter().filter(|(machine, member)| !member.joined && **machine != me) {
            let card = self.roster.card(*machine).filter(|card| card.has_looked() && !card.unable.is_empty());
            if let Some(card) = card {
                add(
                    Topic::Unable,
                    format!("{} cannot run kubeadm: {}", member.admitted.name, card.unable),
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
        if let Some((attempt, machine, why)) = ledger.abandoned().last()
            && ledger.ready().is_none()
        {
            let text = format!("attempt {attempt} of {machine} to initialise the cluster was given up: {why}");
            add(Topic::Init, text, &[*machine]);
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
        let waits_for =
            |about: Topic, text: String, machines: &[MachineId], add: &mut dyn FnMut(Topic, String, &[MachineId])| {
                add(about, text, machines);
            };
        match (ledger.ready(), ledger.live_claim()) {
            (None, None) => {
                add(Topic::Init, "waiting for the leader to give one machine the right to init".to_owned(), &[])
            }
            (None, Some((attempt, machine))) if machine != me => {
                let text =
                    format!("waiting for {} to initialise the cluster (attempt {attempt})", self.heard(machine, now));
                waits_for(Topic::Init, text, &[machine], add);
            }
            (Some(ready), _) if ready.machine != me && ledger.ticket(me).is_none() => {
                let leader: Vec<MachineId> = self.follow.leader.into_iter().collect();
                add(
                    Topic::Ticket,
                    format!("waiting for this machine's ticket from the leader {}", list(&leader)),
                    &leader,
                );
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
        if let Some((doing, since)) = self.ladder.doing() {
            add(Topic::Step, format!("{doing}, since {} s", now.since(since).as_secs()), &[me]);
        }
        for entry in self.follow.waiting_for().take(3) {
            let what = format!("{entry:?}");
            let word = what.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
            add(Topic::Proposal, format!("waiting for {word} to be committed"), &[]);
        }
    }
}

/// The keys in which two images are known to differ, with both values, this machine's first. Of the others a card has the
/// digest alone.
pub(super) fn differing(here: &Settings, there: &Settings) -> String {
    let keys = [
        ("machines", here.machines.to_string(), there.machines.to_string()),
        ("control_planes", here.control_planes.to_string(), there.control_planes.to_string()),
        ("state.durable", here.durable.to_string(), there.durable.to_string()),
        ("kubernetes.version", here.kubernetes_version.clone(), there.kubernetes_version.clone()),
    ];
    let word = |value: String| if value.is_empty() { "not set".to_owned() } else { value };
    let differ = keys.into_iter().filter(|(_, ours, theirs)| ours != theirs);
    let told: Vec<String> =
        differ.map(|(key, ours, theirs)| format!("{key}: {} here, {} there", word(ours), word(theirs))).collect();
    if told.is_empty() {
        return "another shared key differs: compare `muster config show` of both".to_owned();
    }
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use muster_wire::Digest;

    use super::*;

    #[test]
    fn two_images_are_told_apart_by_their_keys_and_both_values() {
        let here = Settings {
            machines: 3,
            control_planes: 3,
            durable: true,
            kubernetes_version: "v1.37.2".into(),
            digest: Digest([1; 32]),
        };
        let there = Settings { control_planes: 1, kubernetes_version: String::new(), ..here.clone() };
        assert_eq!(
            differing(&here, &there),
            "control_planes: 3 here, 1 there, kubernetes.version: v1.37.2 here, not set there"
        );
        let other = Settings { digest: Digest([2; 32]), ..here.clone() };
        assert!(differing(&here, &other).contains("another shared key differs"));
    }
}

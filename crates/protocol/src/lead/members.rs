//! Who is admitted, in which role and under which name, and whose place is given to its successor.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use muster_wire::entry::Admitted;
use muster_wire::{Able, Card, Entry, MachineId, Role, SignedCard};

use super::address::Claims;
use super::silence::{Silence, Why};
use super::{AT_ONCE, Context, repair, replace};
use crate::planted::planted;
use crate::words::waits::{Admission, Wait};

/// This duty's notes.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Role and name that newcomers were proposed with, until that is seen applied: what is on its way counts.
    admitting: BTreeMap<MachineId, (Role, String)>,
}

impl Members {
    /// A machine whose disk was wiped comes back under a new identity on the same hardware. Its old identity is dead for
    /// good: it gives up name and role, so that the new one can have them. One that has joined leaves more behind, see
    /// [`super::replace`].
    pub(super) fn remove_replaced(&self, context: &mut Context<'_>, silence: &mut Silence) {
        if !replace::somebody_is_new(context) {
            return;
        }
        let gone: Vec<MachineId> = context
            .ledger
            .members()
            .values()
            .map(|member| member.admitted.machine)
            .filter(|machine| !replace::leaves_something(context, *machine))
            .filter(|machine| replace::successor(context, *machine).is_some())
            .collect();
        for machine in gone {
            // That its successor waits is said for the successor.
            if replace::is_gone(context, silence, Why::Replaced, machine) {
                context.wants.want(Entry::Removed { machine });
            }
        }
    }

    /// A successor waits until its old identity is removed, else it could not have its name and role. An old identity that
    /// still looks alive is given the time in which its death would show; if it lives on, two machines merely look alike.
    fn waits_for_removal(context: &mut Context<'_>, silence: &mut Silence, machine: MachineId) -> bool {
        let mut alike = context.roster.on_same_hardware(machine);
        let alike = alike.find(|old| replace::successor(context, *old) == Some(machine));
        let Some(old) = alike.or_else(|| replace::predecessor(context, machine)) else { return false };
        let patience = context.tuning.initialiser_patience;
        let since = silence.since(context, Why::Successor, machine);
        context.wake_at(since + patience, "a machine that looks like another");
        let waits = !context.roster.is_alive(old) || context.now.since(since) < patience;
        context.waits.extend(waits.then_some(predecessor(machine, old)));
        waits
    }

    fn has_address(claims: &Claims, card: &SignedCard, context: &mut Context<'_>) -> bool {
        let has = claims.address(card.card(), context).is_some();
        context.waits.extend((!has).then_some(Wait::Admission(Admission::Address(card.card().machine))));
        has
    }

    /// Wants everyone admitted who is there. Returns whether all the living are.
    pub(super) fn admit(&mut self, context: &mut Context<'_>, silence: &mut Silence) -> bool {
        let ledger = context.ledger;
        let mut newcomers = newcomers(context);
        let myself = ledger.member(context.me()).is_none() && !ledger.was_removed(context.me());
        let lost = lost_voters(context, silence);
        if newcomers.is_empty() && lost.is_empty() && !myself && ledger.joined_count() == ledger.members().len() {
            return true;
        }
        let claims = Claims::new(context);
        claims.correct(context);
        newcomers.retain(|card| {
            let machine = card.card().machine;
            let old = lost.iter().find(|lost| is_alike(context, lost.card().machine, machine));
            context.waits.extend(old.map(|old| predecessor(machine, old.card().machine)));
            old.is_none()
        });
        // Before the address, which the predecessor still has.
        newcomers.retain(|card| !Self::waits_for_removal(context, silence, card.card().machine));
        newcomers.retain(|card| Self::has_address(&claims, card, context));
        let mine = context.mine;
        if myself && Self::has_address(&claims, mine, context) {
            newcomers.push(mine);
        }
        let all = newcomers.is_empty();
        // Voters of the charter first: they are control planes whatever happens.
        newcomers.sort_by_key(|card| {
            let machine = card.card().machine;
            (!context.charter.voters.contains(&machine), card.card().able != Able::Yes, machine)
        });
        let later = newcomers.len().saturating_sub(AT_ONCE);
        context.waits.extend((later > 0).then_some(Wait::Admission(Admission::Others(later))));
        newcomers.truncate(AT_ONCE);
        let there: BTreeSet<MachineId> = newcomers.iter().map(|card| card.card().machine).collect();
        self.admitting.retain(|machine, (role, name)| {
            let fits = *role == Role::Worker || ledger.has_seat(*machine);
            there.contains(machine) && fits && ledger.holder_of(name).is_none()
        });
        let mut planes: BTreeSet<MachineId> = ledger.control_planes().collect();
        planes.extend(context.charter.voters.iter().filter(|voter| !ledger.was_removed(**voter)));
        planes.extend(self.admitting.iter().filter(|(_, (role, _))| *role == Role::ControlPlane).map(|(who, _)| *who));
        let mut names: BTreeSet<String> =
            ledger.members().values().map(|member| member.admitted.name.clone()).collect();
        names.extend(self.admitting.values().map(|(_, name)| name.clone()));
        lost.iter().for_each(|card| admit_lost(context, &claims, card.card(), &mut names));
        let hostnames = hostnames(context, newcomers.is_empty());
        for card in newcomers {
            let card = card.card();
            let (role, name) = match self.admitting.get(&card.machine) {
                Some(proposed) => proposed.clone(),
                None => {
                    let voter = planes.contains(&card.machine) && !planted("voter-as-worker");
                    let plane = voter
                        || planes.len() + usize::from(planted("seat-left-empty")) < context.control_planes as usize;
                    let name = node_name(&card.hostname, card.machine, &names, &hostnames);
                    (if plane { Role::ControlPlane } else { Role::Worker }, name)
                }
            };
            if role == Role::ControlPlane {
                planes.insert(card.machine);
            }
            names.insert(name.clone());
            let Some(address) = claims.address(card, context).map(|address| address.to_string()) else { continue };
            self.admitting.insert(card.machine, (role, name.clone()));
            want(context, card, role, name, address);
        }
        all
    }
}

fn want(context: &mut Context<'_>, card: &Card, role: Role, name: String, address: String) {
    let admitted = Admitted { machine: card.machine, role, name, sealing_key: card.sealing_key, address };
    context.wants.want(Entry::Admitted(admitted));
}

/// Whom policy admits, and who can read the ledger at this level: who cannot would stop at its first look.
fn newcomers<'a>(context: &mut Context<'a>) -> Vec<&'a SignedCard> {
    let (roster, level) = (context.roster, context.level);
    let cards = roster.known().values().map(|known| &known.card);
    let mut newcomers: Vec<&SignedCard> = cards.filter(|card| admissible(card, context)).collect();
    newcomers.retain(|card| {
        let (card, machine) = (card.card(), card.card().machine);
        let looked = card.has_looked() || context.charter.voters.contains(&machine);
        context.waits.extend((!looked).then_some(Wait::Admission(Admission::Unchecked(machine))));
        let reads = card.level >= level;
        context.waits.extend((!reads).then_some(Wait::Admission(Admission::TooOld(machine))));
        looked && reads
    });
    newcomers
}

/// Wants a voter of the charter admitted that will not come for it.
fn admit_lost(context: &mut Context<'_>, claims: &Claims, card: &Card, names: &mut BTreeSet<String>) {
    // Its successor has it, if anybody. Another member's would have that one struck off with it.
    let others = |address: &IpAddr| claims.of_member_beside(address, card.machine, context.ledger);
    let Some(address) = card.hosts().find(|address| !others(address)).map(|address| address.to_string()) else {
        context.waits.push(Wait::Admission(Admission::Address(card.machine)));
        return;
    };
    let name = node_name(&card.hostname, card.machine, names, &BTreeMap::new());
    names.insert(name.clone());
    want(context, card, Role::ControlPlane, name, address);
}

/// Voters of the charter that will not come to be admitted: each has a seat for good, and nobody else may take it. So they are admitted like those
/// that live, and their seats go on like any other: to the successor, or, where a voter stays dead, to a worker.
fn lost_voters<'a>(context: &mut Context<'a>, silence: &mut Silence) -> Vec<&'a SignedCard> {
    let (ledger, roster, charter) = (context.ledger, context.roster, context.charter);
    let to_come = |voter: &MachineId| ledger.member(*voter).is_none() && !ledger.was_removed(*voter);
    let mut lost = Vec::new();
    for voter in charter.voters.iter().copied().filter(to_come) {
        let Some(known) = roster.known().get(&voter).filter(|_| !roster.is_alive(voter)) else {
            repair::counts_anew(context, silence, voter);
            continue;
        };
        // Without an address it could not be admitted, and would keep out whoever is on its hardware now.
        let has_address = known.card.card().hosts().next().is_some();
        if is_succeeded(context, voter) || repair::gave_up(context, silence, voter) && has_address {
            lost.push(&known.card);
        }
    }
    lost
}

/// Whether somebody comes who lives on the hardware of a voter that was not admitted. Machines without a product UUID may look alike: a successor is
/// where the voter was.
fn is_succeeded(context: &Context<'_>, voter: MachineId) -> bool {
    let (ledger, roster) = (context.ledger, context.roster);
    let hosts: Vec<IpAddr> = roster.card(voter).into_iter().flat_map(|card| card.hosts()).collect();
    let there =
        |other: MachineId| roster.card(other).is_some_and(|card| card.hosts().any(|host| hosts.contains(&host)));
    let comes = |other: MachineId| roster.is_alive(other) && ledger.member(other).is_none();
    roster.on_same_hardware(voter).any(|other| comes(other) && there(other))
}

fn predecessor(machine: MachineId, old: MachineId) -> Wait {
    Wait::Admission(Admission::Predecessor { machine, old })
}

fn is_alike(context: &Context<'_>, one: MachineId, other: MachineId) -> bool {
    context.roster.on_same_hardware(one).any(|alike| alike == other)
}

/// Whether policy admits the machine: it is there, has an accepted image, and is one machine.
fn admissible(card: &SignedCard, context: &Context<'_>) -> bool {
    let machine = card.card().machine;
    context.ledger.member(machine).is_none()
        && !context.ledger.was_removed(machine)
        && context.roster.is_alive(machine)
        && context.roster.clone_proof(machine).is_none()
        && context.ledger.accepts(card.card().settings.digest)
        // A machine never belongs to two clusters (promise S7); its card says so to those, too, who have not met it themselves.
        && card.card().charter.is_none_or(|theirs| context.mine.card().charter == Some(theirs))
}

/// The host names of the living, and how many have each.
fn hostnames<'a>(context: &Context<'a>, unwanted: bool) -> BTreeMap<&'a str, usize> {
    let (roster, mut names) = (context.roster, BTreeMap::new());
    if unwanted {
        return names;
    }
    let stays = |machine| roster.is_alive(machine) && !context.ledger.was_removed(machine);
    let living = roster.known().iter().filter(|(machine, _)| stays(**machine)).map(|(_, known)| &known.card);
    for card in living.chain([context.mine]) {
        *names.entry(card.card().hostname.as_str()).or_default() += 1;
    }
    names
}

/// The host name where it is a DNS label nobody else has; else one made of the id.
fn node_name(
    hostname: &str,
    machine: MachineId,
    taken: &BTreeSet<String>,
    hostnames: &BTreeMap<&str, usize>,
) -> String {
    let label = hostname.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let fit = !label.is_empty()
        && label.len() <= 63
        && label != "localhost"
        && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !label.starts_with('-')
        && !label.ends_with('-');
    // The machine itself is among the living: admissible is nobody else.
    let shared = hostnames.get(hostname).is_some_and(|have| *have > 1);
    if fit && !taken.contains(&label) && !shared {
        return label;
    }
    let short = machine.to_string();
    if taken.contains(&short) { format!("m-{}", &machine.to_hex()[..32]) } else { short }
}

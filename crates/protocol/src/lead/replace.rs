//! A machine whose disk was wiped comes back under a new identity. Its old one is dead for good, and gives up its name and its role as soon
//! as that is known; [`super::disrupt`] takes it away.

use std::net::IpAddr;
use std::time::Duration;

use muster_wire::{Card, MachineId, TurnKind, TurnNumber, host_of};

use super::Context;
use super::silence::{Silence, Why};
use crate::Time;

/// So long nothing must come from a machine while its successor answers at its address.
const SUPERSEDED: Duration = Duration::from_secs(4);

/// Whether etcd has a member of a machine, or may have one by the turn that is under way or as a founder.
pub(super) fn may_be_in_etcd(context: &Context<'_>, machine: MachineId) -> bool {
    let adding = context.ledger.turn(TurnKind::Etcd).is_some_and(|(_, holder)| holder == machine);
    // The list that etcd begins with is fixed by the claim; a claim whose holder is gone is given up.
    let ledger = context.ledger;
    let founds = ledger.is_founder(machine) && ledger.live_claim().is_none_or(|(_, holder)| holder != machine);
    // One whose turn was given up for it may have left its member behind.
    let tried = ledger.last_turn(TurnKind::Etcd) > TurnNumber::NONE && ledger.is_plane(machine);
    adding || founds || tried || ledger.has_etcd(machine)
}

/// Whether something of a member must be taken away before the ledger forgets it: a member of etcd, a Node.
pub(super) fn leaves_something(context: &Context<'_>, machine: MachineId) -> bool {
    let joined = context.ledger.member(machine).is_some_and(|member| member.joined);
    may_be_in_etcd(context, machine) || joined && context.ledger.ready().is_some()
}

/// Whether anybody is here who is no member. Else nobody is replaced, and nobody need be compared with everybody.
pub(super) fn somebody_is_new(context: &Context<'_>) -> bool {
    let newcomer = |machine: &MachineId| context.roster.is_alive(*machine) && context.ledger.member(*machine).is_none();
    context.roster.known().keys().any(newcomer)
}

/// A member that is back under another identity, and that is known to be gone.
pub(super) fn gone(context: &mut Context<'_>, silence: &mut Silence) -> Option<MachineId> {
    if !somebody_is_new(context) {
        return None;
    }
    let members = context.ledger.members().keys().copied();
    let replaced = |old: &MachineId| leaves_something(context, *old) && successor(context, *old).is_some();
    let members: Vec<MachineId> = members.filter(replaced).collect();
    members.into_iter().find(|old| is_gone(context, silence, Why::Wiped, *old))
}

/// Whether a machine that has a successor is dead for good: it has been silent for long enough, or another one answers in its place.
pub(super) fn is_gone(context: &mut Context<'_>, silence: &mut Silence, what: Why, machine: MachineId) -> bool {
    if let Some(since) = superseded(context, machine) {
        context.wake_at(since + SUPERSEDED, "a machine in whose place another one answers");
        if context.now.since(since) >= SUPERSEDED {
            return true;
        }
    }
    silence.dead_for(context, what, machine, context.tuning.initialiser_patience, |_| None)
}

/// Since when another identity on the same hardware answers at a machine's address while nothing comes from itself. A control plane
/// that lives is heard every second.
fn superseded(context: &Context<'_>, old: MachineId) -> Option<Time> {
    let known = context.roster.known();
    let new = known.get(&successor(context, old)?)?;
    let places = places(context, old);
    let there = new.card.card().reached_at().filter_map(|reached| host_of(reached)).any(|host| places.contains(&host));
    let since = new.first_heard().filter(|_| there)?;
    known.get(&old).and_then(|old| old.heard).is_none_or(|heard| heard < since).then_some(since)
}

/// Where a machine is or was: with which address it joined, and where it was seen last, if it has moved since.
fn places(context: &Context<'_>, machine: MachineId) -> Vec<IpAddr> {
    let joined = context.ledger.member(machine).and_then(|member| member.admitted.address.parse().ok());
    let seen = context.roster.card(machine).into_iter().flat_map(|card| card.hosts());
    joined.into_iter().chain(seen).collect()
}

/// Who takes the place of a machine: nobody yet, on the same hardware, and at the same address, too, if the machine may be in etcd or others have
/// shown that hardware: machines without a product UUID may show the same. Where nobody remembers the hardware, since all were restarted, address and name
/// together say who it was.
pub(super) fn successor(context: &Context<'_>, old: MachineId) -> Option<MachineId> {
    let (ledger, roster) = (context.ledger, context.roster);
    let member = ledger.member(old)?;
    let places = places(context, old);
    let new =
        |other: &MachineId| roster.is_alive(*other) && ledger.member(*other).is_none() && !ledger.was_removed(*other);
    let there =
        |other: &MachineId| roster.card(*other).is_some_and(|card| card.hosts().any(|own| places.contains(&own)));
    if roster.card(old).is_some() || old == context.me() {
        // What several show, or did, says nothing of which of them it was: a successor is where its predecessor was.
        let by_hardware = roster.shown_by_others(old) == 1 && !may_be_in_etcd(context, old);
        return roster.on_same_hardware(old).find(|other| new(other) && (by_hardware || there(other)));
    }
    let named = |card: &Card| {
        let label = card.hostname.split('.').next().unwrap_or_default();
        label.eq_ignore_ascii_case(&member.admitted.name)
    };
    roster
        .known()
        .iter()
        .filter(|(_, known)| named(known.card.card()))
        .map(|(other, _)| *other)
        .find(|other| new(other) && there(other))
}

/// Whose place a newcomer takes, if anybody's.
pub(super) fn predecessor(context: &Context<'_>, machine: MachineId) -> Option<MachineId> {
    let card = context.roster.card(machine)?;
    let mut members = context.ledger.members().keys().copied();
    let at = |old: MachineId| card.hosts().any(|own| places(context, old).contains(&own));
    members.find(|old| at(*old) && successor(context, *old) == Some(machine))
}

//! The ledger: what the consensus log makes. Leadership is a hint; only a committed entry is authority.
//!
//! Every machine applies the same entries in the same order, so every rule here is a function of the ledger and the
//! entry alone. A refused entry changes nothing but the revision. Each part has a file and knows no other part; what
//! one asks of another, and does to another, stands here.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use muster_wire::entry::{Admitted, Sealed};
use muster_wire::level as level_of;
use muster_wire::{
    Attempt, Backup, Charter, Digest, Entry, Image, MachineId, Removal, Revision, SignedWish, Turn, TurnChange,
    TurnKind, TurnNumber,
};

mod backups;
mod epoch;
mod images;
mod init;
mod level;
mod members;
mod pki;
mod refusal;
mod snapshot;
mod tickets;
mod turns;
mod wishes;

use backups::Backups;
pub use backups::KeptBackup;
pub use epoch::NextEpoch;
use epoch::Recovered;
pub use images::IMAGES_MAX;
use images::Images;
use init::Init;
pub use init::Ready;
use level::Level;
use members::Members;
pub use members::{Member, REMOVED_MAX};
pub use pki::Pki;
pub use refusal::Refusal;
use tickets::Tickets;
use turns::Turns;
use wishes::Wishes;

use crate::planted::planted;

/// The replicated state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    revision: Revision,
    /// The id of the charter that it began with.
    charter: [u8; 16],
    level: Level,
    recovered: Recovered,
    images: Images,
    members: Members,
    init: Init,
    pki: Option<Pki>,
    tickets: Tickets,
    turns: Turns,
    wishes: Wishes,
    backups: Backups,
}

impl Ledger {
    /// The empty ledger of a cluster: what its charter says binds every entry.
    pub fn founded(charter: &Charter) -> Self {
        Self {
            charter: charter.id,
            images: Images::founded(charter),
            members: Members::founded(charter),
            ..Self::default()
        }
    }

    /// Applies `entry`, committed at `revision` (its index in the Raft log).
    ///
    /// # Errors
    /// The rule that refused it. The revision advances all the same.
    pub fn apply(&mut self, revision: Revision, entry: &Entry) -> Result<(), Refusal> {
        self.revision = revision;
        if !matches!(entry, Entry::LevelRaised { .. }) {
            self.level.permits(entry)?;
        }
        match entry {
            Entry::Admitted(admitted) => self.admit(admitted)?,
            Entry::Removed { machine } => self.remove(*machine)?,
            Entry::InitClaimed { attempt, machine, founders } => self.claim(*attempt, *machine, founders)?,
            Entry::Left { machine } => self.members.leave(*machine)?,
            Entry::Founds { attempt, machine } => self.init.begin(*attempt, *machine)?,
            Entry::PkiSealed { attempt, ca_hash, sealed } => self.seal_pki(*attempt, *ca_hash, sealed)?,
            Entry::InitReady { attempt, ca_hash, endpoints, tokens } => {
                self.init_ready(*attempt, *ca_hash, endpoints, tokens)?;
            }
            Entry::InitAbandoned { attempt, why } => {
                self.init.is_live(*attempt)?;
                self.init.abandon(why);
            }
            Entry::Ticket { machine, attempt, ciphertext } => self.ticket_for(*machine, *attempt, ciphertext)?,
            Entry::Turn(turn) => self.turn_changes(turn)?,
            Entry::Joined { machine } => self.join(*machine)?,
            Entry::LevelRaised { level } => self.level.raise(*level)?,
            Entry::Wished(wish) => self.wished(wish)?,
            Entry::Promoted { machine } => self.promote(*machine)?,
            Entry::RemovalHeld { machine, why } => self.wishes.hold(*machine, why)?,
            Entry::BackedUp(backup) => self.back_up(backup)?,
            Entry::BackupKept { number, machine } => {
                self.members.admitted(*machine)?;
                self.backups.keep(*number, *machine)?;
            }
            Entry::BackupGone { number, machine } => self.backups.lose(*number, *machine)?,
        }
        self.consequences(entry);
        self.close_wishes();
        Ok(())
    }

    /// A machine that has a member in etcd, or may have one by its turn or as a founder, is removed under a turn to disrupt: whoever holds that has seen to
    /// the member. A leader that has not applied what it inherited may not know of it.
    fn remove(&mut self, machine: MachineId) -> Result<(), Refusal> {
        let adding = self.turns.under_way(TurnKind::Etcd).is_some_and(|(_, holder)| holder == machine);
        let listed = self.has_etcd(machine) || adding || self.is_founder(machine) && !self.holds_claim(machine);
        if listed && self.turns.under_way(TurnKind::Disrupt).is_none() {
            return Err(Refusal::InEtcd(machine));
        }
        self.members.remove(machine)
    }

    /// Whoever takes a backup has a member of etcd.
    fn back_up(&mut self, backup: &Backup) -> Result<(), Refusal> {
        self.members.admitted(backup.machine)?;
        if !self.has_etcd(backup.machine) {
            return Err(Refusal::NotInEtcd(backup.machine));
        }
        self.backups.take(backup, self.epoch().number)
    }

    /// A control plane has a member of etcd when it joins: what a worker said before it became one comes too late.
    fn join(&mut self, machine: MachineId) -> Result<(), Refusal> {
        let without = self.members.control_plane(machine).is_ok() && !self.has_etcd(machine);
        if without && self.level() >= level_of::LEAVING {
            return Err(Refusal::NotInEtcd(machine));
        }
        self.members.join(machine)
    }

    /// A worker becomes a control plane under a turn to disrupt, in a cluster that is made.
    fn promote(&mut self, machine: MachineId) -> Result<(), Refusal> {
        if self.turns.under_way(TurnKind::Disrupt).is_none() {
            return Err(Refusal::NoSuchTurn(TurnKind::Disrupt));
        }
        self.members.promote(machine)
    }

    /// What an entry that one part took does to the others.
    fn consequences(&mut self, taken: &Entry) {
        match taken {
            Entry::Removed { machine } => {
                if self.wishes.leaving() == Some((*machine, false)) {
                    self.members.dismissed.insert(*machine);
                }
                self.wishes.last.remove(machine);
                self.backups.remove(*machine);
                self.tickets.remove(*machine);
                self.turns.remove(*machine);
                if self.holds_claim(*machine) {
                    self.init.abandon("the machine was removed");
                    self.attempt_ended();
                }
                self.init.leave(*machine);
            }
            // Its token was deleted when it had joined: it is given another ticket, and its token registered anew.
            Entry::Left { machine } | Entry::Promoted { machine } => {
                self.tickets.remove(*machine);
                if let Some(ready) = &mut self.init.ready {
                    ready.tokens.remove(machine);
                }
            }
            Entry::InitReady { .. } => {
                if let Some(ready) = &self.init.ready {
                    self.turns.etcd_members.insert(ready.machine);
                    self.turns.etcd_members.extend(&self.init.founders);
                    self.tickets.keep(&ready.tokens);
                }
            }
            Entry::InitAbandoned { .. } => self.attempt_ended(),
            // What it began as a founder was undone: it comes to etcd in turn.
            Entry::Turn(turn) if turn.kind == TurnKind::Etcd && turn.change == TurnChange::Started => {
                if self.is_founder(turn.holder) {
                    self.init.leave(turn.holder);
                    self.turns.etcd_members.remove(&turn.holder);
                }
            }
            Entry::Admitted(_)
            | Entry::Founds { .. }
            | Entry::InitClaimed { .. }
            | Entry::PkiSealed { .. }
            | Entry::Ticket { .. }
            | Entry::Turn(_)
            | Entry::Joined { .. }
            | Entry::LevelRaised { .. }
            | Entry::RemovalHeld { .. }
            | Entry::BackedUp(_)
            | Entry::BackupKept { .. }
            | Entry::BackupGone { .. }
            | Entry::Wished(_) => {}
        }
    }

    /// Tickets of the attempt lead nowhere now.
    fn attempt_ended(&mut self) {
        if !planted("tickets-outlive-attempt") {
            self.tickets.clear();
        }
    }

    /// Notes a log position that carries no entry of ours, but one of Raft's own.
    pub fn skip(&mut self, revision: Revision) {
        self.revision = revision;
    }

    fn admit(&mut self, admitted: &Admitted) -> Result<(), Refusal> {
        // Something is being made, or is made, that carries the address.
        let machine = admitted.machine;
        let makes = self.holds_claim(machine) || self.is_founder(machine);
        let bound = self.has_etcd(machine) || makes || self.turns.holds(machine);
        self.members.admit(admitted, bound)
    }

    fn claim(&mut self, attempt: Attempt, machine: MachineId, founders: &[MachineId]) -> Result<(), Refusal> {
        self.init.may_claim(attempt)?;
        self.members.control_plane(machine)?;
        founders.iter().try_for_each(|founder| self.members.control_plane(*founder))?;
        if !founders.is_empty() && !founders.contains(&machine) {
            return Err(Refusal::NoFounder(machine));
        }
        let founders: BTreeSet<MachineId> = founders.iter().copied().collect();
        let listed = founders.iter().filter_map(|founder| self.member(*founder));
        let listed = listed.map(|member| (member.admitted.name.clone(), member.admitted.address.clone())).collect();
        self.init.claim(attempt, machine, founders, listed);
        Ok(())
    }

    fn holds_claim(&self, machine: MachineId) -> bool {
        self.init.claim.is_some_and(|(_, holder)| holder == machine)
    }

    fn seal_pki(&mut self, attempt: Attempt, ca_hash: Digest, sealed: &[Sealed]) -> Result<(), Refusal> {
        if let Some(stranger) = sealed.iter().find(|sealed| self.members.control_plane(sealed.machine).is_err()) {
            return Err(Refusal::NotControlPlane(stranger.machine));
        }
        match &mut self.pki {
            Some(pki) => pki.extend(ca_hash, sealed),
            None => {
                self.init.is_live(attempt)?;
                self.pki = Some(Pki::new(ca_hash, sealed));
                Ok(())
            }
        }
    }

    fn init_ready(
        &mut self,
        attempt: Attempt,
        ca_hash: Digest,
        endpoints: &[String],
        tokens: &[MachineId],
    ) -> Result<(), Refusal> {
        let machine = self.init.maker(attempt)?;
        match &self.pki {
            Some(pki) if pki.ca_hash == ca_hash => {}
            Some(_) => return Err(Refusal::OtherCa),
            None => return Err(Refusal::NoCa),
        }
        self.members.admitted(machine)?;
        let tokens = tokens.iter().copied().collect();
        self.init.made(Ready { attempt, machine, endpoints: endpoints.to_vec(), tokens });
        Ok(())
    }

    fn ticket_for(&mut self, machine: MachineId, attempt: Attempt, ciphertext: &Bytes) -> Result<(), Refusal> {
        let live = self.cluster_attempt();
        if live != Some(attempt) {
            return Err(Refusal::NotLive { named: attempt, live });
        }
        if self.pki.is_none() {
            return Err(Refusal::NoCa);
        }
        self.members.admitted(machine)?;
        self.tickets.issue(machine, attempt, ciphertext);
        Ok(())
    }

    fn turn_changes(&mut self, turn: &Turn) -> Result<(), Refusal> {
        if turn.change != TurnChange::Started {
            return self.turns.end(turn);
        }
        self.turns.is_free(turn.kind)?;
        if self.init.ready.is_none() {
            return Err(Refusal::NotLive { named: Attempt::NONE, live: self.init.claim.map(|(live, _)| live) });
        }
        match turn.kind {
            TurnKind::Etcd => self.members.control_plane(turn.holder),
            TurnKind::Disrupt => self.members.admitted(turn.holder),
        }
        .or_else(|why| if planted("turn-for-worker") { Ok(()) } else { Err(why) })?;
        self.turns.start(turn)
    }

    /// The last applied entry's place in the Raft log.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The level that it is at, see [`muster_wire::level`].
    pub fn level(&self) -> u32 {
        self.level.0
    }

    /// Whether it may hold such an entry at its level.
    ///
    /// # Errors
    /// There is such an entry from a higher level on.
    pub fn permits(&self, entry: &Entry) -> Result<(), Refusal> {
        self.level.permits(entry)
    }

    /// The accepted images, the one that founded the cluster first.
    pub fn images(&self) -> &[Image] {
        self.images.all()
    }

    /// Whether machines with this image may join.
    pub fn accepts(&self, image: Digest) -> bool {
        self.images.has(image)
    }

    /// What was wished and is not so yet, oldest first.
    pub fn open_wishes(&self) -> &[SignedWish] {
        &self.wishes.open
    }

    /// Whose removal is wished.
    pub fn leaving(&self) -> Option<MachineId> {
        self.wishes.leaving().map(|(machine, _)| machine)
    }

    /// Why the wished removal does not go on.
    pub fn removal_held(&self) -> Option<&str> {
        self.wishes.held.as_ref().map(|(_, why)| why.as_str())
    }

    /// The backups that are kept, oldest first.
    pub fn backups(&self) -> &[KeptBackup] {
        self.backups.all()
    }

    /// The number of the last backup that was taken; 0 before the first.
    pub fn last_backup(&self) -> u32 {
        self.backups.last()
    }

    /// How many machines the founding image counted; 0 before there is a charter.
    pub fn machines(&self) -> u32 {
        self.members.seats.machines
    }

    /// How many control planes there are to be; 0 if the charter does not say.
    pub fn control_planes_wanted(&self) -> u32 {
        self.members.seats.count
    }

    /// The admitted machines.
    pub fn members(&self) -> &BTreeMap<MachineId, Member> {
        self.members.all()
    }

    /// One admitted machine.
    pub fn member(&self, machine: MachineId) -> Option<&Member> {
        self.members.all().get(&machine)
    }

    /// The attempt and the ciphertext of a machine's ticket.
    pub fn ticket(&self, machine: MachineId) -> Option<&(Attempt, Bytes)> {
        self.tickets.0.get(&machine)
    }

    /// Whether a machine runs an etcd member.
    pub fn has_etcd(&self, machine: MachineId) -> bool {
        self.turns.etcd_members.contains(&machine)
    }

    /// Whether the identity was removed.
    pub fn was_removed(&self, machine: MachineId) -> bool {
        self.members.removed.contains(&machine)
    }

    /// What becomes of a machine that was removed; none of one that was not.
    pub fn removal(&self, machine: MachineId) -> Option<Removal> {
        let removal = if self.members.dismissed.contains(&machine) { Removal::StaysOut } else { Removal::Returns };
        self.was_removed(machine).then_some(removal)
    }

    /// Whether any identity was removed.
    pub fn any_removed(&self) -> bool {
        !self.members.removed.is_empty()
    }

    /// Who has a Node name.
    pub fn holder_of(&self, name: &str) -> Option<MachineId> {
        self.members.holder_of(name)
    }

    /// The admitted control planes.
    pub fn control_planes(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.members.control_planes().iter().copied()
    }

    /// Whether a machine may have a backup from another one: members alone, and those of this ledger's.
    pub fn gives_backup(&self, machine: MachineId, digest: Digest) -> bool {
        self.member(machine).is_some() && self.backups().iter().any(|kept| kept.backup.digest == digest)
    }

    /// Whether a machine may have a report from another one. Once that has a ledger, members alone: before it nobody knows who is one, and a site
    /// that does not form is what people ask about.
    pub fn gives_report(&self, machine: MachineId) -> bool {
        self.revision() == Revision::NONE || self.member(machine).is_some()
    }

    /// Whether a machine is a control plane.
    pub(crate) fn is_plane(&self, machine: MachineId) -> bool {
        self.members.control_planes().contains(&machine)
    }

    /// Whether a machine that is not admitted may be admitted as a control plane: it votes by the charter, or not all seats are
    /// taken by control planes and by voters of the charter that are still to come.
    pub fn has_seat(&self, machine: MachineId) -> bool {
        self.members.has_seat(machine)
    }

    /// Whose Raft calls are answered: those of the charter's voters that were not removed, and of the admitted control planes
    /// (promise S6).
    pub fn raft_callers(&self, charter: &Charter) -> BTreeSet<MachineId> {
        let founders = charter.voters.iter().copied().filter(|voter| !self.was_removed(*voter));
        founders.chain(self.control_planes()).collect()
    }

    /// How many admitted machines have joined.
    pub fn joined_count(&self) -> usize {
        self.members.joined()
    }

    /// The live claim: attempt and machine.
    pub fn live_claim(&self) -> Option<(Attempt, MachineId)> {
        self.init.claim
    }

    /// Who begins etcd together in the attempt that made the cluster or is trying to; none if one machine begins it alone.
    pub fn founders(&self) -> &BTreeSet<MachineId> {
        &self.init.founders
    }

    /// Names and addresses of all who were founders when the right was given, in one order everywhere.
    pub fn etcd_list(&self) -> &[(String, String)] {
        &self.init.etcd_list
    }

    /// Whether a machine is one of those founders.
    pub fn is_founder(&self, machine: MachineId) -> bool {
        self.init.founders.contains(&machine)
    }

    /// Whether etcd may have been started on a machine that is one of those founders.
    pub fn has_begun(&self, machine: MachineId) -> bool {
        self.init.begun.contains(&machine)
    }

    /// The id of the charter that it began with.
    pub fn charter(&self) -> &[u8; 16] {
        &self.charter
    }

    /// The last attempt.
    pub fn last_attempt(&self) -> Attempt {
        self.init.attempt
    }

    /// The attempt that made the cluster, once one did.
    pub fn ready(&self) -> Option<&Ready> {
        self.init.ready.as_ref()
    }

    /// The attempt that made the cluster or is trying to.
    pub fn cluster_attempt(&self) -> Option<Attempt> {
        self.init.cluster_attempt()
    }

    /// The last abandoned attempts, oldest first: number, machine, reason.
    pub fn abandoned(&self) -> &[(Attempt, MachineId, String)] {
        &self.init.abandoned
    }

    /// The sealed CA.
    pub fn pki(&self) -> Option<&Pki> {
        self.pki.as_ref()
    }

    /// The turn of a kind that is under way: its number and whose it is.
    pub fn turn(&self, kind: TurnKind) -> Option<(TurnNumber, MachineId)> {
        self.turns.under_way(kind)
    }

    /// A kind's last turn.
    pub fn last_turn(&self, kind: TurnKind) -> TurnNumber {
        self.turns.last(kind)
    }

    /// Whether a machine has a turn of any kind.
    pub fn holds_turn(&self, machine: MachineId) -> bool {
        self.turns.holds(machine)
    }
}

#[cfg(test)]
mod tests;

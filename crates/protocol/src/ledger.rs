//! The ledger: what the consensus log makes. Leadership is a hint; only a committed entry is authority.
//!
//! Every machine applies the same entries in the same order, so every rule here is a function of the ledger and the
//! entry alone. A refused entry changes nothing but the revision.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::planted::planted;
use bytes::Bytes;
use muster_wire::entry::{Admitted, Sealed};
use muster_wire::{Charter, Digest, Entry, EtcdTurn, MachineId, Role};

mod snapshot;

/// Most identities the ledger remembers as removed: machines are recreated, so each keeps 32 bytes for good.
pub const REMOVED_MAX: usize = 100_000;

/// Most abandoned attempts whose reasons are kept; older ones are only counted.
const ABANDONED_KEPT: usize = 16;

/// Why an entry took no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The machine is not admitted.
    #[error("{0} is not admitted")]
    NotAdmitted(MachineId),
    /// The machine is admitted already.
    #[error("{0} is admitted already")]
    AlreadyAdmitted(MachineId),
    /// What it is to be admitted under is no IP address.
    #[error("{0} has no address to be admitted under")]
    NoAddress(MachineId),
    /// The identity was removed; a machine comes back with a new one (promise S9).
    #[error("{0} was removed and never returns under this identity")]
    WasRemoved(MachineId),
    /// Another machine has the name.
    #[error("the name {name:?} belongs to {holder}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        holder: MachineId,
    },
    /// The bytes are no entry that this version knows.
    #[error("unknown entry: {0}")]
    Unknown(String),
    /// The attempt named is not the live one.
    #[error("attempt {named} is not live (live: {live:?})")]
    NotLive {
        /// The attempt in the entry.
        named: u32,
        /// The live attempt, if any.
        live: Option<u32>,
    },
    /// The cluster is made; nobody claims init again.
    #[error("attempt {0} made the cluster already")]
    AlreadyReady(u32),
    /// A claim's number must be one above the last.
    #[error("the next attempt is {next}, not {named}")]
    WrongAttempt {
        /// The number in the entry.
        named: u32,
        /// The right number.
        next: u32,
    },
    /// Only a control plane may.
    #[error("{0} is not a control plane")]
    NotControlPlane(MachineId),
    /// Another CA is already in the ledger.
    #[error("the ledger holds another CA")]
    OtherCa,
    /// There is no sealed CA yet.
    #[error("no CA is in the ledger yet")]
    NoCa,
    /// Another machine is adding its etcd member (promise S8).
    #[error("it is the turn of {0} to join etcd")]
    EtcdBusy(MachineId),
    /// The turn named is not the one under way.
    #[error("no such etcd turn is under way")]
    NoSuchTurn,
    /// The image asks for no more control planes (promise S11).
    #[error("{machine} can be no control plane: the charter names {count}, and their seats are taken")]
    NoSeat {
        /// Who was to be one.
        machine: MachineId,
        /// How many there may be.
        count: u32,
    },
    /// The ledger is full in this respect.
    #[error("{0}")]
    Full(&'static str),
}

/// An admitted machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its admission.
    pub admitted: Admitted,
    /// The attempt and ciphertext of its ticket.
    pub ticket: Option<(u32, Bytes)>,
    /// Whether its Node has been Ready.
    pub joined: bool,
    /// Whether it runs an etcd member.
    pub etcd_member: bool,
}

/// The attempt that made the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The attempt.
    pub attempt: u32,
    /// Who ran it.
    pub machine: MachineId,
    /// `host:port` of the first API server.
    pub endpoints: Vec<String>,
    /// Whose tokens init registered.
    pub tokens: BTreeSet<MachineId>,
}

/// The CA, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pki {
    /// SHA-256 of the CA certificate's public key info.
    pub ca_hash: Digest,
    /// One ciphertext per control plane.
    pub sealed: BTreeMap<MachineId, Bytes>,
}

/// The control planes that there may be, as the charter says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seats {
    /// How many; 0 if the charter does not say.
    count: u32,
    /// The charter's voters: each has a seat, admitted or not yet, unless it was removed.
    voters: BTreeSet<MachineId>,
}

/// The replicated state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    revision: u64,
    seats: Seats,
    members: BTreeMap<MachineId, Member>,
    /// Derived from `members`, so that questions asked at every entry stay cheap at thousands of machines.
    names: BTreeMap<String, MachineId>,
    control_planes: BTreeSet<MachineId>,
    joined: usize,
    removed: BTreeSet<MachineId>,
    attempt: u32,
    claim: Option<(u32, MachineId)>,
    ready: Option<Ready>,
    abandoned: Vec<(u32, MachineId, String)>,
    pki: Option<Pki>,
    etcd_turn: Option<(u32, MachineId)>,
    etcd_turns: u32,
}

impl Ledger {
    /// The empty ledger of a cluster: what its charter says binds every entry.
    pub fn founded(charter: &Charter) -> Self {
        let seats = Seats { count: charter.control_planes, voters: charter.voters.iter().copied().collect() };
        Self { seats, ..Self::default() }
    }

    /// Applies `entry`, committed at `revision` (its index in the Raft log).
    ///
    /// # Errors
    /// The rule that refused it. The revision advances all the same.
    pub fn apply(&mut self, revision: u64, entry: &Entry) -> Result<(), Refusal> {
        self.revision = revision;
        match entry {
            Entry::Admitted(admitted) => self.admit(admitted),
            Entry::Removed { machine } => self.remove(*machine),
            Entry::InitClaimed { attempt, machine } => self.claim(*attempt, *machine),
            Entry::PkiSealed { attempt, ca_hash, sealed } => self.seal_pki(*attempt, *ca_hash, sealed),
            Entry::InitReady { attempt, ca_hash, endpoints, tokens } => {
                self.init_ready(*attempt, *ca_hash, endpoints, tokens)
            }
            Entry::InitAbandoned { attempt, why } => self.abandon(*attempt, why),
            Entry::Ticket { machine, attempt, ciphertext } => self.ticket(*machine, *attempt, ciphertext),
            Entry::EtcdJoin { machine, turn, number } => self.etcd_join(*machine, *turn, *number),
            Entry::Joined { machine } => self.join(*machine),
        }
    }

    /// Notes a log position that carries no entry of ours (Raft's own, or an unreadable one).
    pub fn skip(&mut self, revision: u64) {
        self.revision = revision;
    }

    fn admit(&mut self, admitted: &Admitted) -> Result<(), Refusal> {
        let machine = admitted.machine;
        if self.removed.contains(&machine) {
            return Err(Refusal::WasRemoved(machine));
        }
        if admitted.address.parse::<IpAddr>().is_err() {
            return Err(Refusal::NoAddress(machine));
        }
        if self.members.contains_key(&machine) {
            return self.correct_address(admitted);
        }
        if let Some(holder) = self.holder_of(&admitted.name) {
            return Err(Refusal::NameTaken { name: admitted.name.clone(), holder });
        }
        if admitted.role == Role::ControlPlane && !self.has_seat(machine) && !planted("seats-uncounted") {
            return Err(Refusal::NoSeat { machine, count: self.seats.count });
        }
        self.insert(Member { admitted: admitted.clone(), ticket: None, joined: false, etcd_member: false });
        Ok(())
    }

    /// A member that has not joined may be given another address, as long as nothing is being made that carries the former.
    fn correct_address(&mut self, admitted: &Admitted) -> Result<(), Refusal> {
        let machine = admitted.machine;
        let holders = [self.claim.map(|(_, holder)| holder), self.etcd_turn.map(|(_, holder)| holder)];
        let member = self.member_mut(machine)?;
        let same = Admitted { address: member.admitted.address.clone(), ..admitted.clone() } == member.admitted;
        if !same || member.joined || member.etcd_member || holders.contains(&Some(machine)) {
            return Err(Refusal::AlreadyAdmitted(machine));
        }
        member.admitted.address.clone_from(&admitted.address);
        Ok(())
    }

    fn insert(&mut self, member: Member) {
        let machine = member.admitted.machine;
        self.names.insert(member.admitted.name.clone(), machine);
        if member.admitted.role == Role::ControlPlane {
            self.control_planes.insert(machine);
        }
        self.joined += usize::from(member.joined);
        self.members.insert(machine, member);
    }

    fn join(&mut self, machine: MachineId) -> Result<(), Refusal> {
        let member = self.member_mut(machine)?;
        let first = !std::mem::replace(&mut member.joined, true);
        self.joined += usize::from(first);
        Ok(())
    }

    fn remove(&mut self, machine: MachineId) -> Result<(), Refusal> {
        if self.removed.len() >= REMOVED_MAX {
            return Err(Refusal::Full("too many removed machines are remembered"));
        }
        let member = self.members.remove(&machine).ok_or(Refusal::NotAdmitted(machine))?;
        self.names.remove(&member.admitted.name);
        self.control_planes.remove(&machine);
        self.joined -= usize::from(member.joined);
        self.removed.insert(machine);
        if self.etcd_turn.is_some_and(|(_, holder)| holder == machine) {
            self.etcd_turn = None;
        }
        if self.claim.is_some_and(|(_, holder)| holder == machine) {
            self.end_claim("the machine was removed");
        }
        Ok(())
    }

    fn claim(&mut self, attempt: u32, machine: MachineId) -> Result<(), Refusal> {
        if let Some(ready) = self.ready.as_ref().filter(|_| !planted("claim-after-ready")) {
            return Err(Refusal::AlreadyReady(ready.attempt));
        }
        if let Some((live, _)) = self.claim.filter(|_| !planted("claim-while-live")) {
            return Err(Refusal::NotLive { named: attempt, live: Some(live) });
        }
        if attempt != self.attempt + 1 && !planted("claim-repeated") {
            return Err(Refusal::WrongAttempt { named: attempt, next: self.attempt + 1 });
        }
        self.control_plane(machine)?;
        self.attempt = attempt;
        self.claim = Some((attempt, machine));
        Ok(())
    }

    fn seal_pki(&mut self, attempt: u32, ca_hash: Digest, sealed: &[Sealed]) -> Result<(), Refusal> {
        if let Some(stranger) = sealed.iter().find(|sealed| self.control_plane(sealed.machine).is_err()) {
            return Err(Refusal::NotControlPlane(stranger.machine));
        }
        match &mut self.pki {
            // A CA that exists is kept for every later attempt; it can only be sealed to more control planes.
            Some(pki) if !planted("second-ca") && pki.ca_hash != ca_hash => return Err(Refusal::OtherCa),
            Some(pki) => pki.sealed.extend(sealed.iter().map(|one| (one.machine, one.ciphertext.clone()))),
            None => {
                let live = self.claim.map(|(live, _)| live);
                if live != Some(attempt) {
                    return Err(Refusal::NotLive { named: attempt, live });
                }
                let sealed = sealed.iter().map(|one| (one.machine, one.ciphertext.clone())).collect();
                self.pki = Some(Pki { ca_hash, sealed });
            }
        }
        Ok(())
    }

    fn init_ready(
        &mut self,
        attempt: u32,
        ca_hash: Digest,
        endpoints: &[String],
        tokens: &[MachineId],
    ) -> Result<(), Refusal> {
        if let Some(ready) = &self.ready {
            return Err(Refusal::AlreadyReady(ready.attempt));
        }
        let live = self.claim.map(|(live, _)| live);
        let abandoned = self.abandoned.iter().find(|(gone, ..)| *gone == attempt && planted("ready-of-abandoned"));
        let claim = self.claim.filter(|(live, _)| *live == attempt);
        let Some((_, machine)) = claim.or(abandoned.map(|(gone, machine, _)| (*gone, *machine))) else {
            return Err(Refusal::NotLive { named: attempt, live });
        };
        match &self.pki {
            Some(pki) if pki.ca_hash == ca_hash => {}
            Some(_) => return Err(Refusal::OtherCa),
            None => return Err(Refusal::NoCa),
        }
        self.claim = None;
        self.member_mut(machine)?.etcd_member = true;
        let tokens: BTreeSet<MachineId> = tokens.iter().copied().collect();
        // A ticket whose token init did not register opens nothing; another one is issued.
        for (machine, member) in &mut self.members {
            member.ticket.take_if(|_| !tokens.contains(machine));
        }
        self.ready = Some(Ready { attempt, machine, endpoints: endpoints.to_vec(), tokens });
        Ok(())
    }

    fn abandon(&mut self, attempt: u32, why: &str) -> Result<(), Refusal> {
        let live = self.claim.map(|(live, _)| live);
        if live != Some(attempt) {
            return Err(Refusal::NotLive { named: attempt, live });
        }
        self.end_claim(why);
        Ok(())
    }

    fn end_claim(&mut self, why: &str) {
        if let Some((attempt, machine)) = self.claim.take() {
            self.abandoned.push((attempt, machine, why.to_owned()));
            if !planted("abandoned-unbounded") && self.abandoned.len() > ABANDONED_KEPT {
                self.abandoned.remove(0);
            }
        }
        if planted("tickets-outlive-attempt") {
            return;
        }
        // Tickets of the attempt lead nowhere now.
        for member in self.members.values_mut() {
            member.ticket = None;
        }
    }

    fn ticket(&mut self, machine: MachineId, attempt: u32, ciphertext: &Bytes) -> Result<(), Refusal> {
        let live = self.cluster_attempt();
        if live != Some(attempt) {
            return Err(Refusal::NotLive { named: attempt, live });
        }
        if self.pki.is_none() {
            return Err(Refusal::NoCa);
        }
        self.member_mut(machine)?.ticket = Some((attempt, ciphertext.clone()));
        Ok(())
    }

    fn etcd_join(&mut self, machine: MachineId, turn: EtcdTurn, number: u32) -> Result<(), Refusal> {
        match (turn, self.etcd_turn) {
            (EtcdTurn::Started, Some((_, holder))) if !planted("two-etcd-turns") => Err(Refusal::EtcdBusy(holder)),
            (EtcdTurn::Started, _) => {
                let ready = self.ready.as_ref().map(|ready| ready.attempt);
                if ready.is_none() {
                    return Err(Refusal::NotLive { named: 0, live: self.claim.map(|(live, _)| live) });
                }
                if !planted("turn-for-worker") {
                    self.control_plane(machine)?;
                }
                if number <= self.etcd_turns && !planted("etcd-turn-repeated") {
                    return Err(Refusal::NoSuchTurn);
                }
                self.etcd_turns = number;
                self.etcd_turn = Some((number, machine));
                Ok(())
            }
            (EtcdTurn::Done | EtcdTurn::GaveUp, under_way) => {
                if under_way != Some((number, machine)) {
                    return Err(Refusal::NoSuchTurn);
                }
                self.etcd_turn = None;
                self.member_mut(machine)?.etcd_member = turn == EtcdTurn::Done;
                Ok(())
            }
        }
    }

    fn member_mut(&mut self, machine: MachineId) -> Result<&mut Member, Refusal> {
        self.members.get_mut(&machine).ok_or(Refusal::NotAdmitted(machine))
    }

    fn control_plane(&self, machine: MachineId) -> Result<(), Refusal> {
        match self.members.get(&machine) {
            None => Err(Refusal::NotAdmitted(machine)),
            Some(member) if member.admitted.role == Role::ControlPlane => Ok(()),
            Some(_) => Err(Refusal::NotControlPlane(machine)),
        }
    }

    /// Index of the last applied entry in the Raft log; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The admitted machines.
    pub fn members(&self) -> &BTreeMap<MachineId, Member> {
        &self.members
    }

    /// One admitted machine.
    pub fn member(&self, machine: MachineId) -> Option<&Member> {
        self.members.get(&machine)
    }

    /// Whether the identity was removed.
    pub fn was_removed(&self, machine: MachineId) -> bool {
        self.removed.contains(&machine)
    }

    /// Whether any identity was removed.
    pub fn any_removed(&self) -> bool {
        !self.removed.is_empty()
    }

    /// Who has a Node name.
    pub fn holder_of(&self, name: &str) -> Option<MachineId> {
        self.names.get(name).copied()
    }

    /// The admitted control planes.
    pub fn control_planes(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.control_planes.iter().copied()
    }

    /// Whether a machine that is not admitted may be admitted as a control plane: it votes by the charter, or not all seats are
    /// taken by control planes and by voters of the charter that are still to come.
    pub fn has_seat(&self, machine: MachineId) -> bool {
        let mut voters = self.seats.voters.iter().filter(|voter| !self.was_removed(**voter));
        if self.seats.count == 0 || voters.clone().any(|voter| *voter == machine) {
            return true;
        }
        let to_come = voters.by_ref().filter(|voter| !self.control_planes.contains(*voter)).count();
        self.control_planes.len() + to_come < self.seats.count as usize
    }

    /// Whose Raft calls are answered: those of the charter's voters that were not removed, and of the admitted control planes
    /// (promise S6).
    pub fn raft_callers(&self, charter: &Charter) -> BTreeSet<MachineId> {
        let founders = charter.voters.iter().copied().filter(|voter| !self.was_removed(*voter));
        founders.chain(self.control_planes()).collect()
    }

    /// How many admitted machines have joined.
    pub fn joined_count(&self) -> usize {
        self.joined
    }

    /// The live claim: attempt and machine.
    pub fn live_claim(&self) -> Option<(u32, MachineId)> {
        self.claim
    }

    /// The last attempt's number; 0 before the first.
    pub fn last_attempt(&self) -> u32 {
        self.attempt
    }

    /// The attempt that made the cluster, once one did.
    pub fn ready(&self) -> Option<&Ready> {
        self.ready.as_ref()
    }

    /// The attempt that made the cluster or is trying to.
    pub fn cluster_attempt(&self) -> Option<u32> {
        self.ready.as_ref().map(|ready| ready.attempt).or(self.claim.map(|(attempt, _)| attempt))
    }

    /// The last abandoned attempts, oldest first: number, machine, reason.
    pub fn abandoned(&self) -> &[(u32, MachineId, String)] {
        &self.abandoned
    }

    /// The sealed CA.
    pub fn pki(&self) -> Option<&Pki> {
        self.pki.as_ref()
    }

    /// The etcd turn under way: its number and whose it is.
    pub fn etcd_turn(&self) -> Option<(u32, MachineId)> {
        self.etcd_turn
    }

    /// How many etcd turns were taken.
    pub fn etcd_turns(&self) -> u32 {
        self.etcd_turns
    }
}

#[cfg(test)]
mod tests;

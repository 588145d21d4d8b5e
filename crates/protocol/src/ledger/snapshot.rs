//! The ledger as bytes: for snapshots and for followers that are far behind. The same state always makes the same bytes.

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_wire::entry::{Admitted, Sealed};
use muster_wire::{Attempt, Digest, MachineId, Revision, WireError, proto};
use prost::Message;

use super::backups::Backups;
use super::epoch::Recovered;
use super::images::Images;
use super::init::Init;
use super::level::Level;
use super::members::{Members, Seats};
use super::turns::Turns;
use super::wishes::Wishes;
use super::{Ledger, Member, Pki, Ready};

impl Ledger {
    /// The bytes that [`Ledger::decode`] takes.
    pub fn encode(&self) -> Vec<u8> {
        let id = |machine: &MachineId| Bytes::copy_from_slice(&machine.0);
        let claimed = |(attempt, machine): &(Attempt, MachineId)| proto::InitClaimed {
            attempt: attempt.0,
            machine: id(machine),
            founders: Vec::new(),
        };
        let (turns, last_turns) = self.turns.to_proto();
        let (wishes, removal_held) = self.wishes.to_proto();
        let (backups, last_backup) = self.backups.to_proto();
        proto::LedgerState {
            revision: self.revision.0,
            members: self.members.all().values().map(|member| self.member_to_proto(member)).collect(),
            attempt: self.init.attempt.0,
            claim: self.init.claim.as_ref().filter(|_| !crate::planted::planted("snapshot-loses-claim")).map(claimed),
            ready: self.init.ready.as_ref().map(|ready| proto::InitReady {
                attempt: ready.attempt.0,
                ca_hash: Bytes::new(),
                endpoints: ready.endpoints.clone(),
                tokens: ready.tokens.iter().map(id).collect(),
            }),
            ready_machine: self.init.ready.as_ref().map(|ready| id(&ready.machine)).unwrap_or_default(),
            abandoned: self
                .init
                .abandoned
                .iter()
                .map(|(attempt, _, why)| proto::InitAbandoned { attempt: attempt.0, why: why.clone() })
                .collect(),
            failed: self.init.abandoned.iter().map(|(attempt, machine, _)| claimed(&(*attempt, *machine))).collect(),
            ca_hash: self.pki.as_ref().map(|pki| Bytes::copy_from_slice(&pki.ca_hash.0)).unwrap_or_default(),
            pki: self
                .pki
                .iter()
                .flat_map(|pki| &pki.sealed)
                .map(|(machine, ciphertext)| proto::Sealed { machine: id(machine), ciphertext: ciphertext.clone() })
                .collect(),
            turns,
            last_turns,
            level: self.level.0,
            recovered: self.recovered.to_proto(),
            backups,
            last_backup,
            images: self.images.to_proto(),
            charter: Bytes::copy_from_slice(&self.charter),
            machines: self.members.seats.machines,
            wishes,
            removal_held,
            last_wishes: self.wishes.last_to_proto(),
            dismissed: self.members.dismissed.iter().map(id).collect(),
            founders: self.init.founders.iter().map(id).collect(),
            founding: self.init.begun.iter().map(id).collect(),
            etcd_list: self
                .init
                .etcd_list
                .iter()
                .map(|(name, address)| proto::EtcdFounder { name: name.clone(), address: address.clone() })
                .collect(),
            removed: self
                .members
                .removed
                .iter()
                .filter(|_| !crate::planted::planted("snapshot-loses-removed"))
                .map(id)
                .collect(),
            control_planes: self.members.seats.count,
            voters: self.members.seats.voters.iter().map(id).collect(),
        }
        .encode_to_vec()
    }

    /// Checks form and bounds of a whole ledger, for a machine that knows the levels up to `known`.
    ///
    /// # Errors
    /// [`WireError::Level`] if it is above that: what this version does not know of it would be lost. Else the field that is
    /// wrong. Nothing of it is used then.
    pub fn decode(bytes: &[u8], known: u32) -> Result<Self, WireError> {
        let state = proto::LedgerState::decode(bytes)
            .map_err(|why| WireError::Malformed { what: "ledger", why: why.to_string() })?;
        if state.level > known {
            return Err(WireError::Level { needs: state.level, known });
        }
        let id = |bytes: &Bytes| MachineId::from_slice(bytes, "ledger.machine");
        let charter = state.charter.as_ref().try_into();
        let mut ledger = Self {
            revision: Revision(state.revision),
            charter: charter.map_err(|_| WireError::Field { field: "ledger.charter", rule: "must have 16 bytes" })?,
            level: Level(state.level),
            recovered: Recovered::from_proto(state.recovered)?,
            backups: Backups::from_proto(state.backups, state.last_backup)?,
            images: Images::from_proto(state.images)?,
            wishes: Wishes::from_proto(state.wishes, state.removal_held, &state.last_wishes)?,
            members: Members::new(
                Seats {
                    machines: state.machines,
                    count: state.control_planes,
                    voters: state.voters.iter().map(id).collect::<Result<_, _>>()?,
                },
                state.removed.iter().map(id).collect::<Result<_, _>>()?,
                state.dismissed.iter().map(id).collect::<Result<_, _>>()?,
            ),
            init: Init {
                attempt: Attempt(state.attempt),
                claim: state.claim.map(|claim| Ok((Attempt(claim.attempt), id(&claim.machine)?))).transpose()?,
                founders: state.founders.iter().map(id).collect::<Result<_, _>>()?,
                begun: state.founding.iter().map(id).collect::<Result<_, _>>()?,
                etcd_list: state.etcd_list.into_iter().map(|member| (member.name, member.address)).collect(),
                ..Init::default()
            },
            turns: Turns::from_proto(&state.turns, &state.last_turns)?,
            ..Self::default()
        };
        if let Some(ready) = state.ready {
            ledger.init.ready = Some(Ready {
                attempt: Attempt(ready.attempt),
                machine: id(&state.ready_machine)?,
                endpoints: ready.endpoints,
                tokens: ready.tokens.iter().map(id).collect::<Result<BTreeSet<_>, _>>()?,
            });
        }
        if !state.ca_hash.is_empty() {
            let sealed = state
                .pki
                .into_iter()
                .map(|sealed| Sealed::from_proto(sealed).map(|sealed| (sealed.machine, sealed.ciphertext)));
            let ca_hash = Digest::from_slice(&state.ca_hash, "ledger.ca_hash")?;
            ledger.pki = Some(Pki { ca_hash, sealed: sealed.collect::<Result<_, _>>()? });
        }
        for member in state.members {
            ledger.insert(member)?;
        }
        for (abandoned, failed) in state.abandoned.into_iter().zip(state.failed) {
            ledger.init.abandoned.push((Attempt(abandoned.attempt), id(&failed.machine)?, abandoned.why));
        }
        Ok(ledger)
    }

    fn member_to_proto(&self, member: &Member) -> proto::Member {
        let machine = member.admitted.machine;
        let ticket = self.ticket(machine).filter(|_| !crate::planted::planted("snapshot-loses-tickets"));
        proto::Member {
            admitted: Some(member.admitted.to_proto()),
            ticket: ticket.map(|(attempt, ciphertext)| proto::Ticket {
                machine: Bytes::copy_from_slice(&machine.0),
                attempt: attempt.0,
                ciphertext: ciphertext.clone(),
            }),
            joined: member.joined,
            left: member.left,
            etcd_member: self.has_etcd(machine),
        }
    }

    fn insert(&mut self, member: proto::Member) -> Result<(), WireError> {
        let admitted =
            member.admitted.ok_or(WireError::Field { field: "ledger.members", rule: "lack an admission" })?;
        let admitted = Admitted::from_proto(admitted)?;
        if let Some(ticket) = member.ticket {
            self.tickets.issue(admitted.machine, Attempt(ticket.attempt), &ticket.ciphertext);
        }
        if member.etcd_member {
            self.turns.etcd_members.insert(admitted.machine);
        }
        self.members.insert(Member { admitted, joined: member.joined, left: member.left });
        Ok(())
    }
}

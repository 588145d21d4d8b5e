//! The ledger as bytes: for snapshots and for followers that are far behind. The same state always makes the same bytes.

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_wire::entry::{Admitted, Sealed};
use muster_wire::{Digest, MachineId, WireError, proto};
use prost::Message;

use super::{Ledger, Member, Pki, Ready, Seats};

impl Ledger {
    /// The bytes that [`Ledger::decode`] takes.
    pub fn encode(&self) -> Vec<u8> {
        let id = |machine: &MachineId| Bytes::copy_from_slice(&machine.0);
        let claimed =
            |(attempt, machine): &(u32, MachineId)| proto::InitClaimed { attempt: *attempt, machine: id(machine) };
        proto::LedgerState {
            revision: self.revision,
            members: self.members.values().map(member_to_proto).collect(),
            attempt: self.attempt,
            claim: self.claim.as_ref().filter(|_| !crate::planted::planted("snapshot-loses-claim")).map(claimed),
            ready: self.ready.as_ref().map(|ready| proto::InitReady {
                attempt: ready.attempt,
                ca_hash: Bytes::new(),
                endpoints: ready.endpoints.clone(),
                tokens: ready.tokens.iter().map(id).collect(),
            }),
            ready_machine: self.ready.as_ref().map(|ready| id(&ready.machine)).unwrap_or_default(),
            abandoned: self
                .abandoned
                .iter()
                .map(|(attempt, _, why)| proto::InitAbandoned { attempt: *attempt, why: why.clone() })
                .collect(),
            failed: self.abandoned.iter().map(|(attempt, machine, _)| claimed(&(*attempt, *machine))).collect(),
            ca_hash: self.pki.as_ref().map(|pki| Bytes::copy_from_slice(&pki.ca_hash.0)).unwrap_or_default(),
            pki: self
                .pki
                .iter()
                .flat_map(|pki| &pki.sealed)
                .map(|(machine, ciphertext)| proto::Sealed { machine: id(machine), ciphertext: ciphertext.clone() })
                .collect(),
            etcd_turn: self.etcd_turn.as_ref().map(|(number, machine)| proto::EtcdJoin {
                machine: id(machine),
                turn: proto::EtcdTurn::Started.into(),
                number: *number,
            }),
            removed: match crate::planted::planted("snapshot-loses-removed") {
                true => Vec::new(),
                false => self.removed.iter().map(id).collect(),
            },
            control_planes: self.seats.count,
            voters: self.seats.voters.iter().map(id).collect(),
            etcd_turns: if crate::planted::planted("snapshot-loses-turns") { 0 } else { self.etcd_turns },
        }
        .encode_to_vec()
    }

    /// Checks form and bounds of a whole ledger.
    ///
    /// # Errors
    /// The field that is wrong; nothing of it is used then.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let state = proto::LedgerState::decode(bytes)
            .map_err(|why| WireError::Malformed { what: "ledger", why: why.to_string() })?;
        let id = |bytes: &Bytes| MachineId::from_slice(bytes, "ledger.machine");
        let mut ledger = Self {
            revision: state.revision,
            seats: Seats {
                count: state.control_planes,
                voters: state.voters.iter().map(id).collect::<Result<_, _>>()?,
            },
            attempt: state.attempt,
            claim: state.claim.map(|claim| Ok((claim.attempt, id(&claim.machine)?))).transpose()?,
            etcd_turn: state.etcd_turn.map(|turn| Ok((turn.number, id(&turn.machine)?))).transpose()?,
            etcd_turns: state.etcd_turns,
            removed: state.removed.iter().map(id).collect::<Result<_, _>>()?,
            ..Self::default()
        };
        if let Some(ready) = state.ready {
            ledger.ready = Some(Ready {
                attempt: ready.attempt,
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
            ledger.insert(member_from_proto(member)?);
        }
        for (abandoned, failed) in state.abandoned.into_iter().zip(state.failed) {
            ledger.abandoned.push((abandoned.attempt, id(&failed.machine)?, abandoned.why));
        }
        Ok(ledger)
    }
}

fn member_to_proto(member: &Member) -> proto::Member {
    proto::Member {
        admitted: Some(member.admitted.to_proto()),
        ticket: member.ticket.as_ref().filter(|_| !crate::planted::planted("snapshot-loses-tickets")).map(
            |(attempt, ciphertext)| proto::Ticket {
                machine: Bytes::copy_from_slice(&member.admitted.machine.0),
                attempt: *attempt,
                ciphertext: ciphertext.clone(),
            },
        ),
        joined: member.joined,
        etcd_member: member.etcd_member,
    }
}

fn member_from_proto(member: proto::Member) -> Result<Member, WireError> {
    let admitted = member.admitted.ok_or(WireError::Field { field: "ledger.members", rule: "lack an admission" })?;
    Ok(Member {
        admitted: Admitted::from_proto(admitted)?,
        ticket: member.ticket.map(|ticket| (ticket.attempt, ticket.ciphertext)),
        joined: member.joined,
        etcd_member: member.etcd_member,
    })
}

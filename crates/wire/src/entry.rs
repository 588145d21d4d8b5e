//! Ledger entries: what the consensus log carries.

use bytes::{Buf, Bytes};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::convert::{bounded, bounded_bytes, decode, machine_bytes, required, text};
use crate::{Attempt, Digest, MachineId, SignedWish, WireError, Wish, limits, proto};
use proto::entry::Change;

pub mod backups;
pub mod level;
pub mod turns;

pub use backups::Backup;
pub use turns::{Turn, TurnChange, TurnKind};

/// A machine's role in Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs an API server and an etcd member.
    ControlPlane,
    /// Runs workloads only.
    Worker,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::ControlPlane => "control-plane",
            Role::Worker => "worker",
        })
    }
}

/// A secret sealed to one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Who can open it.
    pub machine: MachineId,
    /// HPKE ciphertext, see [`crate::seal`].
    pub ciphertext: Bytes,
}

/// A machine's admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// Who is admitted.
    pub machine: MachineId,
    /// Its role.
    pub role: Role,
    /// Its Node name, unique in the ledger.
    pub name: String,
    /// X25519 public key to which its secrets are sealed.
    pub sealing_key: [u8; 32],
    /// IP address at which the others reach it.
    pub address: String,
}

/// One change to the ledger. The rules that decide whether it takes effect are in `muster_protocol::ledger`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A machine belongs to the cluster.
    Admitted(Admitted),
    /// A machine no longer belongs to it and never will again under this identity.
    Removed {
        /// Who is removed.
        machine: MachineId,
    },
    /// The right to run `kubeadm init`.
    InitClaimed {
        /// Number of the attempt, counting from 1.
        attempt: Attempt,
        /// Who has the right.
        machine: MachineId,
        /// The control planes that begin etcd together, sorted, the holder among them; none if the holder begins it alone.
        founders: Vec<MachineId>,
    },
    /// From here on etcd of this attempt may have been started on this machine, which is one of its founders.
    Founds {
        /// The attempt.
        attempt: Attempt,
        /// The founder.
        machine: MachineId,
    },
    /// The CA exists, sealed to control planes.
    PkiSealed {
        /// The attempt that made it.
        attempt: Attempt,
        /// SHA-256 of the CA certificate's public key info.
        ca_hash: Digest,
        /// One ciphertext per control plane.
        sealed: Vec<Sealed>,
    },
    /// The attempt made the cluster.
    InitReady {
        /// The attempt.
        attempt: Attempt,
        /// SHA-256 of the CA certificate's public key info.
        ca_hash: Digest,
        /// `host:port` of the API server.
        endpoints: Vec<String>,
        /// The machines whose tokens init registered.
        tokens: Vec<MachineId>,
    },
    /// The attempt is over and is never made the cluster.
    InitAbandoned {
        /// The attempt.
        attempt: Attempt,
        /// What happened, for people.
        why: String,
    },
    /// Join material for one machine.
    Ticket {
        /// For whom.
        machine: MachineId,
        /// The attempt whose cluster it joins.
        attempt: Attempt,
        /// HPKE ciphertext, see [`crate::seal`].
        ciphertext: Bytes,
    },
    /// A turn begins or ends.
    Turn(Turn),
    /// The machine's Node is Ready.
    Joined {
        /// Who joined.
        machine: MachineId,
    },
    /// What the machine had joined with is gone from it: it joins anew.
    Left {
        /// Who left.
        machine: MachineId,
    },
    /// A worker becomes a control plane: what it had joined with is taken from it, and it joins anew.
    Promoted {
        /// Which.
        machine: MachineId,
    },
    /// The wished removal of a machine does not go on. It is tried again.
    RemovalHeld {
        /// Whose.
        machine: MachineId,
        /// What holds it, for people.
        why: String,
    },
    /// A backup of etcd was taken.
    BackedUp(Backup),
    /// A machine keeps a copy of a backup.
    BackupKept {
        /// The backup's number.
        number: u32,
        /// Who keeps it.
        machine: MachineId,
    },
    /// A machine has lost its copy of a backup, and cannot have another one.
    BackupGone {
        /// The backup's number.
        number: u32,
        /// Who kept it.
        machine: MachineId,
    },
    /// From here on the ledger may hold what needs this level.
    LevelRaised {
        /// The level, see [`level`].
        level: u32,
    },
    /// A person asked a machine for something.
    Wished(SignedWish),
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Its kind, a short name for traces.
    pub kind: &'static str,
    /// The machine, if it is about one.
    pub machine: Option<MachineId>,
    /// The attempt, turn, level, backup or wish; 0 where there can be but one.
    pub number: u64,
}

impl Entry {
    /// A short name for traces.
    pub fn kind(&self) -> &'static str {
        self.subject().kind
    }

    /// What it is about: of two entries about the same thing the later one counts.
    pub fn subject(&self) -> Subject {
        let of =
            |kind, machine: &MachineId, number: u32| Subject { kind, machine: Some(*machine), number: number.into() };
        let sole = |kind, number: u32| Subject { kind, machine: None, number: number.into() };
        match self {
            Entry::Admitted(admitted) => of("admitted", &admitted.machine, 0),
            Entry::Removed { machine } => of("removed", machine, 0),
            Entry::InitClaimed { attempt, machine, .. } => of("init-claimed", machine, attempt.0),
            Entry::Founds { attempt, machine } => of("founds", machine, attempt.0),
            Entry::PkiSealed { attempt, sealed, .. } => {
                Subject { kind: "pki-sealed", machine: sealed.first().map(|one| one.machine), number: attempt.0.into() }
            }
            Entry::InitReady { attempt, .. } => sole("init-ready", attempt.0),
            Entry::InitAbandoned { attempt, .. } => sole("init-abandoned", attempt.0),
            Entry::Ticket { machine, attempt, .. } => of("ticket", machine, attempt.0),
            Entry::Turn(Turn { kind: TurnKind::Etcd, holder, number, .. }) => of("etcd-turn", holder, number.0),
            Entry::Turn(Turn { kind: TurnKind::Disrupt, holder, number, .. }) => of("disrupt-turn", holder, number.0),
            Entry::Joined { machine } => of("joined", machine, 0),
            Entry::Left { machine } => of("left", machine, 0),
            Entry::Promoted { machine } => of("promoted", machine, 0),
            Entry::RemovalHeld { machine, .. } => of("removal-held", machine, 0),
            Entry::BackedUp(backup) => of("backed-up", &backup.machine, backup.number),
            Entry::BackupKept { number, machine } => of("backup-kept", machine, *number),
            Entry::BackupGone { number, machine } => of("backup-gone", machine, *number),
            Entry::LevelRaised { level } => sole("level-raised", *level),
            Entry::Wished(signed) => Subject { kind: "wished", machine: Some(signed.machine), number: signed.number },
        }
    }

    /// The level of the ledger from which on there is such an entry; for a raising the level that it brings.
    pub fn level(&self) -> u32 {
        match self {
            Entry::LevelRaised { level } => *level,
            Entry::BackedUp(_) | Entry::BackupKept { .. } | Entry::BackupGone { .. } => level::BACKUPS,
            Entry::Promoted { .. } | Entry::RemovalHeld { .. } => level::LEAVING,
            Entry::Wished(signed) => match signed.wish {
                Wish::AcceptImage(_) => level::WISHES,
                Wish::RemoveMachine { .. } | Wish::WithdrawRemoval { .. } => level::LEAVING,
            },
            Entry::Founds { .. } | Entry::Left { .. } => level::FOUNDERS,
            Entry::InitClaimed { founders, .. } if !founders.is_empty() => level::FOUNDERS,
            Entry::Turn(turn) if turn.kind == TurnKind::Disrupt => level::WISHES,
            Entry::Admitted(_)
            | Entry::Removed { .. }
            | Entry::InitClaimed { .. }
            | Entry::PkiSealed { .. }
            | Entry::InitReady { .. }
            | Entry::InitAbandoned { .. }
            | Entry::Ticket { .. }
            | Entry::Turn(_)
            | Entry::Joined { .. } => level::FOUNDED,
        }
    }

    /// As [`Entry::decode`], for a machine that knows the ledger's levels up to `known`.
    ///
    /// # Errors
    /// [`WireError::Level`] for an entry of a higher level; what is of no level that this version knows is malformed to it.
    pub fn decode_at(bytes: impl Buf, known: u32) -> Result<Self, WireError> {
        let entry = Self::decode(bytes)?;
        let needs = entry.level();
        if needs > known { Err(WireError::Level { needs, known }) } else { Ok(entry) }
    }

    /// The bytes that go into the log.
    pub fn encode(&self) -> Bytes {
        proto::Entry { change: Some(to_proto(self)) }.encode_to_vec().into()
    }

    /// Checks form and bounds. Of [`Bytes`] the ciphertexts are parts, not copies.
    pub fn decode(bytes: impl Buf) -> Result<Self, WireError> {
        if bytes.remaining() > limits::ENTRY_BYTES_MAX {
            return Err(WireError::TooLarge { what: "entry", bytes: bytes.remaining(), max: limits::ENTRY_BYTES_MAX });
        }
        let entry: proto::Entry = decode("entry", bytes)?;
        from_proto(required(entry.change, "entry.change")?)
    }
}

fn to_proto(entry: &Entry) -> Change {
    match entry {
        Entry::Admitted(admitted) => Change::Admitted(admitted.to_proto()),
        Entry::Removed { machine } => Change::Removed(proto::Removed { machine: machine_bytes(machine) }),
        Entry::InitClaimed { attempt, machine, founders } => Change::InitClaimed(proto::InitClaimed {
            attempt: attempt.0,
            machine: machine_bytes(machine),
            founders: founders.iter().map(machine_bytes).collect(),
        }),
        Entry::Left { machine } => Change::Left(proto::Left { machine: machine_bytes(machine) }),
        Entry::Founds { attempt, machine } => {
            Change::Founds(proto::Founds { attempt: attempt.0, machine: machine_bytes(machine) })
        }
        Entry::PkiSealed { attempt, ca_hash, sealed } => Change::PkiSealed(proto::PkiSealed {
            attempt: attempt.0,
            ca_hash: Bytes::copy_from_slice(&ca_hash.0),
            sealed: sealed.iter().map(Sealed::to_proto).collect(),
        }),
        Entry::InitReady { attempt, ca_hash, endpoints, tokens } => Change::InitReady(proto::InitReady {
            attempt: attempt.0,
            ca_hash: Bytes::copy_from_slice(&ca_hash.0),
            endpoints: endpoints.clone(),
            tokens: tokens.iter().map(machine_bytes).collect(),
        }),
        Entry::InitAbandoned { attempt, why } => {
            Change::InitAbandoned(proto::InitAbandoned { attempt: attempt.0, why: why.clone() })
        }
        Entry::Ticket { machine, attempt, ciphertext } => Change::Ticket(proto::Ticket {
            machine: machine_bytes(machine),
            attempt: attempt.0,
            ciphertext: ciphertext.clone(),
        }),
        Entry::Turn(turn) => Change::Turn(turn.to_proto()),
        Entry::Joined { machine } => Change::Joined(proto::Joined { machine: machine_bytes(machine) }),
        Entry::Promoted { machine } => Change::Promoted(proto::Promoted { machine: machine_bytes(machine) }),
        Entry::RemovalHeld { machine, why } => {
            Change::RemovalHeld(proto::RemovalHeld { machine: machine_bytes(machine), why: why.clone() })
        }
        Entry::BackedUp(backup) => Change::BackedUp(backup.to_proto()),
        Entry::BackupKept { number, machine } => {
            Change::BackupKept(proto::BackupKept { number: *number, machine: machine_bytes(machine) })
        }
        Entry::BackupGone { number, machine } => {
            Change::BackupGone(proto::BackupGone { number: *number, machine: machine_bytes(machine) })
        }
        Entry::LevelRaised { level } => Change::LevelRaised(proto::LevelRaised { level: *level }),
        Entry::Wished(wish) => Change::Wished(wish.to_proto()),
    }
}

fn from_proto(change: Change) -> Result<Entry, WireError> {
    let machine = |bytes: &Bytes| MachineId::from_slice(bytes, "entry.machine");
    Ok(match change {
        Change::Admitted(admitted) => Entry::Admitted(Admitted::from_proto(admitted)?),
        Change::Removed(removed) => Entry::Removed { machine: machine(&removed.machine)? },
        Change::InitClaimed(claim) => Entry::InitClaimed {
            attempt: Attempt(claim.attempt),
            machine: machine(&claim.machine)?,
            founders: bounded(claim.founders, limits::VOTERS_MAX, "entry.founders")?
                .iter()
                .map(machine)
                .collect::<Result<_, _>>()?,
        },
        Change::Left(left) => Entry::Left { machine: machine(&left.machine)? },
        Change::Founds(founds) => {
            Entry::Founds { attempt: Attempt(founds.attempt), machine: machine(&founds.machine)? }
        }
        Change::PkiSealed(pki) => Entry::PkiSealed {
            attempt: Attempt(pki.attempt),
            ca_hash: Digest::from_slice(&pki.ca_hash, "entry.ca_hash")?,
            sealed: bounded(pki.sealed, limits::VOTERS_MAX, "entry.sealed")?
                .into_iter()
                .map(Sealed::from_proto)
                .collect::<Result<_, _>>()?,
        },
        Change::InitReady(ready) => Entry::InitReady {
            attempt: Attempt(ready.attempt),
            ca_hash: Digest::from_slice(&ready.ca_hash, "entry.ca_hash")?,
            endpoints: bounded(ready.endpoints, limits::VOTERS_MAX, "entry.endpoints")?
                .into_iter()
                .map(|endpoint| text(endpoint, "entry.endpoints"))
                .collect::<Result<_, _>>()?,
            tokens: ready.tokens.iter().map(machine).collect::<Result<_, _>>()?,
        },
        Change::InitAbandoned(abandoned) => {
            Entry::InitAbandoned { attempt: Attempt(abandoned.attempt), why: text(abandoned.why, "entry.why")? }
        }
        Change::Ticket(ticket) => Entry::Ticket {
            machine: machine(&ticket.machine)?,
            attempt: Attempt(ticket.attempt),
            ciphertext: bounded_bytes(ticket.ciphertext, limits::CIPHERTEXT_BYTES_MAX, "entry.ciphertext")?,
        },
        Change::Turn(turn) => Entry::Turn(Turn::from_proto(&turn)?),
        Change::Joined(joined) => Entry::Joined { machine: machine(&joined.machine)? },
        Change::Promoted(promoted) => Entry::Promoted { machine: machine(&promoted.machine)? },
        Change::RemovalHeld(held) => {
            Entry::RemovalHeld { machine: machine(&held.machine)?, why: text(held.why, "entry.why")? }
        }
        Change::BackedUp(backup) => Entry::BackedUp(Backup::from_proto(&backup)?),
        Change::BackupKept(kept) => Entry::BackupKept { number: kept.number, machine: machine(&kept.machine)? },
        Change::BackupGone(gone) => Entry::BackupGone { number: gone.number, machine: machine(&gone.machine)? },
        Change::LevelRaised(raised) => Entry::LevelRaised { level: raised.level },
        Change::Wished(signed) => Entry::Wished(SignedWish::from_proto(signed)?),
    })
}

impl Sealed {
    /// To the generated type.
    pub fn to_proto(&self) -> proto::Sealed {
        proto::Sealed { machine: machine_bytes(&self.machine), ciphertext: self.ciphertext.clone() }
    }

    /// Checks form and bounds.
    pub fn from_proto(sealed: proto::Sealed) -> Result<Self, WireError> {
        Ok(Self {
            machine: MachineId::from_slice(&sealed.machine, "sealed.machine")?,
            ciphertext: bounded_bytes(sealed.ciphertext, limits::CIPHERTEXT_BYTES_MAX, "sealed.ciphertext")?,
        })
    }
}

impl Admitted {
    /// To the generated type.
    pub fn to_proto(&self) -> proto::Admitted {
        let role = match self.role {
            Role::ControlPlane => proto::Role::ControlPlane,
            Role::Worker => proto::Role::Worker,
        };
        proto::Admitted {
            machine: machine_bytes(&self.machine),
            role: role.into(),
            name: self.name.clone(),
            sealing_key: Bytes::copy_from_slice(&self.sealing_key),
            address: self.address.clone(),
        }
    }

    /// Checks form and bounds.
    pub fn from_proto(admitted: proto::Admitted) -> Result<Self, WireError> {
        Ok(Self {
            machine: MachineId::from_slice(&admitted.machine, "admitted.machine")?,
            role: match admitted.role() {
                proto::Role::ControlPlane => Role::ControlPlane,
                proto::Role::Worker => Role::Worker,
                proto::Role::Unspecified => {
                    return Err(WireError::Field { field: "admitted.role", rule: "is unknown" });
                }
            },
            sealing_key: crate::convert::array(&admitted.sealing_key, "admitted.sealing_key")?,
            name: text(admitted.name, "admitted.name")?,
            address: text(admitted.address, "admitted.address")?,
        })
    }
}

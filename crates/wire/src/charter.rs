//! Founding's statements: ballots, votes, the charter, and the certificate that proves it.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::convert::{array, bounded, decode, machine_bytes, required, text};
use crate::planted::planted;
use crate::sign::{VOTE, verify};
use crate::{Digest, Identity, MachineId, WireError, limits, proto};

/// A Paxos ballot (Lamport, "Paxos Made Simple", section 2.2): ordered by round, then by who proposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Counts up; a proposer takes one above the highest it has seen.
    pub round: u64,
    /// Who proposes; no two machines share a ballot.
    pub machine: MachineId,
}

/// What is founded: the cluster's id and its exact first voters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charter {
    /// The cluster's name in its image.
    pub cluster: String,
    /// Drawn by the proposer; tells this cluster from another one of the same name.
    pub id: [u8; 16],
    /// The first voters, sorted, without repetition, 1 to [`limits::VOTERS_MAX`].
    pub voters: Vec<MachineId>,
    /// The Kubernetes version the cluster begins with.
    pub kubernetes_version: String,
    /// Digest of the founding image's settings.
    pub settings: Digest,
    /// How many machines carried the image.
    pub machines: u32,
    /// The founding quorum `T`.
    pub quorum: u32,
    /// How many control planes the image asks for, at most [`limits::VOTERS_MAX`]: the ledger admits no more. 0 in a charter
    /// from before this was said, under which the ledger has no such bound.
    pub control_planes: u32,
}

impl Charter {
    /// The bytes that are hashed, voted on and stored.
    pub fn encode(&self) -> Bytes {
        proto::Charter {
            cluster: self.cluster.clone(),
            id: Bytes::copy_from_slice(&self.id),
            voters: self.voters.iter().map(machine_bytes).collect(),
            kubernetes_version: self.kubernetes_version.clone(),
            settings: Bytes::copy_from_slice(&self.settings.0),
            machines: self.machines,
            quorum: self.quorum,
            control_planes: self.control_planes,
        }
        .encode_to_vec()
        .into()
    }

    /// Checks form and bounds. A quorum below a majority of `machines` is refused: two such charters could coexist.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let charter: proto::Charter = decode("charter", bytes)?;
        let voters = bounded(charter.voters, limits::VOTERS_MAX, "charter.voters")?
            .iter()
            .map(|voter| MachineId::from_slice(voter, "charter.voters"))
            .collect::<Result<Vec<_>, _>>()?;
        if voters.is_empty() || !voters.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(WireError::Field { field: "charter.voters", rule: "must be sorted, unique and not empty" });
        }
        if !(1..=limits::MACHINES_MAX).contains(&charter.machines)
            || charter.quorum > charter.machines
            || charter.quorum < charter.machines / 2 + 1
        {
            return Err(WireError::Field { field: "charter.quorum", rule: "must be a majority of its machines" });
        }
        let seats = charter.control_planes as usize;
        if seats > limits::VOTERS_MAX || (1..voters.len()).contains(&seats) {
            return Err(WireError::Field { field: "charter.control_planes", rule: "must have a seat for every voter" });
        }
        Ok(Self {
            cluster: text(charter.cluster, "charter.cluster")?,
            id: array(&charter.id, "charter.id")?,
            voters,
            kubernetes_version: text(charter.kubernetes_version, "charter.kubernetes_version")?,
            settings: Digest::from_slice(&charter.settings, "charter.settings")?,
            machines: charter.machines,
            quorum: charter.quorum,
            control_planes: charter.control_planes,
        })
    }

    /// The cluster id as hexadecimal digits.
    pub fn id_hex(&self) -> String {
        hex::encode(self.id)
    }
}

/// Hash of a charter's bytes, which votes name.
pub fn charter_hash(bytes: &[u8]) -> Digest {
    Digest::of("muster/charter/v1", &[bytes])
}

/// A machine's signed vote for one charter in one ballot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Who votes.
    pub machine: MachineId,
    /// In which ballot.
    pub ballot: Ballot,
    /// For the charter with this hash.
    pub charter_hash: Digest,
    signature: [u8; 64],
}

impl Vote {
    /// Signs a vote. The caller has written it to disk before, or must not send it (promise S2).
    pub fn sign(identity: &Identity, cluster: &str, ballot: Ballot, charter_hash: Digest) -> Self {
        let signature = identity.sign(VOTE, &vote_body(cluster, &ballot, &charter_hash));
        Self { machine: identity.machine(), ballot, charter_hash, signature }
    }

    pub(crate) fn to_proto(&self, cluster: &str) -> proto::Signed {
        proto::Signed {
            machine: machine_bytes(&self.machine),
            body: vote_body(cluster, &self.ballot, &self.charter_hash).into(),
            signature: Bytes::copy_from_slice(&self.signature),
        }
    }

    pub(crate) fn from_proto(signed: proto::Signed) -> Result<(String, Self), WireError> {
        let machine = MachineId::from_slice(&signed.machine, "vote.machine")?;
        verify(machine, VOTE, &signed.body, &signed.signature)?;
        let body: proto::Vote = decode("vote", &signed.body[..])?;
        let vote = Self {
            machine,
            ballot: ballot_from_proto(required(body.ballot, "vote.ballot")?)?,
            charter_hash: Digest::from_slice(&body.charter_hash, "vote.charter_hash")?,
            signature: array(&signed.signature, "vote.signature")?,
        };
        Ok((text(body.cluster, "vote.cluster")?, vote))
    }
}

fn vote_body(cluster: &str, ballot: &Ballot, charter_hash: &Digest) -> Vec<u8> {
    proto::Vote {
        cluster: cluster.to_owned(),
        ballot: Some(ballot_to_proto(ballot)),
        charter_hash: Bytes::copy_from_slice(&charter_hash.0),
    }
    .encode_to_vec()
}

/// A charter with the votes of a founding quorum in one ballot: proof that anyone can check. A clone shares what it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(Arc<Proof>);

#[derive(PartialEq, Eq)]
struct Proof {
    charter: Charter,
    charter_bytes: Bytes,
    hash: Digest,
    ballot: Ballot,
    votes: Vec<(MachineId, [u8; 64])>,
}

impl Proof {
    /// Checks that a quorum of distinct machines signed.
    fn verify(&self) -> Result<(), WireError> {
        let field = "certificate.votes";
        if self.votes.len() + usize::from(planted("certificate-of-fewer")) < self.charter.quorum as usize {
            return Err(WireError::Field { field, rule: "are fewer than the charter's quorum" });
        }
        if !self.votes.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(WireError::Field { field, rule: "must be sorted and of distinct machines" });
        }
        let body = vote_body(&self.charter.cluster, &self.ballot, &self.hash);
        self.votes.iter().try_for_each(|(machine, signature)| verify(*machine, VOTE, &body, signature))
    }
}

impl Certificate {
    /// Puts the votes together. They must be for these bytes in this ballot, of at least a quorum of machines.
    pub fn new(charter_bytes: Bytes, ballot: Ballot, votes: &[Vote]) -> Result<Self, WireError> {
        let charter = Charter::decode(&charter_bytes)?;
        let mut votes: Vec<_> = votes.iter().map(|vote| (vote.machine, vote.signature)).collect();
        votes.sort_unstable();
        votes.dedup_by_key(|vote| vote.0);
        Self::checked(Proof { charter, hash: charter_hash(&charter_bytes), charter_bytes, ballot, votes })
    }

    /// The charter it proves.
    pub fn charter(&self) -> &Charter {
        &self.0.charter
    }

    /// The charter's bytes as voted on.
    pub fn charter_bytes(&self) -> &Bytes {
        &self.0.charter_bytes
    }

    /// The hash of those bytes, which every vote names.
    pub fn charter_hash(&self) -> Digest {
        self.0.hash
    }

    /// Who voted for it.
    pub fn voters_of_founding(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.0.votes.iter().map(|vote| vote.0)
    }

    fn checked(proof: Proof) -> Result<Self, WireError> {
        proof.verify()?;
        Ok(Self(Arc::new(proof)))
    }

    /// The bytes that [`Certificate::decode`] takes.
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    /// Checks form, bounds and every signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        Self::from_proto(decode("certificate", bytes)?)
    }

    pub(crate) fn to_proto(&self) -> proto::Certificate {
        let votes = self.0.votes.iter().map(|(machine, signature)| proto::VoteSignature {
            machine: machine_bytes(machine),
            signature: Bytes::copy_from_slice(signature),
        });
        proto::Certificate {
            charter: self.0.charter_bytes.clone(),
            ballot: Some(ballot_to_proto(&self.0.ballot)),
            votes: votes.collect(),
        }
    }

    pub(crate) fn from_proto(certificate: proto::Certificate) -> Result<Self, WireError> {
        let votes = bounded(certificate.votes, limits::MACHINES_MAX as usize, "certificate.votes")?
            .iter()
            .map(|vote| {
                let machine = MachineId::from_slice(&vote.machine, "certificate.votes")?;
                Ok((machine, array(&vote.signature, "certificate.votes")?))
            })
            .collect::<Result<Vec<_>, WireError>>()?;
        Self::checked(Proof {
            charter: Charter::decode(&certificate.charter)?,
            hash: charter_hash(&certificate.charter),
            charter_bytes: certificate.charter,
            ballot: ballot_from_proto(required(certificate.ballot, "certificate.ballot")?)?,
            votes,
        })
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "certificate of {} with {} votes", self.0.charter.id_hex(), self.0.votes.len())
    }
}

pub(crate) fn ballot_to_proto(ballot: &Ballot) -> proto::Ballot {
    proto::Ballot { round: ballot.round, machine: machine_bytes(&ballot.machine) }
}

pub(crate) fn ballot_from_proto(ballot: proto::Ballot) -> Result<Ballot, WireError> {
    // The highest round is left unused, so that a round above any seen one always exists.
    if ballot.round == u64::MAX {
        return Err(WireError::Field { field: "ballot.round", rule: "is too high" });
    }
    Ok(Ballot { round: ballot.round, machine: MachineId::from_slice(&ballot.machine, "ballot.machine")? })
}

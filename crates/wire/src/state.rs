//! What the core wants kept on disk: every promise this machine made. Written, synced, before what depends on it is sent.

use bytes::Bytes;
use prost::Message;

use crate::charter::{ballot_from_proto, ballot_to_proto};
use crate::convert::{decode, text};
use crate::{Attempt, Ballot, BootCount, Certificate, TurnNumber, WireError, proto};

/// Marks kubeadm work on this machine. Two of them, started and completed, instead of a plan to resume: work that was
/// started and not completed is reset and begun anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KubeadmMarker {
    /// The attempt whose cluster the work belongs to.
    pub attempt: Attempt,
    /// Whether it is init; else join.
    pub init: bool,
}

/// The core's durable state. Nothing in it is secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durable {
    /// The cluster's name in the image that made this state.
    pub cluster: String,
    /// How often this identity has booted.
    pub boot: BootCount,
    /// The highest ballot promised while founding.
    pub promised: Option<Ballot>,
    /// The last vote given while founding, with the charter's bytes.
    pub accepted: Option<(Ballot, Bytes)>,
    /// The charter this machine follows.
    pub charter: Option<Certificate>,
    /// The first charter for this cluster's name that this machine saw and may not follow, since another image founded it.
    /// Its cluster exists, whether or not it can be seen now: this machine promises, votes and proposes nothing any more.
    pub seen: Option<Certificate>,
    /// kubeadm work that was begun.
    pub started: Option<KubeadmMarker>,
    /// kubeadm work that was finished.
    pub completed: Option<KubeadmMarker>,
    /// The highest etcd turn that this machine has asked for: it asks for none twice.
    pub etcd_turn: TurnNumber,
    /// The turn by which this machine's etcd member came in, if there is one. From then on its join is finished, however
    /// often that takes, and not begun anew.
    pub etcd_joined: TurnNumber,
    /// The last attempt whose etcd this machine began as one of its founders: it begins no attempt's twice. Written before the first
    /// start, and kept when what was begun is undone.
    pub founding: Attempt,
    /// The last attempt as whose founder this machine started etcd.
    pub founded: Attempt,
    /// The last epoch for which this machine has rebuilt etcd from its own data, or registered with one that was restored.
    pub rebuilt: u32,
}

impl Durable {
    /// To the generated type.
    pub fn to_proto(&self) -> proto::Durable {
        let marker = |marker: &KubeadmMarker| proto::KubeadmMarker { attempt: marker.attempt.0, init: marker.init };
        proto::Durable {
            cluster: self.cluster.clone(),
            boot: self.boot.0,
            promised: self
                .promised
                .as_ref()
                .filter(|_| !crate::planted::planted("promise-lost-on-disk"))
                .map(ballot_to_proto),
            accepted_ballot: self.accepted.as_ref().map(|(ballot, _)| ballot_to_proto(ballot)),
            accepted_charter: self.accepted.as_ref().map(|(_, charter)| charter.clone()).unwrap_or_default(),
            charter: self.charter.as_ref().map(Certificate::to_proto),
            seen: self
                .seen
                .as_ref()
                .filter(|_| !crate::planted::planted("seen-lost-on-disk"))
                .map(Certificate::to_proto),
            started: self.started.as_ref().map(marker),
            completed: self.completed.as_ref().map(marker),
            etcd_turn: self.etcd_turn.0,
            etcd_joined: self.etcd_joined.0,
            founding: self.founding.0,
            founded: self.founded.0,
            rebuilt: self.rebuilt,
        }
    }

    /// Checks form, bounds, and the charter's proof.
    pub fn from_proto(durable: proto::Durable) -> Result<Self, WireError> {
        let marker =
            |marker: proto::KubeadmMarker| KubeadmMarker { attempt: Attempt(marker.attempt), init: marker.init };
        Ok(Self {
            cluster: text(durable.cluster, "durable.cluster")?,
            boot: BootCount(durable.boot),
            promised: durable.promised.map(ballot_from_proto).transpose()?,
            accepted: match durable.accepted_ballot {
                Some(ballot) => Some((ballot_from_proto(ballot)?, durable.accepted_charter)),
                None => None,
            },
            charter: durable.charter.map(Certificate::from_proto).transpose()?,
            seen: durable.seen.map(Certificate::from_proto).transpose()?,
            started: durable.started.map(marker),
            completed: durable.completed.map(marker),
            etcd_turn: TurnNumber(durable.etcd_turn),
            etcd_joined: TurnNumber(durable.etcd_joined),
            founding: Attempt(durable.founding),
            founded: Attempt(durable.founded),
            rebuilt: durable.rebuilt,
        })
    }

    /// The bytes that [`Durable::decode`] takes.
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    /// Checks form, bounds, and the charter's proof.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        Self::from_proto(decode("durable state", bytes)?)
    }
}

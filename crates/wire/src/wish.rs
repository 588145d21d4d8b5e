//! Wishes: what a person asks of a machine. That machine signs it, and whoever leads proposes it.

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::convert::{array, decode, machine_bytes, required, text};
use crate::sign::{WISH, verify};
use crate::{Digest, Identity, MachineId, WireError, proto};
use proto::wish::What;

/// What is wished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Machines with this image may join as well.
    AcceptImage(Image),
    /// A machine leaves the cluster for good.
    RemoveMachine {
        /// Which.
        #[serde(with = "crate::id::hexadecimal")]
        machine: MachineId,
        /// Whether its hardware is to come back at once, as another machine.
        returns: bool,
    },
    /// A machine that was to be removed stays.
    WithdrawRemoval {
        /// Which.
        #[serde(with = "crate::id::hexadecimal")]
        machine: MachineId,
    },
}

/// An image, by what all machines that boot it share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its settings.
    #[serde(with = "crate::id::hexadecimal")]
    pub digest: Digest,
    /// The Kubernetes version that it names, as `v1.31.4`; empty if it names none.
    pub kubernetes_version: String,
}

impl Wish {
    /// A short name for people and traces.
    pub fn kind(&self) -> &'static str {
        match self {
            Wish::AcceptImage(_) => "accept-image",
            Wish::RemoveMachine { .. } => "remove-machine",
            Wish::WithdrawRemoval { .. } => "withdraw-removal",
        }
    }
}

impl std::fmt::Display for Wish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wish::AcceptImage(image) => write!(f, "accept {image}"),
            Wish::RemoveMachine { machine, returns: false } => write!(f, "remove {machine}"),
            Wish::RemoveMachine { machine, returns: true } => {
                write!(f, "remove {machine}, which comes back as another")
            }
            Wish::WithdrawRemoval { machine } => write!(f, "withdraw the removal of {machine}"),
        }
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version =
            if self.kubernetes_version.is_empty() { "no Kubernetes version" } else { &self.kubernetes_version };
        write!(f, "image {} ({version})", self.digest)
    }
}

/// A wish with the signature of the machine that was asked, checked. Only [`SignedWish::sign`] and decoding make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedWish {
    /// Who was asked.
    pub machine: MachineId,
    /// The id of the charter under which it is wished.
    pub charter: [u8; 16],
    /// Tells the wishes of one machine apart.
    pub number: u64,
    /// What is wished.
    pub wish: Wish,
    signed: proto::Signed,
}

impl SignedWish {
    /// Signs a wish.
    pub fn sign(identity: &Identity, charter: [u8; 16], number: u64, wish: Wish) -> Self {
        let body = proto::Wish { charter: Bytes::copy_from_slice(&charter), number, what: Some(to_proto(&wish)) };
        let signed = identity.signed(WISH, body.encode_to_vec());
        Self { machine: identity.machine(), charter, number, wish, signed }
    }

    /// To the generated type: the very bytes that were signed.
    pub fn to_proto(&self) -> proto::Signed {
        self.signed.clone()
    }

    /// Checks form, bounds and signature.
    pub fn from_proto(signed: proto::Signed) -> Result<Self, WireError> {
        let machine = MachineId::from_slice(&signed.machine, "wish.machine")?;
        verify(machine, WISH, &signed.body, &signed.signature)?;
        let body: proto::Wish = decode("wish", &signed.body[..])?;
        Ok(Self {
            machine,
            charter: array(&body.charter, "wish.charter")?,
            number: body.number,
            wish: from_proto(required(body.what, "wish.what")?)?,
            signed,
        })
    }
}

fn to_proto(wish: &Wish) -> What {
    match wish {
        Wish::AcceptImage(image) => What::AcceptImage(image.to_proto()),
        Wish::RemoveMachine { machine, returns } => {
            What::RemoveMachine(proto::RemoveMachine { machine: machine_bytes(machine), returns: *returns })
        }
        Wish::WithdrawRemoval { machine } => {
            What::WithdrawRemoval(proto::WithdrawRemoval { machine: machine_bytes(machine) })
        }
    }
}

fn from_proto(what: What) -> Result<Wish, WireError> {
    Ok(match what {
        What::AcceptImage(image) => Wish::AcceptImage(Image::from_proto(image)?),
        What::RemoveMachine(remove) => Wish::RemoveMachine {
            machine: MachineId::from_slice(&remove.machine, "wish.remove_machine.machine")?,
            returns: remove.returns,
        },
        What::WithdrawRemoval(withdraw) => Wish::WithdrawRemoval {
            machine: MachineId::from_slice(&withdraw.machine, "wish.withdraw_removal.machine")?,
        },
    })
}

impl Image {
    /// To the generated type.
    pub fn to_proto(&self) -> proto::Image {
        proto::Image {
            digest: Bytes::copy_from_slice(&self.digest.0),
            kubernetes_version: self.kubernetes_version.clone(),
        }
    }

    /// Checks form and bounds.
    pub fn from_proto(image: proto::Image) -> Result<Self, WireError> {
        Ok(Self {
            digest: Digest::from_slice(&image.digest, "image.digest")?,
            kubernetes_version: text(image.kubernetes_version, "image.kubernetes_version")?,
        })
    }
}

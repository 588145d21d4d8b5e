//! Machine cards: what a machine says of itself, signed, and passed on by others as the very bytes it signed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::convert::{array, bounded, decode, machine_bytes, required, text};
use crate::sign::{CARD, verify};
use crate::{BootCount, Digest, Epoch, Identity, MachineId, WireError, limits, proto};

mod memory;

/// What the image says about the cluster. Founding needs the same settings everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How many machines carry the image: `N`, at least 1.
    pub machines: u32,
    /// How many control planes there are to be, 1 to [`limits::VOTERS_MAX`] and at most `machines`.
    pub control_planes: u32,
    /// Whether votes survive a restart. Where they do not, all `N` must vote.
    pub durable: bool,
    /// The Kubernetes version, as `v1.31.4`.
    pub kubernetes_version: String,
    /// Digest of everything in the image's settings that all machines must share.
    pub digest: Digest,
}

impl Settings {
    /// The founding quorum `T`: a majority of `machines`, or all of them where votes do not survive a restart.
    pub fn quorum(&self) -> u32 {
        if self.durable { self.machines / 2 + 1 } else { self.machines }
    }
}

/// What a machine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Whose card this is.
    pub machine: MachineId,
    /// The cluster's name in its image.
    pub cluster: String,
    /// How often this identity has booted, counted on its disk.
    pub boot: BootCount,
    /// Drawn anew at every boot. Two nonces in one `boot` are two machines with one disk.
    pub nonce: [u8; 16],
    /// Counts the card's changes within one boot.
    pub serial: u32,
    /// The machine's own host name, which need not be unique.
    pub hostname: String,
    /// Where it listens, `ip:port`, most useful first.
    pub addresses: Vec<String>,
    /// X25519 public key to which secrets for this machine are sealed.
    pub sealing_key: [u8; 32],
    /// Digest of what tells the hardware apart.
    pub fingerprint: Digest,
    /// The image's settings.
    pub settings: Settings,
    /// Whether this machine can run kubeadm.
    pub able: Able,
    /// So many of the addresses, the first ones, are such at which others reached it.
    pub reached: u32,
    /// The hash of the charter that it follows, if any: no other cluster admits it.
    pub charter: Option<Digest>,
    /// The highest level of the ledger that it knows, see [`crate::level`].
    pub level: u32,
    /// What it runs.
    pub running: Running,
    /// The epoch of the ledger that it follows.
    pub epoch: Epoch,
}

/// Whether a machine can run kubeadm, as it found it. On the wire it is a text: none where it can.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Able {
    /// It can.
    #[default]
    Yes,
    /// It has not looked yet.
    NotLooked,
    /// It cannot, and why.
    No(String),
}

impl Able {
    /// What the card of a machine says that has not looked at its kubeadm.
    const NOT_LOOKED: &str = "it has not looked at its kubeadm yet";

    /// What keeps it from running kubeadm; empty if nothing does.
    pub fn why_not(&self) -> &str {
        match self {
            Self::Yes => "",
            Self::NotLooked => Self::NOT_LOOKED,
            Self::No(why) => why,
        }
    }
}

impl From<String> for Able {
    fn from(why: String) -> Self {
        match why.as_str() {
            "" => Self::Yes,
            Self::NOT_LOOKED => Self::NotLooked,
            _ => Self::No(why),
        }
    }
}

impl From<Able> for String {
    fn from(able: Able) -> Self {
        able.why_not().to_owned()
    }
}

/// What a machine runs, as it found it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// kubeadm's version, as `v1.31.4`; empty until it was looked at.
    pub kubernetes: String,
    /// Digest of the kubelet's configuration, if there is one.
    pub kubelet: Option<Digest>,
    /// When the first of its certificates ends, in seconds since 1970; 0 if it has none.
    pub certificates_end_s: u64,
    /// The median of some syncs of its disk when it started, in microseconds; 0 if none was measured.
    pub sync_us: u32,
}

impl Card {
    /// Whether it is known if the machine can run kubeadm. Who may be a control plane is decided once, so not before.
    pub fn has_looked(&self) -> bool {
        self.able != Able::NotLooked
    }

    /// The addresses at which others reached it, `ip:port`.
    pub fn reached_at(&self) -> impl Iterator<Item = &String> {
        self.addresses.iter().take(self.reached as usize)
    }

    /// All its addresses, without their ports.
    pub fn hosts(&self) -> impl DoubleEndedIterator<Item = IpAddr> {
        self.addresses.iter().filter_map(|address| host_of(address))
    }
}

/// The address in `ip:port`.
pub fn host_of(address: &str) -> Option<IpAddr> {
    address.parse().ok().map(|address: SocketAddr| address.ip())
}

/// A card with its owner's signature, checked. Only [`SignedCard::decode`] and [`SignedCard::sign`] make one. A clone shares
/// what it holds: a machine keeps its card in several places, and sends it to many peers.
#[derive(Clone)]
pub struct SignedCard(Arc<Checked>);

struct Checked {
    card: Card,
    /// The signed message, whole.
    encoded: Bytes,
    /// The same, its fields parts of `encoded`.
    signed: proto::Signed,
}

impl PartialEq for SignedCard {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.encoded == other.0.encoded
    }
}

impl Eq for SignedCard {}

impl SignedCard {
    /// Signs `card`, which must be the identity's own.
    pub fn sign(identity: &Identity, card: Card) -> Self {
        debug_assert_eq!(identity.machine(), card.machine);
        let signed = identity.signed(CARD, to_proto(&card).encode_to_vec());
        Self::checked(card, &signed)
    }

    /// Copied into a buffer of its own, so that a card does not keep the frame it came with.
    fn checked(card: Card, signed: &proto::Signed) -> Self {
        let encoded = Bytes::from(signed.encode_to_vec());
        let signed = proto::Signed::decode(encoded.clone()).unwrap_or_else(|_| signed.clone());
        Self(Arc::new(Checked { card, encoded, signed }))
    }

    /// What it says.
    pub fn card(&self) -> &Card {
        &self.0.card
    }

    /// The bytes that [`SignedCard::decode`] takes; unknown fields of the signed body are in them.
    pub fn encode(&self) -> Bytes {
        self.0.encoded.clone()
    }

    /// Whether `bytes` are this very card: then there is nothing to check in them again.
    pub fn is_encoded_as(&self, bytes: &[u8]) -> bool {
        self.0.encoded == bytes
    }

    /// Whose card these bytes are likely to be, unchecked: enough to compare them with a card that was checked.
    pub fn peek_machine(bytes: &[u8]) -> Option<MachineId> {
        // The first field of `Signed`, as protobuf writes it: its tag, its length, and the machine.
        let machine = bytes.strip_prefix(&[0x0a, 32])?.first_chunk::<32>()?;
        Some(MachineId(*machine))
    }

    /// Checks form, bounds and signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        Self::from_proto(decode("card", bytes)?)
    }

    /// Whether this card replaces `other` of the same machine: a later boot, or a later change in the same boot.
    pub fn newer_than(&self, other: &SignedCard) -> bool {
        (self.0.card.boot, self.0.card.serial) > (other.0.card.boot, other.0.card.serial)
    }

    /// Whether the two cards prove that one identity runs on two machines at once: same boot, other nonce.
    pub fn proves_clone(&self, other: &SignedCard) -> bool {
        let (one, other) = (&self.0.card, &other.0.card);
        one.machine == other.machine && one.boot == other.boot && one.nonce != other.nonce
    }

    /// Tells this very card from others in four bytes, not surely: cards of one mark have other ones with another `salt`.
    pub fn mark(&self, salt: u32) -> u32 {
        let card = self.card();
        let part = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        // FNV-1a over words (Fowler, Noll, Vo), the upper half folded in: everybody can make two cards of one mark, and gains
        // nothing by it.
        let parts = [salt.into(), part(&card.machine.0), card.boot.0, card.serial.into(), part(&card.nonce)];
        let hash = parts.into_iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, part| {
            let mixed = (hash ^ part).wrapping_mul(0x0000_0100_0000_01b3);
            mixed ^ mixed.rotate_right(29)
        });
        (hash ^ (hash >> 32)) as u32
    }

    pub(crate) fn to_proto(&self) -> proto::Signed {
        self.0.signed.clone()
    }

    pub(crate) fn from_proto(signed: proto::Signed) -> Result<Self, WireError> {
        if signed.body.len() > limits::CARD_BYTES_MAX {
            return Err(WireError::TooLarge { what: "card", bytes: signed.body.len(), max: limits::CARD_BYTES_MAX });
        }
        let machine = MachineId::from_slice(&signed.machine, "card.machine")?;
        if let Some(card) = memory::known(machine, &signed) {
            return Ok(card);
        }
        verify(machine, CARD, &signed.body, &signed.signature)?;
        let card = from_proto(decode("card", &signed.body[..])?)?;
        if card.machine != machine {
            return Err(WireError::Field { field: "card.machine", rule: "differs from its signer" });
        }
        let card = Self::checked(card, &signed);
        memory::remember(machine, &card);
        Ok(card)
    }
}

impl std::fmt::Debug for SignedCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "card of {} ({}, boot {}.{})",
            self.0.card.machine, self.0.card.hostname, self.0.card.boot, self.0.card.serial
        )
    }
}

fn to_proto(card: &Card) -> proto::Card {
    proto::Card {
        machine: machine_bytes(&card.machine),
        cluster: card.cluster.clone(),
        boot: card.boot.0,
        nonce: Bytes::copy_from_slice(&card.nonce),
        serial: card.serial,
        hostname: card.hostname.clone(),
        addresses: card.addresses.clone(),
        sealing_key: Bytes::copy_from_slice(&card.sealing_key),
        fingerprint: Bytes::copy_from_slice(&card.fingerprint.0),
        settings: Some(proto::Settings {
            machines: card.settings.machines,
            control_planes: card.settings.control_planes,
            durable: card.settings.durable,
            kubernetes_version: card.settings.kubernetes_version.clone(),
            digest: Bytes::copy_from_slice(&card.settings.digest.0),
        }),
        unable: card.able.why_not().to_owned(),
        reached: card.reached,
        charter_hash: card.charter.map(|hash| Bytes::copy_from_slice(&hash.0)).unwrap_or_default(),
        level: card.level,
        running: Some(proto::Running {
            kubernetes: card.running.kubernetes.clone(),
            kubelet: card.running.kubelet.map(|digest| Bytes::copy_from_slice(&digest.0)).unwrap_or_default(),
            certificates_end_s: card.running.certificates_end_s,
            sync_us: card.running.sync_us,
        }),
        epoch: card.epoch.to_proto(),
    }
}

fn from_proto(card: proto::Card) -> Result<Card, WireError> {
    let addresses = bounded(card.addresses, limits::ADDRESSES_MAX, "card.addresses")?;
    if card.reached as usize > addresses.len() {
        return Err(WireError::Field { field: "card.reached", rule: "is more than the addresses" });
    }
    Ok(Card {
        machine: MachineId::from_slice(&card.machine, "card.machine")?,
        cluster: text(card.cluster, "card.cluster")?,
        boot: BootCount(card.boot),
        nonce: array(&card.nonce, "card.nonce")?,
        serial: card.serial,
        hostname: text(card.hostname, "card.hostname")?,
        addresses: addresses.into_iter().map(|address| text(address, "card.addresses")).collect::<Result<_, _>>()?,
        sealing_key: array(&card.sealing_key, "card.sealing_key")?,
        fingerprint: Digest::from_slice(&card.fingerprint, "card.fingerprint")?,
        settings: settings(required(card.settings, "card.settings")?)?,
        able: text(card.unable, "card.unable")?.into(),
        reached: card.reached,
        charter: digest_or_none(&card.charter_hash, "card.charter_hash")?,
        level: card.level,
        running: running(card.running.unwrap_or_default())?,
        epoch: Epoch::from_proto(card.epoch)?,
    })
}

fn digest_or_none(bytes: &[u8], field: &'static str) -> Result<Option<Digest>, WireError> {
    if bytes.is_empty() { Ok(None) } else { Digest::from_slice(bytes, field).map(Some) }
}

fn running(running: proto::Running) -> Result<Running, WireError> {
    Ok(Running {
        kubernetes: text(running.kubernetes, "card.running.kubernetes")?,
        kubelet: digest_or_none(&running.kubelet, "card.running.kubelet")?,
        certificates_end_s: running.certificates_end_s,
        sync_us: running.sync_us,
    })
}

fn settings(settings: proto::Settings) -> Result<Settings, WireError> {
    let field = "card.settings";
    if !(1..=limits::MACHINES_MAX).contains(&settings.machines) {
        return Err(WireError::Field { field, rule: "machines is out of bounds" });
    }
    if !(1..=limits::VOTERS_MAX as u32).contains(&settings.control_planes)
        || settings.control_planes > settings.machines
    {
        return Err(WireError::Field { field, rule: "control_planes is out of bounds" });
    }
    Ok(Settings {
        machines: settings.machines,
        control_planes: settings.control_planes,
        durable: settings.durable,
        kubernetes_version: text(settings.kubernetes_version, "card.settings.kubernetes_version")?,
        digest: Digest::from_slice(&settings.digest, "card.settings.digest")?,
    })
}

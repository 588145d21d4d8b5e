//! The bytes of a [`PkiBundle`] and of a [`Ticket`], which are sealed and then kept in the ledger.
//!
//! Both are protobuf messages, written here and not in `proto/`: no generated type is zeroed when dropped, and nobody
//! but this crate ever sees their plain form. Field numbers are never used anew; unknown fields are passed over.

use muster_wire::{Attempt, Digest};
use prost::Message as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::pki::{Pair, PkiBundle, Ticket};
use crate::secret::{Secret, Token};

/// Longest encoded bundle or ticket, in bytes. A bundle has about 4 kB.
pub const SECRET_LIMIT: usize = 32 * 1024;

const MAX_ENDPOINTS: usize = 64;
const MAX_ENDPOINT: usize = 260;

/// Why bytes are no bundle or ticket. Says nothing of their contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: {why}")]
pub struct Undecodable {
    what: &'static str,
    why: &'static str,
}

#[derive(Clone, PartialEq, prost::Message, Zeroize, ZeroizeOnDrop)]
#[prost(skip_debug)]
struct PairMessage {
    #[prost(string, tag = "1")]
    public: String,
    #[prost(bytes = "vec", tag = "2")]
    private: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message, Zeroize, ZeroizeOnDrop)]
#[prost(skip_debug)]
struct BundleMessage {
    #[prost(bytes = "vec", tag = "1")]
    ca_hash: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    ca: Option<PairMessage>,
    #[prost(message, optional, tag = "3")]
    front_proxy: Option<PairMessage>,
    #[prost(message, optional, tag = "4")]
    etcd: Option<PairMessage>,
    #[prost(message, optional, tag = "5")]
    service_accounts: Option<PairMessage>,
    #[prost(bytes = "vec", tag = "6")]
    token_secret: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message, Zeroize, ZeroizeOnDrop)]
#[prost(skip_debug)]
struct TicketMessage {
    #[prost(uint32, tag = "1")]
    attempt: u32,
    #[prost(string, tag = "2")]
    token: String,
    #[prost(string, tag = "3")]
    ca_certificate: String,
    #[prost(bytes = "vec", tag = "4")]
    ca_hash: Vec<u8>,
    #[prost(string, repeated, tag = "5")]
    endpoints: Vec<String>,
    #[prost(message, optional, tag = "6")]
    node: Option<PairMessage>,
}

impl From<&Pair> for PairMessage {
    fn from(pair: &Pair) -> Self {
        Self { public: pair.public.clone(), private: pair.private.expose().to_vec() }
    }
}

impl PairMessage {
    fn decoded(&self) -> Result<Pair, &'static str> {
        match self.public.starts_with("-----BEGIN ") && self.private.starts_with(b"-----BEGIN ") {
            true => Ok(Pair { public: self.public.clone(), private: Secret::new(self.private.as_slice()) }),
            false => Err("a pair is not PEM"),
        }
    }
}

impl PkiBundle {
    /// The bytes to seal.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let pair = |pair: &Pair| Some(PairMessage::from(pair));
        let message = BundleMessage {
            ca_hash: self.ca_hash.0.to_vec(),
            ca: pair(&self.ca),
            front_proxy: pair(&self.front_proxy),
            etcd: pair(&self.etcd),
            service_accounts: pair(&self.service_accounts),
            token_secret: self.token_secret.expose().to_vec(),
        };
        Zeroizing::new(message.encode_to_vec())
    }

    /// Reads what [`PkiBundle::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are too many, no such message, or a part of the set is missing.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let fail = |why| Undecodable { what: "certificate set", why };
        bounded(bytes).map_err(fail)?;
        let mut message = BundleMessage::decode(bytes).map_err(|_| fail("malformed"))?;
        let pair = |pair: &mut Option<PairMessage>| {
            pair.take().ok_or("a pair is missing").and_then(|pair| pair.decoded()).map_err(fail)
        };
        match message.token_secret.len() {
            32 => Ok(Self {
                ca_hash: digest(&message.ca_hash).map_err(fail)?,
                ca: pair(&mut message.ca)?,
                front_proxy: pair(&mut message.front_proxy)?,
                etcd: pair(&mut message.etcd)?,
                service_accounts: pair(&mut message.service_accounts)?,
                token_secret: Secret::new(message.token_secret.as_slice()),
            }),
            _ => Err(fail("the token secret does not have 32 bytes")),
        }
    }
}

impl Ticket {
    /// The bytes to seal.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let message = TicketMessage {
            attempt: self.attempt.0,
            token: self.token.expose().to_owned(),
            ca_certificate: self.ca_certificate.clone(),
            ca_hash: self.ca_hash.0.to_vec(),
            endpoints: self.endpoints.clone(),
            node: self.node.as_ref().map(PairMessage::from),
        };
        Zeroizing::new(message.encode_to_vec())
    }

    /// Reads what [`Ticket::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are too many, no such message, or a field breaks its form.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let fail = |why| Undecodable { what: "ticket", why };
        bounded(bytes).map_err(fail)?;
        let mut message = TicketMessage::decode(bytes).map_err(|_| fail("malformed"))?;
        let short = |endpoint: &String| !endpoint.is_empty() && endpoint.len() <= MAX_ENDPOINT;
        if message.endpoints.len() > MAX_ENDPOINTS || !message.endpoints.iter().all(short) {
            return Err(fail("too many or too long endpoints"));
        }
        if !message.ca_certificate.starts_with("-----BEGIN CERTIFICATE-----") {
            return Err(fail("its CA certificate is not PEM"));
        }
        Ok(Self {
            attempt: Attempt(message.attempt),
            token: Token::parse(&message.token).ok_or(fail("its token has another form"))?,
            ca_certificate: message.ca_certificate.clone(),
            ca_hash: digest(&message.ca_hash).map_err(fail)?,
            endpoints: message.endpoints.clone(),
            node: message.node.take().map(|pair| pair.decoded()).transpose().map_err(fail)?,
        })
    }
}

fn bounded(bytes: &[u8]) -> Result<(), &'static str> {
    if bytes.len() > SECRET_LIMIT { Err("it is too long") } else { Ok(()) }
}

fn digest(bytes: &[u8]) -> Result<Digest, &'static str> {
    Digest::from_slice(bytes, "ca_hash").map_err(|_| "its CA hash does not have 32 bytes")
}

#[cfg(test)]
mod tests {
    use muster_wire::MachineId;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::*;

    fn bundle() -> PkiBundle {
        PkiBundle::make(&"v1.31.0".parse().expect("a version"), &mut ChaCha8Rng::seed_from_u64(1)).expect("makes")
    }

    fn ticket() -> Ticket {
        let bundle = bundle();
        Ticket {
            attempt: Attempt(2),
            token: bundle.token_for(MachineId([7; 32])),
            ca_certificate: bundle.ca_certificate().to_owned(),
            ca_hash: bundle.ca_hash(),
            endpoints: vec!["10.0.0.1:6443".into()],
            node: None,
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        assert!(PkiBundle::decode(&bundle().encode()).expect("decodes") == bundle());
        assert_eq!(Ticket::decode(&ticket().encode()).expect("decodes"), ticket());
        let node =
            bundle().node_certificate("m4", std::time::SystemTime::UNIX_EPOCH, &mut ChaCha8Rng::seed_from_u64(2));
        let known = Ticket { node: node.ok(), ..ticket() };
        assert!(known.node.is_some());
        assert_eq!(Ticket::decode(&known.encode()).expect("decodes"), known);
        let lame = Ticket { node: known.node.clone().map(|pair| Pair { public: "no PEM".into(), ..pair }), ..ticket() };
        assert!(Ticket::decode(&lame.encode()).is_err());
        assert!(!format!("{:?}", ticket()).contains(&ticket().token.expose()[7..]));
    }

    #[test]
    fn what_is_cut_or_too_long_is_refused() {
        let (bundle, ticket) = (bundle().encode(), ticket().encode());
        for length in 0..bundle.len() {
            assert!(PkiBundle::decode(&bundle[..length]).is_err(), "{length}");
        }
        // Endpoints come last and may be absent, so a cut there is still a ticket.
        for length in 0..ticket.len() - 15 {
            assert!(Ticket::decode(&ticket[..length]).is_err(), "{length}");
        }
        assert!(Ticket::decode(&vec![0; SECRET_LIMIT + 1]).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = PkiBundle::decode(&bytes);
            let _ = Ticket::decode(&bytes);
        }

        #[test]
        fn a_flipped_byte_never_panics(at in 0_usize..4000, bit in 0_u8..8) {
            let mut bytes = bundle().encode();
            let length = bytes.len();
            bytes[at % length] ^= 1 << bit;
            let _ = PkiBundle::decode(&bytes);
        }
    }
}

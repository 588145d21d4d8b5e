//! The certificate authorities and the token secret of one attempt, made before kubeadm runs.
//!
//! kubeadm reuses valid pairs that it finds in its certificates' directory, so whoever makes them first knows the CA's
//! hash before there is a cluster. Keys are ECDSA P-256 and computed from the entropy given, signatures are
//! deterministic (RFC 6979), so the same entropy makes the same bundle, byte for byte. The service accounts' key is RSA
//! where kubeadm takes no other: before v1beta4, which brought `encryptionAlgorithm`. No clock is read: certificates
//! are valid from 1970, because a machine without a battery starts there, until 2099.

use std::time::SystemTime;

use hkdf::Hkdf;
use muster_wire::{Attempt, Digest, MachineId};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey, EncodePublicKey as _, LineEnding};
use rand::CryptoRng;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData,
    SignatureAlgorithm, date_time_ymd,
};
use rsa::RsaPrivateKey;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::secret::{Secret, Token};
use crate::version::{ConfigApi, Version};

/// What every control plane needs besides its ticket: three CAs with their keys, the service accounts' key pair, and the
/// secret from which all bootstrap tokens come. Zeroed when dropped; prints as `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct PkiBundle {
    pub(crate) ca_hash: Digest,
    pub(crate) ca: Pair,
    pub(crate) front_proxy: Pair,
    pub(crate) etcd: Pair,
    pub(crate) service_accounts: Pair,
    pub(crate) token_secret: Secret,
}

/// A public part, certificate or key, and its private key; all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub(crate) public: String,
    pub(crate) private: Secret,
}

/// The pair could not be made or written down. It does not happen with sound entropy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot make the {what}: {why}")]
pub struct PkiError {
    what: &'static str,
    why: String,
}

impl PkiBundle {
    /// Makes a new set for this version of kubeadm. `entropy` must be fit for keys. The RSA key of an old kubeadm takes
    /// some tenths of a second.
    ///
    /// # Errors
    /// When a certificate cannot be written down.
    pub fn make(kubeadm: &Version, entropy: &mut impl CryptoRng) -> Result<Self, PkiError> {
        let ca_key = signing_key(entropy);
        let spki = ca_key.verifying_key().to_public_key_der().map_err(|error| failed("CA's public key", &error))?;
        let mut token_secret = Zeroizing::new([0; 32]);
        entropy.fill_bytes(token_secret.as_mut_slice());
        Ok(Self {
            ca_hash: Digest(Sha256::digest(spki.as_bytes()).into()),
            ca: authority("kubernetes", &ca_key)?,
            front_proxy: authority("front-proxy-ca", &signing_key(entropy))?,
            etcd: authority("etcd-ca", &signing_key(entropy))?,
            service_accounts: match kubeadm.api() {
                ConfigApi::V1Beta2 | ConfigApi::V1Beta3 => rsa_pair(entropy)?,
                ConfigApi::V1Beta4 => ecdsa_pair(&signing_key(entropy))?,
            },
            token_secret: Secret::new(token_secret.as_slice()),
        })
    }

    /// SHA-256 of the CA certificate's public key info, by which joining machines know the cluster.
    pub fn ca_hash(&self) -> Digest {
        self.ca_hash
    }

    /// The CA certificate, PEM. It is public.
    pub fn ca_certificate(&self) -> &str {
        &self.ca.public
    }

    /// The bootstrap token of one machine: HKDF-SHA256 of the token secret and the machine's id, so every control plane
    /// knows every machine's token and a machine its own alone.
    pub fn token_for(&self, machine: MachineId) -> Token {
        const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let hkdf = Hkdf::<Sha256>::new(Some(b"muster/kubeadm/token/v1"), self.token_secret.expose());
        let mut characters = Zeroizing::new([b'0'; 22]);
        let mut filled = 0;
        // A byte above 251 would favour the first letters and is passed over, so one block may not be enough.
        for block in 0_u8..=255 {
            let mut bytes = Zeroizing::new([0; 64]);
            hkdf.expand_multi_info(&[&machine.0, &[block]], bytes.as_mut_slice())
                .expect("64 bytes are within HKDF's bound");
            for byte in bytes.iter().filter(|byte| **byte < 252) {
                if filled == characters.len() {
                    return Token::from_characters(&characters);
                }
                characters[filled] = ALPHABET[usize::from(byte % 36)];
                filled += 1;
            }
        }
        Token::from_characters(&characters)
    }

    /// A certificate by which the kubelet of a Node of this name is known to every API server until then, and its key: what the
    /// controller manager would sign for it, had there been one (`system:node:NAME` of `system:nodes`, Kubernetes' Node authorizer).
    /// `entropy` must be fit for keys.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn node_certificate(
        &self,
        name: &str,
        until: SystemTime,
        entropy: &mut impl CryptoRng,
    ) -> Result<Pair, PkiError> {
        const WHAT: &str = "kubelet's certificate";
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(1970, 1, 1);
        params.not_after = until.into();
        let ca_key = SigningKey::from_pkcs8_pem(self.ca.private.expose_str()).map_err(|error| failed(WHAT, &error))?;
        let issuer = authority_params("kubernetes").map_err(|error| failed(WHAT, &error))?;
        let (key, by) = (signing_key(entropy), Issuer::new(issuer, CaKey::new(&ca_key)));
        let certificate = params.signed_by(&CaKey::new(&key), &by).map_err(|error| failed(WHAT, &error))?;
        Ok(Pair { public: certificate.pem(), private: private_pem(WHAT, &key)? })
    }

    /// The names of those files.
    pub(crate) fn file_names() -> impl Iterator<Item = &'static str> {
        [
            "ca.crt",
            "ca.key",
            "front-proxy-ca.crt",
            "front-proxy-ca.key",
            "etcd/ca.crt",
            "etcd/ca.key",
            "sa.pub",
            "sa.key",
        ]
        .into_iter()
    }

    /// The files of the set below kubeadm's certificates' directory, with their permissions.
    pub(crate) fn files(&self) -> [(&'static str, u32, Secret); 8] {
        let public = |pair: &Pair| Secret::new(pair.public.as_bytes());
        [
            ("ca.crt", 0o644, public(&self.ca)),
            ("ca.key", 0o600, self.ca.private.clone()),
            ("front-proxy-ca.crt", 0o644, public(&self.front_proxy)),
            ("front-proxy-ca.key", 0o600, self.front_proxy.private.clone()),
            ("etcd/ca.crt", 0o644, public(&self.etcd)),
            ("etcd/ca.key", 0o600, self.etcd.private.clone()),
            ("sa.pub", 0o644, public(&self.service_accounts)),
            ("sa.key", 0o600, self.service_accounts.private.clone()),
        ]
    }
}

impl std::fmt::Debug for PkiBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PkiBundle([redacted])")
    }
}

/// What one machine needs to join: opened only by that machine. Zeroed when dropped; prints without its token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// The attempt whose cluster it joins.
    pub attempt: Attempt,
    /// The machine's own bootstrap token.
    pub token: Token,
    /// The cluster's CA certificate, PEM.
    pub ca_certificate: String,
    /// SHA-256 of that certificate's public key info.
    pub ca_hash: Digest,
    /// `host:port` of the API servers known when it was made.
    pub endpoints: Vec<String>,
    /// By what a worker's kubelet is known from its first request on, if it need not ask for a certificate first.
    pub node: Option<Pair>,
}

/// A P-256 key as rcgen wants it: its own keys come from the operating system's entropy alone, and its signatures differ
/// from run to run.
struct CaKey<'a> {
    key: &'a SigningKey,
    point: Vec<u8>,
}

impl<'a> CaKey<'a> {
    fn new(key: &'a SigningKey) -> Self {
        Self { key, point: key.verifying_key().to_sec1_point(false).as_bytes().to_vec() }
    }
}

impl PublicKeyData for CaKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for CaKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: DerSignature = self.key.try_sign(message).map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signature.as_bytes().to_vec())
    }
}

/// A self-signed CA as kubeadm makes them: its usages, and its name as the only alternative name.
fn authority(name: &'static str, key: &SigningKey) -> Result<Pair, PkiError> {
    let params = authority_params(name).map_err(|error| failed(name, &error))?;
    let certificate = params.self_signed(&CaKey::new(key)).map_err(|error| failed(name, &error))?;
    Ok(Pair { public: certificate.pem(), private: private_pem(name, key)? })
}

fn authority_params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(2099, 12, 31);
    Ok(params)
}

const SERVICE_ACCOUNTS: &str = "service accounts' key pair";

fn ecdsa_pair(key: &SigningKey) -> Result<Pair, PkiError> {
    let public =
        key.verifying_key().to_public_key_pem(LineEnding::LF).map_err(|error| failed(SERVICE_ACCOUNTS, &error))?;
    Ok(Pair { public, private: private_pem(SERVICE_ACCOUNTS, key)? })
}

fn rsa_pair(entropy: &mut impl CryptoRng) -> Result<Pair, PkiError> {
    let key = RsaPrivateKey::new(entropy, 2048).map_err(|error| failed(SERVICE_ACCOUNTS, &error))?;
    let public =
        key.to_public_key().to_public_key_pem(LineEnding::LF).map_err(|error| failed(SERVICE_ACCOUNTS, &error))?;
    Ok(Pair { public, private: private_pem(SERVICE_ACCOUNTS, &key)? })
}

fn private_pem(what: &'static str, key: &impl EncodePrivateKey) -> Result<Secret, PkiError> {
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|error| failed(what, &error))?;
    Ok(Secret::new(pem.as_bytes()))
}

fn signing_key(entropy: &mut impl CryptoRng) -> SigningKey {
    let mut scalar = Zeroizing::new([0; 32]);
    loop {
        entropy.fill_bytes(scalar.as_mut_slice());
        // Zero and what exceeds the group's order are no keys; the odds are 2^-32.
        if let Ok(key) = SigningKey::from_slice(scalar.as_slice()) {
            return key;
        }
    }
}

fn failed(what: &'static str, error: &dyn std::fmt::Display) -> PkiError {
    PkiError { what, why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::*;

    fn bundle(seed: u64) -> PkiBundle {
        PkiBundle::make(&"v1.31.0".parse().expect("a version"), &mut ChaCha8Rng::seed_from_u64(seed)).expect("makes")
    }

    #[test]
    fn an_old_kubeadm_gets_an_rsa_key_for_service_accounts() {
        let old = "v1.20.2".parse().expect("a version");
        let made = PkiBundle::make(&old, &mut ChaCha8Rng::seed_from_u64(1)).expect("makes");
        assert!(RsaPrivateKey::from_pkcs8_pem(made.service_accounts.private.expose_str()).is_ok());
        assert!(RsaPrivateKey::from_pkcs8_pem(bundle(1).service_accounts.private.expose_str()).is_err());
        assert!(made.ca == bundle(1).ca);
    }

    #[test]
    fn the_same_entropy_makes_the_same_set() {
        assert!(bundle(1) == bundle(1));
        assert!(bundle(1) != bundle(2));
        assert!(bundle(1).ca != bundle(1).etcd, "each CA has a key of its own");
    }

    #[test]
    fn machines_have_tokens_of_their_own() {
        let bundle = bundle(1);
        let tokens: Vec<_> = (0..200).map(|n| bundle.token_for(MachineId([n; 32]))).collect();
        assert_eq!(tokens[7], bundle.token_for(MachineId([7; 32])));
        assert!(tokens.iter().all(|token| Token::parse(token.expose()).as_ref() == Some(token)));
        assert_eq!(tokens.iter().map(Token::id).collect::<BTreeSet<_>>().len(), 200);
        assert_ne!(tokens[7], self::bundle(2).token_for(MachineId([7; 32])));
    }

    #[test]
    fn a_node_certificate_is_of_its_node_and_its_ca_until_its_end() {
        let bundle = bundle(1);
        let until = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
        let pair = bundle.node_certificate("m4", until, &mut ChaCha8Rng::seed_from_u64(9)).expect("makes");
        let read = |pem: &str| x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("is PEM").1;
        let (leaf, ca) = (read(&pair.public), read(bundle.ca_certificate()));
        let (leaf, ca) = (leaf.parse_x509().expect("parses"), ca.parse_x509().expect("parses"));
        assert_eq!(leaf.subject().to_string(), "O=system:nodes, CN=system:node:m4");
        assert_eq!(leaf.issuer(), ca.subject());
        assert_eq!(leaf.validity().not_after.timestamp(), 1_800_000_000);
        assert!(leaf.extended_key_usage().expect("reads").is_some_and(|usage| usage.value.client_auth));
        assert!(leaf.verify_signature(Some(ca.public_key())).is_ok());
        let other = self::bundle(2);
        let other = read(other.ca_certificate());
        assert!(leaf.verify_signature(Some(other.parse_x509().expect("parses").public_key())).is_err());
        assert!(SigningKey::from_pkcs8_pem(pair.private.expose_str()).is_ok());
        assert!(!format!("{pair:?}").contains("PRIVATE"));
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let bundle = bundle(1);
        assert_eq!(format!("{bundle:?}"), "PkiBundle([redacted])");
        assert!(!format!("{:?}", bundle.files()).contains("PRIVATE"));
    }
}

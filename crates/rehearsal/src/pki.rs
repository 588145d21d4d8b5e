//! Certificates: real ones, from the CAs on disk, which are made if they are not there.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use crate::failure::{Doing as _, Failure, fail};
use crate::say::say;

/// The CAs that a control plane has: file below the certificates' directory, and common name.
pub(crate) const AUTHORITIES: [(&str, &str); 3] =
    [("ca", "kubernetes"), ("front-proxy-ca", "front-proxy-ca"), ("etcd/ca", "etcd-ca")];

/// A CA and its key.
pub(crate) struct Authority {
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// What a certificate says.
#[derive(Default)]
pub(crate) struct Subject<'a> {
    pub(crate) name: &'a str,
    pub(crate) organization: Option<&'a str>,
    /// Names and addresses; for servers.
    pub(crate) alternatives: Vec<String>,
}

impl Authority {
    /// Reads a CA, and refuses one whose certificate and key are strangers.
    pub(crate) fn load(pki: &Path, base: &str, name: &str) -> Result<Self, Failure> {
        let certificate = read(&pki.join(format!("{base}.crt")))?;
        let key_path = pki.join(format!("{base}.key"));
        let key = KeyPair::from_pem(&read(&key_path)?)
            .doing(format!("couldn't load the private key file {}", key_path.display()))?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| fail(format!("couldn't load the certificate file {base}.crt")))?;
        if !der.windows(key.der_bytes().len()).any(|window| window == key.der_bytes()) {
            return Err(fail(format!("certificate {base}.crt and private key {base}.key do not belong together")));
        }
        let params = named(&Subject { name, ..Subject::default() })?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Uses the CA on disk, or makes one.
    pub(crate) fn load_or_make(pki: &Path, base: &str, name: &str) -> Result<Self, Failure> {
        if pki.join(format!("{base}.crt")).exists() {
            say!("[certs] Using existing {name} certificate authority");
            return Self::load(pki, base, name);
        }
        say!("[certs] Generating {name:?} certificate and key");
        let mut params = named(&Subject { name, ..Subject::default() })?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().doing("couldn't make a key")?;
        let certificate = params.self_signed(&key).doing("couldn't sign a certificate")?.pem();
        write_pair(pki, base, &Pair { certificate: certificate.clone(), key: key.serialize_pem() })?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Makes a certificate fit for servers and clients alike.
    pub(crate) fn issue(&self, subject: &Subject<'_>) -> Result<Pair, Failure> {
        let mut params = named(subject)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().doing("couldn't make a key")?;
        let certificate = params.signed_by(&key, &self.issuer).doing("couldn't sign a certificate")?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Makes a certificate below `pki` unless there is one.
    pub(crate) fn ensure(&self, pki: &Path, base: &str, subject: &Subject<'_>) -> Result<(), Failure> {
        if pki.join(format!("{base}.crt")).exists() {
            say!("[certs] Using existing {base} certificate and key on disk");
            return Ok(());
        }
        say!("[certs] Generating {base:?} certificate and key");
        write_pair(pki, base, &self.issue(subject)?)
    }
}

fn named(subject: &Subject<'_>) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new(subject.alternatives.clone()).doing("couldn't name a certificate")?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.name);
    if let Some(organization) = subject.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    Ok(params)
}

/// `sha256:` of a certificate's public key info, as `caCertHashes` has it.
pub(crate) fn pin(certificate: &str) -> Result<String, Failure> {
    let bad = || fail("the cluster CA is not a certificate");
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| bad())?;
    let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|_| bad())?;
    // The anchor holds what is inside the SEQUENCE; the pin is of all of it.
    let inner = anchor.subject_public_key_info.as_ref();
    let length = match inner.len() {
        short @ 0..=127 => vec![0x30, short as u8],
        middle @ 128..=255 => vec![0x30, 0x81, middle as u8],
        long => vec![0x30, 0x82, (long >> 8) as u8, long as u8],
    };
    Ok(format!("sha256:{}", hex::encode(Sha256::digest([length.as_slice(), inner].concat()))))
}

pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).doing(format!("couldn't load {}", path.display()))
}

fn write_pair(pki: &Path, base: &str, pair: &Pair) -> Result<(), Failure> {
    write_open(&pki.join(format!("{base}.crt")), &pair.certificate)?;
    write(&pki.join(format!("{base}.key")), &pair.key)
}

/// Removes a certificate and its key, which must be there.
pub(crate) fn remove_pair(pki: &Path, base: &str) -> Result<(), Failure> {
    for end in ["crt", "key"] {
        let path = pki.join(format!("{base}.{end}"));
        fs::remove_file(&path).doing(format!("failed to renew {}", path.display()))?;
    }
    Ok(())
}

/// Writes a file that everybody may read, with its directories.
pub(crate) fn write_open(path: &Path, text: &str) -> Result<(), Failure> {
    write_with(path, text, 0o644)
}

/// Writes a file that only its owner reads, with its directories.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    write_with(path, text, 0o600)
}

/// Leaves a directory to its owner.
pub(crate) fn restrict(directory: &Path) -> Result<(), Failure> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
        .doing(format!("couldn't restrict {}", directory.display()))
}

fn write_with(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    use std::io::Write as _;
    let doing = || format!("couldn't write {}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).doing(doing())?;
    let temporary: PathBuf = path.with_extension("rehearsal-new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::File::options().write(true).create_new(true).mode(mode).open(&temporary).doing(doing())?;
    file.write_all(text.as_bytes()).doing(doing())?;
    fs::rename(&temporary, path).doing(doing())
}

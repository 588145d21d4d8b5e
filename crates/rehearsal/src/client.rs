//! HTTPS requests: one connection each, blocking, with short patience.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use serde_json::Value;

use crate::failure::{Doing as _, Failure, fail};

/// Longest answer, in bytes.
const ANSWER_LIMIT: u64 = 4 << 20;

/// An API server, how it is believed, and who asks.
#[derive(Clone)]
pub(crate) struct Client {
    /// `host:port`.
    pub(crate) server: String,
    /// The CA that its certificate must come from, PEM; without one anybody is believed.
    pub(crate) ca: Option<String>,
    pub(crate) identity: Identity,
    /// A hosts file to ask first.
    pub(crate) hosts: Option<PathBuf>,
    pub(crate) patience: Duration,
}

#[derive(Clone)]
pub(crate) enum Identity {
    Nobody,
    Bearer(String),
    Certificate { certificate: String, key: String },
}

impl Client {
    /// GET, and the answer's JSON if its status is 200.
    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json("GET", path, None)
    }

    /// POST, and the answer's JSON if its status is 200.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json("POST", path, Some(body))
    }

    fn json(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (status, answer) = self.request(method, path, body)?;
        let parsed = serde_json::from_slice(&answer).unwrap_or(Value::Null);
        match status {
            200 => Ok(parsed),
            401 => Err(fail("Unauthorized")),
            404 => Err(fail(format!("{path} not found"))),
            _ => Err(fail(parsed["message"].as_str().map_or_else(|| format!("status {status}"), str::to_owned))),
        }
    }

    /// Sends one request; answers with the status and the body.
    pub(crate) fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Vec<u8>), Failure> {
        let doing = || format!("{method} \"https://{}{path}\"", self.server);
        let (host, port) = split(&self.server)?;
        let stream = self.connect(&host, port).doing(doing())?;
        stream.set_read_timeout(Some(self.patience)).doing(doing())?;
        stream.set_write_timeout(Some(self.patience)).doing(doing())?;
        let name = ServerName::try_from(host).doing(doing())?;
        let connection = ClientConnection::new(Arc::new(self.tls()?), name).doing(doing())?;
        let mut stream = StreamOwned::new(connection, stream);
        let text = body.map(Value::to_string).unwrap_or_default();
        let authorization = match &self.identity {
            Identity::Bearer(token) => format!("Authorization: Bearer {token}\r\n"),
            _ => String::new(),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{authorization}Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.server,
            text.len()
        );
        stream.write_all(format!("{head}{text}").as_bytes()).map_err(tls_words).doing(doing())?;
        let mut answer = Vec::new();
        match (&mut stream).take(ANSWER_LIMIT).read_to_end(&mut answer) {
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                Err(fail(format!("{}: {}", doing(), tls_words(error))))
            }
            _ => parse(&answer).ok_or_else(|| fail(format!("{}: the answer is not HTTP", doing()))),
        }
    }

    fn connect(&self, host: &str, port: u16) -> std::io::Result<TcpStream> {
        let from_file = self.hosts.as_deref().and_then(|hosts| lookup(hosts, host));
        let addresses: Vec<SocketAddr> = match (host.trim_matches(['[', ']']).parse::<IpAddr>(), from_file) {
            (Ok(address), _) | (_, Some(address)) => vec![(address, port).into()],
            _ => (host, port).to_socket_addrs()?.collect(),
        };
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "no such host");
        for address in addresses {
            match TcpStream::connect_timeout(&address, self.patience) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn tls(&self) -> Result<ClientConfig, Failure> {
        let provider = Arc::new(ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().doing("TLS")?;
        let builder = match &self.ca {
            Some(ca) => builder.with_root_certificates(roots(ca)?),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
        };
        match &self.identity {
            Identity::Certificate { certificate, key } => {
                builder.with_client_auth_cert(chain(certificate)?, private_key(key)?).doing("client certificate")
            }
            _ => Ok(builder.with_no_client_auth()),
        }
    }
}

/// The words that Go, and so kubeadm, has for the one TLS failure that is told apart.
fn tls_words(error: std::io::Error) -> String {
    let text = error.to_string();
    if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        return "x509: certificate signed by unknown authority".to_owned();
    }
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => text,
    }
}

pub(crate) fn roots(ca: &str) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(ca)? {
        roots.add(certificate).doing("CA certificate")?;
    }
    Ok(roots)
}

pub(crate) fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| fail("a certificate is not PEM"))
}

pub(crate) fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, Failure> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| fail("a private key is not PEM"))
}

/// Takes `host:port` apart; the port of an API server is 6443 when there is none.
pub(crate) fn split(server: &str) -> Result<(String, u16), Failure> {
    match server.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => {
            let port = port.parse().doing(format!("{server:?} has no port"))?;
            Ok((host.trim_matches(['[', ']']).to_owned(), port))
        }
        _ => Ok((server.to_owned(), 6443)),
    }
}

/// The first address of a name in a hosts file.
fn lookup(hosts: &Path, name: &str) -> Option<IpAddr> {
    // Comments may have any encoding, as they may for the system's own resolver.
    let bytes = std::fs::read(hosts).ok()?;
    String::from_utf8_lossy(&bytes).lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    })
}

fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer).ok()? {
        httparse::Status::Complete(end) => Some((response.code?, answer[end..].to_vec())),
        httparse::Status::Partial => None,
    }
}

/// Believes any server: the first look of token discovery, whose answer is then checked by the token itself.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

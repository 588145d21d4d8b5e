//! One question to an API server or to etcd: HTTPS, the server's certificate checked against the cluster's CA.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use muster_kubeadm::api::ANSWER_LIMIT;
use muster_kubeadm::kubeconfig::{Identity, Material};
use muster_kubeadm::work::Request;
use muster_kubeadm::{Kubeconfig, Secret};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Sends a request once, to `at`. Returns status and body; the body of an apply that went well is left out, since it may be of any
/// length.
pub(crate) async fn send(request: &Request, at: SocketAddr) -> Result<(u16, Bytes), String> {
    match tokio::time::timeout(request.patience, ask(request, at)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{} gives no answer within {} s", request.server, request.patience.as_secs())),
    }
}

/// A body that is zeroed when it was sent.
struct Zeroed(Secret);

impl AsRef<[u8]> for Zeroed {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

/// An answer that has begun.
pub(crate) struct Begun {
    pub(crate) status: u16,
    pub(crate) body: Incoming,
    driver: JoinHandle<Result<(), hyper::Error>>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn ask(asked: &Request, at: SocketAddr) -> Result<(u16, Bytes), String> {
    let mut answer = begin(asked, at).await?;
    if asked.method == "PATCH" && (200..300).contains(&answer.status) {
        return Ok((answer.status, Bytes::new()));
    }
    let body = Limited::new(&mut answer.body, ANSWER_LIMIT + 1).collect().await;
    let body = body.map_err(|why| format!("{}: {why}", asked.server))?.to_bytes();
    Ok((answer.status, body))
}

/// Sends a request, and returns when its answer begins.
pub(crate) async fn begin(asked: &Request, at: SocketAddr) -> Result<Begun, String> {
    let (server, config) = (asked.server.as_str(), tls(&asked.identity)?);
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|why| format!("{server}: {why}"))?;
    let unreachable = |why: std::io::Error| format!("{server} cannot be asked: {why}");
    let stream = TcpStream::connect(at).await.map_err(unreachable)?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(unreachable)?;
    let failed = |why: hyper::Error| format!("{server} cannot be asked: {why}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let driver = tokio::spawn(connection);
    let answer = match sender.send_request(request(asked)?).await {
        Ok(answer) => answer,
        Err(why) => {
            driver.abort();
            return Err(failed(why));
        }
    };
    Ok(Begun { status: answer.status().as_u16(), body: answer.into_body(), driver })
}

fn request(asked: &Request) -> Result<hyper::Request<Full<Bytes>>, String> {
    let mut request = hyper::Request::builder().method(asked.method).uri(&asked.path).header(HOST, &asked.server);
    if asked.method != "GET" {
        request = request.header(CONTENT_TYPE, asked.content_type).header(CONTENT_LENGTH, asked.body.expose().len());
    }
    if let Some(Identity::Bearer(token)) = &asked.identity.identity {
        let value = Secret::new([b"Bearer ", token.expose()].concat());
        let mut value = HeaderValue::from_bytes(value.expose()).map_err(|_| "the token is no text")?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let body = Full::new(Bytes::from_owner(Zeroed(asked.body.clone())));
    request.body(body).map_err(|why| why.to_string())
}

pub(crate) fn tls(kubeconfig: &Kubeconfig) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&kubeconfig.ca)? {
        roots.add(certificate).map_err(|why| format!("the cluster's CA: {why}"))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|why| why.to_string())?
        .with_root_certificates(roots);
    match &kubeconfig.identity {
        Some(Identity::Certificate { certificate, key }) => {
            let key =
                PrivateKeyDer::from_pem_slice(pem(key)?.expose()).map_err(|why| format!("the client key: {why}"))?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(|why| why.to_string())
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn certificates(material: &Material) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = pem(material)?;
    CertificateDer::pem_slice_iter(pem.expose())
        .collect::<Result<_, _>>()
        .map_err(|why| format!("a certificate: {why}"))
}

fn pem(material: &Material) -> Result<Secret, String> {
    match material {
        Material::Inline(pem) => Ok(pem.clone()),
        Material::File(path) => {
            std::fs::read(path).map(Secret::new).map_err(|why| format!("{}: {why}", path.display()))
        }
    }
}

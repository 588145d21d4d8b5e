//! One question to an API server or to etcd: HTTPS, the server's certificate checked against the cluster's CA.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use muster_kubeadm::api::ANSWER_LIMIT;
use muster_kubeadm::farewell::Request;
use muster_kubeadm::kubeconfig::{Identity, Material};
use muster_kubeadm::manifests::CONTENT_TYPE as APPLY;
use muster_kubeadm::{Kubeconfig, Secret, Wait};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

/// Longest time for one question.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks once, at `at`, as the wait's kubeconfig says. Returns status and body.
pub(crate) async fn once(wait: &Wait, at: SocketAddr) -> Result<(u16, Bytes), String> {
    get(&wait.server, at, &identity(&wait.kubeconfig)?, &wait.path).await
}

/// Reads a kubeconfig. It is read anew each time: kubeadm and the kubelet replace it.
pub(crate) fn identity(path: &Path) -> Result<Kubeconfig, String> {
    let named = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|why| named(&why))?;
    Kubeconfig::parse(&text).map_err(|why| named(&why))
}

/// The same identity with nothing of it in files any more.
pub(crate) fn in_memory(kubeconfig: &Kubeconfig) -> Result<Kubeconfig, String> {
    let held = |material: &Material| pem(material).map(Material::Inline);
    let identity = match &kubeconfig.identity {
        Some(Identity::Certificate { certificate, key }) => {
            Some(Identity::Certificate { certificate: held(certificate)?, key: held(key)? })
        }
        other => other.clone(),
    };
    Ok(Kubeconfig { server: kubeconfig.server.clone(), ca: held(&kubeconfig.ca)?, identity })
}

/// Gets once, from the server of that name at `at`. Returns status and body.
pub(crate) async fn get(
    server: &str,
    at: SocketAddr,
    identity: &Kubeconfig,
    path: &str,
) -> Result<(u16, Bytes), String> {
    let request = hyper::Request::get(path).header(HOST, server);
    patiently(server, at, identity, request, Bytes::new(), PATIENCE).await
}

/// Applies an object once. Returns status and body; the body is left out where it went well, since it may be of any length.
pub(crate) async fn apply(
    server: &str,
    at: SocketAddr,
    identity: &Kubeconfig,
    path: &str,
    object: &Secret,
    patience: Duration,
) -> Result<(u16, Bytes), String> {
    let request = hyper::Request::patch(path)
        .header(HOST, server)
        .header(CONTENT_TYPE, APPLY)
        .header(CONTENT_LENGTH, object.expose().len());
    patiently(server, at, identity, request, Bytes::from_owner(Zeroed(object.clone())), patience).await
}

/// A body that is zeroed when it was sent.
struct Zeroed(Secret);

impl AsRef<[u8]> for Zeroed {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

/// Posts JSON once, to the server of that name at `at`. Returns status and body.
pub(crate) async fn post(
    server: &str,
    at: SocketAddr,
    identity: &Kubeconfig,
    path: &str,
    body: String,
) -> Result<(u16, Bytes), String> {
    let request = hyper::Request::post(path)
        .header(HOST, server)
        .header(CONTENT_TYPE, "application/json")
        .header(CONTENT_LENGTH, body.len());
    patiently(server, at, identity, request, body.into(), PATIENCE).await
}

/// Sends a request that was made elsewhere, once. Returns status and body.
pub(crate) async fn send(
    server: &str,
    at: SocketAddr,
    identity: &Kubeconfig,
    request: &Request,
) -> Result<(u16, Bytes), String> {
    let builder = hyper::Request::builder()
        .method(request.method)
        .uri(&request.path)
        .header(HOST, server)
        .header(CONTENT_TYPE, request.content_type)
        .header(CONTENT_LENGTH, request.body.len());
    patiently(server, at, identity, builder, request.body.clone().into(), PATIENCE).await
}

async fn patiently(
    server: &str,
    at: SocketAddr,
    kubeconfig: &Kubeconfig,
    request: hyper::http::request::Builder,
    body: Bytes,
    patience: Duration,
) -> Result<(u16, Bytes), String> {
    match tokio::time::timeout(patience, ask(server, at, kubeconfig, request, body)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{server} gives no answer within {} s", patience.as_secs())),
    }
}

async fn ask(
    server: &str,
    at: SocketAddr,
    kubeconfig: &Kubeconfig,
    mut request: hyper::http::request::Builder,
    body: Bytes,
) -> Result<(u16, Bytes), String> {
    let config = tls(kubeconfig)?;
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|why| format!("{server}: {why}"))?;
    let unreachable = |why: std::io::Error| format!("{server} cannot be asked: {why}");
    let stream = TcpStream::connect(at).await.map_err(unreachable)?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(unreachable)?;
    let failed = |why: hyper::Error| format!("{server} cannot be asked: {why}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let driver = tokio::spawn(connection);
    if let Some(Identity::Bearer(token)) = &kubeconfig.identity {
        let value = Secret::new([b"Bearer ", token.expose()].concat());
        let mut value = hyper::header::HeaderValue::from_bytes(value.expose()).map_err(|_| "the token is no text")?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Full::new(body)).map_err(|why| why.to_string())?;
    let applies = request.method() == Method::PATCH;
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status().as_u16();
    if applies && (200..300).contains(&status) {
        driver.abort();
        return Ok((status, Bytes::new()));
    }
    let body = Limited::new(answer.into_body(), ANSWER_LIMIT + 1).collect().await;
    driver.abort();
    let body = body.map_err(|why| format!("{server}: {why}"))?.to_bytes();
    Ok((status, body))
}

fn tls(kubeconfig: &Kubeconfig) -> Result<ClientConfig, String> {
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

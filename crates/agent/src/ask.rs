//! One question to an API server or to etcd: HTTPS, the server's certificate checked against the cluster's CA.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use muster_kubeadm::api::ANSWER_LIMIT;
use muster_kubeadm::kubeconfig::{Identity, Material};
use muster_kubeadm::{Kubeconfig, Secret, Wait};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

/// Longest time for one question.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks once, at `at`, as the wait's kubeconfig says. Returns status and body.
pub(crate) async fn once(wait: &Wait, at: SocketAddr) -> Result<(u16, Bytes), String> {
    let named = |why: &dyn std::fmt::Display| format!("{}: {why}", wait.kubeconfig.display());
    // Read anew each time: kubeadm and the kubelet replace it.
    let text = std::fs::read_to_string(&wait.kubeconfig).map_err(|why| named(&why))?;
    let kubeconfig = Kubeconfig::parse(&text).map_err(|why| named(&why))?;
    let request = hyper::Request::get(&wait.path).header(HOST, &wait.server);
    patiently(&wait.server, at, &kubeconfig, request, Bytes::new()).await
}

/// Posts JSON once, to the server at `at`. Returns status and body.
pub(crate) async fn post(
    at: SocketAddr,
    identity: &Kubeconfig,
    path: &str,
    body: String,
) -> Result<(u16, Bytes), String> {
    let server = at.to_string();
    let request = hyper::Request::post(path)
        .header(HOST, &server)
        .header(CONTENT_TYPE, "application/json")
        .header(CONTENT_LENGTH, body.len());
    patiently(&server, at, identity, request, body.into()).await
}

async fn patiently(
    server: &str,
    at: SocketAddr,
    kubeconfig: &Kubeconfig,
    request: hyper::http::request::Builder,
    body: Bytes,
) -> Result<(u16, Bytes), String> {
    match tokio::time::timeout(PATIENCE, ask(server, at, kubeconfig, request, body)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{server} gives no answer within {} s", PATIENCE.as_secs())),
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
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status().as_u16();
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

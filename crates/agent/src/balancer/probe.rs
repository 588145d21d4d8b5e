//! Asking one API server whether it serves, again and again, over one connection.
//!
//! Who asks is nobody: Kubernetes lets everyone read `/readyz` (`system:public-info-viewer`). The server's certificate is checked
//! against the cluster's CA; before there is one here, a connection that is taken must do.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use muster_kubeadm::Kubeconfig;
use muster_kubeadm::kubeconfig::Material;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::health::Answer;
use crate::https;

/// Longest wait for one answer, and for a new connection's handshake.
const PATIENCE: Duration = Duration::from_millis(400);

/// Longest wait for a machine to take a connection, which it does however busy it is.
const CONNECT: Duration = Duration::from_millis(300);

/// What is asked. Not for etcd: while its members elect a leader all servers would fail at once, and none of them is better. Names
/// of checks that a version does not have are let pass (`pkg/server/healthz` of apiserver, 1.20 to 1.37).
const QUESTION: &str = "/readyz?exclude=etcd&exclude=etcd-readiness";

/// What is asked for etcd alone, more rarely: whether it works takes the server a while to find out.
const WITH_ETCD: &str = "/readyz";
const ETCD_PATIENCE: Duration = Duration::from_secs(3);

/// A connection that may be asked once more.
pub(super) type Kept = Option<SendRequest<Empty<Bytes>>>;

/// Asks once. `kept` is the connection of the last time, and then that for the next one.
pub(super) async fn ask(at: SocketAddr, ca: &Path, kept: &mut Kept) -> Answer {
    let mut asked = match kept.take() {
        Some(asked) if !asked.is_closed() => asked,
        _ => match connect(at, ca).await {
            Ok(asked) => asked,
            Err(answer) => return answer,
        },
    };
    match status(&mut asked, at, QUESTION, PATIENCE).await {
        Ok(Ok(status)) => {
            *kept = Some(asked);
            let works = status == StatusCode::OK || status == StatusCode::UNAUTHORIZED;
            if works { Answer::Ready } else { Answer::NotReady }
        }
        // The server ended, or ends connections now and then. Or it is busy, or its machine is dead. A new connection tells.
        Ok(Err(_)) => match connect(at, ca).await {
            Ok(_) => Answer::NotReady,
            Err(answer) => answer,
        },
        Err(_) => match timeout(CONNECT, TcpStream::connect(at)).await {
            Ok(Ok(_)) => Answer::Slow,
            Ok(Err(why)) if why.kind() == ErrorKind::ConnectionRefused => Answer::Refused,
            Ok(Err(_)) | Err(_) => Answer::Silence,
        },
    }
}

/// Whether a server serves and its etcd works. Nothing if nobody in particular may ask, or no answer could be had for another reason than etcd: that
/// is for [`ask`].
pub(super) async fn etcd_works(at: SocketAddr, ca: &Path, kept: &mut Kept) -> Option<bool> {
    let mut asked = match kept.take() {
        Some(asked) if !asked.is_closed() => asked,
        _ => connect(at, ca).await.ok()?,
    };
    match status(&mut asked, at, WITH_ETCD, ETCD_PATIENCE).await {
        Ok(Ok(status)) => {
            *kept = Some(asked);
            match status {
                StatusCode::OK => Some(true),
                StatusCode::INTERNAL_SERVER_ERROR | StatusCode::SERVICE_UNAVAILABLE => Some(false),
                _ => None,
            }
        }
        Ok(Err(_)) => None,
        Err(_) => Some(false),
    }
}

/// One of these servers that serves and whose etcd has a majority.
pub(crate) async fn that_works(servers: &[SocketAddr], ca: &Path) -> Option<SocketAddr> {
    let asked = servers
        .iter()
        .map(|at| async move { etcd_works(*at, ca, &mut None).await.and_then(|works| works.then_some(*at)) });
    futures::future::join_all(asked).await.into_iter().flatten().next()
}

/// Whether nothing can be read or written: each of these servers says that it is not ready, which it is not without an etcd that works, or cannot
/// be reached. One that lets nobody in particular ask says neither.
pub(crate) async fn none_works(servers: &[SocketAddr], ca: &Path) -> bool {
    let fails = |at: SocketAddr| async move {
        match connect(at, ca).await {
            // There is no CA here to know it by, or it is slow to answer, as a machine that has much to do is.
            Err(Answer::Takes | Answer::Slow) => false,
            Err(_) => true,
            Ok(asked) => etcd_works(at, ca, &mut Some(asked)).await == Some(false),
        }
    };
    !servers.is_empty()
        && futures::future::join_all(servers.iter().map(|at| fails(*at))).await.into_iter().all(|fails| fails)
}

/// One question over a connection, and the status of its answer.
async fn status(
    asked: &mut SendRequest<Empty<Bytes>>,
    at: SocketAddr,
    question: &'static str,
    patience: Duration,
) -> Result<hyper::Result<StatusCode>, Elapsed> {
    let mut asks = Request::new(Empty::new());
    *asks.uri_mut() = Uri::from_static(question);
    if let Ok(host) = HeaderValue::from_str(&at.to_string()) {
        asks.headers_mut().insert(HOST, host);
    }
    timeout(patience, async {
        let answer = asked.send_request(asks).await?;
        let status = answer.status();
        // The rest is to be read, or the connection cannot be asked again. It is a line, or one for each check.
        let _ = http_body_util::BodyExt::collect(http_body_util::Limited::new(answer.into_body(), 64 << 10)).await;
        Ok(status)
    })
    .await
}

async fn connect(at: SocketAddr, ca: &Path) -> Result<SendRequest<Empty<Bytes>>, Answer> {
    let stream = match timeout(CONNECT, TcpStream::connect(at)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(why)) if why.kind() == ErrorKind::ConnectionRefused => return Err(Answer::Refused),
        Ok(Err(_)) | Err(_) => return Err(Answer::Silence),
    };
    let Some(config) = trusting(ca) else { return Err(Answer::Takes) };
    let _ = stream.set_nodelay(true);
    let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::from(at.ip()), stream);
    let stream = match timeout(PATIENCE, tls).await {
        Ok(Ok(stream)) => stream,
        // It is no server of this cluster's.
        Ok(Err(_)) => return Err(Answer::NotReady),
        Err(_) => return Err(Answer::Slow),
    };
    let (asked, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| Answer::NotReady)?;
    // Ends when the asking end is dropped.
    tokio::spawn(connection);
    Ok(asked)
}

/// None while there is no CA here. Nobody in particular asks.
fn trusting(ca: &Path) -> Option<ClientConfig> {
    let ca = Material::File(ca.to_owned());
    https::tls(&Kubeconfig { server: String::new(), ca, identity: None }).ok()
}

//! Clients of the API that ask all the time, through one machine's endpoint, and note when they were answered: so it is seen for
//! how long it was away.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use super::kubernetes::Cluster;
use super::layout::Testbed;
use super::machine::Machine;
use super::up::now;
use crate::command::output;

/// Pause between two questions of one client.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one that connects anew each time waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long one that keeps its connection waits, as a client without a deadline of its own might.
const HELD_PATIENCE: Duration = Duration::from_secs(30);
/// What the writers write.
const OBJECTS: &str = "/api/v1/namespaces/default/configmaps";
const LABEL: &str = "muster-testbed=client";

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Reads over a new connection.
    Read,
    /// Writes over a new connection.
    Write,
    /// Reads over a connection that it keeps for as long as it stands.
    Held,
    /// Watches what the writers write.
    Watch,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Held, Self::Watch];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Held => "held",
            Self::Watch => "watch",
        }
    }
}

/// What one client saw.
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    /// When it was answered, in seconds since 1970.
    answers: Vec<f64>,
    /// When a connection that should have stood ended.
    pub(crate) ends: Vec<f64>,
    /// When it stopped.
    until: f64,
}

impl Seen {
    /// The longest time without an answer that lies after `from`, or around it. One that was never answered again was without until it
    /// stopped.
    pub(crate) fn longest_gap(&self, from: f64) -> f64 {
        let times: Vec<f64> = self.answers.iter().copied().chain([self.until]).collect();
        let around = times.windows(2).filter(|pair| pair[1] >= from);
        around.map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    }
}

/// How a machine's endpoint is asked.
#[derive(Clone)]
pub(super) struct Way {
    at: SocketAddr,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    written: Arc<AtomicU64>,
    /// Tells this run's objects from an earlier one's.
    run: u64,
}

/// Clients that ask.
pub(crate) struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Clients {
    /// One of each kind through a machine, and `watches` watches.
    pub(crate) fn start(testbed: &Testbed, through: &Machine, watches: usize) -> Result<Self> {
        let way = Way::through(testbed, through)?;
        let kinds = [Kind::Read, Kind::Write, Kind::Held].into_iter().chain(std::iter::repeat_n(Kind::Watch, watches));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = kinds.map(|kind| {
            let (way, stop) = (way.clone(), Arc::clone(&stop));
            spawn(move || way.ask(kind, &stop))
        });
        Ok(Self { threads: threads.collect(), stop })
    }

    /// Stops them, and returns what each saw.
    pub(crate) fn finish(self) -> Result<Vec<Seen>> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a client panicked")));
        seen.collect()
    }

    /// Removes what they wrote.
    pub(crate) fn tidy(cluster: &Cluster) -> Result<()> {
        output(&mut cluster.kubectl(&["delete", "configmap", "--selector", LABEL, "--wait=false"])).map(drop)
    }
}

pub(super) type Stream = StreamOwned<ClientConnection, TcpStream>;

impl Way {
    /// As the cluster's administrator, by the kubeconfig that was found last.
    pub(super) fn through(testbed: &Testbed, machine: &Machine) -> Result<Self> {
        Ok(Self {
            at: SocketAddr::from((machine.address, testbed.endpoint_port)),
            name: ServerName::try_from(testbed.endpoint_name.clone())?,
            config: Arc::new(config(testbed, machine)?),
            written: Arc::default(),
            run: (now() * 1e3) as u64,
        })
    }

    fn ask(&self, kind: Kind, stop: &AtomicBool) -> Seen {
        let mut seen = Seen { kind, answers: Vec::new(), ends: Vec::new(), until: 0.0 };
        let mut kept = None;
        while !stop.load(Ordering::Relaxed) {
            match kind {
                Kind::Read => {
                    let asked = self
                        .connect(PATIENCE)
                        .and_then(|mut to| self.once(&mut to, "GET", "/api/v1/namespaces/default", ""));
                    seen.answers.extend(asked.is_ok().then(now));
                }
                Kind::Write => {
                    let number = self.written.fetch_add(1, Ordering::Relaxed);
                    let (key, value) = LABEL.split_once('=').unwrap_or_default();
                    let body = serde_json::json!({"metadata": {"name": format!("client-{}-{number}", self.run), "labels": {key: value}}});
                    let asked = self
                        .connect(PATIENCE)
                        .and_then(|mut to| self.once(&mut to, "POST", OBJECTS, &body.to_string()));
                    seen.answers.extend(asked.is_ok().then(now));
                }
                Kind::Held => {
                    let to = match kept.take() {
                        Some(to) => Ok(to),
                        None => self.connect(HELD_PATIENCE),
                    };
                    let asked =
                        to.and_then(|mut to| self.once(&mut to, "GET", "/api/v1/namespaces/default", "").map(|()| to));
                    match asked {
                        Ok(to) => {
                            kept = Some(to);
                            seen.answers.push(now());
                        }
                        Err(_) => seen.ends.push(now()),
                    }
                }
                Kind::Watch => {
                    // It goes on until the server or the way to it ends, or it is told to stop.
                    let _ = self.watch(stop, &mut seen);
                    if !stop.load(Ordering::Relaxed) {
                        seen.ends.push(now());
                    }
                }
            }
            std::thread::sleep(PAUSE);
        }
        seen.until = now();
        seen
    }

    pub(super) fn connect(&self, patience: Duration) -> Result<Stream> {
        let socket = TcpStream::connect_timeout(&self.at, patience)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        socket.set_nodelay(true)?;
        Ok(StreamOwned::new(ClientConnection::new(Arc::clone(&self.config), self.name.clone())?, socket))
    }

    /// One question over a connection that may be used again. An error if the answer is none, or no good one.
    pub(super) fn once(&self, to: &mut Stream, method: &str, path: &str, body: &str) -> Result<()> {
        self.send(to, method, path, body)?;
        let mut answer = Vec::new();
        let mut part = [0; 16 << 10];
        loop {
            let length = to.read(&mut part)?;
            answer.extend_from_slice(part.get(..length).unwrap_or_default());
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                let whole = content_length(head).is_none_or(|length| rest.len() >= length);
                if whole {
                    let status = head.split(' ').nth(1).unwrap_or_default();
                    return if status.starts_with('2') { Ok(()) } else { Err(anyhow!("status {status}")) };
                }
            }
            if length == 0 {
                return Err(anyhow!("the connection ended"));
            }
        }
    }

    fn watch(&self, stop: &AtomicBool, seen: &mut Seen) -> Result<()> {
        let mut to = self.connect(PATIENCE)?;
        self.send(&mut to, "GET", &format!("{OBJECTS}?watch=true&timeoutSeconds=3600"), "")?;
        let mut part = [0; 16 << 10];
        while !stop.load(Ordering::Relaxed) {
            match to.read(&mut part) {
                Ok(0) => return Ok(()),
                Ok(_) => seen.answers.push(now()),
                // Nothing was written meanwhile.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn send(&self, to: &mut Stream, method: &str, path: &str, body: &str) -> Result<()> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: kubernetes\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        to.write_all(head.as_bytes())?;
        Ok(to.flush()?)
    }
}

fn content_length(head: &str) -> Option<usize> {
    let line = head
        .lines()
        .find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")))?;
    line.1.trim().parse().ok()
}

/// TLS as the cluster's administrator.
fn config(testbed: &Testbed, through: &Machine) -> Result<ClientConfig> {
    let view = output(&mut Cluster::through(testbed, through).kubectl(&[
        "config",
        "view",
        "--raw",
        "--minify",
        "--output=json",
    ]))?;
    let view: Value = serde_json::from_str(&view).context("the kubeconfig is no JSON")?;
    let pem = |value: &Value| {
        let text = value.as_str().context("the kubeconfig lacks a certificate or a key")?;
        BASE64_STANDARD.decode(text).context("the kubeconfig's certificates are no base64")
    };
    let user = &view["users"][0]["user"];
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_slice_iter(&pem(&view["clusters"][0]["cluster"]["certificate-authority-data"])?)
    {
        roots.add(certificate?)?;
    }
    let own = CertificateDer::pem_slice_iter(&pem(&user["client-certificate-data"])?).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&pem(&user["client-key-data"])?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_client_auth_cert(own, key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_if_it_ends_after_the_loss() {
        let seen = Seen { kind: Kind::Read, answers: vec![1.0, 5.0, 5.1, 7.0, 7.1], ends: Vec::new(), until: 8.0 };
        assert_eq!(seen.longest_gap(0.0), 4.0);
        assert!((seen.longest_gap(5.05) - 1.9).abs() < 1e-9);
        assert!((seen.longest_gap(7.5) - 0.9).abs() < 1e-9, "whoever hears no more hears nothing until the end");
        assert_eq!(seen.longest_gap(8.5), 0.0);
    }

    #[test]
    fn the_length_of_an_answer_is_found_however_it_is_spelt() {
        assert_eq!(content_length("HTTP/1.1 200 OK\r\ncontent-length: 12\r\nA: b"), Some(12));
        assert_eq!(content_length("HTTP/1.1 200 OK\r\nContent-Length:7"), Some(7));
        assert_eq!(content_length("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"), None);
    }
}

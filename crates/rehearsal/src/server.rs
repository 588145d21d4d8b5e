//! The TLS server in the place of a control plane: what `kube-apiserver` and etcd would be once the kubelet had started
//! their static Pods. A process of its own that outlives the kubeadm that started it, until `reset` ends it or its pid
//! file is gone.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::client::{Client, Identity, chain, private_key, roots};
use crate::failure::{Doing as _, Failure, fail};
use crate::objects;
use crate::pki::{self, Authority, Subject};
use crate::pods::Pods;
use crate::say::complain;
use crate::state::{Op, Refusal, State};

/// Connections served at a time; more are closed at once.
const CONNECTIONS: usize = 64;
/// Longest request, in bytes.
const REQUEST_LIMIT: usize = 1 << 20;
/// A thread needs little: the double must be light.
const STACK: usize = 256 * 1024;

/// One API server.
pub(crate) struct Server {
    pub(crate) pods: Pods,
    tls: Arc<ServerConfig>,
    etcd_tls: Arc<ServerConfig>,
    ca: String,
    /// This server as a client of the others.
    identity: Identity,
    state: Mutex<State>,
    /// Held while a change is applied and pushed, so that changes reach the others in order.
    changing: Mutex<()>,
    ready: AtomicBool,
    /// The founder that this one lets begin.
    pub(crate) vote: Mutex<Option<(String, Instant)>>,
    connections: AtomicUsize,
}

/// Whether a path is that of a Node, and of no part of it.
fn is_node(path: &str) -> bool {
    path.strip_prefix("/api/v1/nodes/").is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// Which of the two that the process stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Api,
    Etcd,
}

/// Everybody may ask an API server something; etcd talks to holders of a certificate alone.
fn serving_tls(ca: &str, certificate: &str, key: &str, part: Part) -> Result<Arc<ServerConfig>, Failure> {
    let provider = Arc::new(ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider.clone());
    let clients = if part == Part::Api { clients.allow_unauthenticated() } else { clients };
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .doing("TLS")?
        .with_client_cert_verifier(clients.build().doing("client CA")?)
        .with_single_cert(chain(certificate)?, private_key(key)?)
        .doing("serving certificate")?;
    Ok(Arc::new(tls))
}

/// Who asks.
#[derive(PartialEq, Eq)]
enum Caller {
    Anonymous,
    /// Holds a live bootstrap token.
    Joining,
    /// Has a certificate from the CA.
    Certified,
}

impl Server {
    /// Serves until told to end.
    pub(crate) fn run(pods: Pods) -> Result<(), Failure> {
        let pki_dir = pods.pki_dir.clone();
        let ca = pki::read(&pki_dir.join("ca.crt"))?;
        let certificate = |base: &str| -> Result<(String, String), Failure> {
            Ok((pki::read(&pki_dir.join(format!("{base}.crt")))?, pki::read(&pki_dir.join(format!("{base}.key")))?))
        };
        let (serving, serving_key) = certificate("apiserver")?;
        let (client, client_key) = certificate("apiserver-kubelet-client")?;
        let (etcd, etcd_key) = certificate("etcd/server")?;
        let tls = serving_tls(&ca, &serving, &serving_key, Part::Api)?;
        let etcd_tls = serving_tls(&pki::read(&pki_dir.join("etcd/ca.crt"))?, &etcd, &etcd_key, Part::Etcd)?;
        std::thread::sleep(Duration::from_millis(pods.start_after_ms));
        let listener = TcpListener::bind(&pods.address).doing(format!("listen on {}", pods.address))?;
        let server = Arc::new(Self {
            state: Mutex::new(pods.load_state()),
            pods,
            tls,
            etcd_tls,
            ca,
            identity: Identity::Certificate { certificate: client, key: client_key },
            changing: Mutex::default(),
            ready: AtomicBool::default(),
            vote: Mutex::default(),
            connections: AtomicUsize::default(),
        });
        server.clone().accept(listener, Part::Api);
        server.clone().listen_as_etcd();
        server.come_up()?;
        // At first the one who started it may not have written the pid file yet.
        loop {
            std::thread::sleep(Duration::from_millis(500));
            if !server.pods.is_current() {
                return Ok(());
            }
        }
    }

    /// Where a stacked etcd serves its clients: for whoever asks for the members, and removes one. Not everybody who
    /// rehearses has an address of his own, so the port may be taken.
    fn listen_as_etcd(self: Arc<Self>) {
        let (host, _) = self.pods.address.rsplit_once(':').unwrap_or_default();
        match TcpListener::bind(format!("{host}:2379")) {
            Ok(listener) => self.accept(listener, Part::Etcd),
            Err(error) => complain!("etcd's port 2379 is not served: {error}"),
        }
    }

    fn accept(self: Arc<Self>, listener: TcpListener, part: Part) {
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if self.connections.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS {
                    self.connections.fetch_sub(1, Ordering::SeqCst);
                    continue;
                }
                let server = self.clone();
                let serve = move || {
                    // Whoever hangs up early, or speaks no TLS, has only itself to blame.
                    let _ = server.serve(stream, part);
                    server.connections.fetch_sub(1, Ordering::SeqCst);
                };
                if std::thread::Builder::new().stack_size(STACK).spawn(serve).is_err() {
                    self.connections.fetch_sub(1, Ordering::SeqCst);
                }
            }
        });
    }

    /// Takes over what the other members know, tells them that this one has started, and then is ready. Alone it is
    /// ready with what it has on disk, be that nothing.
    fn come_up(&self) -> Result<(), Failure> {
        let fresh = self.pods.token.clone().filter(|_| self.state().revision == 0);
        let begins = fresh.as_ref().map(|token| self.found(token)).transpose()?;
        let me = &self.pods.name;
        let others: Vec<_> = self.others();
        let started = Op::MemberStarted { name: me.clone(), address: self.pods.address.clone() };
        let mut last = None;
        // A joining member must find the others; one that comes back may be the first to do so, and one that begins is.
        let tries = match begins {
            Some(true) => 0,
            None if !self.pods.joins() => 1,
            _ => 100,
        };
        for _ in 0..tries {
            for address in &others {
                match self
                    .peer(address)
                    .post("/rehearsal/v1/op", &json!(started))
                    .and_then(|_| self.peer(address).get("/rehearsal/v1/state"))
                {
                    Ok(state) => {
                        self.receive(&state).map_err(|(_, words)| fail(words))?;
                        self.ready.store(true, Ordering::SeqCst);
                        // What is forwarded to another one that is only just coming up is refused, and done again.
                        match self.register_founder(address) {
                            Ok(()) => return Ok(()),
                            Err(error) => last = Some(error),
                        }
                    }
                    Err(error) => last = Some(error),
                }
            }
            if others.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if self.pods.joins() && self.state().revision == 0 || begins == Some(false) {
            return Err(last.unwrap_or_else(|| fail("there is no other member")));
        }
        let _order = lock(&self.changing);
        let mut state = self.state();
        let now = now();
        let registered = state.has_node(me);
        let register = Op::RegisterNode { name: me.clone(), ready_after_ms: self.pods.ready_after_ms };
        for op in [Some(started), (!registered).then_some(register)].into_iter().flatten() {
            state.apply(op, now).map_err(|(_, words)| fail(words))?;
        }
        self.pods.save_state(&state)?;
        self.ready.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// The kubelet of a founder has its certificate from the start, and registers its Node by itself.
    fn register_founder(&self, at: &str) -> Result<(), Failure> {
        let me = &self.pods.name;
        if self.pods.token.is_some() && !self.state().has_node(me) {
            let register = Op::RegisterNode { name: me.clone(), ready_after_ms: self.pods.ready_after_ms };
            self.peer(at).post("/rehearsal/v1/op", &json!(register))?;
        }
        Ok(())
    }

    /// The other members, as far as they are known, by address.
    fn others(&self) -> Vec<String> {
        let state = self.state();
        let known = if state.members.is_empty() { &self.pods.initial_members } else { &state.members };
        known.iter().filter(|member| member.name != self.pods.name).map(|member| member.address.clone()).collect()
    }

    fn serve(&self, stream: TcpStream, part: Part) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        let tls = match part {
            Part::Api => &self.tls,
            Part::Etcd => &self.etcd_tls,
        };
        let connection = ServerConnection::new(tls.clone()).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        let Some(request) = Request::read(&mut stream)? else { return Ok(()) };
        let certified = stream.conn.peer_certificates().is_some();
        let answer = match part {
            Part::Api => self.answer(&request, &self.caller(certified, request.bearer.as_deref())),
            Part::Etcd => self.answer_as_etcd(&request),
        };
        let (status, body) = match answer {
            Ok(body) => (200, body),
            Err((status, words)) => (status, json!({ "kind": "Status", "code": status, "message": words })),
        };
        let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        write!(
            stream,
            "HTTP/1.1 {status} Rehearsal\r\nServer: rehearsal kubeadm (a test double)\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        )?;
        stream.flush()?;
        stream.conn.send_close_notify();
        stream.flush()
    }

    fn caller(&self, certified: bool, bearer: Option<&str>) -> Caller {
        let secret_is_known = |token: &str| {
            let (id, secret) = token.split_once('.')?;
            (self.state().secret_of(id, now())? == secret).then_some(())
        };
        match bearer {
            _ if certified => Caller::Certified,
            Some(token) if secret_is_known(token).is_some() => Caller::Joining,
            _ => Caller::Anonymous,
        }
    }

    fn answer(&self, request: &Request, caller: &Caller) -> Result<Value, Refusal> {
        let ready = self.ready.load(Ordering::SeqCst);
        let path = request.path.split('?').next().unwrap_or_default();
        // The peers' own requests come in before this server is ready: that is how it becomes so.
        match (request.method.as_str(), path) {
            ("GET", "/livez") => return Ok(json!("ok")),
            ("GET", "/readyz" | "/healthz") if ready => return Ok(json!("ok")),
            ("POST", "/rehearsal/v1/state") if *caller == Caller::Certified => return self.receive(&request.json()?),
            ("POST", "/rehearsal/v1/vote") if *caller == Caller::Certified => return self.lets_begin(&request.json()?),
            _ if !ready => return Err((503, "the API server is not ready".into())),
            ("GET", "/version") => return Ok(json!({ "gitVersion": self.pods.version, "platform": "rehearsal" })),
            ("GET", "/api/v1/namespaces/kube-public/configmaps/cluster-info") => {
                return self
                    .state()
                    .cluster_info(now())
                    .ok_or_else(|| (404, "configmaps \"cluster-info\" not found".into()));
            }
            _ => {}
        }
        if *caller == Caller::Anonymous {
            return Err((401, "Unauthorized".into()));
        }
        let certified = *caller == Caller::Certified;
        match (request.method.as_str(), path) {
            ("GET", "/api/v1/nodes") => Ok(self.state().node_list(now())),
            ("GET", path) if path.starts_with("/api/v1/nodes/") => {
                let name = &path["/api/v1/nodes/".len()..];
                self.state().node(name, now()).ok_or_else(|| (404, format!("nodes {name:?} not found")))
            }
            ("GET", "/rehearsal/v1/configuration") => {
                self.state().configuration().ok_or_else(|| (404, "configmaps \"kubeadm-config\" not found".into()))
            }
            ("POST", "/rehearsal/v1/join") => self.join(&request.json()?),
            ("GET", "/rehearsal/v1/state") if certified => Ok(json!(*self.state())),
            ("GET", "/rehearsal/v1/tokens") if certified => Ok(json!(self.state().token_ids(now()))),
            ("POST", "/rehearsal/v1/op") if certified => self.change(parse(request.json()?)?, false),
            ("POST", "/rehearsal/v1/forwarded") if certified => self.change(parse(request.json()?)?, true),
            // Nothing runs here that could be moved.
            ("GET", "/api/v1/pods") if certified => Ok(json!({ "metadata": {}, "items": [] })),
            ("DELETE" | "PATCH", path) if certified && is_node(path) => {
                let name = path["/api/v1/nodes/".len()..].to_owned();
                let op = match request.method.as_str() {
                    "DELETE" => Op::RemoveNode { name },
                    _ => Op::CloseNode { name, closed: request.json()?["spec"]["unschedulable"] == true },
                };
                self.change(op, false)
            }
            ("PATCH", path) if certified => {
                let op = Op::ApplyObject { path: path.to_owned(), object: request.json()? };
                self.change(op, false)
            }
            ("POST", path) if certified && path.starts_with("/api") => {
                let op = Op::CreateObject { path: path.to_owned(), object: request.json()? };
                self.change(op, false)
            }
            ("GET", path) if certified => {
                let found = objects::get(&self.state().objects, path);
                found.ok_or_else(|| (404, format!("{path} not found")))
            }
            _ if certified => Err((404, format!("{path} not found"))),
            _ => Err((403, "Forbidden".into())),
        }
    }

    /// The two requests of etcd's JSON gateway that somebody makes.
    fn answer_as_etcd(&self, request: &Request) -> Result<Value, Refusal> {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/v3/cluster/member/list") => Ok(json!({ "members": self.state().etcd_list() })),
            ("POST", "/v3/cluster/member/remove") => {
                let asked = request.json()?;
                let name = asked["ID"].as_str().and_then(|id| self.state().member_by_id(id));
                let name = name.ok_or((404, "etcdserver: member not found".to_owned()))?;
                self.change(Op::RemoveMember { name }, false)?;
                Ok(json!({ "members": self.state().etcd_list() }))
            }
            _ => Err((404, "404 page not found".into())),
        }
    }

    /// What TLS bootstrap ends in: a certificate for the Node's kubelet, and the Node.
    fn join(&self, asked: &Value) -> Result<Value, Refusal> {
        let name = asked["name"].as_str().filter(|name| !name.is_empty()).ok_or((400, "no name".to_owned()))?;
        let internal = |error: Failure| (500, error.to_string());
        let ca = Authority::load(&self.pods.pki_dir, "ca", "kubernetes").map_err(internal)?;
        let user = format!("system:node:{name}");
        let subject = Subject { name: &user, organization: Some("system:nodes"), ..Subject::default() };
        let pair = ca.issue(&subject).map_err(internal)?;
        self.change(Op::RegisterNode { name: name.to_owned(), ready_after_ms: self.pods.ready_after_ms }, false)?;
        Ok(json!({ "certificate": pair.certificate, "key": pair.key, "ca": self.ca }))
    }

    /// Has the first reachable started member apply a change; applies it here when that is this one or when it was
    /// forwarded here.
    fn change(&self, op: Op, forwarded: bool) -> Result<Value, Refusal> {
        let members = self.state().members.clone();
        if !forwarded {
            let first =
                members.iter().filter(|member| member.started).take_while(|member| member.name != self.pods.name);
            for member in first.filter(|member| !op.starts(&member.name)) {
                let answer = self.peer(&member.address).request("POST", "/rehearsal/v1/forwarded", Some(&json!(op)));
                if let Ok((status, body)) = answer {
                    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                    return match status {
                        200 => Ok(body),
                        _ => Err((status, body["message"].as_str().unwrap_or("refused").to_owned())),
                    };
                }
            }
        }
        let _order = lock(&self.changing);
        let (answer, state) = {
            let mut state = self.state();
            let answer = state.apply(op, now())?;
            self.pods.save_state(&state).map_err(|error| (500, error.to_string()))?;
            (answer, state.clone())
        };
        for member in state.members.iter().filter(|member| member.started && member.name != self.pods.name) {
            // One that is down takes the state over when it comes back.
            let _ = self.peer(&member.address).request("POST", "/rehearsal/v1/state", Some(&json!(state)));
        }
        Ok(answer)
    }

    /// Takes a newer state over.
    pub(crate) fn receive(&self, theirs: &Value) -> Result<Value, Refusal> {
        let theirs: State = serde_json::from_value(theirs.clone()).map_err(|error| (400, error.to_string()))?;
        let mut state = self.state();
        if theirs.revision > state.revision {
            *state = theirs;
            self.pods.save_state(&state).map_err(|error| (500, error.to_string()))?;
        }
        Ok(json!({}))
    }

    pub(crate) fn peer(&self, address: &str) -> Client {
        Client {
            server: address.to_owned(),
            ca: Some(self.ca.clone()),
            identity: self.identity.clone(),
            hosts: None,
            patience: Duration::from_secs(2),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A request, read whole.
struct Request {
    method: String,
    path: String,
    bearer: Option<String>,
    body: Vec<u8>,
}

impl Request {
    /// `None` when it is not HTTP, too long, or cut off.
    fn read(stream: &mut impl std::io::Read) -> std::io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let count = stream.read(&mut chunk)?;
            bytes.extend_from_slice(&chunk[..count]);
            if count == 0 || bytes.len() > REQUEST_LIMIT {
                return Ok(None);
            }
            match Self::parse(&bytes) {
                Err(()) => return Ok(None),
                Ok(None) => {}
                Ok(request) => return Ok(request),
            }
        }
    }

    /// `Ok(None)` while more must come.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, ()> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(end) = request.parse(bytes).map_err(|_| ())? else { return Ok(None) };
        let (method, path) = (request.method.ok_or(())?.to_owned(), request.path.ok_or(())?.to_owned());
        let header = |name: &str| {
            let found = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(found.value).ok()
        };
        let length: usize = header("content-length").map_or(Ok(0), str::parse).map_err(|_| ())?;
        if length > REQUEST_LIMIT {
            return Err(());
        }
        let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        let body = bytes.get(end..end + length).map(<[u8]>::to_vec);
        Ok(body.map(|body| Self { method, path, bearer, body }))
    }

    fn json(&self) -> Result<Value, Refusal> {
        serde_json::from_slice(&self.body).map_err(|error| (400, error.to_string()))
    }
}

fn parse(value: Value) -> Result<Op, Refusal> {
    serde_json::from_value(value).map_err(|error| (400, error.to_string()))
}

/// A thread that panicked has left nothing half-done: changes are applied to the state in one go.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Milliseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_requests() {
        let text = "POST /x HTTP/1.1\r\nAuthorization: Bearer abc\r\nContent-Length: 2\r\n\r\n{}";
        let request = Request::parse(text.as_bytes()).expect("is HTTP").expect("is whole");
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/x"));
        assert_eq!(request.bearer.as_deref(), Some("abc"));
        assert_eq!(request.json(), Ok(json!({})));
        assert!(Request::parse(&text.as_bytes()[..text.len() - 1]).expect("is HTTP").is_none());
        assert!(Request::parse(b"\x16\x03\x01\x00").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::parse(&bytes);
        }
    }
}

//! The API endpoint: every machine listens on one port and passes each connection through to a living API server.
//!
//! Nothing that passes is decrypted here, so nothing needs to be trusted here. Each server is asked all the time whether it serves
//! ([`probe`]); new connections go to one that does, and those to one that died are ended at once ([`health`]): a client would
//! wait for half a minute and more for an answer that never comes.

mod health;
mod probe;

pub(crate) use probe::{none_works, that_works};

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, info, warn};

use health::{Answer, Health, Standing};

/// Longest wait for an API server to take a connection. A lost SYN is sent again after 1, 3 and 7 s.
const CONNECT: Duration = Duration::from_secs(10);

/// After this long without an answer the next server is tried as well.
const NEXT: Duration = Duration::from_millis(250);

/// Most connections at once: kubelet, kube-proxy and controllers hold some tens.
const CONNECTIONS_MAX: usize = 1_024;

/// Most connections that wait to be accepted; as tokio's own listeners have it.
const BACKLOG: i32 = 1_024;

/// One socket for IPv6 and IPv4, whatever the system's default is.
fn both_families(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The API servers and what is known of them, shared by all that use them.
#[derive(Clone)]
pub(crate) struct Balancer {
    /// Where the cluster's CA is, once there is one.
    ca: Arc<PathBuf>,
    health: Arc<Mutex<Health>>,
    /// Who asks each server.
    probes: Arc<Mutex<BTreeMap<SocketAddr, AbortHandle>>>,
    /// How many machines the cluster has.
    machines: Arc<AtomicUsize>,
    turn: Arc<AtomicUsize>,
    /// Told whenever one stands otherwise than before.
    changed: Arc<watch::Sender<()>>,
    /// While this holds, connections are refused and standing ones dropped.
    closed: Arc<watch::Sender<bool>>,
}

impl Balancer {
    /// Without servers yet. `ca` is where the cluster's CA will be.
    pub(crate) fn new(ca: PathBuf) -> Self {
        Self {
            ca: Arc::new(ca),
            health: Arc::default(),
            probes: Arc::default(),
            machines: Arc::default(),
            turn: Arc::default(),
            changed: Arc::new(watch::Sender::new(())),
            closed: Arc::default(),
        }
    }

    /// How many machines the cluster has: the more ask, the less often each does.
    pub(crate) fn machines(&self, machines: usize) {
        self.machines.store(machines, Ordering::Relaxed);
    }

    /// The servers from now on, among them the one at this machine's own address if it has one.
    pub(crate) fn servers(&self, servers: &[String], own: Option<IpAddr>) {
        let parsed: Vec<SocketAddr> = servers.iter().filter_map(|server| server.parse().ok()).collect();
        let own = parsed.iter().copied().find(|server| Some(server.ip()) == own);
        self.health().servers(&parsed, own);
        let mut probes = self.probes.lock().expect("no holder panics");
        probes.retain(|at, probe| {
            let stays = parsed.contains(at);
            if !stays {
                probe.abort();
            }
            stays
        });
        for at in parsed {
            let balancer = self.clone();
            let watch = async move { tokio::join!(balancer.clone().watch(at), balancer.watch_etcd(at)) };
            probes.entry(at).or_insert_with(|| tokio::spawn(watch).abort_handle());
        }
        self.changed.send_replace(());
    }

    /// Refuses connections, or takes them again. See [`muster_kubeadm::Command::starts_etcd_at`].
    pub(crate) fn close(&self, closed: bool) {
        self.closed.send_replace(closed);
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().expect("no holder panics")
    }

    /// Asks a server whether it serves, for as long as it is one.
    async fn watch(self, at: SocketAddr) {
        let mut kept = None;
        loop {
            let answer = probe::ask(at, &self.ca, &mut kept).await;
            let pause = health::pause(self.machines.load(Ordering::Relaxed));
            if self.heard(at, answer) {
                self.changed.send_replace(());
            }
            match answer {
                // The machine is dead or it is not: to know which does not wait.
                Answer::Silence | Answer::Slow => tokio::time::sleep(Duration::from_millis(50)).await,
                // To connect anew each time costs more than to ask.
                _ if kept.is_none() => tokio::time::sleep(pause * 4).await,
                _ => tokio::time::sleep(pause).await,
            }
        }
    }

    /// Asks a server whether its etcd works, for as long as it is one.
    async fn watch_etcd(self, at: SocketAddr) {
        let mut kept = None;
        loop {
            if let Some(works) = probe::etcd_works(at, &self.ca, &mut kept).await
                && self.notes(at, &format!("etcd works: {works}"), |health| health.heard_of_etcd(at, works))
            {
                self.changed.send_replace(());
            }
            tokio::time::sleep(health::pause(self.machines.load(Ordering::Relaxed)) * 4).await;
        }
    }

    /// Notes an answer. Whether the server stands otherwise now.
    fn heard(&self, at: SocketAddr, answer: Answer) -> bool {
        self.notes(at, &format!("{answer:?}"), |health| health.heard(at, answer))
    }

    /// Notes something about a server. Whether it stands otherwise now.
    fn notes(&self, at: SocketAddr, answer: &str, note: impl FnOnce(&mut Health)) -> bool {
        let mut health = self.health();
        let before = health.standing(at);
        note(&mut health);
        let now = health.standing(at);
        if now != before {
            match (before, now) {
                (_, Some((Standing::Dead, _))) => info!(server = %at, answer, "an API server is dead"),
                (Some((Standing::Dead, _)), _) => info!(server = %at, answer, "an API server is back"),
                (_, Some((_, true))) => info!(server = %at, answer, "the etcd of an API server does not work"),
                (Some((_, true)), _) => info!(server = %at, answer, "the etcd of an API server works again"),
                _ => debug!(server = %at, answer, ?now, "an API server changed"),
            }
        }
        now != before
    }

    /// Listens until the process ends.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub(crate) async fn listen(&self, at: SocketAddr) -> std::io::Result<()> {
        // At the unspecified address both families are meant, of which a machine may have only one.
        let listener = match at.ip().is_unspecified() {
            true => match both_families(at.port()) {
                Ok(listener) => listener,
                Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, at.port())).await?,
            },
            false => TcpListener::bind(at).await?,
        };
        let balancer = self.clone();
        tokio::spawn(async move { balancer.accept(listener).await });
        Ok(())
    }

    async fn accept(self, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let client = match listener.accept().await {
                Ok((client, _)) => client,
                Err(why) => {
                    warn!(%why, "the API endpoint cannot take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(permit) = room.clone().try_acquire_owned() else { continue };
            let balancer = self.clone();
            tokio::spawn(async move {
                balancer.pass(client).await;
                drop(permit);
            });
        }
    }

    async fn pass(&self, mut client: TcpStream) {
        let mut closed = self.closed.subscribe();
        if *closed.borrow_and_update() {
            return;
        }
        let Some((at, mut server)) = self.connect().await else { return };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        keep_alive(&client);
        keep_alive(&server);
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => {}
            _ = closed.wait_for(|closed| *closed) => debug!("connections are dropped while etcd grows"),
            () = self.given_up(at) => debug!(server = %at, "a connection to a dead API server is ended"),
        }
    }

    /// Ends when connections to this server are to be ended.
    async fn given_up(&self, at: SocketAddr) {
        let mut changed = self.changed.subscribe();
        loop {
            if self.health().given_up().any(|dead| dead == at) {
                return;
            }
            // It is never dropped while this runs.
            let _ = changed.changed().await;
        }
    }

    /// The first server that takes a connection: the best one is asked first, and the next at once when one refuses, a little later
    /// when it keeps silent, for it may be dead or a packet may be lost (RFC 8305, section 5).
    async fn connect(&self) -> Option<(SocketAddr, TcpStream)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut left = self.health().order(turn).into_iter();
        let mut asked = JoinSet::new();
        let mut all = false;
        loop {
            match left.next() {
                Some(server) => drop(asked.spawn(ask(server))),
                None => all = true,
            }
            tokio::select! {
                answer = asked.join_next() => match answer {
                    Some(Ok(Some(stream))) => return Some(stream),
                    None if all => return None,
                    _ => {}
                },
                () = tokio::time::sleep(NEXT), if !all => {}
            }
        }
    }
}

async fn ask(server: SocketAddr) -> Option<(SocketAddr, TcpStream)> {
    match tokio::time::timeout(CONNECT, TcpStream::connect(server)).await {
        Ok(Ok(stream)) => return Some((server, stream)),
        Ok(Err(why)) => debug!(%server, %why, "an API server takes no connection"),
        Err(_) => debug!(%server, "an API server does not answer"),
    }
    None
}

/// Whoever lost his power says nothing: after some 10 s of silence his connections end. Of servers the probes know it sooner.
fn keep_alive(stream: &TcpStream) {
    let keep_alive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(2);
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_tcp_keepalive(&keep_alive);
    let _ = socket.set_tcp_user_timeout(Some(Duration::from_secs(10)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn server(name: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("has an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(name).await;
            }
        });
        address
    }

    async fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.expect("listens").local_addr().expect("has an address")
    }

    async fn ask(at: SocketAddr) -> String {
        let mut text = String::new();
        let mut stream = TcpStream::connect(at).await.expect("connects");
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[tokio::test]
    async fn a_dead_server_is_passed_over_and_a_closed_endpoint_refuses() {
        let (living, dead, at) = (server(b"living").await, free().await, free().await);
        let balancer = Balancer::new("/nowhere/ca.crt".into());
        balancer.listen(at).await.expect("listens");
        assert_eq!(ask(at).await, "", "without servers there is nobody to pass to");
        balancer.servers(&[dead.to_string(), living.to_string()], None);
        assert_eq!(ask(at).await, "living");
        balancer.close(true);
        assert_eq!(ask(at).await, "");
        balancer.close(false);
        assert_eq!(ask(at).await, "living");
    }

    #[tokio::test]
    async fn a_connection_ends_when_its_server_dies_and_another_serves_and_stays_otherwise() {
        let (dies, serves, at) = (server(b"").await, server(b"").await, free().await);
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let holds = silent.local_addr().expect("has an address");
        let balancer = Balancer::new("/nowhere/ca.crt".into());
        balancer.listen(at).await.expect("listens");
        // Nobody asks the servers here: what is known of them is said below.
        balancer.health().servers(&[holds, serves, dies], Some(holds));
        let mut client = TcpStream::connect(at).await.expect("connects");
        let (_held, _) = silent.accept().await.expect("it is passed on");
        let said = |server, answer| {
            balancer.health().heard(server, answer);
            balancer.changed.send_replace(());
        };
        let mut byte = [0];
        said(holds, Answer::Refused);
        said(dies, Answer::Refused);
        let waits = tokio::time::timeout(Duration::from_millis(200), client.read(&mut byte)).await;
        assert!(waits.is_err(), "nobody serves: it may be this machine's own cable");
        said(serves, Answer::Ready);
        assert_eq!(client.read(&mut byte).await.ok(), Some(0), "it is ended");
    }

    #[tokio::test]
    async fn the_unspecified_address_is_both_families() {
        for at in ["0.0.0.0", "[::]"] {
            let port = free().await.port();
            let balancer = Balancer::new("/nowhere/ca.crt".into());
            balancer.listen(format!("{at}:{port}").parse().expect("an address")).await.expect("listens");
            TcpStream::connect(("127.0.0.1", port)).await.expect("IPv4");
            // A computer that builds this may have no IPv6 at all.
            if both_families(0).is_ok() {
                TcpStream::connect(("::1", port)).await.expect("IPv6");
            }
        }
    }
}

//! The API endpoint as the agent has it: what the balancer is to go by is told to it, here or in a process beside the agent.
//!
//! Every client on this machine reaches an API server through the endpoint, the kubelet above all. An agent that is replaced, stopped or killed must
//! not cut those off. So where a service manager runs the agent, the endpoint is a service of its own (its own process serves it, the agent tells it), which goes on with what it
//! was told last.

mod beside;
mod serve;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::balancer::Balancer;
use crate::config::AgentConfig;

pub use serve::serve;

/// What the balancer goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// The API servers, `ip:port`.
    servers: Vec<String>,
    /// This machine's own address.
    own: Option<IpAddr>,
    /// How many machines the cluster has.
    machines: usize,
    /// Whether connections are refused. Said by an agent that ends, it is not meant.
    closed: bool,
    /// Whether this agent knows of servers, or of none any more. Until then an endpoint goes by what it was told before.
    #[serde(skip)]
    known: bool,
}

impl Told {
    fn tell(&self, balancer: &Balancer) {
        balancer.machines(self.machines);
        balancer.close(self.closed);
    }
}

/// Where the endpoint is, and what it needs.
#[derive(Debug, Clone)]
pub struct Site {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the cluster's CA will be.
    pub ca: PathBuf,
    /// The directory of its socket.
    pub run_dir: PathBuf,
    /// The directory of what it was told last: after a boot it is of use before an agent is, or without one.
    pub state_dir: PathBuf,
}

impl Site {
    /// That of an agent.
    pub(crate) fn of(config: &AgentConfig) -> Self {
        Self {
            listen: SocketAddr::new(config.listen.ip(), config.endpoint_port),
            ca: config.kubernetes.pki_dir().join("ca.crt"),
            run_dir: config.run_dir.clone(),
            state_dir: config.state_dir.clone(),
        }
    }

    fn socket(&self) -> PathBuf {
        self.run_dir.join("endpoint.sock")
    }

    fn kept(&self) -> PathBuf {
        self.state_dir.join("endpoint.json")
    }
}

/// The agent's side of it.
#[derive(Clone)]
pub(crate) struct Endpoint {
    told: Arc<watch::Sender<Told>>,
}

impl Endpoint {
    /// Begins to listen: in a service of its own if one can be had where that is wanted. That takes systemd some tenths of a second, in which
    /// the agent does not wait: what is given says when it listens, or what keeps it from that.
    pub(crate) fn begin(site: Site, is_service: bool) -> (Self, oneshot::Receiver<Result<(), String>>) {
        let (told, hears) = watch::channel(Told::default());
        let (tell, listens) = oneshot::channel();
        tokio::spawn(async move {
            match serve_at(&site, is_service).await {
                Ok(None) => {
                    let _ = tell.send(Ok(()));
                    beside::tell(site, hears).await;
                }
                Ok(Some(balancer)) => {
                    let _ = tell.send(Ok(()));
                    follow(balancer, hears).await;
                }
                Err(why) => _ = tell.send(Err(why)),
            }
        });
        (Self { told: Arc::new(told) }, listens)
    }

    /// The servers from now on, among them the one at this machine's own address if it has one.
    pub(crate) fn servers(&self, servers: &[String], own: Option<IpAddr>) {
        self.told.send_if_modified(|told| {
            let changed = told.servers != servers || told.own != own;
            (told.servers, told.own) = (servers.to_vec(), own);
            !std::mem::replace(&mut told.known, true) || changed
        });
    }

    /// How many machines the cluster has: the more ask, the less often each does.
    pub(crate) fn machines(&self, machines: usize) {
        self.told.send_if_modified(|told| std::mem::replace(&mut told.machines, machines) != machines);
    }

    /// Refuses connections, or takes them again. See [`muster_kubeadm::Command::starts_etcd_at`].
    pub(crate) fn close(&self, closed: bool) {
        self.told.send_if_modified(|told| std::mem::replace(&mut told.closed, closed) != closed);
    }

    /// The API servers that are known.
    pub(crate) fn known(&self) -> Vec<SocketAddr> {
        self.told.borrow().servers.iter().filter_map(|server| server.parse().ok()).collect()
    }

    /// Addresses of their machines.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.known().iter().map(SocketAddr::ip).collect()
    }
}

/// Listens: none if another process does.
async fn serve_at(site: &Site, is_service: bool) -> Result<Option<Balancer>, String> {
    if is_service && beside::start(site).await? {
        return Ok(None);
    }
    let balancer = Balancer::new(site.ca.clone());
    balancer.listen(site.listen).await.map_err(|why| why.to_string())?;
    Ok(Some(balancer))
}

/// Has a balancer go by what is told, for as long as anybody tells.
async fn follow(balancer: Balancer, mut hears: watch::Receiver<Told>) {
    let mut before = Told::default();
    loop {
        let now = hears.borrow_and_update().clone();
        now.tell(&balancer);
        if (&now.servers, now.own) != (&before.servers, before.own) {
            balancer.servers(&now.servers, now.own);
        }
        before = now;
        if hears.changed().await.is_err() {
            return;
        }
    }
}

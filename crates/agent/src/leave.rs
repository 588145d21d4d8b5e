//! What a machine takes back before anything of it is wiped: its etcd membership, and its Node.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use muster_kubeadm::etcd::{self, LIST, Membership, REMOVE};
use muster_kubeadm::farewell::Farewell;
use muster_kubeadm::{Kubeconfig, Settings};
use tracing::{debug, info, warn};

use crate::ask;
use crate::balancer::Balancer;

/// How long etcd is asked before the step counts as failed; the ladder then tries it again.
const LIMIT: Duration = Duration::from_secs(60);

/// How long the API server is asked to take the Node back.
const NODE_LIMIT: Duration = Duration::from_secs(15);

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(250);

/// Returns once the machine at `us` is no member: true, or false if it cannot ever have been one. The
/// balancer knows the machines with members; at first perhaps none, after a start.
///
/// # Errors
/// When no member says so within the limit, with the last one's words.
pub(crate) async fn etcd(settings: &Settings, us: IpAddr, balancer: &Balancer) -> Result<bool, String> {
    let begun = Instant::now();
    loop {
        match round(settings, us, &balancer.addresses()).await {
            Ok(was) => return Ok(was),
            Err(why) if begun.elapsed() >= LIMIT => {
                return Err(format!("etcd's membership cannot be given up, so nothing is wiped: {why}"));
            }
            Err(why) => debug!(why, "asks etcd again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether this machine's own etcd says that it is a member that votes.
pub(crate) async fn votes(settings: &Settings, us: IpAddr) -> bool {
    let Some((at, identity)) = etcd::client(settings, us) else { return false };
    let asked = ask::post(&at.to_string(), at, &identity, LIST, "{}".to_owned()).await;
    asked.is_ok_and(|(status, body)| etcd::votes(status, &body, us))
}

/// The Node of a machine that is being reset.
pub(crate) struct Leaving<'a> {
    server: &'a str,
    at: SocketAddr,
    node: &'a str,
    admin: Option<Kubeconfig>,
    /// The kubelet's identity, held in memory: its files go with the reset.
    kubelet: Option<Kubeconfig>,
}

impl<'a> Leaving<'a> {
    /// Reads the identities that there are.
    pub(crate) fn new(settings: &'a Settings, at: SocketAddr, node: &'a str) -> Self {
        let read = |path: &Path| ask::identity(path).and_then(|identity| ask::in_memory(&identity)).ok();
        Self {
            server: &settings.endpoint,
            at,
            node,
            admin: read(&settings.admin_kubeconfig()),
            kubelet: read(&settings.kubelet_kubeconfig()),
        }
    }

    /// With an administrator's identity the Node is deleted.
    pub(crate) async fn before_reset(&self) {
        if let Some(identity) = &self.admin {
            self.say(Farewell::Delete, identity).await;
        }
    }

    /// With the kubelet's alone it is said not to be Ready, now that no kubelet says otherwise.
    pub(crate) async fn after_reset(&self) {
        if let (None, Some(identity)) = (&self.admin, &self.kubelet) {
            self.say(Farewell::NotReady, identity).await;
        }
    }

    /// Tries for a while. What remains is a Node that looks Ready for less than a minute, for which a join just waits.
    async fn say(&self, farewell: Farewell, identity: &Kubeconfig) {
        let (request, begun) = (farewell.request(self.node), Instant::now());
        loop {
            let asked = ask::send(self.server, self.at, identity, &request).await;
            match asked.and_then(|(status, _)| Farewell::judge(status)) {
                Ok(()) => {
                    info!(node = self.node, ?farewell, "took its Node back");
                    return;
                }
                Err(why) if begun.elapsed() >= NODE_LIMIT => {
                    warn!(node = self.node, why, "its Node stays, and may keep this machine out for a minute");
                    return;
                }
                Err(why) => debug!(why, "asks for its Node again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Asks every member once. A member may know an old list; what the others agree on is what counts.
async fn round(settings: &Settings, us: IpAddr, others: &[IpAddr]) -> Result<bool, String> {
    let mut answered = false;
    let mut last = "no other machine with etcd is known".to_owned();
    for address in others.iter().copied().filter(|other| *other != us).chain([us]) {
        // Without an identity for etcd there was never a request to join it.
        let Some((at, identity)) = etcd::client(settings, address) else { return Ok(false) };
        let name = at.to_string();
        let asked = ask::post(&name, at, &identity, LIST, "{}".to_owned()).await;
        match asked.and_then(|(status, body)| etcd::membership(status, &body, us)) {
            Ok(Membership::None) => answered = true,
            // Whatever happened to the others: what the cluster knows is here alone.
            Ok(Membership::Only) => last = "this machine is etcd's only member".to_owned(),
            Ok(Membership::Of(request)) => {
                let (status, body): (u16, Bytes) = ask::post(&name, at, &identity, REMOVE, request).await?;
                if status != 200 {
                    return Err(format!("{at} refuses with status {status}: {}", words(&body)));
                }
                info!(etcd = %at, "gave its etcd membership up");
                return Ok(true);
            }
            Err(why) => last = why,
        }
    }
    if answered { Ok(true) } else { Err(last) }
}

fn words(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(200).collect()
}

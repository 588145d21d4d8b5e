//! Giving up this machine's etcd membership, before anything of it is wiped.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use muster_kubeadm::Settings;
use muster_kubeadm::etcd::{self, LIST, Membership, REMOVE};
use tracing::{debug, info};

use crate::ask;
use crate::balancer::Balancer;

/// How long etcd is asked before the step counts as failed; the ladder then tries it again.
const LIMIT: Duration = Duration::from_secs(60);

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

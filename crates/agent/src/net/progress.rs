//! How far connections came whose handshakes are under way: what a failed one says depends on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use libp2p::core::ConnectedPoint;
use muster_protocol::links::Stage;

use super::address::socket;

/// Most connections remembered; each is forgotten when its handshake ends, one way or the other.
const REMEMBERED_MAX: usize = 1_024;

/// The handshakes under way, by whether this machine dialled, and the other side's address. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<Mutex<BTreeMap<(bool, SocketAddr), Stage>>>);

impl Progress {
    /// A connection came as far as that.
    pub(super) fn note(&self, at: &ConnectedPoint, stage: Stage) {
        let remote = match at {
            ConnectedPoint::Dialer { address, .. } => socket(address).map(|address| (true, address)),
            ConnectedPoint::Listener { send_back_addr, .. } => socket(send_back_addr).map(|address| (false, address)),
        };
        let mut stages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(remote) = remote.filter(|remote| stages.len() < REMEMBERED_MAX || stages.contains_key(remote)) {
            stages.insert(remote, stage);
        }
    }

    /// How far it came; none if nobody took the connection. Its handshake is over.
    pub(super) fn take(&self, dialled: bool, remote: SocketAddr) -> Option<Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(dialled, remote))
    }
}

//! What the agent is started with: plain data, already parsed and checked by the command line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use muster_protocol::Tuning;
use muster_wire::{Digest, Settings};
use zeroize::Zeroizing;

use crate::Hardware;

/// Everything a machine goes by.
pub struct AgentConfig {
    /// The cluster's name in the image.
    pub cluster: String,
    /// What all machines must share.
    pub settings: Settings,
    /// Key of the machines' network.
    pub mesh_key: Zeroizing<[u8; 32]>,
    /// Where to listen for other machines.
    pub listen: SocketAddr,
    /// Whether to look for others by mDNS.
    pub mdns: bool,
    /// Subnets in which the machine's address is to be; anywhere if there are none.
    pub subnets: Vec<IpNet>,
    /// Subnets of Pods and Services, in which it is not.
    pub foreign: Vec<IpNet>,
    /// Where others may be, `host:port`; names are looked up before each dial.
    pub peers: Vec<String>,
    /// The machine's name; its host name when absent.
    pub name: Option<String>,
    /// Where the identity and the promises are.
    pub state_dir: PathBuf,
    /// Where the local API's socket `muster.sock` is made.
    pub run_dir: PathBuf,
    /// What concerns kubeadm. Its `work_dir` should be below `run_dir`.
    pub kubernetes: muster_kubeadm::Settings,
    /// What the cluster is to have besides what kubeadm makes.
    pub manifests: muster_kubeadm::Manifests,
    /// Port of the balancer that every machine offers.
    pub endpoint_port: u16,
    /// Where the API endpoint's name is written.
    pub hosts_file: PathBuf,
    /// Set for kubeadm besides the agent's own environment.
    pub kubeadm_env: Vec<(String, String)>,
    /// What tells the hardware apart, instead of what the agent finds: several machines of a lab share hardware.
    pub hardware: Option<Hardware>,
    /// Intervals.
    pub tuning: Tuning,
    /// The machine's root where it shares a computer with others; nothing where it is the computer.
    pub root: Option<PathBuf>,
    /// Whether a service manager starts it again when it ends: kubeadm under way then goes on without it.
    pub is_service: bool,
    /// Directory in which everything that the core is given is recorded, for a replay; one file a start.
    pub record: Option<PathBuf>,
}

impl AgentConfig {
    /// See [`common()`].
    pub(crate) fn common(&self) -> BTreeMap<String, String> {
        common(&self.mesh_key, self.endpoint_port, &self.kubernetes)
    }

    /// The local API's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("muster.sock")
    }
}

/// What a later image may not change, by its keys in muster.toml: a machine with another value reaches none of the others, or is
/// looked for where it does not listen. The mesh key is told by its digest.
pub fn common(
    mesh_key: &[u8; 32],
    endpoint_port: u16,
    kubernetes: &muster_kubeadm::Settings,
) -> BTreeMap<String, String> {
    let values = [
        ("mesh_key", format!("one whose digest begins with {}", Digest::of("muster/mesh-key-shown/v1", &[mesh_key]))),
        ("kubernetes.endpoint_port", endpoint_port.to_string()),
        ("kubernetes.api_port", kubernetes.api_port.to_string()),
    ];
    values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

impl std::fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentConfig")
            .field("cluster", &self.cluster)
            .field("mesh_key", &"[redacted]")
            .field("listen", &self.listen)
            .field("peers", &self.peers)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

//! With whom etcd begins: arguments that each founder is given when etcd's manifest is written, and that are nowhere else. Members that
//! come later would begin with them, too, if they were in the cluster's configuration.
//!
//! kubeadm lays a document's arguments over its own (`getEtcdCommand` in `cmd/kubeadm/app/phases/etcd/local.go`, v1.20 to v1.37).

use std::net::SocketAddr;

use super::{Documents, Object};
use crate::plan::Founding;

/// Where the members of etcd speak with each other, as kubeadm has it.
const PEER_PORT: u16 = 2380;

impl Documents {
    pub(super) fn founded(&self, cluster: &mut Object, founding: &Founding) {
        let member = |member: &crate::plan::Node| {
            format!("{}=https://{}", member.name, SocketAddr::new(member.address, PEER_PORT))
        };
        let list: Vec<String> = founding.members.iter().map(member).collect();
        let arguments = [("initial-cluster", list.join(",")), ("initial-cluster-token", founding.token.clone())];
        self.add_to_etcd(cluster, arguments);
    }
}

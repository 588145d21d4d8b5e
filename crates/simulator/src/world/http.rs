//! The servers that a step asks: API servers and etcd's, as far as muster asks them anything.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use muster_kubeadm::backup::RANGE;
use muster_kubeadm::etcd::{AGREED, CLIENT_PORT, LIST, REMOVE};
use muster_kubeadm::kubeconfig::Material;
use muster_kubeadm::work::Request;
use muster_protocol::Renewal;
use serde_json::{Value, json};

use super::World;
use super::event::Slot;
use super::program::{API_MANIFEST, at};
use crate::scenario::Sort;
use crate::watch::Seen;

type Heard = Result<(u16, Bytes), String>;

fn says(status: u16, body: &Value) -> Heard {
    Ok((status, body.to_string().into()))
}

impl World {
    /// One request, from a machine.
    pub(super) fn hear(&mut self, slot: Slot, request: &Request) -> Heard {
        match request.at {
            Some(etcd) if etcd.port() == CLIENT_PORT => self.hear_etcd(slot, etcd, request),
            // Its own API server, which is not asked through the balancer while it is being made.
            Some(_) => self.hear_own(slot, request),
            None => {
                let server = self.api_of(slot).ok_or("connection refused")?;
                let cluster = self.hosts[server as usize].kube.cluster.ok_or("connection refused")?;
                let believed = match &request.identity.ca {
                    Material::Inline(ca) => ca.expose() == self.site.clusters[cluster].ca.as_bytes(),
                    Material::File(_) => false,
                };
                if !believed {
                    return Err("x509: certificate signed by unknown authority".to_owned());
                }
                self.hear_api(slot, cluster, request)
            }
        }
    }

    fn hear_own(&mut self, slot: Slot, request: &Request) -> Heard {
        if !self.has(slot, &at(API_MANIFEST)) {
            return Err("connection refused".to_owned());
        }
        let Ok(cluster) = self.own_cluster(slot) else { return says(503, &Value::Null) };
        let there = !request.path.contains("cluster-info") || self.site.clusters[cluster].announced;
        says(if there { 200 } else { 404 }, &Value::Null)
    }

    fn hear_api(&mut self, slot: Slot, cluster: usize, request: &Request) -> Heard {
        let path = request.path.split('?').next().unwrap_or_default();
        if let Some(name) = path.strip_prefix("/api/v1/nodes/") {
            return match (request.method, name.strip_suffix("/status")) {
                ("GET", None) if self.hosts[slot as usize].kube.name != name => {
                    let there = self.site.clusters[cluster].nodes.contains_key(name);
                    says(if there { 200 } else { 404 }, &json!({ "spec": {} }))
                }
                ("GET", None) => self.hear_of_node(slot, cluster, name),
                ("PATCH", None) => says(200, &Value::Null),
                // An administrator may delete any Node.
                ("DELETE", None) => self.take_node(slot, cluster, name, self.has(slot, &at("admin.conf"))),
                ("PATCH", Some(name)) => self.take_node(slot, cluster, name, false),
                _ => says(405, &Value::Null),
            };
        }
        match (request.method, path) {
            ("GET", "/api/v1/pods") => self.hear_of_pods(slot, cluster, &request.path),
            ("POST", path) if path.ends_with("/eviction") => says(429, &held()),
            ("GET", "/api/v1") => says(
                200,
                &json!({"resources": [{"name": "configmaps", "kind": "ConfigMap", "namespaced": true, "verbs": ["patch"]}]}),
            ),
            ("PATCH", path) => match path.rsplit_once("/m-").and_then(|(_, number)| number.parse().ok()) {
                Some(object) => self.apply(slot, cluster, object),
                None => says(404, &Value::Null),
            },
            _ => says(404, &Value::Null),
        }
    }

    /// A Pod that a budget holds, while it does; those that can be moved have been by the time that somebody looks.
    fn hear_of_pods(&mut self, slot: Slot, cluster: usize, path: &str) -> Heard {
        let node = path.split("spec.nodeName%3D").nth(1).and_then(|rest| rest.split('&').next()).unwrap_or_default();
        let there = self.site.clusters[cluster].nodes.get(node).map(|node| node.slot);
        let holds = |slot: Slot| {
            let faults = self.active.iter().filter(|fault| fault.targets.contains(&slot));
            faults.into_iter().any(|fault| self.plan[fault.index].kind == Sort::Budget)
        };
        if let Some(held) = there.filter(|there| holds(*there)) {
            self.took_on(held, &[Sort::Budget]);
            return says(200, &json!({ "items": [{ "metadata": { "namespace": "default", "name": "held" } }] }));
        }
        self.see(Seen::Drained { slot, node });
        says(200, &json!({ "items": [] }))
    }

    /// Whether a machine's Node is Ready: it is as soon as it is a member.
    fn hear_of_node(&mut self, slot: Slot, cluster: usize, name: &str) -> Heard {
        let kube = &mut self.hosts[slot as usize].kube;
        if kube.cluster != Some(cluster) || kube.renewal == Renewal::Overdue {
            return says(401, &Value::Null);
        }
        if kube.name != name {
            return says(404, &Value::Null);
        }
        kube.ready = true;
        says(200, &json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}))
    }

    /// A Node is deleted, or said not to be Ready: either way it keeps nobody out any more, unless the API server is told to
    /// refuse.
    fn take_node(&mut self, slot: Slot, cluster: usize, name: &str, any: bool) -> Heard {
        let refused = self
            .active
            .iter()
            .any(|fault| self.plan[fault.index].kind == Sort::NodeStays && fault.targets.contains(&slot));
        let nodes = &mut self.site.clusters[cluster].nodes;
        match nodes.get(name) {
            None => says(404, &Value::Null),
            Some(node) if node.slot != slot && !any => says(403, &Value::Null),
            Some(_) if refused => {
                self.took_on(slot, &[Sort::NodeStays]);
                says(403, &Value::Null)
            }
            Some(node) => {
                let another = node.slot != slot;
                nodes.remove(name);
                if another {
                    self.see(Seen::NodeTaken { slot, node: name });
                }
                says(200, &Value::Null)
            }
        }
    }

    /// Every second object is of a Namespace that is not there at first.
    fn apply(&mut self, slot: Slot, cluster: usize, object: u32) -> Heard {
        let now = self.now;
        let cluster = &mut self.site.clusters[cluster];
        if object % 2 == 1 && cluster.put_off.insert(object) {
            return says(404, &json!({"message": "namespaces \"later\" not found", "details": {"kind": "namespaces"}}));
        }
        cluster.manifests.entry(object).or_insert((slot, now));
        says(200, &Value::Null)
    }

    fn hear_etcd(&mut self, slot: Slot, at: SocketAddr, request: &Request) -> Heard {
        let silence = || Err(format!("{at} cannot be asked: connection refused"));
        let there =
            if at.ip().is_loopback() && request.path == RANGE { Some(slot) } else { self.slot_at(&at.to_string()) };
        let Some(other) = there.filter(|other| self.reaches_etcd(slot, *other)) else {
            return silence();
        };
        let Some(cluster) = self.hosts[other as usize].kube.cluster else { return silence() };
        if self.etcd_ca(slot) != self.etcd_ca(other) {
            return Err("x509: certificate signed by unknown authority".to_owned());
        }
        let agreed = request.body.expose() == AGREED.as_bytes();
        if request.path == LIST && (!agreed || self.has_quorum(other, cluster)) {
            return says(200, &self.member_list(cluster));
        }
        if request.path == RANGE && self.has_quorum(other, cluster) {
            return says(200, &json!({"header": {"revision": self.now.to_string()}}));
        }
        if ![REMOVE, LIST, RANGE].contains(&request.path.as_str()) {
            return says(404, &Value::Null);
        }
        if !self.has_quorum(other, cluster) {
            return says(503, &json!({"message": "context deadline exceeded"}));
        }
        let request: Value = serde_json::from_slice(request.body.expose()).unwrap_or_default();
        let gone = request["ID"].as_str().and_then(|id| id.parse::<Slot>().ok()).and_then(|id| id.checked_sub(1));
        match gone.filter(|gone| self.site.clusters[cluster].etcd.remove(gone)) {
            Some(gone) => {
                self.site.clusters[cluster].learners.remove(&gone);
                let stands = self.has_quorum(other, cluster);
                self.see(Seen::EtcdLeft { slot, gone, stands });
                says(200, &Value::Null)
            }
            None => says(404, &json!({"message": "etcdserver: member not found"})),
        }
    }

    fn etcd_ca(&self, slot: Slot) -> String {
        self.file(slot, "pki/etcd/ca.crt")
    }

    /// What etcd lists, as its gateway says it. A member's number is one more than its machine's; it says its name when it has
    /// started.
    fn member_list(&self, cluster: usize) -> Value {
        let member = |slot: &Slot| {
            let url = format!("https://{}:2380", Self::address(*slot));
            let kube = &self.hosts[*slot as usize].kube;
            let name = if kube.etcd && kube.cluster == Some(cluster) { kube.name.as_str() } else { "" };
            json!({ "ID": (slot + 1).to_string(), "name": name, "peerURLs": [url] })
        };
        json!({ "members": self.site.clusters[cluster].etcd.iter().map(member).collect::<Vec<_>>() })
    }

    pub(super) fn reaches_etcd(&self, slot: Slot, other: Slot) -> bool {
        let kube = &self.hosts[other as usize].kube;
        kube.etcd
            && kube.held.is_none()
            && (other == slot
                || !self.dark[other as usize] && !self.net.cuts(slot, other) && !self.net.cuts(other, slot))
    }

    /// Whether this machine reaches any machine with an etcd member, itself included.
    pub(super) fn reaches_any_etcd(&self, slot: Slot) -> bool {
        let others = self.hosts[slot as usize].api_servers.iter().filter_map(|server| self.slot_at(server));
        others.chain([slot]).any(|other| self.reaches_etcd(slot, other))
    }
}

/// What an API server says of a Pod that a budget holds.
fn held() -> Value {
    let cause = json!({ "reason": "DisruptionBudget", "message": "The disruption budget held needs 1 healthy pods and has 1 currently" });
    json!({ "message": "Cannot evict pod as it would violate the pod's disruption budget.", "details": { "causes": [cause] } })
}

/// A kubeconfig whose CA is this one.
pub(super) fn kubeconfig(ca: &str) -> Vec<u8> {
    let config = json!({
        "current-context": "site",
        "contexts": [{"name": "site", "context": {"cluster": "site", "user": "me"}}],
        "clusters": [{"name": "site", "cluster": {
            "server": "https://api.site.muster:7443",
            "certificate-authority-data": STANDARD.encode(ca),
        }}],
        "users": [{"name": "me", "user": {"token": "mine"}}],
    });
    config.to_string().into_bytes()
}

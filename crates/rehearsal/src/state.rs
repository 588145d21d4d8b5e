//! What the API servers of a rehearsed cluster know: in the place of etcd's contents. Every change is an [`Op`], applied
//! by the first started member that can be reached and pushed by it to the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::jws;
use crate::objects::{self, Objects};

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Counts changes.
    pub(crate) revision: u64,
    pub(crate) members: Vec<Member>,
    /// With what its founders began it together.
    #[serde(default)]
    pub(crate) founded_with: Option<String>,
    tokens: BTreeMap<String, Token>,
    nodes: BTreeMap<String, Node>,
    cluster_configuration: Option<Value>,
    components: Option<Value>,
    /// The kubeconfig in cluster-info.
    cluster_info: Option<String>,
    /// What was applied to the cluster.
    #[serde(default)]
    pub(crate) objects: Objects,
}

/// A member of the membership list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// `host:port` of its API server.
    pub(crate) address: String,
    /// A member that was added and has not started blocks every other change of the list.
    pub(crate) started: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Token {
    secret: String,
    /// Milliseconds since 1970.
    expires: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Node {
    control_plane: bool,
    /// Whether it takes nothing new.
    #[serde(default)]
    closed: bool,
    /// Milliseconds since 1970 from which it is Ready.
    ready_from: u64,
    /// Milliseconds since 1970 from which its kubelet is missed.
    missed_from: Option<u64>,
}

/// A change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Op {
    CreateToken { token: String, ttl_seconds: f64, replace: bool },
    DeleteToken { id: String },
    UploadCluster { configuration: Value },
    UploadComponents { components: Value },
    PublishClusterInfo { kubeconfig: String },
    RegisterNode { name: String, ready_after_ms: u64 },
    KubeletStopped { name: String, missed_after_ms: u64 },
    CloseNode { name: String, closed: bool },
    RemoveNode { name: String },
    MarkControlPlane { name: String },
    AddMember { name: String, address: String },
    MemberStarted { name: String, address: String },
    RemoveMember { name: String },
    ApplyObject { path: String, object: Value },
    CreateObject { path: String, object: Value },
}

impl Op {
    /// Whether it tells that this member is starting: that one applies nothing yet, whatever it was before.
    pub(crate) fn starts(&self, member: &str) -> bool {
        matches!(self, Self::MemberStarted { name, .. } if name == member)
    }
}

/// A refusal: status and words.
pub(crate) type Refusal = (u16, String);

impl State {
    /// Applies a change at `now`, in milliseconds since 1970.
    pub(crate) fn apply(&mut self, op: Op, now: u64) -> Result<Value, Refusal> {
        match op {
            Op::CreateToken { token, ttl_seconds, replace } => self.create_token(&token, ttl_seconds, replace, now)?,
            Op::DeleteToken { id } => {
                self.tokens.remove(&id).ok_or_else(|| (404, format!("secrets \"bootstrap-token-{id}\" not found")))?;
            }
            Op::UploadCluster { configuration } => self.cluster_configuration = Some(configuration),
            Op::UploadComponents { components } => self.components = Some(components),
            Op::PublishClusterInfo { kubeconfig } => self.cluster_info = Some(kubeconfig),
            Op::RegisterNode { name, ready_after_ms } => {
                let control_plane = self.nodes.get(&name).is_some_and(|node| node.control_plane);
                self.nodes.insert(
                    name,
                    Node { control_plane, closed: false, ready_from: now + ready_after_ms, missed_from: None },
                );
            }
            Op::KubeletStopped { name, missed_after_ms } => {
                let node = self.nodes.get_mut(&name).ok_or_else(|| (404, format!("nodes {name:?} not found")))?;
                node.missed_from = Some(now + missed_after_ms);
            }
            Op::CloseNode { name, closed } => {
                let node = self.nodes.get_mut(&name).ok_or_else(|| (404, format!("nodes {name:?} not found")))?;
                node.closed = closed;
            }
            Op::RemoveNode { name } => {
                self.nodes.remove(&name).ok_or_else(|| (404, format!("nodes {name:?} not found")))?;
            }
            Op::MarkControlPlane { name } => {
                let node = self.nodes.get_mut(&name).ok_or_else(|| (404, format!("nodes {name:?} not found")))?;
                node.control_plane = true;
            }
            Op::AddMember { name, address } => self.add_member(name, address)?,
            Op::MemberStarted { name, address } => self.member_started(name, address),
            Op::RemoveMember { name } => self.remove_member(&name)?,
            Op::ApplyObject { path, object } => drop(objects::apply(&mut self.objects, &path, object)?),
            Op::CreateObject { path, object } => drop(objects::create(&mut self.objects, &path, object)?),
        }
        self.revision += 1;
        Ok(json!({ "members": self.members }))
    }

    fn create_token(&mut self, token: &str, ttl_seconds: f64, replace: bool, now: u64) -> Result<(), Refusal> {
        let (id, secret) = token.split_once('.').ok_or_else(|| (400, "malformed token".to_owned()))?;
        if !replace && self.secret_of(id, now).is_some() {
            return Err((409, format!("a token with id {id:?} already exists")));
        }
        let expires = (ttl_seconds > 0.0).then(|| now + (ttl_seconds * 1000.0) as u64);
        self.tokens.insert(id.to_owned(), Token { secret: secret.to_owned(), expires });
        Ok(())
    }

    /// As etcd: one change of the membership at a time, told by whether a member has not started yet.
    fn add_member(&mut self, name: String, address: String) -> Result<(), Refusal> {
        match self.members.iter().find(|member| !member.started) {
            Some(waiting) if waiting.name == name => Ok(()),
            Some(_) => Err((503, "etcdserver: unhealthy cluster".to_owned())),
            None if self.members.iter().any(|member| member.name == name) => {
                Err((409, "etcdserver: Peer URLs already exists".to_owned()))
            }
            None => {
                self.members.push(Member { name, address, started: false });
                Ok(())
            }
        }
    }

    /// It comes behind those that run: the first of them applies the changes, and must stay the first while changes are on their way.
    fn member_started(&mut self, name: String, address: String) {
        self.members.retain(|member| member.name != name);
        self.members.push(Member { name, address, started: true });
        self.members.sort_by_key(|member| !member.started);
    }

    fn remove_member(&mut self, name: &str) -> Result<(), Refusal> {
        if self.members.len() == 1 {
            return Err((409, "etcdserver: re-configuration failed due to not enough started members".to_owned()));
        }
        self.members.retain(|member| member.name != name);
        Ok(())
    }

    /// The members as etcd lists them: numbers are text, and one that has not started has no name yet.
    pub(crate) fn etcd_list(&self) -> Value {
        let member = |member: &Member| {
            let host = member.address.rsplit_once(':').map_or(member.address.as_str(), |(host, _)| host);
            let peer = format!("https://{host}:2380");
            match member.started {
                true => json!({ "ID": number(&member.name), "name": member.name, "peerURLs": [peer] }),
                false => json!({ "ID": number(&member.name), "peerURLs": [peer] }),
            }
        };
        self.members.iter().map(member).collect()
    }

    /// Whose number this is.
    pub(crate) fn member_by_id(&self, id: &str) -> Option<String> {
        self.members.iter().find(|member| number(&member.name) == id).map(|member| member.name.clone())
    }

    /// A live token's secret.
    pub(crate) fn secret_of(&self, id: &str, now: u64) -> Option<&str> {
        let token = self.tokens.get(id)?;
        token.expires.is_none_or(|expires| expires > now).then_some(token.secret.as_str())
    }

    /// The cluster-info ConfigMap, signed for every live token.
    pub(crate) fn cluster_info(&self, now: u64) -> Option<Value> {
        let kubeconfig = self.cluster_info.as_ref()?;
        let mut data = json!({ "kubeconfig": kubeconfig });
        for id in self.tokens.keys() {
            if let Some(secret) = self.secret_of(id, now) {
                data[format!("jws-kubeconfig-{id}")] = json!(jws::sign(kubeconfig, id, secret));
            }
        }
        Some(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "cluster-info" }, "data": data }))
    }

    /// What `upload-config` put there.
    pub(crate) fn configuration(&self) -> Option<Value> {
        Some(json!({ "cluster": self.cluster_configuration.clone()?, "components": self.components.clone()? }))
    }

    pub(crate) fn token_ids(&self, now: u64) -> Vec<&String> {
        self.tokens.keys().filter(|id| self.secret_of(id, now).is_some()).collect()
    }

    pub(crate) fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// A Node object.
    pub(crate) fn node(&self, name: &str, now: u64) -> Option<Value> {
        let node = self.nodes.get(name)?;
        let missed = node.missed_from.is_some_and(|from| now >= from);
        let (status, reason, message) = match now >= node.ready_from {
            _ if missed => ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status (a rehearsal)"),
            true => ("True", "KubeletReady", "a rehearsal: no kubelet runs"),
            false => ("False", "KubeletNotReady", "container runtime network not ready (a rehearsal)"),
        };
        let mut labels = json!({ "kubernetes.io/hostname": name });
        if node.control_plane {
            labels["node-role.kubernetes.io/control-plane"] = json!("");
        }
        Some(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name, "labels": labels },
            "spec": { "unschedulable": node.closed },
            "status": { "conditions": [
                { "type": "Ready", "status": status, "reason": reason, "message": message },
            ]},
        }))
    }

    /// All Nodes.
    pub(crate) fn node_list(&self, now: u64) -> Value {
        let items: Vec<_> = self.nodes.keys().filter_map(|name| self.node(name, now)).collect();
        json!({ "apiVersion": "v1", "kind": "NodeList", "items": items })
    }
}

/// A member's number: FNV-1a of its name, which is enough for a rehearsal.
fn number(name: &str) -> String {
    let number = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |number, byte| (number ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    number.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(state: &mut State, name: &str) -> Result<Value, Refusal> {
        state.apply(Op::AddMember { name: name.into(), address: format!("{name}:6443") }, 0)
    }

    fn started(state: &mut State, name: &str) {
        state.apply(Op::MemberStarted { name: name.into(), address: format!("{name}:6443") }, 0).expect("applies");
    }

    #[test]
    fn one_member_is_added_at_a_time() {
        let mut state = State::default();
        started(&mut state, "m1");
        add(&mut state, "m2").expect("is added");
        assert_eq!(add(&mut state, "m3"), Err((503, "etcdserver: unhealthy cluster".into())));
        add(&mut state, "m2").expect("once more is fine");
        started(&mut state, "m2");
        add(&mut state, "m3").expect("is added");
        state.apply(Op::RemoveMember { name: "m3".into() }, 0).expect("is removed");
        add(&mut state, "m4").expect("nobody waits any more");
    }

    #[test]
    fn who_starts_later_or_again_comes_last() {
        let mut state = State::default();
        let founder = |name: &str| Member { name: name.into(), address: format!("{name}:6443"), started: false };
        state.members = ["m1", "m2", "m3"].map(founder).into();
        for name in ["m2", "m1", "m2"] {
            started(&mut state, name);
        }
        let listed: Vec<_> = state.members.iter().map(|member| (member.name.as_str(), member.started)).collect();
        assert_eq!(listed, [("m1", true), ("m2", true), ("m3", false)]);
    }

    #[test]
    fn a_node_is_ready_after_a_while_and_as_long_as_its_kubelet_runs() {
        let mut state = State::default();
        let register = || Op::RegisterNode { name: "m1".into(), ready_after_ms: 10 };
        state.apply(register(), 0).expect("registers");
        let status =
            |state: &State, now| state.node("m1", now).expect("is there")["status"]["conditions"][0]["status"].clone();
        assert_eq!((status(&state, 9), status(&state, 10)), (json!("False"), json!("True")));
        state.apply(Op::KubeletStopped { name: "m1".into(), missed_after_ms: 40 }, 20).expect("stops");
        assert_eq!((status(&state, 59), status(&state, 60)), (json!("True"), json!("Unknown")));
        state.apply(register(), 100).expect("registers again");
        assert_eq!(status(&state, 110), json!("True"));
    }

    #[test]
    fn a_token_lives_as_long_as_its_ttl() {
        let mut state = State::default();
        let token = || "abcdef.0123456789abcdef".to_owned();
        let create = |replace| Op::CreateToken { token: token(), ttl_seconds: 1.0, replace };
        state.apply(create(false), 0).expect("is created");
        assert_eq!(state.secret_of("abcdef", 999), Some("0123456789abcdef"));
        assert_eq!(state.secret_of("abcdef", 1000), None);
        assert!(state.apply(create(false), 10).is_err());
        state.apply(create(true), 10).expect("init may repeat itself");
        state.apply(Op::DeleteToken { id: "abcdef".into() }, 20).expect("is deleted");
        assert!(state.apply(Op::DeleteToken { id: "abcdef".into() }, 20).is_err());
    }
}

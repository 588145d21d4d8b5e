//! A Node from which everything is moved away, as `kubectl drain` does it (`staging/src/k8s.io/kubectl/pkg/drain/drain.go`): nothing new
//! comes to it, and its Pods are evicted, which respects budgets. Mirror Pods and those of DaemonSets stay: they belong to the machine.

use serde_json::{Value, json};

use crate::api::ANSWER_LIMIT;

/// Most Pods that are asked for at once: one is some thousand bytes.
const PODS: u32 = 50;

/// Longest explanation, in characters.
const WHY_CHARS_MAX: usize = 180;

/// A Pod that has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether it is going already.
    pub ends: bool,
}

impl std::fmt::Display for Pod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The path of a Node. `name` is a DNS label, as every Node name of muster's is.
pub fn node(name: &str) -> String {
    format!("/api/v1/nodes/{name}")
}

/// What marks a Node that muster closed, and nobody else.
const MARK: &str = "muster/closed";

/// The body of the request (a strategic merge patch) that lets nothing new come to a Node; none if nothing does.
pub fn close(node: &Value) -> Option<String> {
    let closed = node["spec"]["unschedulable"] == true;
    (!closed).then(|| {
        json!({ "metadata": { "annotations": { MARK: "drain" } }, "spec": { "unschedulable": true } }).to_string()
    })
}

/// The body of the one that lets something come to it again; none if it was not muster that closed it.
pub fn open(node: &Value) -> Option<String> {
    let ours = node["metadata"]["annotations"][MARK].is_string();
    ours.then(|| {
        json!({ "metadata": { "annotations": { MARK: null } }, "spec": { "unschedulable": null } }).to_string()
    })
}

/// The path that lists the Pods of a Node from where an earlier answer ended.
pub fn pods(node: &str, from: &str) -> String {
    let from: String = url(from);
    format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&limit={PODS}&continue={from}")
}

/// What is not a letter or a digit is written as such in a query.
fn url(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Reads a list of Pods: those that have to go, and where the next list begins, if there is one.
///
/// # Errors
/// It is no such list.
pub fn listed(status: u16, body: &[u8]) -> Result<(Vec<Pod>, Option<String>), String> {
    if status != 200 || body.len() > ANSWER_LIMIT {
        return Err(format!("the API server does not list Pods (status {status})"));
    }
    let answer: Value = serde_json::from_slice(body).map_err(|_| "the list of Pods is not JSON".to_owned())?;
    let items = answer["items"].as_array().ok_or_else(|| "the list of Pods has no items".to_owned())?;
    let next = answer["metadata"]["continue"].as_str().filter(|next| !next.is_empty()).map(str::to_owned);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pod = |item: &Value| {
        let metadata = &item["metadata"];
        Pod {
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
            ends: metadata["deletionTimestamp"].is_string(),
        }
    };
    Ok((items.iter().filter(|item| moves(&item["metadata"])).map(pod).collect(), next))
}

/// Whether a Pod can be moved.
fn moves(metadata: &Value) -> bool {
    let mirror = metadata["annotations"]["kubernetes.io/config.mirror"].is_string();
    let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    let daemon = owners.iter().any(|owner| owner["controller"] == true && owner["kind"] == "DaemonSet");
    !mirror && !daemon
}

/// The path and body of the request that evicts a Pod.
pub fn evict(pod: &Pod) -> (String, String) {
    let path = format!("/api/v1/namespaces/{}/pods/{}/eviction", pod.namespace, pod.name);
    let metadata = json!({ "name": pod.name, "namespace": pod.namespace });
    (path, json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata }).to_string())
}

/// Whether an eviction was taken.
///
/// # Errors
/// What holds the Pod: for a budget the API server's own words, which name it.
pub fn evicted(status: u16, body: &[u8]) -> Result<(), String> {
    if matches!(status, 200..300 | 404) {
        return Ok(());
    }
    let answer: Value = match body.len() <= ANSWER_LIMIT {
        true => serde_json::from_slice(body).unwrap_or_default(),
        false => Value::Null,
    };
    let causes = answer["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let budget = causes.iter().find(|cause| cause["reason"] == "DisruptionBudget");
    let said = budget.and_then(|cause| cause["message"].as_str()).or(answer["message"].as_str());
    let said: String = said.unwrap_or_default().chars().filter(|c| !c.is_control()).take(WHY_CHARS_MAX).collect();
    Err(if said.is_empty() { format!("the API server answers with status {status}") } else { said })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_belongs_to_the_machine_stays() {
        let body = br#"{"metadata": {"continue": "x+/="}, "items": [
            {"metadata": {"namespace": "default", "name": "web-0", "ownerReferences": [{"kind": "ReplicaSet", "controller": true}]}},
            {"metadata": {"namespace": "kube-system", "name": "etcd-m1", "annotations": {"kubernetes.io/config.mirror": "1"}}},
            {"metadata": {"namespace": "kube-system", "name": "kube-proxy-x", "ownerReferences": [{"kind": "DaemonSet", "controller": true}]}},
            {"metadata": {"namespace": "default", "name": "bare", "deletionTimestamp": "2026-11-27T00:00:00Z"}}]}"#;
        let (pods, next) = listed(200, body).expect("a list");
        let pods: Vec<(String, bool)> = pods.iter().map(|pod| (pod.to_string(), pod.ends)).collect();
        assert_eq!(pods, [("default/web-0".to_owned(), false), ("default/bare".to_owned(), true)]);
        assert_eq!(
            super::pods("m1", &next.unwrap_or_default()).split_once("continue=").unwrap_or_default().1,
            "x%2B%2F%3D"
        );
    }

    #[test]
    fn a_budget_is_named() {
        // As Kubernetes 1.37 answers.
        let body = br#"{"kind": "Status", "status": "Failure", "message": "Cannot evict pod as it would violate the pod's disruption budget.",
            "reason": "TooManyRequests", "code": 429, "details": {"causes": [{"reason": "DisruptionBudget",
            "message": "The disruption budget web needs 1 healthy pods and has 1 currently"}]}}"#;
        assert_eq!(
            evicted(429, body).expect_err("held"),
            "The disruption budget web needs 1 healthy pods and has 1 currently"
        );
        assert!(evicted(404, b"").is_ok() && evicted(201, b"").is_ok());
        assert_eq!(evicted(500, b"<html>").expect_err("held"), "the API server answers with status 500");
    }

    #[test]
    fn only_what_was_closed_for_a_drain_is_opened_again() {
        let node = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
        assert!(close(&node("{}")).is_some_and(|body| body.contains("muster/closed")) && open(&node("{}")).is_none());
        let others = node(r#"{"spec": {"unschedulable": true}}"#);
        assert!(close(&others).is_none() && open(&others).is_none());
        let ours =
            node(r#"{"metadata": {"annotations": {"muster/closed": "drain"}}, "spec": {"unschedulable": true}}"#);
        assert!(close(&ours).is_none() && open(&ours).is_some_and(|body| body.contains("null")));
    }

    #[test]
    fn what_is_no_list_is_not_taken_for_an_empty_one() {
        assert!(listed(200, b"{}").is_err() && listed(403, b"{\"items\": []}").is_err() && listed(200, b"x").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(status in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (listed(status, &body), evicted(status, &body));
        }
    }
}

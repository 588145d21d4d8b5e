//! The Node of a machine that is reset. It looks Ready for most of a minute after its kubelet stopped (the node lifecycle
//! controller's grace period: 50 s since Kubernetes 1.32, 40 s before), and kubeadm keeps a machine of the name of a Ready Node out
//! (`cmd/kubeadm/app/cmd/phases/join/kubelet.go`). A control plane has it deleted with its administrator's identity. A
//! worker has the kubelet's, which may not delete a Node and may say how its own is (`system:node` in
//! `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go`): it says that it is not Ready.

use serde_json::json;

/// Whose identity asks, and so what can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// An administrator's: the Node goes.
    Delete,
    /// The kubelet's: the Node is said not to be Ready. To be asked when the kubelet has stopped, or it says otherwise.
    NotReady,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `DELETE` or `PATCH`.
    pub method: &'static str,
    /// Its path.
    pub path: String,
    /// Of the body.
    pub content_type: &'static str,
    /// The body; may be empty.
    pub body: String,
}

impl Farewell {
    /// What to ask of the API server. `name` is a DNS label, as every Node name of muster's is.
    pub fn request(self, name: &str) -> Request {
        let path = format!("/api/v1/nodes/{name}");
        match self {
            Farewell::Delete => {
                Request { method: "DELETE", path, content_type: "application/json", body: String::new() }
            }
            Farewell::NotReady => {
                let condition = json!({ "type": "Ready", "status": "False", "reason": "MachineReset",
                    "message": "muster reset this machine" });
                Request {
                    method: "PATCH",
                    path: format!("{path}/status"),
                    content_type: "application/strategic-merge-patch+json",
                    body: json!({ "status": { "conditions": [condition] } }).to_string(),
                }
            }
        }
    }

    /// Whether this answer means that the Node keeps nobody out any more.
    ///
    /// # Errors
    /// What the API server says instead.
    pub fn judge(status: u16) -> Result<(), String> {
        match status {
            200..300 | 404 => Ok(()),
            _ => Err(format!("the API server answers with status {status} to the farewell of this machine's Node")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_deleted_or_said_not_to_be_ready() {
        let delete = Farewell::Delete.request("m1");
        assert_eq!((delete.method, delete.path.as_str(), delete.body.as_str()), ("DELETE", "/api/v1/nodes/m1", ""));
        let patch = Farewell::NotReady.request("m1");
        assert_eq!((patch.method, patch.path.as_str()), ("PATCH", "/api/v1/nodes/m1/status"));
        let body: serde_json::Value = serde_json::from_str(&patch.body).expect("JSON");
        assert_eq!(body["status"]["conditions"][0]["status"], "False");
    }

    #[test]
    fn gone_is_as_good_as_deleted() {
        assert!(Farewell::judge(200).is_ok() && Farewell::judge(404).is_ok());
        assert!(Farewell::judge(403).is_err() && Farewell::judge(500).is_err());
    }
}

//! Questions to an API server and what their answers mean: does it serve, is the Node Ready.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// Answers larger than this are cut off and then not understood.
pub const ANSWER_LIMIT: usize = 1 << 20;

/// A question to ask again and again (every 100 ms is fine) until [`Wait::met`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// The name for people and errors, in the place of a phase.
    pub phase: String,
    /// `host:port` of the API server, also its name in TLS. When it is the cluster's endpoint, the agent may dial its
    /// own balancer for it.
    pub server: String,
    /// Path and query of the GET request.
    pub path: String,
    /// Holds the CA and the identity to ask with. Read it anew for every attempt: the kubelet renews it.
    pub kubeconfig: PathBuf,
    /// What the answer must say.
    pub until: Until,
    /// Longest wait.
    pub limit: Duration,
}

/// What an answer must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// Status 200.
    Serving,
    /// The Node's `Ready` condition is `True`.
    NodeReady,
}

impl Wait {
    /// Whether this answer ends the wait.
    ///
    /// # Errors
    /// What is still missing, in words for people.
    pub fn met(&self, status: u16, body: &[u8]) -> Result<(), String> {
        let parsed = || match (status, body.len() <= ANSWER_LIMIT) {
            (200, true) => serde_json::from_slice::<Value>(body).map_err(|_| "its answer is not JSON".to_owned()),
            (200, false) => Err("its answer is too long".to_owned()),
            _ => Err(refusal(status)),
        };
        match self.until {
            Until::Serving if status == 200 => Ok(()),
            Until::Serving => Err(refusal(status)),
            Until::NodeReady => match node_readiness(&parsed()?) {
                Readiness::Ready => Ok(()),
                Readiness::NotReady { reason } => Err(format!("the Node is not Ready: {reason}")),
            },
        }
    }
}

fn refusal(status: u16) -> String {
    match status {
        404 => "it is not there yet".to_owned(),
        401 | 403 => format!("the API server refuses this machine's identity (status {status})"),
        _ => format!("the API server answers with status {status}"),
    }
}

/// A Node's `Ready` condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// `True`.
    Ready,
    /// Anything else, or no condition at all.
    NotReady {
        /// The kubelet's words, at most 200 characters.
        reason: String,
    },
}

/// Reads the conditions of a Node object.
pub fn node_readiness(node: &Value) -> Readiness {
    let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(ready) = conditions.iter().find(|condition| condition["type"] == "Ready") else {
        return Readiness::NotReady { reason: "the kubelet has reported nothing yet".to_owned() };
    };
    if ready["status"] == "True" {
        return Readiness::Ready;
    }
    let words =
        ["message", "reason", "status"].iter().find_map(|key| ready[key].as_str().filter(|text| !text.is_empty()));
    Readiness::NotReady { reason: words.unwrap_or("no reason given").chars().take(200).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wait(until: Until) -> Wait {
        Wait {
            phase: "await-ready".into(),
            server: "api.site.muster:7443".into(),
            path: "/api/v1/nodes/m1".into(),
            kubeconfig: "/etc/kubernetes/kubelet.conf".into(),
            until,
            limit: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_node_is_ready_when_it_says_so() {
        let node = |conditions: &str| format!("{{\"status\": {{\"conditions\": {conditions}}}}}");
        let met = |body: &str| wait(Until::NodeReady).met(200, body.as_bytes());
        assert_eq!(
            met(&node(r#"[{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]"#)),
            Ok(())
        );
        let waiting = met(&node(r#"[{"type": "Ready", "status": "False", "message": "cni plugin not initialized"}]"#));
        assert_eq!(waiting, Err("the Node is not Ready: cni plugin not initialized".into()));
        let unknown = met(&node(r#"[{"type": "Ready", "status": "Unknown"}]"#));
        assert_eq!(unknown, Err("the Node is not Ready: Unknown".into()));
        assert_eq!(met("{}"), Err("the Node is not Ready: the kubelet has reported nothing yet".into()));
        assert_eq!(met("<html>"), Err("its answer is not JSON".into()));
        assert_eq!(wait(Until::NodeReady).met(404, b""), Err("it is not there yet".into()));
        assert!(wait(Until::NodeReady).met(401, b"").is_err());
        assert_eq!(wait(Until::Serving).met(200, b"anything"), Ok(()));
        assert!(wait(Until::Serving).met(500, b"").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(status in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = wait(Until::NodeReady).met(status, &body);
        }
    }
}

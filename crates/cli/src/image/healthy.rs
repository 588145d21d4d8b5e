//! `muster image healthy`: whether this machine is well with the image that it runs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use muster_protocol::{Phase, Status};
use serde_json::json;

use crate::args::HealthyArguments;
use crate::exit::Exit;
use crate::look::agent;
use crate::print;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// Where a Node's own kubeconfig is.
const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";

/// Where a kubelet tells of its health.
const KUBELET: &str = "127.0.0.1:10248";

/// Waits until this machine is well with the image that it runs.
///
/// # Errors
/// When standard output cannot be written.
pub(super) async fn healthy(arguments: &HealthyArguments) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let boot = muster_agent::update::boot();
    loop {
        let wrong = wrong(arguments, &boot).await;
        let is_over = begun.elapsed() >= Duration::from_secs(arguments.timeout);
        let Some(why) = wrong else {
            match arguments.json {
                true => print::line(&json!({ "healthy": true }).to_string())?,
                false => print::line("this machine is well")?,
            };
            return Ok(Exit::Done);
        };
        if is_over {
            if arguments.json {
                print::line(&json!({ "healthy": false, "why": why }).to_string())?;
            }
            print::complaint(&format!("this machine is not well: {why}"));
            return Ok(Exit::Failed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why this machine is not well yet; none if it is. What others do counts for nothing.
async fn wrong(arguments: &HealthyArguments, boot: &str) -> Option<String> {
    let status: Status = match agent(&arguments.whom) {
        Ok(agent) => match agent.json("/v1/status").await {
            Ok(status) => status,
            Err(error) => return Some(error.to_string()),
        },
        Err(error) => return Some(error.to_string()),
    };
    let is_a_node = Path::new(KUBECONFIG).exists();
    if let Some(why) = unready(&status, is_a_node) {
        return Some(why);
    }
    if !is_a_node {
        return None;
    }
    match node(&status.name, boot) {
        Ok(()) => None,
        // That nobody answers is the control planes' matter; what is this machine's own is its kubelet.
        Err(Unwell::Unanswered(why)) => kubelet().await.err().map(|error| format!("{why}; and {error:#}")),
        Err(Unwell::Node(why)) => Some(why),
    }
}

/// What the agent says of itself that is no health. Ready is; and so is a machine that is no Node yet, if it sees others: what it waits for
/// is theirs.
fn unready(status: &Status, is_a_node: bool) -> Option<String> {
    let sees_somebody = status.peers.iter().any(|peer| peer.connected);
    match status.phase {
        Phase::Ready => None,
        Phase::Meeting | Phase::Founding | Phase::Waiting if sees_somebody && !is_a_node => None,
        phase => {
            let reasons: Vec<&str> = status.waiting.iter().map(|reason| reason.text.as_str()).collect();
            Some(format!("it is {}: {}", phase.word(), reasons.join("; ")))
        }
    }
}

/// Why a Node is not known to be well.
#[derive(Debug, PartialEq, Eq)]
enum Unwell {
    /// No API server told of it.
    Unanswered(String),
    /// What was told.
    Node(String),
}

/// Asks, with the Node's own credentials, whether it is Ready since this boot: what a kubelet said before lasts for a while.
fn node(name: &str, boot: &str) -> Result<(), Unwell> {
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["--kubeconfig", KUBECONFIG, "--request-timeout=10s", "get", "node", name, "--output", "json"]);
    let said = match kubectl.stdin(Stdio::null()).output() {
        Ok(said) => said,
        // A machine without a Kubernetes has nothing to ask.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Unwell::Unanswered(format!("kubectl cannot be started: {error}"))),
    };
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        return Err(Unwell::Unanswered(format!("its Node cannot be asked for: {why}")));
    }
    is_ready(&said.stdout, boot)
}

fn is_ready(node: &[u8], boot: &str) -> Result<(), Unwell> {
    let node: serde_json::Value = serde_json::from_slice(node)
        .map_err(|error| Unwell::Unanswered(format!("kubectl's answer is no JSON: {error}")))?;
    let status = &node["status"];
    if status["nodeInfo"]["bootID"] != boot {
        return Err(Unwell::Node("its kubelet has not been heard since this boot".to_owned()));
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
    match ready.map(|condition| &condition["status"]) {
        Some(status) if status == "True" => Ok(()),
        _ => {
            let message = ready.map_or("it says nothing", |one| one["message"].as_str().unwrap_or("?"));
            Err(Unwell::Node(format!("its Node is not Ready: {message}")))
        }
    }
}

/// Whether this machine's kubelet says that it is well: its `/healthz`, at the address that the kubelet's documentation gives.
async fn kubelet() -> anyhow::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let asked = async {
        let mut stream = tokio::net::TcpStream::connect(KUBELET).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), asked).await.context("its kubelet does not answer")?;
    let answer = answer.context("its kubelet does not answer")?;
    let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    if line.split(' ').nth(1) == Some("200") { Ok(()) } else { bail!("its kubelet says {line:?}") }
}

#[cfg(test)]
mod tests {
    use muster_protocol::status::Peer;

    use super::*;

    #[test]
    fn health_is_this_machines_own_and_not_the_clusters() {
        let peer = |connected| Peer { connected, ..Peer::default() };
        let status = |phase, connected: &[bool]| Status {
            phase,
            peers: connected.iter().map(|one| peer(*one)).collect(),
            ..Status::default()
        };
        for (phase, peers, as_new, as_node) in [
            (Phase::Ready, &[][..], true, true),
            (Phase::Ready, &[false], true, true),
            // A member whose ledger has not come yet is Waiting as well.
            (Phase::Waiting, &[false, true], true, false),
            (Phase::Waiting, &[false], false, false),
            (Phase::Meeting, &[], false, false),
            (Phase::Founding, &[true], true, false),
            (Phase::Joining, &[true], false, false),
            (Phase::Halted, &[true], false, false),
        ] {
            let status = status(phase, peers);
            assert_eq!(unready(&status, false).is_none(), as_new, "{phase:?} {peers:?}");
            assert_eq!(unready(&status, true).is_none(), as_node, "{phase:?} {peers:?}");
        }
    }

    #[test]
    fn a_node_counts_from_this_boot_on() {
        let node = |boot: &str, ready: &str| {
            let conditions = json!([{ "type": "MemoryPressure", "status": "False" }, { "type": "Ready", "status": ready, "message": "why" }]);
            json!({ "status": { "nodeInfo": { "bootID": boot }, "conditions": conditions } }).to_string().into_bytes()
        };
        assert!(is_ready(&node("b", "True"), "b").is_ok());
        let wrong = |node: &[u8]| is_ready(node, "b").expect_err("not well");
        let own = |text: &str| Unwell::Node(text.to_owned());
        assert_eq!(wrong(&node("a", "True")), own("its kubelet has not been heard since this boot"));
        assert_eq!(wrong(&node("b", "False")), own("its Node is not Ready: why"));
        assert!(matches!(wrong(b"{}"), Unwell::Node(_)) && matches!(wrong(b"x"), Unwell::Unanswered(_)));
    }
}

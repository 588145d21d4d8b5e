//! `muster image slots`, `healthy` and `factory-reset`: the images on this machine's disk.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use muster_image::slots::{Machine, Slot};
use muster_protocol::{Phase, Status};
use serde_json::json;

use crate::args::{ConfirmArguments, HealthyArguments};
use crate::exit::Exit;
use crate::leave::agreed;
use crate::look::agent;
use crate::{print, text};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// Where a Node's own kubeconfig is.
const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";

/// Where a kubelet tells of its health.
const KUBELET: &str = "127.0.0.1:10248";

/// systemd's variable by which systemd-repart is told to begin anew: systemd-repart(8), `FactoryReset=`.
const FACTORY_RESET: &str = "/sys/firmware/efi/efivars/FactoryReset-8cf2644b-4b0b-428f-9387-6d876050dc67";

/// Shows the slots of this machine's disk.
///
/// # Errors
/// When it has none, or standard output cannot be written.
pub(super) fn list(json: bool) -> anyhow::Result<Exit> {
    let machine = Machine::here()?;
    let slots = machine.slots()?;
    if json {
        print::line(&json!({ "disk": machine.disk, "running": machine.running, "slots": slots }).to_string())?;
        return Ok(Exit::Done);
    }
    print::line(&describe(&slots))?;
    Ok(Exit::Done)
}

fn describe(slots: &[Slot]) -> String {
    let mut rows = vec![["SLOT", "SETTINGS", "ROOT HASH", "KERNEL", "STATE"].map(str::to_owned).to_vec()];
    for slot in slots {
        let short = |text: Option<&String>| text.map_or("-".to_owned(), |text| text.chars().take(12).collect());
        rows.push(vec![
            slot.letter.to_string(),
            short(slot.contents.as_ref().map(|contents| &contents.settings)),
            short(slot.kernel.as_ref().map(|kernel| &kernel.root_hash)),
            slot.kernel.as_ref().map_or("-".to_owned(), |kernel| kernel.file.clone()),
            slot.state(),
        ]);
    }
    text::table(&rows).join("\n")
}

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

/// Has the next start make this machine's state anew.
///
/// # Errors
/// When this machine has no image's disk, or its firmware takes nothing.
pub(super) fn factory_reset(arguments: &ConfirmArguments) -> anyhow::Result<Exit> {
    Machine::here()?;
    let steps = "this machine forgets all that it is: its identity, etcd's data, containers, journals, what was written to /etc; \
                 `muster reset` would let it leave the cluster first. It starts anew, and asks to be admitted as another machine";
    if !confirmed(arguments, steps, "Forget all of it and start anew?")? {
        return Ok(if arguments.dry_run { Exit::Done } else { Exit::Failed });
    }
    // UEFI 2.10, 8.2: non-volatile, and there for the boot's programs and for the system; then the text, which systemd reads as yes.
    let mut value = 7u32.to_le_bytes().to_vec();
    value.extend("yes\0".encode_utf16().flat_map(u16::to_le_bytes));
    std::fs::write(FACTORY_RESET, value)
        .context("the firmware takes no variable: was this machine started by UEFI?")?;
    restart(arguments)
}

/// Whether what a command does is wanted: says it, and asks unless that was said already.
///
/// # Errors
/// When nobody can be asked.
pub(super) fn confirmed(arguments: &ConfirmArguments, what: &str, question: &str) -> anyhow::Result<bool> {
    if arguments.dry_run {
        match arguments.json {
            true => print::line(&json!({ "would": what }).to_string())?,
            false => print::line(&format!("nothing is changed. It would be so: {what}"))?,
        };
        return Ok(false);
    }
    if arguments.yes {
        return Ok(true);
    }
    print::complaint(what);
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here: say --yes, or look first with --dry-run");
    }
    let agreed = agreed(&format!("{question} [y/N] "))?;
    if !agreed {
        print::complaint("nothing is changed");
    }
    Ok(agreed)
}

/// Starts the machine again, unless that was not wanted.
pub(super) fn restart(arguments: &ConfirmArguments) -> anyhow::Result<Exit> {
    if arguments.json {
        print::line(&json!({ "done": true, "restarts": !arguments.no_reboot }).to_string())?;
    }
    if arguments.no_reboot {
        if !arguments.json {
            print::line("done; it takes effect at the next start: systemctl reboot")?;
        }
        return Ok(Exit::Done);
    }
    if !arguments.json {
        print::line("done; this machine starts again")?;
    }
    let asked = Command::new("systemctl").arg("reboot").stdin(Stdio::null()).status();
    if asked.context("systemctl cannot be started")?.success() {
        Ok(Exit::Done)
    } else {
        bail!("systemctl reboot failed")
    }
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

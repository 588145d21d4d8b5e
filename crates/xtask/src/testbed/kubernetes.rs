//! What Kubernetes itself says, asked from the host through the machines.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::layout::Testbed;
use super::machine::Machine;
use crate::command::{output, run};

/// How long one question may take: a machine that is cut off must not hold up the others' answers.
const ANSWER_TIMEOUT: &str = "--request-timeout=3s";
/// How long a connection may take to whatever is on this host.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// Where kubeadm's API servers listen.
const API_SERVER_PORT: u16 = 6443;

/// A way to talk to the testbed's cluster as its administrator.
pub(crate) struct Cluster {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    endpoint_name: String,
    /// `https://...` of the machine that answered last.
    server: String,
}

/// What one look at the cluster found.
pub(crate) struct View {
    pub(crate) nodes: Vec<Node>,
    /// How many members etcd has, or why it could not be asked.
    pub(crate) etcd_members: Result<usize, String>,
    /// Names of the machines through which the API answered.
    pub(crate) answering: Vec<String>,
}

/// A Kubernetes Node.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) ready: bool,
    pub(crate) control_plane: bool,
}

impl Cluster {
    /// Whether any machine's own API server takes connections: nobody need be asked before.
    pub(crate) fn listens(testbed: &Testbed) -> bool {
        let reached = |machine: &Machine| {
            let at = SocketAddr::from((machine.address, API_SERVER_PORT));
            TcpStream::connect_timeout(&at, CONNECT_TIMEOUT).is_ok()
        };
        testbed.machines.iter().filter(|machine| machine.running()).any(reached)
    }

    /// Finds a machine that holds an administrator's kubeconfig, and one through which the API answers to it.
    pub(crate) fn find(testbed: &Testbed) -> Result<Self> {
        let kubeconfig = testbed.state.join("admin.conf");
        let mut last = anyhow::anyhow!("no machine has an administrator's kubeconfig yet");
        for holder in &testbed.machines {
            let Ok(contents) = fs::read(holder.root().join("etc/kubernetes/admin.conf")) else { continue };
            fs::write(&kubeconfig, contents)?;
            fs::set_permissions(&kubeconfig, fs::Permissions::from_mode(0o600))?;
            for machine in testbed.machines.iter().filter(|machine| machine.running()) {
                let cluster = Self::through(testbed, machine);
                match cluster.raw("/readyz") {
                    Ok(_) => {
                        cluster.make_kubeconfig(testbed)?;
                        return Ok(cluster);
                    }
                    Err(error) => last = error,
                }
            }
        }
        Err(last.context("no machine's API answers"))
    }

    /// The API through a machine: whichever API server it chooses.
    pub(crate) fn through(testbed: &Testbed, machine: &Machine) -> Self {
        Self::with_port(testbed, machine, testbed.endpoint_port)
    }

    /// A machine's own API server.
    pub(crate) fn at(testbed: &Testbed, machine: &Machine) -> Self {
        Self::with_port(testbed, machine, API_SERVER_PORT)
    }

    fn with_port(testbed: &Testbed, machine: &Machine, port: u16) -> Self {
        Self {
            kubectl: testbed.kubectl.clone(),
            kubeconfig: testbed.state.join("admin.conf"),
            endpoint_name: testbed.endpoint_name.clone(),
            server: format!("https://{}:{port}", machine.address),
        }
    }

    /// Writes the kubeconfig that a person on the host can use as it is.
    fn make_kubeconfig(&self, testbed: &Testbed) -> Result<()> {
        self.write_kubeconfig(&testbed.state.join("kubeconfig"), &["--tls-server-name", &self.endpoint_name])
    }

    /// Writes one that goes to this server alone. Kubernetes' tests forget the server's name in TLS, so that only the address
    /// in the certificate of an API server itself will do.
    pub(crate) fn write_direct(&self, target: &Path) -> Result<()> {
        self.write_kubeconfig(target, &[])
    }

    fn write_kubeconfig(&self, target: &Path, options: &[&str]) -> Result<()> {
        let part = target.with_extension("part");
        fs::copy(&self.kubeconfig, &part)?;
        let config = |words: &[&str]| {
            let mut kubectl = Command::new(&self.kubectl);
            kubectl.arg("--kubeconfig").arg(&part).arg("config").args(words);
            output(&mut kubectl)
        };
        // kubeadm gives the cluster in its kubeconfigs the name that the image gave it.
        let name = config(&["view", "--minify", "--output", "jsonpath={.clusters[0].name}"])?;
        config(&[&["set-cluster", name.trim(), "--server", &self.server], options].concat())?;
        fs::rename(&part, target)?;
        Ok(())
    }

    /// kubectl, through the machine that answered.
    pub(crate) fn kubectl<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command.args(["--server", &self.server, "--tls-server-name", &self.endpoint_name]).args(arguments);
        command
    }

    /// One GET: without kubectl's discovery, which would ask for much more.
    pub(crate) fn raw(&self, path: &str) -> Result<String> {
        output(&mut self.kubectl(&["get", "--raw", path, ANSWER_TIMEOUT]))
    }

    pub(crate) fn nodes(&self) -> Result<Vec<Node>> {
        let list: Value = serde_json::from_str(&self.raw("/api/v1/nodes")?).context("the Node list is no JSON")?;
        list["items"].as_array().context("the Node list has no items")?.iter().map(node).collect()
    }

    /// When a Node's kubelet last said that it is alive, in seconds since 1970.
    pub(crate) fn renewed_at(&self, node: &str) -> Result<f64> {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}");
        let lease: Value = serde_json::from_str(&self.raw(&path)?).context("the Lease is no JSON")?;
        let time = lease["spec"]["renewTime"].as_str().context("the Lease was never renewed")?;
        let seconds = run("date", ["--utc", "--date", time, "+%s.%N"])?;
        seconds.trim().parse().with_context(|| format!("{time:?} is no time"))
    }

    /// Nodes, etcd members, and through which machines the API answers.
    pub(crate) fn view(&self, testbed: &Testbed) -> Result<View> {
        let nodes = self.nodes()?;
        let is_control_plane = |machine: &&Machine| {
            nodes.iter().any(|node| node.control_plane && node.ready && node.address == machine.address)
        };
        let asked = testbed.machines.iter().filter(is_control_plane).filter(|machine| machine.running());
        let etcd_members = first_answer(asked.map(etcd_members)).map_err(|error| format!("{error:#}"));
        let running: Vec<&Machine> = testbed.machines.iter().filter(|machine| machine.running()).collect();
        // All at once: one after the other they would be a second of what is measured.
        let answers = |machine: &Machine| Self::through(testbed, machine).raw("/readyz").is_ok();
        let answering = thread::scope(|scope| {
            let asked: Vec<_> =
                running.iter().map(|machine| (machine, scope.spawn(move || answers(machine)))).collect();
            let answered =
                asked.into_iter().filter_map(|(machine, ask)| ask.join().unwrap_or(false).then_some(machine));
            answered.map(|machine| machine.name.clone()).collect()
        });
        Ok(View { nodes, etcd_members, answering })
    }
}

impl View {
    /// What is not yet as it should be; empty when the cluster is whole.
    pub(crate) fn missing(&self, testbed: &Testbed) -> Vec<String> {
        let mut missing = missing_nodes(&self.nodes, testbed);
        let control_planes = usize::from(testbed.control_planes);
        let found = self.nodes.iter().filter(|node| node.control_plane).count();
        if found != control_planes {
            missing.push(format!("{found} control planes instead of {control_planes}"));
        }
        match &self.etcd_members {
            Ok(members) if *members == control_planes => {}
            Ok(members) => missing.push(format!("{members} etcd members instead of {control_planes}")),
            Err(why) => missing.push(format!("etcd cannot be asked for its members: {why}")),
        }
        // A cluster made by hand has an API on its control planes only.
        let expected = testbed.machines.iter().filter(|machine| {
            machine.muster || self.nodes.iter().any(|node| node.control_plane && node.address == machine.address)
        });
        for machine in expected.filter(|machine| !self.answering.contains(&machine.name)) {
            missing.push(format!("the API does not answer through {}", machine.name));
        }
        missing
    }
}

/// The first answer of several that could be asked; the last one's failure when none has one.
fn first_answer<T>(answers: impl Iterator<Item = Result<T>>) -> Result<T> {
    let mut last = anyhow::anyhow!("no control plane runs whose Node is Ready");
    for answer in answers {
        match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The line that a person on this host can copy, whatever the testbed is called and wherever it lies.
pub(crate) fn kubectl_line(kubectl: &Path, kubeconfig: &Path) -> String {
    format!("{} --kubeconfig {} get nodes", quoted(kubectl), quoted(kubeconfig))
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+');
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Machines that are no Node or no Ready one.
pub(crate) fn missing_nodes(nodes: &[Node], testbed: &Testbed) -> Vec<String> {
    let of = |machine: &Machine| nodes.iter().find(|node| node.address == machine.address);
    let said = testbed.machines.iter().filter_map(|machine| match of(machine) {
        None => Some(format!("{} is no Node", machine.name)),
        Some(node) if !node.ready => Some(format!("{} is not Ready", machine.name)),
        Some(_) => None,
    });
    said.collect()
}

fn node(item: &Value) -> Result<Node> {
    let typed = |list: &Value, kind: &str, value: &str| {
        let entries = list.as_array().into_iter().flatten();
        entries.filter(|entry| entry["type"] == kind).find_map(|entry| entry[value].as_str().map(str::to_owned))
    };
    let name = item["metadata"]["name"].as_str().context("a Node has no name")?.to_owned();
    let address = typed(&item["status"]["addresses"], "InternalIP", "address");
    // A Node just registered has no address for a moment.
    let address = address.and_then(|text| text.parse().ok()).unwrap_or(Ipv4Addr::UNSPECIFIED);
    let ready = typed(&item["status"]["conditions"], "Ready", "status").is_some_and(|status| status == "True");
    let labels = &item["metadata"]["labels"];
    let roles = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
    let control_plane = roles.iter().any(|role| labels.get(role).is_some());
    Ok(Node { name, address, ready, control_plane })
}

/// What etcd on this machine says to a command of etcdctl's.
fn etcdctl(machine: &Machine, words: [&str; 2]) -> Result<Value> {
    // One that hangs must not hold up the others' answers.
    let etcdctl = [
        "timeout",
        "10",
        "etcdctl",
        "--endpoints=https://127.0.0.1:2379",
        "--cacert=/etc/kubernetes/pki/etcd/ca.crt",
        "--cert=/etc/kubernetes/pki/etcd/server.crt",
        "--key=/etc/kubernetes/pki/etcd/server.key",
        "--write-out=json",
        words[0],
        words[1],
    ];
    serde_json::from_str(&output(&mut machine.exec(&etcdctl)?)?).context("etcdctl printed no JSON")
}

/// Whether the etcd member on this machine leads the others.
pub(crate) fn leads_etcd(machine: &Machine) -> Result<bool> {
    let status = etcdctl(machine, ["endpoint", "status"])?;
    let status = &status[0]["Status"];
    let (own, leader) = (status["header"]["member_id"].as_u64(), status["leader"].as_u64());
    Ok(own.context("etcdctl names no member")? == leader.unwrap_or_default())
}

/// Counts the members that have started, as etcd on this machine lists them.
fn etcd_members(machine: &Machine) -> Result<usize> {
    let list = etcdctl(machine, ["member", "list"])?;
    let members = list["members"].as_array().into_iter().flatten();
    Ok(members.filter(|member| member["name"].is_string() && member["isLearner"] != true).count())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_machine_that_does_not_answer_is_passed_over() {
        let mut asked = 0;
        let answers = [Err(anyhow::anyhow!("cut off")), Ok(3), Ok(4)].into_iter().inspect(|_| asked += 1);
        assert_eq!(first_answer(answers).unwrap(), 3);
        assert_eq!(asked, 2, "nobody is asked after the first answer");
        let none = [Err::<u8, _>(anyhow::anyhow!("first")), Err(anyhow::anyhow!("last"))].into_iter();
        assert_eq!(first_answer(none).unwrap_err().to_string(), "last");
        assert!(first_answer(std::iter::empty::<Result<u8>>()).unwrap_err().to_string().contains("no control plane"));
    }

    #[test]
    fn the_line_to_copy_is_one_command_whatever_the_paths_are() {
        let kubectl = Path::new("/var/cache/muster-testbed/part-kubernetes-1.37-a9/kubectl");
        assert_eq!(
            kubectl_line(kubectl, Path::new("/var/lib/muster-testbed/default/kubeconfig")),
            "/var/cache/muster-testbed/part-kubernetes-1.37-a9/kubectl --kubeconfig /var/lib/muster-testbed/default/kubeconfig get nodes"
        );
        for strange in ["/a b/it's", "/$HOME/x", "/a;b", "/*"] {
            let line = format!(
                "printf %s {}",
                kubectl_line(Path::new("-"), Path::new(strange))
                    .split(" get ")
                    .next()
                    .unwrap()
                    .split_once("--kubeconfig ")
                    .unwrap()
                    .1
            );
            assert_eq!(run("sh", ["-c", &line]).unwrap(), strange);
        }
    }

    #[test]
    fn a_node_is_read_from_what_the_api_says() {
        let ready = node(&json!({
            "metadata": { "name": "m1", "labels": { "node-role.kubernetes.io/control-plane": "" } },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": "10.199.0.11" }, { "type": "Hostname", "address": "m1" }],
                "conditions": [{ "type": "DiskPressure", "status": "False" }, { "type": "Ready", "status": "True" }],
            },
        }));
        let ready = ready.unwrap();
        assert!(ready.ready && ready.control_plane && ready.address == Ipv4Addr::new(10, 199, 0, 11));
        let young = node(&json!({ "metadata": { "name": "m2" } })).unwrap();
        assert!(!young.ready && !young.control_plane && young.address.is_unspecified());
        assert!(node(&json!({})).is_err());
    }
}

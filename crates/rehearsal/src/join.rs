//! `kubeadm join` and its phases.

use std::cell::OnceCell;
use std::time::Duration;

use muster_kubeadm::versions::{CommandLine, Workflow, adds_member, kubelet_local_mode};
use serde_json::{Value, json};

use crate::client::{Client, Identity};
use crate::document::Documents;
use crate::failure::{Failure, fail};
use crate::init::ignored;
use crate::machine::Machine;
use crate::pki::AUTHORITIES;
use crate::preflight::Checks;
use crate::say::{complain, say};
use crate::setting::Setting;
use crate::state::Member;
use crate::{discovery, kubeconfig, pki, pods, workflow};

/// A join under way. The cluster is discovered at most once in a run, and only by a phase that needs it.
struct Join<'a> {
    setting: &'a Setting,
    join: Value,
    discovered: OnceCell<(Client, Value)>,
}

impl<'a> Join<'a> {
    fn load(setting: &'a Setting, line: &CommandLine) -> Result<Self, Failure> {
        let path = line.flag("config").ok_or_else(|| fail("the rehearsal needs --config"))?;
        let documents = Documents::read(path, &setting.version)?;
        let join = documents.join.ok_or_else(|| fail("no JoinConfiguration found in the supplied config"))?;
        discovery::validate(&join)?;
        Ok(Self { setting, join, discovered: OnceCell::new() })
    }

    fn is_control_plane(&self) -> bool {
        self.join["controlPlane"].is_object()
    }

    /// Discovers the cluster and reads its configuration, with the bootstrap token.
    fn cluster(&self) -> Result<(&Client, Machine<'a>, &Value), Failure> {
        if self.discovered.get().is_none() {
            let client = discovery::discover(&self.join, self.setting)?;
            say!("[preflight] Reading configuration from the cluster...");
            let configuration = client.get("/rehearsal/v1/configuration")?;
            let _ = self.discovered.set((client, configuration));
        }
        let (client, configuration) = self.discovered.get().expect("it was just set");
        let mut cluster = configuration["cluster"].clone();
        // Directories are this machine's own: several machines share a computer in a rehearsal.
        cluster["certificatesDir"] = json!(self.setting.dir.join("pki"));
        cluster["etcd"]["local"]["dataDir"] = json!(self.etcd_dir(&configuration["cluster"]));
        let local = &self.join["controlPlane"]["localAPIEndpoint"];
        let machine = Machine::new(self.setting, &self.join, local, &cluster)?;
        Ok((client, machine, &configuration["components"]))
    }

    /// Where the first control plane has its etcd below its own root, this one has it below its own.
    fn etcd_dir(&self, cluster: &Value) -> std::path::PathBuf {
        let theirs = cluster["etcd"]["local"]["dataDir"].as_str().unwrap_or("/var/lib/etcd");
        let their_pki = cluster["certificatesDir"].as_str().unwrap_or("/etc/kubernetes/pki");
        let their_root = their_pki.strip_suffix("/etc/kubernetes/pki").unwrap_or_default();
        let own_root = self.setting.dir.to_string_lossy().strip_suffix("/etc/kubernetes").map(str::to_owned);
        match (theirs.strip_prefix(their_root), own_root) {
            (Some(rest), Some(own)) => format!("{own}{rest}").into(),
            _ => self.setting.dir.with_file_name("rehearsal-etcd"),
        }
    }

    fn phase(&self, leaf: &str, line: &CommandLine) -> Result<(), Failure> {
        let local = kubelet_local_mode(self.setting.version.minor);
        let (top, part) = leaf.split_once('/').unwrap_or((leaf, ""));
        match (top, part) {
            ("preflight", _) => self.preflight(line),
            ("kubelet-start", _) => self.start_kubelet(),
            ("kubelet-wait-bootstrap", _) if local => self.bootstrap_kubelet(),
            ("kubelet-wait-bootstrap", _) => Ok(()),
            _ if !self.is_control_plane() => Ok(()),
            ("control-plane-prepare", _) => self.prepare(part),
            ("check-etcd", _) => self.check_etcd(),
            ("etcd-join", _) | ("control-plane-join", "etcd") if self.adds_member(leaf) => self.join_etcd(),
            ("etcd-join", _) | ("control-plane-join", "etcd" | "update-status") => Ok(()),
            ("control-plane-join", _) => self.mark(),
            ("wait-control-plane", _) => self.cluster()?.1.wait_for_own_server(),
            _ => Err(fail(format!("the rehearsal knows no phase {leaf:?}"))),
        }
    }

    /// Where the cluster decides which of two phases adds the member, the rehearsal's cluster has kubeadm's defaults.
    fn adds_member(&self, leaf: &str) -> bool {
        let minor = self.setting.version.minor;
        match adds_member(minor) {
            [only] => *only == leaf,
            _ => kubelet_local_mode(minor) == (leaf == "etcd-join"),
        }
    }

    fn preflight(&self, line: &CommandLine) -> Result<(), Failure> {
        let setting = self.setting;
        setting.take(0.7);
        let mut checks = Checks::new(setting, ignored(line, &self.join)?);
        checks.absent(&setting.kubelet_conf());
        checks.absent(&setting.dir.join("bootstrap-kubelet.conf"));
        if !self.is_control_plane() {
            let default = setting.dir.join("pki/ca.crt");
            checks.absent(self.join["caCertPath"].as_str().map_or(default, Into::into).as_path());
            checks.finish()?;
            return self.cluster().map(drop);
        }
        let (client, machine, _) = self.cluster()?;
        if self.discovered.get().is_some_and(|(_, known)| known["cluster"]["controlPlaneEndpoint"].is_null()) {
            return Err(fail(
                "unable to add a new control plane instance to a cluster that doesn't have a stable controlPlaneEndpoint address",
            ));
        }
        for (base, what) in AUTHORITIES.iter().map(|(base, name)| (*base, *name)).chain([("sa", "service account")]) {
            let path = machine.pki_dir.join(format!("{base}.key"));
            if !path.exists() {
                return Err(fail(format!(
                    "One or more conditions for hosting a new control plane instance is not satisfied: failure loading key \
                     for {what}: couldn't load the private key file {}: no such file or directory",
                    path.display()
                )));
            }
        }
        let own = pki::pin(&pki::read(&machine.pki_dir.join("ca.crt"))?)?;
        if pki::pin(client.ca.as_deref().unwrap_or_default())? != own {
            return Err(fail(format!("cluster CA found in cluster-info is invalid: public key {own} is not pinned")));
        }
        checks.free(&machine.address, machine.port);
        for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"] {
            checks.absent(&setting.manifests().join(format!("{component}.yaml")));
        }
        checks.empty(&machine.etcd_dir);
        checks.finish()
    }

    fn prepare(&self, part: &str) -> Result<(), Failure> {
        const CERTIFICATES: [&str; 7] = [
            "apiserver",
            "apiserver-kubelet-client",
            "front-proxy-client",
            "etcd-server",
            "etcd-peer",
            "etcd-healthcheck-client",
            "apiserver-etcd-client",
        ];
        let (_, machine, _) = self.cluster()?;
        self.setting.take(0.7);
        match part {
            "certs" => CERTIFICATES.iter().try_for_each(|name| machine.certificates(name)),
            "kubeconfig" => {
                ["admin", "controller-manager", "scheduler"].iter().try_for_each(|name| machine.kubeconfig(name, false))
            }
            "control-plane" => {
                ["apiserver", "controller-manager", "scheduler"].iter().try_for_each(|name| machine.manifest(name))
            }
            _ => Ok(()),
        }
    }

    fn check_etcd(&self) -> Result<(), Failure> {
        let (_, machine, _) = self.cluster()?;
        say!("[check-etcd] Checking that the etcd cluster is healthy");
        let state = machine.admin()?.get("/rehearsal/v1/state")?;
        let members: Vec<Member> = serde_json::from_value(state["members"].clone()).unwrap_or_default();
        match members.iter().all(|member| member.started) {
            true => Ok(()),
            false => Err(fail("etcd cluster is not healthy: context deadline exceeded")),
        }
    }

    fn start_kubelet(&self) -> Result<(), Failure> {
        let (client, machine, components) = self.cluster()?;
        let path = format!("/api/v1/nodes/{}", machine.name);
        let node = client.get(&path).unwrap_or(Value::Null);
        let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        if conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True") {
            return Err(fail(format!(
                "a Node with name {:?} and status \"Ready\" already exists in the cluster. You must delete the existing Node \
                 or change the name of this new joining Node",
                machine.name
            )));
        }
        let ca = client.ca.clone().unwrap_or_default();
        let ca_path = machine.pki_dir.join("ca.crt");
        if !ca_path.exists() {
            pki::write(&ca_path, &ca)?;
        }
        let server = self.kubelets_server(&machine);
        let bootstrap = kubeconfig::text(&server, &ca, "tls-bootstrap-token-user", &client.identity);
        pki::write(&self.setting.dir.join("bootstrap-kubelet.conf"), &bootstrap)?;
        machine.start_kubelet(components)?;
        if self.setting.kubelet_conf().exists() {
            // It has its certificate and needs no bootstrap. A kubelet tries until it succeeds, and kubeadm asks nothing of that.
            if let Err(error) = self.register_node(&machine.name) {
                complain!("the rehearsal's kubelet has not registered its Node yet: {error}");
            }
            return Ok(());
        }
        if kubelet_local_mode(self.setting.version.minor) { Ok(()) } else { self.bootstrap_kubelet() }
    }

    /// Which API server the kubelet talks to.
    fn kubelets_server(&self, machine: &Machine<'_>) -> String {
        match self.is_control_plane() && kubelet_local_mode(self.setting.version.minor) {
            true => machine.own_server(),
            false => machine.endpoint.clone(),
        }
    }

    /// TLS bootstrap: the kubelet's own, and kubeadm waits for it.
    fn bootstrap_kubelet(&self) -> Result<(), Failure> {
        say!("[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap");
        let path = self.setting.dir.join("bootstrap-kubelet.conf");
        let (_, machine, _) = self.cluster()?;
        if self.setting.kubelet_conf().exists() {
            self.register_node(&machine.name)?;
            return std::fs::remove_file(&path).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(fail(error.to_string())),
            });
        }
        let client = kubeconfig::client(&path, self.setting.hosts.clone())?;
        self.setting.take(3.0);
        let answer = client.post("/rehearsal/v1/join", &json!({ "name": machine.name }))?;
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        let identity = Identity::Certificate { certificate: text("certificate"), key: text("key") };
        let user = format!("system:node:{}", machine.name);
        let config = kubeconfig::text(&self.kubelets_server(&machine), &text("ca"), &user, &identity);
        pki::write(&self.setting.kubelet_conf(), &config)?;
        std::fs::remove_file(&path).map_err(|error| fail(error.to_string()))
    }

    /// What a kubelet with a certificate does, unless its Node is there; and it asks for one of its own.
    fn register_node(&self, name: &str) -> Result<(), Failure> {
        let client = kubeconfig::client(&self.setting.kubelet_conf(), self.setting.hosts.clone())?;
        if client.get(&format!("/api/v1/nodes/{name}")).is_ok() {
            return Ok(());
        }
        let answer = client.post("/rehearsal/v1/join", &json!({ "name": name }))?;
        let text = |field: &str| answer[field].as_str().unwrap_or_default();
        let own = self.setting.kubelet_dir.join("pki/kubelet-client-current.pem");
        pki::write(&own, &format!("{}{}", text("certificate"), text("key")))
    }

    /// Once the member is added only etcd's own members are talked to: the API may have no quorum.
    fn join_etcd(&self) -> Result<(), Failure> {
        let (_, machine, _) = self.cluster()?;
        say!("[etcd] Announced new etcd member joining to the existing etcd cluster");
        let me = machine.as_member();
        let op = json!({ "op": "add-member", "name": me.name, "address": me.address });
        let mut patience = 5;
        let answer = loop {
            match machine.admin()?.post("/rehearsal/v1/op", &op) {
                Ok(answer) => break answer,
                // kubeadm, too, tries a few times.
                Err(error) if patience == 0 => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
            patience -= 1;
        };
        let members: Vec<Member> =
            serde_json::from_value(answer["members"].clone()).map_err(|_| fail("the answer has no members"))?;
        self.setting.take(1.0);
        machine.etcd_manifest(&members, None)?;
        pods::start(self.setting)?;
        say!("[etcd] Waiting for the new etcd member to join the cluster. This can take up to 40s");
        machine.wait_for_own_server()
    }

    fn mark(&self) -> Result<(), Failure> {
        let (_, machine, _) = self.cluster()?;
        say!("[mark-control-plane] Marking the node {} as control-plane", machine.name);
        self.setting.take(0.9);
        machine
            .admin()?
            .post("/rehearsal/v1/op", &json!({ "op": "mark-control-plane", "name": machine.name }))
            .map(drop)
    }
}

/// Runs a join, or one phase of it.
pub(crate) fn run(setting: &Setting, line: &CommandLine) -> Result<(), Failure> {
    let join = Join::load(setting, line)?;
    ignored(line, &join.join)?;
    let leaves = workflow::selected(Workflow::Join, setting.version.minor, line)?;
    for leaf in leaves {
        workflow::run(setting, "join", &leaf, || join.phase(&leaf, line))?;
    }
    say!("This rehearsal of a node has joined the rehearsal of a cluster");
    Ok(())
}

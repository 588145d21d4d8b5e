//! `kubeadm init` and its phases.

use muster_kubeadm::versions::{CommandLine, Workflow, kubelet_local_mode};
use serde_json::{Value, json};

use crate::client::Identity;
use crate::document::{Documents, seconds};
use crate::failure::{Failure, fail};
use crate::machine::{self, Machine};
use crate::preflight::Checks;
use crate::say::say;
use crate::setting::{Setting, Version};
use crate::{founders, kubeconfig, pki, pods, workflow};

/// What init's documents say.
pub(crate) struct Init<'a> {
    pub(crate) machine: Machine<'a>,
    pub(crate) cluster: Value,
    init: Value,
    components: Vec<Value>,
}

impl<'a> Init<'a> {
    /// Reads and checks the documents of `--config`.
    pub(crate) fn load(setting: &'a Setting, line: &CommandLine) -> Result<Self, Failure> {
        let path = line.flag("config").ok_or_else(|| fail("the rehearsal needs --config"))?;
        Self::new(setting, Documents::read(path, &setting.version)?)
    }

    pub(crate) fn new(setting: &'a Setting, documents: Documents) -> Result<Self, Failure> {
        if documents.init.is_none() && documents.cluster.is_none() {
            return Err(fail("no InitConfiguration or ClusterConfiguration kind was found in the configuration file"));
        }
        let cluster = documents.cluster.unwrap_or_else(|| json!({}));
        let init = documents.init.unwrap_or_else(|| json!({}));
        let wanted = cluster["kubernetesVersion"].as_str().ok_or_else(|| {
            fail("could not fetch a Kubernetes version from the internet: kubernetesVersion is not set")
        })?;
        let wanted = Version::parse(wanted)?;
        let oldest = setting.version.minor.saturating_sub(1);
        if wanted.minor < oldest {
            return Err(fail(format!(
                "this version of kubeadm only supports deploying clusters with the control plane version >= 1.{oldest}.0. \
                 Current version: {}",
                wanted.text
            )));
        }
        let machine = Machine::new(setting, &init, &init["localAPIEndpoint"], &cluster)?;
        Ok(Self { machine, cluster, init, components: documents.components })
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = (&str, f64)> {
        let tokens = self.init["bootstrapTokens"].as_array().into_iter().flatten();
        tokens.filter_map(|token| {
            Some((token["token"].as_str()?, token["ttl"].as_str().and_then(seconds).unwrap_or(86400.0)))
        })
    }

    fn phase(&self, leaf: &str, line: &CommandLine) -> Result<(), Failure> {
        let (machine, setting) = (&self.machine, self.machine.setting);
        let (top, part) = leaf.split_once('/').unwrap_or((leaf, ""));
        match top {
            "preflight" => self.preflight(line),
            "certs" => {
                setting.take(0.15);
                machine.certificates(part)
            }
            "kubeconfig" => {
                setting.take(0.08);
                machine.kubeconfig(part, kubelet_local_mode(setting.version.minor))
            }
            "kubelet-start" => {
                machine.start_kubelet(&json!(self.components))?;
                pods::start(setting)
            }
            "control-plane" => {
                machine.manifest(part)?;
                pods::start(setting)
            }
            "etcd" => {
                let founding = founders::of(machine, &self.cluster)?;
                let token = founding.as_ref().map(|(token, _)| token.as_str());
                let alone = [machine.as_member()];
                machine.etcd_manifest(founding.as_ref().map_or(&alone[..], |(_, members)| members), token)?;
                pods::start(setting)
            }
            "wait-control-plane" => {
                say!("[wait-control-plane] Waiting for the kubelet to boot up the control plane as static Pods");
                machine.wait_for_own_server()
            }
            "upload-config" => self.upload(part),
            "upload-certs" => {
                say!("[upload-certs] Skipping phase. Please see --upload-certs");
                Ok(())
            }
            "mark-control-plane" => {
                say!("[mark-control-plane] Marking the node {} as control-plane", machine.name);
                setting.take(0.9);
                self.op(json!({ "op": "mark-control-plane", "name": machine.name }))
            }
            "bootstrap-token" => self.bootstrap_tokens(),
            "kubelet-finalize" | "addon" | "show-join-command" => {
                say!("[{top}] {part}: nothing of it in a rehearsal");
                setting.take(0.3);
                Ok(())
            }
            _ => Err(fail(format!("the rehearsal knows no phase {leaf:?}"))),
        }
    }

    fn preflight(&self, line: &CommandLine) -> Result<(), Failure> {
        let (machine, setting) = (&self.machine, self.machine.setting);
        setting.take(0.7);
        let mut checks = Checks::new(setting, ignored(line, &self.init)?);
        checks.free(&machine.address, machine.port);
        for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"] {
            checks.absent(&setting.manifests().join(format!("{component}.yaml")));
        }
        checks.empty(&machine.etcd_dir);
        checks.finish()
    }

    fn upload(&self, part: &str) -> Result<(), Failure> {
        say!("[upload-config] Storing the configuration of {part}");
        self.machine.setting.take(1.0);
        match part {
            "kubeadm" => self.op(json!({ "op": "upload-cluster", "configuration": self.cluster })),
            _ => self.op(json!({ "op": "upload-components", "components": self.components })),
        }
    }

    fn bootstrap_tokens(&self) -> Result<(), Failure> {
        self.machine.setting.take(0.5);
        // kubeadm makes a token when it is given none.
        let shown: Vec<_> = self.tokens().map(|(token, _)| token).collect();
        say!("[bootstrap-token] Using tokens: {shown:?}");
        say!("[bootstrap-token] Configuring bootstrap tokens, cluster-info ConfigMap, RBAC Roles");
        for (token, ttl_seconds) in self.tokens() {
            self.op(json!({ "op": "create-token", "token": token, "ttl_seconds": ttl_seconds, "replace": true }))?;
        }
        let ca = pki::read(&self.machine.pki_dir.join("ca.crt"))?;
        let kubeconfig = kubeconfig::text(&self.machine.endpoint, &ca, "", &Identity::Nobody);
        self.op(json!({ "op": "publish-cluster-info", "kubeconfig": kubeconfig }))
    }

    fn op(&self, op: Value) -> Result<(), Failure> {
        self.machine.admin()?.post("/rehearsal/v1/op", &op).map(drop)
    }
}

/// Checks to ignore, from the flag and the document.
///
/// # Errors
/// When `all` is named beside others.
pub(crate) fn ignored(line: &CommandLine, own: &Value) -> Result<Vec<String>, Failure> {
    let document = own["nodeRegistration"]["ignorePreflightErrors"].as_array().into_iter().flatten();
    let flag = line.list("ignore-preflight-errors").into_iter();
    let names: Vec<_> = flag.chain(document.filter_map(Value::as_str)).map(str::to_lowercase).collect();
    if names.iter().any(|name| name == "all") && names.iter().any(|name| name != "all") {
        return Err(fail(format!(
            "ignore-preflight-errors: Invalid value: {:?}: don't specify individual checks if 'all' is used",
            names.join(",")
        )));
    }
    Ok(names)
}

/// Signs anew what the CAs of this machine have signed, the kubelet's apart, as `certs renew all` does.
pub(crate) fn renew(setting: &Setting, line: &CommandLine) -> Result<(), Failure> {
    workflow::run(setting, "", "certs-renew", || {
        let machine = &Init::load(setting, line)?.machine;
        setting.take(0.5);
        for (part, file) in machine::SIGNED {
            say!("[renew] certificate {part} renewed");
            pki::remove_pair(&machine.pki_dir, file)?;
            machine.certificates(part)?;
        }
        for part in ["admin", "controller-manager", "scheduler"] {
            machine.kubeconfig(part, false)?;
        }
        say!(
            "Done renewing certificates. You must restart the kube-apiserver, kube-controller-manager, kube-scheduler and etcd"
        );
        Ok(())
    })
}

/// A CA without its key is an external one, which has signed all that there is to sign (`newInitData` in cmd/init.go).
fn complete(pki: &std::path::Path) -> Result<(), Failure> {
    let (there, key) = (|file: &str| pki.join(file).exists(), pki.join("apiserver.key"));
    if !there("ca.crt") || there("ca.key") || there("apiserver.key") {
        return Ok(());
    }
    let key = key.display();
    Err(fail(format!(
        "invalid or incomplete external CA: failure loading key for apiserver: couldn't load the private key file {key}: open {key}: no \
         such file or directory"
    )))
}

/// Runs init, or one phase of it.
pub(crate) fn run(setting: &Setting, line: &CommandLine) -> Result<(), Failure> {
    let init = Init::load(setting, line)?;
    ignored(line, &init.init)?;
    complete(&init.machine.pki_dir)?;
    let leaves = workflow::selected(Workflow::Init, setting.version.minor, line)?;
    for leaf in leaves {
        workflow::run(setting, "init", &leaf, || init.phase(&leaf, line))?;
    }
    Ok(())
}

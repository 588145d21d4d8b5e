//! `kubeadm reset`.

use std::fs;
use std::path::{Path, PathBuf};

use muster_kubeadm::versions::{CommandLine, Workflow};
use serde_json::{Value, json};

use crate::document::Documents;
use crate::failure::{Doing as _, Failure, fail};
use crate::pods::{self, Pods};
use crate::say::say;
use crate::setting::Setting;
use crate::{kubeconfig, workflow};

/// Undoes init or join on this machine; does nothing where nothing is.
pub(crate) fn run(setting: &Setting, line: &CommandLine) -> Result<(), Failure> {
    let document = match line.flag("config") {
        Some(path) => {
            let documents = Documents::read(path, &setting.version)?;
            documents.reset.ok_or_else(|| fail("no ResetConfiguration found in the supplied config"))?
        }
        None => json!({}),
    };
    let mut leaves = workflow::selected(Workflow::Reset, setting.version.minor, line)?;
    let skipped = document["skipPhases"].as_array().into_iter().flatten().filter_map(Value::as_str);
    skipped.for_each(|name| leaves.retain(|leaf| leaf != name));
    let runs = |name: &str| leaves.iter().any(|leaf| leaf == name);
    if runs("preflight") && line.flag("force").is_none() && document["force"] != true {
        return Err(fail("won't proceed; the user didn't answer (Y|y) in order to continue").at("preflight"));
    }
    workflow::run(setting, "", "reset", || {
        setting.take(1.7);
        if runs("cleanup-node") {
            stop_kubelet(setting);
        }
        if let Some(data_dir) = runs("remove-etcd-member").then(|| leave_etcd(setting)).flatten() {
            empty(&data_dir)?;
        }
        if runs("cleanup-node") { clean_up(setting, line, &document) } else { Ok(()) }
    })
}

fn clean_up(setting: &Setting, line: &CommandLine, document: &Value) -> Result<(), Failure> {
    pods::stop(setting);
    say!("[reset] Deleting contents of directories");
    let pki = document["certificatesDir"].as_str().or(line.flag("cert-dir")).map(PathBuf::from);
    let directories =
        [setting.manifests(), pki.unwrap_or_else(|| setting.dir.join("pki")), setting.kubelet_dir.clone()];
    for directory in directories {
        empty(&directory)?;
    }
    let configs = ["admin", "super-admin", "kubelet", "bootstrap-kubelet", "controller-manager", "scheduler"];
    for config in configs {
        let _ = fs::remove_file(setting.dir.join(format!("{config}.conf")));
    }
    Ok(())
}

/// The Node stays, and is found to be dead once its kubelet has been missed for 40 seconds.
fn stop_kubelet(setting: &Setting) {
    say!("[reset] Stopping the kubelet service");
    let Ok(kubelet) = kubeconfig::client(&setting.kubelet_conf(), setting.hosts.clone()) else { return };
    let missed_after_ms = (40_000.0 * setting.pace) as u64;
    let op = json!({ "op": "kubelet-stopped", "name": node_name(setting), "missed_after_ms": missed_after_ms });
    if let Err(error) = kubelet.post("/rehearsal/v1/op", &op) {
        say!("[reset] WARNING: the API server does not hear of it: {error}");
    }
}

/// The name in the kubelet's kubeconfig, `system:node:NAME`.
fn node_name(setting: &Setting) -> String {
    let text = fs::read_to_string(setting.kubelet_conf()).unwrap_or_default();
    let (_, rest) = text.split_once("system:node:").unwrap_or_default();
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect()
}

/// Gives this machine's membership up, unless it is the last; answers with the data directory.
fn leave_etcd(setting: &Setting) -> Option<PathBuf> {
    let pods = Pods::read(&setting.dir).ok()?;
    let client = kubeconfig::client(&setting.admin_conf(), setting.hosts.clone());
    let removed =
        client.and_then(|client| client.post("/rehearsal/v1/op", &json!({ "op": "remove-member", "name": pods.name })));
    if let Err(error) = removed {
        say!("[reset] WARNING: the etcd member was not removed: {error}");
    }
    Some(pods.data_dir().to_owned())
}

fn empty(directory: &Path) -> Result<(), Failure> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.doing(format!("couldn't remove {}", path.display()))?;
    }
    Ok(())
}

//! What muster.toml says of kubeadm, tried out: whether muster could render its documents and phases from it.

use std::path::{Path, PathBuf};

use muster_kubeadm::{Plan, PlanError, Settings, UserFile, Version};

use super::problem::Problem;
use super::values::Values;
use super::{Image, Kubernetes};

/// The settings of a machine that keeps everything below `root`, if it is given, and works in `run_dir`.
pub(crate) fn settings(cluster: &str, kubernetes: &Kubernetes, root: Option<&Path>, run_dir: &Path) -> Settings {
    let documents = kubernetes.documents.iter();
    Settings {
        endpoint: format!("api.{cluster}.muster:{}", kubernetes.endpoint_port),
        cluster: cluster.to_owned(),
        version: kubernetes.version.as_ref().and_then(|version| version.parse().ok()),
        kubeadm: kubernetes.kubeadm.clone(),
        dir: below(root, &kubernetes.dir),
        kubelet_dir: below(root, &kubernetes.kubelet_dir),
        etcd_dir: below(root, &kubernetes.etcd_dir),
        work_dir: run_dir.join("kubeadm"),
        hosts_file: below(root, &kubernetes.hosts_file),
        api_port: kubernetes.api_port,
        pod_subnet: kubernetes.pod_subnet.clone(),
        service_subnet: kubernetes.service_subnet.clone(),
        image_repository: kubernetes.image_repository.clone(),
        cri_socket: kubernetes.cri_socket.clone(),
        documents: documents.map(|(name, text)| UserFile { name: name.clone(), text: text.clone() }).collect(),
        skip_phases: kubernetes.skip_phases.clone(),
        ignore_preflight: kubernetes.ignore_preflight.clone(),
    }
}

/// A path below the machine's own root, if it has one.
pub(crate) fn below(root: Option<&Path>, path: &Path) -> PathBuf {
    match root {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}

/// What no kubeadm that may deploy the wanted version could work with. Without a version it is found when kubeadm has
/// said its own.
pub(super) fn check(image: &Image, values: &Values, problems: &mut Vec<Problem>) {
    let settings = settings(&image.cluster, &image.kubernetes, None, Path::new("/"));
    let Some(wanted) = settings.version.clone() else { return };
    // kubeadm may be one minor version ahead of what it deploys, and then know other documents.
    let mut later: Version = wanted.clone();
    later.minor += 1;
    let Err(why) = Plan::new(&wanted, settings.clone()).or_else(|why| Plan::new(&later, settings).map_err(|_| why))
    else {
        return;
    };
    let key = match why {
        PlanError::Version(_) => "kubernetes.version",
        PlanError::Document(_) => "kubernetes.documents",
        PlanError::SkipPhases { .. } => "kubernetes.skip_phases",
        PlanError::IgnorePreflight(_) => "kubernetes.ignore_preflight",
    };
    problems.push(Problem::error(values.place(key), why.to_string()));
}

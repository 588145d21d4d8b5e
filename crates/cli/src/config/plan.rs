//! What muster.toml says of kubeadm, tried out: whether muster could render its documents and phases from it.

use std::path::{Path, PathBuf};

use muster_kubeadm::{Plan, PlanError, Settings, UserFile, Version};

use super::key;
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
        muster: std::env::current_exe().unwrap_or_else(|_| "/usr/bin/muster".into()),
        dir: below(root, &kubernetes.dir),
        kubelet_dir: below(root, &kubernetes.kubelet_dir),
        etcd_dir: below(root, &kubernetes.etcd_dir),
        backups_dir: below(root, Path::new("/var/lib/muster/backups")),
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

/// What no kubeadm that may deploy the wanted version could work with; of any version, when none is named.
pub(super) fn check(image: &Image, values: &Values, problems: &mut Vec<Problem>) {
    let settings = settings(&image.cluster, &image.kubernetes, None, Path::new("/"));
    taken_ports(&settings, values, problems);
    let with = |kubeadm: &Version| Plan::new(kubeadm, settings.clone()).map(|_| ());
    let outcome = match &settings.version {
        // kubeadm may be one minor version ahead of what it deploys, and then know other documents.
        Some(wanted) => {
            let mut later = wanted.clone();
            later.minor += 1;
            with(wanted).or_else(|why| with(&later).map_err(|_| why))
        }
        // The newest one's reason is the one to tell: it is about what people write today.
        None => newest_first()
            .try_fold(None, |first, kubeadm| match with(&kubeadm) {
                Ok(()) => Err(()),
                Err(why) => Ok(first.or(Some(why))),
            })
            .map_or(Ok(()), |why| why.map_or(Ok(()), Err)),
    };
    let Err(why) = outcome else { return };
    let (key, text) = match &why {
        PlanError::Version(_) => ("kubernetes.version", why.to_string()),
        PlanError::Document(error) => match key::find(&error.place) {
            Some(key) => (key.path, format!("`{}`: {}", key.path, error.why)),
            None => ("kubernetes.documents", why.to_string()),
        },
        PlanError::SkipPhases { .. } => ("kubernetes.skip_phases", why.to_string()),
        PlanError::IgnorePreflight(_) => ("kubernetes.ignore_preflight", why.to_string()),
    };
    problems.push(Problem::error(values.place(key), text));
}

fn newest_first() -> impl Iterator<Item = Version> {
    let minors = (Version::OLDEST_MINOR..=Version::NEWEST_MINOR).rev();
    minors.filter_map(|minor| format!("v1.{minor}.0").parse().ok())
}

/// Ports that two want on the same machine: muster.toml's and those of Kubernetes, or two of Kubernetes' own, by a document.
fn taken_ports(settings: &Settings, values: &Values, problems: &mut Vec<Problem>) {
    // A document that cannot be read is told of with its place, by whoever needs the whole of it.
    let Ok(taken) = muster_kubeadm::ports(settings) else { return };
    for (key, port) in super::check::own_ports(values) {
        if let Some((port, owner)) = taken.iter().find(|(taken, _)| Some(u32::from(*taken)) == port) {
            let text = format!("`{key}` is port {port}, which is that of {owner}");
            problems.push(Problem::error(values.place(key), text));
        }
    }
    for (at, (port, owner)) in taken.iter().enumerate() {
        if let Some((_, other)) = taken[..at].iter().find(|(taken, other)| taken == port && other != owner) {
            let text = format!("`documents`: {other} and {owner} would both use port {port}");
            problems.push(Problem::error(values.place("kubernetes.documents"), text));
        }
    }
}

//! The part of muster.toml that concerns kubeadm.

use std::path::{Path, PathBuf};

use crate::version::Version;

/// What an image asks of kubeadm; the same on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's name.
    pub cluster: String,
    /// The Kubernetes version to deploy; kubeadm's own when absent.
    pub version: Option<Version>,
    /// kubeadm's executable.
    pub kubeadm: PathBuf,
    /// muster's own, which works on etcd's files.
    pub muster: PathBuf,
    /// Where kubeadm keeps its files. The real one knows no other place than `/etc/kubernetes`.
    pub dir: PathBuf,
    /// The kubelet's directory. The real kubeadm knows no other place than `/var/lib/kubelet`.
    pub kubelet_dir: PathBuf,
    /// etcd's data directory.
    pub etcd_dir: PathBuf,
    /// Where muster keeps sealed backups of etcd. Its own, mode 0700.
    pub backups_dir: PathBuf,
    /// Where muster writes kubeadm's documents, which hold tokens: best not on a disk. Its own, mode 0700.
    pub work_dir: PathBuf,
    /// The hosts file in which the endpoint's name stands. Only the rehearsal kubeadm is told; the real one asks the
    /// system's resolver.
    pub hosts_file: PathBuf,
    /// `controlPlaneEndpoint`, a name with its port: `api.site.muster:7443`.
    pub endpoint: String,
    /// The API servers' port.
    pub api_port: u16,
    /// `networking.podSubnet`.
    pub pod_subnet: Option<String>,
    /// `networking.serviceSubnet`.
    pub service_subnet: Option<String>,
    /// `imageRepository`.
    pub image_repository: Option<String>,
    /// `nodeRegistration.criSocket`.
    pub cri_socket: Option<String>,
    /// The user's own documents.
    pub documents: Vec<UserFile>,
    /// Phases not to run, by kubeadm's names: `addon/coredns`.
    pub skip_phases: Vec<String>,
    /// Preflight checks whose errors are warnings, by kubeadm's names: `Swap`.
    pub ignore_preflight: Vec<String>,
}

/// A file of kubeadm, kubelet and kube-proxy documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFile {
    /// Its path, for errors.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl Settings {
    /// A cluster of which the image says nothing but its name, on a machine that has everything where kubeadm has it, below `root`.
    pub fn of(cluster: &str, root: &Path) -> Self {
        Self {
            cluster: cluster.to_owned(),
            version: None,
            kubeadm: "/usr/bin/kubeadm".into(),
            muster: "/usr/bin/muster".into(),
            dir: root.join("etc/kubernetes"),
            kubelet_dir: root.join("var/lib/kubelet"),
            etcd_dir: root.join("var/lib/etcd"),
            backups_dir: root.join("var/lib/muster/backups"),
            work_dir: root.join("run/muster/kubeadm"),
            hosts_file: root.join("etc/hosts"),
            endpoint: format!("api.{cluster}.muster:7443"),
            api_port: 6443,
            pod_subnet: None,
            service_subnet: None,
            image_repository: None,
            cri_socket: None,
            documents: Vec::new(),
            skip_phases: Vec::new(),
            ignore_preflight: Vec::new(),
        }
    }

    /// The manifest by which the kubelet runs etcd.
    pub fn etcd_manifest(&self) -> PathBuf {
        self.manifest("etcd")
    }

    /// The manifest of a static Pod of kubeadm's.
    pub(crate) fn manifest(&self, pod: &str) -> PathBuf {
        self.dir.join("manifests").join(format!("{pod}.yaml"))
    }

    /// The certificates that kubeadm makes and renews on a control plane, and those of its CAs; none that somebody has laid beside them.
    pub fn certificates(&self) -> [PathBuf; 10] {
        let made = [
            "apiserver",
            "apiserver-kubelet-client",
            "apiserver-etcd-client",
            "front-proxy-client",
            "ca",
            "front-proxy-ca",
        ];
        let etcds = ["etcd/server", "etcd/peer", "etcd/healthcheck-client", "etcd/ca"];
        let mut names = made.iter().chain(&etcds);
        std::array::from_fn(|_| self.pki_dir().join(format!("{}.crt", names.next().copied().unwrap_or_default())))
    }

    /// Kubeconfigs that hold certificates which kubeadm signed, and without which a control plane does not work.
    pub fn kubeconfigs(&self) -> [PathBuf; 2] {
        ["controller-manager", "scheduler"].map(|name| self.dir.join(format!("{name}.conf")))
    }

    /// What was seen of etcd before starts of the kubelet: see [`crate::guard`].
    pub fn etcd_mark(&self) -> PathBuf {
        self.dir.join("muster-etcd.json")
    }

    /// The certificates' directory.
    pub fn pki_dir(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// The key of etcd's CA: every control plane has it, and whoever has it may read all of etcd. Backups are sealed with what is derived of it.
    pub fn etcd_ca_key(&self) -> PathBuf {
        self.pki_dir().join("etcd/ca.key")
    }

    /// The administrator's kubeconfig, on control planes.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.conf")
    }

    /// What a kubeadm must know that keeps its files elsewhere: only the rehearsal one can. Nothing for the real one.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        if self.dir == Path::new("/etc/kubernetes") {
            return Vec::new();
        }
        let paths = [
            ("MUSTER_REHEARSAL_DIR", &self.dir),
            ("MUSTER_REHEARSAL_KUBELET_DIR", &self.kubelet_dir),
            ("MUSTER_REHEARSAL_HOSTS", &self.hosts_file),
        ];
        paths.map(|(name, path)| (name.to_owned(), path.display().to_string())).into()
    }

    /// The kubelet's kubeconfig, on every joined machine.
    pub fn kubelet_kubeconfig(&self) -> PathBuf {
        self.dir.join("kubelet.conf")
    }
}

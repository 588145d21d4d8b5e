//! What of kubeadm's is on this machine before anything was run for its identity: an earlier cluster's, or the image's own.
//!
//! muster's reset would take it for its own work, and kubeadm would stumble over half of it. So it is named, left as it is, and this
//! machine runs no kubeadm until a person has decided.

use std::path::{Path, PathBuf};

use super::step::Deed;
use super::{Ask, Trouble};

/// How many are named; more are counted.
const NAMED: usize = 4;

/// The control plane's static Pods. Others in that directory are the image's own business.
const MANIFESTS: [&str; 4] =
    ["etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"];

/// The kubeconfigs that kubeadm writes, of all versions (`cmd/kubeadm/app/constants/constants.go`, v1.37.2).
const KUBECONFIGS: [&str; 6] = [
    "admin.conf",
    "super-admin.conf",
    "kubelet.conf",
    "bootstrap-kubelet.conf",
    "controller-manager.conf",
    "scheduler.conf",
];

/// What kubeadm alone writes into the kubelet's directory (`cmd/kubeadm/app/constants/constants.go`, v1.37.2).
const KUBELET_FILES: [&str; 2] = ["kubeadm-flags.env", "instance-config.yaml"];

/// The kubelet's certificates of an earlier cluster begin so: it has them from that cluster alone, takes them before any other, and
/// kubeadm leaves them (`pkg/kubelet/certificate/bootstrap/bootstrap.go`, v1.37.2). `kubelet.crt` and `kubelet.key` it makes itself
/// wherever it runs.
const KUBELET_CERTIFICATE: &str = "kubelet-client-";

impl Deed {
    /// Says what is there, and what to do; nothing on a machine that has nothing of the kind. A directory that cannot be read may
    /// hold anything, and fails the step.
    pub(super) async fn remains(&self) -> Result<Option<String>, Trouble> {
        let settings = &self.place.settings;
        let mut found = self.hands.list(Ask::ListBelow(settings.pki_dir())).await?;
        let own = ["ca.crt", "ca.key"].map(|name| settings.pki_dir().join(name));
        let own_ca = found.len() == own.len() && own.iter().all(|path| found.contains(path));
        let single = MANIFESTS.iter().map(|name| settings.dir.join("manifests").join(name));
        for path in single.chain(KUBECONFIGS.iter().map(|name| settings.dir.join(name))) {
            self.add_if_there(path, &mut found).await?;
        }
        found.extend(self.entries(&settings.etcd_dir).await?);
        found.extend(self.kubelets(&settings.kubelet_dir).await?);
        let only_ca = own_ca && found.len() == own.len();
        Ok((!found.is_empty()).then(|| said_of(&found, only_ca)))
    }

    /// What an earlier kubelet left. A `config.yaml` by itself is the image's own: packages and images ship one so that the kubelet
    /// does not fail before its first boot, and kubeadm writes its own over it without asking.
    async fn kubelets(&self, directory: &Path) -> Result<Vec<PathBuf>, Trouble> {
        let is_certificate = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(KUBELET_CERTIFICATE))
        };
        let mut found = self.entries(&directory.join("pki")).await?;
        found.retain(is_certificate);
        for name in KUBELET_FILES {
            self.add_if_there(directory.join(name), &mut found).await?;
        }
        if !found.is_empty() {
            self.add_if_there(directory.join("config.yaml"), &mut found).await?;
        }
        Ok(found)
    }

    async fn add_if_there(&self, path: PathBuf, found: &mut Vec<PathBuf>) -> Result<(), Trouble> {
        if self.hands.exists(&path).await? {
            found.push(path);
        }
        Ok(())
    }

    /// What is in a directory that may be absent. A file system's own `lost+found` is no content.
    async fn entries(&self, directory: &Path) -> Result<Vec<PathBuf>, Trouble> {
        let mut found = self.hands.list(Ask::List(directory.into())).await?;
        found.retain(|path| path.file_name().is_none_or(|name| name != "lost+found"));
        Ok(found)
    }
}

fn said_of(found: &[PathBuf], only_ca: bool) -> String {
    let shown: Vec<_> = found.iter().take(NAMED).map(|path| path.display().to_string()).collect();
    let more = match found.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let remedy = match only_ca {
        true => "muster makes the cluster's CAs itself and uses no other: remove it from the image",
        false => {
            "if nobody needs it, run `kubeadm reset` on this machine, empty etcd's directory, or write the disk anew"
        }
    };
    format!(
        "there is work of kubeadm's that muster did not begin, and does not touch: {}{more}; {remedy}",
        shown.join(", ")
    )
}

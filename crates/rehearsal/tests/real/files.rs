//! What the phases write that need no cluster: the same paths with the same modes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::kubeadm::Kubeadm;

const DOCUMENT: &str = "
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 10.0.0.1}
nodeRegistration: {name: m1, criSocket: unix:///run/containerd/containerd.sock}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: @VERSION@
controlPlaneEndpoint: api.site.muster:7443
certificatesDir: @/etc/kubernetes/pki
etcd: {local: {dataDir: @/var/lib/etcd}}
";

pub(crate) fn compare(real: &Kubeadm, double: &Kubeadm) {
    for kubeadm in [real, double] {
        kubeadm.put("files.yaml", DOCUMENT);
    }
    for phase in ["certs all", "kubeconfig all", "etcd local", "control-plane all", "kubelet-start"] {
        let line = format!("init phase {phase} --config @/files.yaml");
        for kubeadm in [real, double] {
            let ran = kubeadm.run(&line);
            assert_eq!(ran.verdict.code, 0, "{}: {line}: {}", kubeadm.version, ran.stderr);
        }
        assert_eq!(written(real), written(double), "{}: what is there after {line}, real ones first", real.version);
    }
    // The double has started a server, as the kubelet would.
    let ran = double.run("reset --force");
    assert_eq!(ran.verdict.code, 0, "{}", ran.stderr);
    for below in ["etc", "var/lib"] {
        std::fs::remove_dir_all(real.root.join(below)).expect("is removed");
        std::fs::create_dir_all(real.root.join(below)).expect("a directory");
    }
}

/// Paths below the root directory and their modes, less what is the double's own.
fn written(kubeadm: &Kubeadm) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for below in ["etc", "var/lib"] {
        walk(&kubeadm.root.join(below), &kubeadm.root, &mut found);
    }
    found.retain(|path, _| !path.contains("/rehearsal-"));
    found
}

fn walk(directory: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let metadata = path.symlink_metadata().expect("is there");
        let name = path.strip_prefix(root).expect("is below").display().to_string();
        found.insert(name, format!("{:o}", metadata.permissions().mode()));
        if metadata.is_dir() {
            walk(&path, root, found);
        }
    }
}

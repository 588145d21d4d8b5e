//! What of kubeadm's is on this machine before anything was run for its identity: an earlier cluster's, or the image's own.
//!
//! muster's reset would take it for its own work, and kubeadm would stumble over half of it. So it is named, left as it is, and this
//! machine runs no kubeadm until a person has decided.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use muster_kubeadm::Settings;

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

/// Says what is there, and what to do; nothing on a machine that has nothing of the kind.
///
/// # Errors
/// A directory that cannot be read may hold anything.
pub(crate) fn find(settings: &Settings) -> Result<Option<String>, String> {
    let mut found = files_below(&settings.pki_dir())?;
    let own_ca =
        found.len() == 2 && ["ca.crt", "ca.key"].iter().all(|name| found.contains(&settings.pki_dir().join(name)));
    let single = MANIFESTS.iter().map(|name| settings.dir.join("manifests").join(name));
    let single = single.chain(KUBECONFIGS.iter().map(|name| settings.dir.join(name)));
    // A link that leads nowhere is something, too.
    found.extend(single.filter(|path| path.symlink_metadata().is_ok()));
    found.extend(entries(&settings.etcd_dir)?);
    found.extend(kubelets(&settings.kubelet_dir)?);
    if found.is_empty() {
        return Ok(None);
    }
    let shown: Vec<_> = found.iter().take(NAMED).map(|path| path.display().to_string()).collect();
    let more = match found.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let remedy = match own_ca && found.len() == 2 {
        true => "muster makes the cluster's CAs itself and uses no other: remove it from the image",
        false => {
            "if nobody needs it, run `kubeadm reset` on this machine, empty etcd's directory, or write the disk anew"
        }
    };
    Ok(Some(format!(
        "there is work of kubeadm's that muster did not begin, and does not touch: {}{more}; {remedy}",
        shown.join(", ")
    )))
}

/// What an earlier kubelet left. A `config.yaml` by itself is the image's own: packages and images ship one so that the kubelet does
/// not fail before its first boot, and kubeadm writes its own over it without asking.
fn kubelets(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let is_certificate =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(KUBELET_CERTIFICATE));
    let there = |path: &PathBuf| path.symlink_metadata().is_ok();
    let mut found: Vec<PathBuf> = entries(&directory.join("pki"))?.into_iter().filter(is_certificate).collect();
    found.extend(KUBELET_FILES.iter().map(|name| directory.join(name)).filter(there));
    if !found.is_empty() {
        found.extend(Some(directory.join("config.yaml")).filter(there));
    }
    Ok(found)
}

/// What is in a directory that may be absent. A file system's own `lost+found` is no content.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |why: std::io::Error| format!("{} cannot be read: {why}", directory.display());
    let listed = match fs::read_dir(directory) {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(unreadable)?,
    };
    let mut found = listed.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().map_err(unreadable)?;
    found.retain(|path| path.file_name().is_none_or(|name| name != "lost+found"));
    found.sort();
    Ok(found)
}

/// All that is no directory. Links are named and not followed.
fn files_below(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for path in entries(directory)? {
        match path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            true => found.extend(files_below(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(root: &Path) -> Settings {
        Settings {
            cluster: "site".into(),
            version: None,
            kubeadm: "/usr/bin/kubeadm".into(),
            dir: root.join("etc/kubernetes"),
            kubelet_dir: root.join("var/lib/kubelet"),
            etcd_dir: root.join("var/lib/etcd"),
            work_dir: root.join("run"),
            hosts_file: root.join("etc/hosts"),
            endpoint: "api.site.muster:7443".into(),
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

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, "x").expect("written");
    }

    fn with(paths: &[&str]) -> Option<String> {
        let root = tempfile::tempdir().expect("a directory");
        let settings = settings(root.path());
        paths.iter().for_each(|path| write(&root.path().join(path)));
        let said = find(&settings).expect("readable")?;
        Some(said.replace(&root.path().display().to_string(), ""))
    }

    #[test]
    fn an_image_as_it_should_be_has_none() {
        assert_eq!(with(&[]), None);
        let own =
            ["etc/kubernetes/manifests/kube-vip.yaml", "etc/kubernetes/audit.yaml", "var/lib/kubelet/config.yaml"];
        assert_eq!(with(&own), None);
        let root = tempfile::tempdir().expect("a directory");
        for directory in ["etc/kubernetes/pki/etcd", "etc/kubernetes/manifests", "var/lib/etcd/lost+found"] {
            fs::create_dir_all(root.path().join(directory)).expect("made");
        }
        assert_eq!(find(&settings(root.path())), Ok(None));
    }

    #[test]
    fn an_earlier_cluster_is_named() {
        let said = with(&[
            "etc/kubernetes/pki/ca.key",
            "etc/kubernetes/manifests/kube-apiserver.yaml",
            "var/lib/etcd/member/db",
        ]);
        let said = said.expect("something is there");
        assert!(
            said.contains(
                ": /etc/kubernetes/pki/ca.key, /etc/kubernetes/manifests/kube-apiserver.yaml, /var/lib/etcd/member; if"
            ),
            "{said}"
        );
        for path in ["etc/kubernetes/pki/etcd/server.crt", "etc/kubernetes/kubelet.conf", "var/lib/etcd/member/db"] {
            assert!(with(&[path]).is_some(), "{path}");
        }
        let many: Vec<_> = (0..9).map(|n| format!("etc/kubernetes/pki/{n}.key")).collect();
        let said = with(&many.iter().map(String::as_str).collect::<Vec<_>>()).expect("something is there");
        assert!(said.contains("/3.key and 5 more;"), "{said}");
    }

    #[test]
    fn an_earlier_kubelets_work_is_named_and_the_images_own_is_not() {
        let certificate = "var/lib/kubelet/pki/kubelet-client-current.pem";
        for path in [
            certificate,
            "var/lib/kubelet/pki/kubelet-client-2026-01-01-00-00-00.pem",
            "var/lib/kubelet/kubeadm-flags.env",
            "var/lib/kubelet/instance-config.yaml",
        ] {
            let said = with(&[path]).unwrap_or_else(|| panic!("{path} is not named"));
            assert!(said.contains(&format!(": /{path}; if nobody needs it, run `kubeadm reset`")), "{said}");
            let said = with(&[path, "var/lib/kubelet/config.yaml"]).expect("something is there");
            assert!(said.contains(&format!("/{path}, /var/lib/kubelet/config.yaml;")), "{said}");
        }
        // What a kubelet makes that never saw a cluster, and what an image gives it.
        let own = ["pki/kubelet.crt", "pki/kubelet.key", "config.yaml", "cpu_manager_state", "config.json"];
        let own: Vec<String> = own.iter().map(|name| format!("var/lib/kubelet/{name}")).collect();
        assert_eq!(with(&own.iter().map(String::as_str).collect::<Vec<_>>()), None);
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("var/lib/kubelet/pki")).expect("made");
        std::os::unix::fs::symlink("gone.pem", root.path().join(certificate)).expect("linked");
        assert!(find(&settings(root.path())).expect("readable").is_some(), "a link that leads nowhere");
    }

    #[test]
    fn a_ca_of_the_images_own_is_refused_by_name() {
        let said = with(&["etc/kubernetes/pki/ca.crt", "etc/kubernetes/pki/ca.key"]).expect("refused");
        assert!(
            said.contains("/pki/ca.crt, /etc/kubernetes/pki/ca.key; muster makes the cluster's CAs itself"),
            "{said}"
        );
        let mixed = with(&["etc/kubernetes/pki/ca.crt", "etc/kubernetes/pki/ca.key", "etc/kubernetes/admin.conf"]);
        assert!(mixed.expect("refused").contains("kubeadm reset"));
    }

    #[test]
    fn a_link_is_named_and_not_followed() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("etc/kubernetes")).expect("made");
        std::os::unix::fs::symlink("/nowhere", root.path().join("etc/kubernetes/admin.conf")).expect("linked");
        assert!(find(&settings(root.path())).expect("readable").is_some());
    }
}

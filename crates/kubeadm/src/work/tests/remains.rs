//! What a look at a disk says of it: a real directory is looked at.

use std::fs;
use std::path::Path;

use muster_protocol::Step;

use super::{Answer, Ask, begin, drive, well};

fn write(path: &Path) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, "x").expect("written");
}

/// As the agent lists: all that is no directory, if `below`.
fn listed(directory: &Path, below: bool) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("readable").path()) {
        match below && path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            true => found.extend(listed(&path, true)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn find(root: &Path) -> Option<String> {
    let (result, _) = drive(begin(root, false, Step::Check { fresh: true }), |ask| match ask {
        Ask::Exists(path) => Answer::Exists(path.symlink_metadata().is_ok()),
        Ask::List(directory) => Answer::Listed(Ok(listed(directory, false))),
        Ask::ListBelow(directory) => Answer::Listed(Ok(listed(directory, true))),
        ask => well(ask),
    });
    // Past the look it fails for want of a version, and not for good.
    let failure = result.expect_err("kubeadm tells no version");
    failure.why.contains("did not begin").then_some(failure.why)
}

fn with(paths: &[&str]) -> Option<String> {
    let root = tempfile::tempdir().expect("a directory");
    paths.iter().for_each(|path| write(&root.path().join(path)));
    Some(find(root.path())?.replace(&root.path().display().to_string(), ""))
}

#[test]
fn an_image_as_it_should_be_has_none() {
    assert_eq!(with(&[]), None);
    let own = ["etc/kubernetes/manifests/kube-vip.yaml", "etc/kubernetes/audit.yaml", "var/lib/kubelet/config.yaml"];
    assert_eq!(with(&own), None);
    let root = tempfile::tempdir().expect("a directory");
    for directory in ["etc/kubernetes/pki/etcd", "etc/kubernetes/manifests", "var/lib/etcd/lost+found"] {
        fs::create_dir_all(root.path().join(directory)).expect("made");
    }
    assert_eq!(find(root.path()), None);
}

#[test]
fn an_earlier_cluster_is_named() {
    let said =
        with(&["etc/kubernetes/pki/ca.key", "etc/kubernetes/manifests/kube-apiserver.yaml", "var/lib/etcd/member/db"]);
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
    assert!(find(root.path()).is_some(), "a link that leads nowhere");
}

#[test]
fn a_ca_of_the_images_own_is_refused_by_name() {
    let said = with(&["etc/kubernetes/pki/ca.crt", "etc/kubernetes/pki/ca.key"]).expect("refused");
    assert!(said.contains("/pki/ca.crt, /etc/kubernetes/pki/ca.key; muster makes the cluster's CAs itself"), "{said}");
    let mixed = with(&["etc/kubernetes/pki/ca.crt", "etc/kubernetes/pki/ca.key", "etc/kubernetes/admin.conf"]);
    assert!(mixed.expect("refused").contains("kubeadm reset"));
}

#[test]
fn a_link_is_named_and_not_followed() {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(root.path().join("etc/kubernetes")).expect("made");
    std::os::unix::fs::symlink("/nowhere", root.path().join("etc/kubernetes/admin.conf")).expect("linked");
    assert!(find(root.path()).is_some());
}

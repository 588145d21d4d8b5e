//! What an earlier cluster, or the image itself, left where kubeadm works: real agents as processes.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "other tests use the rest of it")]
mod site;

use std::fs;
use std::path::{Path, PathBuf};

use site::Site;

fn leave(root: &Path, files: &[&str]) -> Vec<PathBuf> {
    let write = |file: &&str| {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(&path, file.as_bytes()).expect("written");
        path
    };
    files.iter().map(write).collect()
}

fn untouched(root: &Path, files: &[&str]) {
    for file in files {
        assert_eq!(fs::read(root.join(file)).ok().as_deref(), Some(file.as_bytes()), "{file}");
    }
}

#[test]
fn an_earlier_clusters_work_is_named_and_not_touched_until_it_is_gone() {
    const FILES: [&str; 3] =
        ["etc/kubernetes/pki/ca.key", "etc/kubernetes/manifests/kube-apiserver.yaml", "var/lib/etcd/member/db"];
    let site = Site::new();
    let image = site.image(1, 1);
    let left = leave(&site.root(1), &FILES);
    let agent = site.start(1, &image);
    let names: Vec<_> = left.iter().take(2).map(|path| path.display().to_string()).collect();
    let named: Vec<_> = names.iter().map(String::as_str).chain(["cannot run kubeadm", "kubeadm reset"]).collect();
    agent.until_explained(&named);
    agent.until("looks again", |_| agent.log().contains("(2 times in a row)"));
    agent.kill();
    let agent = site.start(1, &image);
    agent.until("looks again", |_| agent.log().matches("(2 times in a row)").count() == 2);
    untouched(&site.root(1), &FILES);
    for file in ["etc/kubernetes", "var/lib/etcd"] {
        fs::remove_dir_all(site.root(1).join(file)).expect("removed");
    }
    agent.until_phase("ready");
}

#[test]
fn a_machine_with_an_earlier_clusters_work_is_not_chosen_for_init() {
    let site = Site::new();
    let image = site.image(3, 3);
    leave(&site.root(1), &["etc/kubernetes/kubelet.conf"]);
    let agents = [1, 2, 3].map(|number| site.start(number, &image));
    agents[1].until_phase("ready");
    agents[2].until_phase("ready");
    agents[0].until_explained(&["cannot run kubeadm", "etc/kubernetes/kubelet.conf"]);
    untouched(&site.root(1), &["etc/kubernetes/kubelet.conf"]);
    fs::remove_file(site.root(1).join("etc/kubernetes/kubelet.conf")).expect("removed");
    agents[0].until_phase("ready");
}

#[test]
fn an_earlier_kubelets_work_is_named_and_not_touched() {
    const FILES: [&str; 2] = ["var/lib/kubelet/pki/kubelet-client-current.pem", "var/lib/kubelet/config.yaml"];
    let site = Site::new();
    leave(&site.root(1), &FILES);
    let agent = site.start(1, &site.image(1, 1));
    agent.until_explained(&["cannot run kubeadm", "pki/kubelet-client-current.pem", "kubelet/config.yaml"]);
    untouched(&site.root(1), &FILES);
    for file in FILES {
        fs::remove_file(site.root(1).join(file)).expect("removed");
    }
    agent.until_phase("ready");
}

#[test]
fn a_ca_of_the_images_own_is_refused_by_name() {
    const FILES: [&str; 2] = ["etc/kubernetes/pki/ca.crt", "etc/kubernetes/pki/ca.key"];
    let site = Site::new();
    leave(&site.root(1), &FILES);
    let agent = site.start(1, &site.image(1, 1));
    agent.until_explained(&["etc/kubernetes/pki/ca.crt", "makes the cluster's CAs itself"]);
    untouched(&site.root(1), &FILES);
}

#[test]
fn what_a_file_system_or_the_image_has_there_of_its_own_stops_nothing() {
    let site = Site::new();
    fs::create_dir_all(site.root(1).join("var/lib/etcd/lost+found")).expect("made");
    let files = ["etc/kubernetes/manifests/kube-vip.yaml", "etc/kubernetes/audit-policy.yaml"];
    leave(&site.root(1), &files);
    // kubeadm writes its own over this one.
    leave(&site.root(1), &["var/lib/kubelet/config.yaml"]);
    let agent = site.start(1, &site.image(1, 1));
    agent.until_phase("ready");
    untouched(&site.root(1), &files);
    assert!(site.root(1).join("var/lib/etcd/lost+found").is_dir());
}

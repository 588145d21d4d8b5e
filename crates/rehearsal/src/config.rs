//! `kubeadm config`: what concerns images and documents.

use muster_kubeadm::versions::{CommandLine, IMAGES};

use crate::discovery;
use crate::document::Documents;
use crate::failure::{Failure, fail};
use crate::init::Init;
use crate::say::say;
use crate::setting::Setting;
use crate::workflow;

pub(crate) fn run(setting: &Setting, line: &CommandLine) -> Result<(), Failure> {
    match line.command.last().map(String::as_str) {
        Some("pull") => workflow::run(setting, "", "images-pull", || {
            Init::load(setting, line)?;
            setting.take(5.0);
            say!("[config/images] Pulled nothing: no container will run");
            Ok(())
        }),
        Some("list") => list(setting, line),
        _ => validate(setting, line),
    }
}

fn list(setting: &Setting, line: &CommandLine) -> Result<(), Failure> {
    let init = Init::load(setting, line)?;
    let images = IMAGES.iter().find(|images| images.minor == setting.version.minor);
    let images = images.ok_or_else(|| fail("the rehearsal does not know the images of this version"))?;
    let repository = init.cluster["imageRepository"].as_str().unwrap_or("registry.k8s.io");
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        say!("{repository}/{component}:{}", init.cluster["kubernetesVersion"].as_str().unwrap_or_default());
    }
    say!("{repository}/coredns/coredns:{}", images.coredns);
    say!("{repository}/pause:{}", images.pause);
    say!("{repository}/etcd:{}", images.etcd);
    Ok(())
}

/// Looks at each document there is, and takes a file without any.
fn validate(setting: &Setting, line: &CommandLine) -> Result<(), Failure> {
    let path = line.flag("config").ok_or_else(|| fail("the --config flag is mandatory"))?;
    let documents = Documents::read(path, &setting.version)?;
    if let Some(join) = &documents.join {
        discovery::validate(join)?;
    }
    if documents.init.is_some() || documents.cluster.is_some() {
        Init::new(setting, documents)?;
    }
    say!("ok");
    Ok(())
}

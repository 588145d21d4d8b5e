//! Which Kubernetes a testbed runs: one that this checkout has a recipe for, or binaries that somebody has built.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::layout::Paths;
use crate::command::run;

/// The minor versions with a recipe, the newest first.
pub(crate) const MINORS: [u32; 4] = [37, 36, 35, 34];

/// The commands of Kubernetes that machines and container images are made of.
pub(crate) const COMMANDS: [&str; 7] =
    ["kubeadm", "kubectl", "kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"];

/// A Kubernetes to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Release {
    /// The minor number: 37 of v1.37.2.
    pub(crate) minor: u32,
    /// As its programs say it: `v1.37.2`.
    pub(crate) version: String,
    /// The binaries, if somebody has built them; a recipe's otherwise.
    pub(crate) given: Option<PathBuf>,
}

impl Release {
    /// Reads `--kubernetes`: `1.36`, `v1.36.3` or a directory of binaries.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let directory = Path::new(text);
        if directory.is_dir() {
            return Self::given(directory);
        }
        let wanted = text.strip_prefix('v').unwrap_or(text);
        let known: Vec<Self> = MINORS.into_iter().map(Self::recipe).collect::<Result<_>>()?;
        let fits = |release: &&Self| {
            let version = release.version.trim_start_matches('v');
            version == wanted || format!("1.{}", release.minor) == wanted
        };
        let list = || known.iter().map(|release| release.version.clone()).collect::<Vec<_>>().join(", ");
        known.iter().find(fits).cloned().with_context(|| {
            format!("--kubernetes {text:?} is no directory, and no version that there is a recipe for: {}", list())
        })
    }

    /// The one that a recipe builds.
    pub(crate) fn recipe(minor: u32) -> Result<Self> {
        let version = pinned(&format!("kubernetes-1.{minor}"), "k8s.io/kubernetes")?;
        Ok(Self { minor, version, given: None })
    }

    fn given(directory: &Path) -> Result<Self> {
        let directory = directory.canonicalize()?;
        if let Some(missing) = COMMANDS.iter().find(|command| !directory.join(command).is_file()) {
            bail!("--kubernetes {}: there is no {missing} in it", directory.display());
        }
        let said = run(&directory.join("kubeadm").to_string_lossy(), ["version", "-o", "short"])?;
        let version = said.trim().to_owned();
        let minor = Self::minor_of(&version)
            .with_context(|| format!("{}: kubeadm calls itself {version:?}", directory.display()))?;
        if !MINORS.contains(&minor) {
            bail!("--kubernetes {}: {version} is none of 1.34 to 1.37", directory.display());
        }
        Ok(Self { minor, version, given: Some(directory) })
    }

    /// 37 of `v1.37.2`.
    pub(crate) fn minor_of(version: &str) -> Option<u32> {
        version.strip_prefix("v1.")?.split('.').next()?.parse().ok()
    }

    /// The part that is the etcd which this kubeadm asks for, by its own minor version.
    pub(crate) fn etcd_part(&self) -> &'static str {
        // kubeadm's constants: 3.6.5 for 1.34 to 3.6.8 for 1.36, 3.7.0 for 1.37.
        if self.minor < 37 { "etcd-3.6" } else { "etcd-3.7" }
    }

    /// The tags of the container images that are built and that kubeadm would ask for by other ones, as documents for it.
    pub(crate) fn documents(&self) -> Result<String> {
        Ok(format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\netcd:\n  local:\n    imageTag: {}\ndns:\n  \
             imageTag: {}\n",
            self.etcd_tag()?,
            coredns_tag()?
        ))
    }

    pub(crate) fn etcd_tag(&self) -> Result<String> {
        let version = pinned(self.etcd_part(), "go.etcd.io/etcd/server/v3")?;
        Ok(format!("{}-0", version.trim_start_matches('v')))
    }
}

pub(crate) fn coredns_tag() -> Result<String> {
    pinned("coredns", "github.com/coredns/coredns")
}

pub(crate) fn flannel_tag() -> Result<String> {
    pinned("flannel", "github.com/flannel-io/flannel")
}

/// The version of a module that a part's go.mod requires: it stands there and nowhere else.
pub(crate) fn pinned(part: &str, module: &str) -> Result<String> {
    let path = Paths::part(part).join("go.mod");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let words = text.lines().map(|line| line.trim_start_matches("require ").split_whitespace());
    let mut versions = words.filter_map(|mut words| (words.next()? == module).then(|| words.next()).flatten());
    versions.next().map(str::to_owned).with_context(|| format!("{} requires no {module}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_recipes() {
        let newest = Release::read("1.37").unwrap();
        assert!(newest.version.starts_with("v1.37.") && newest.given.is_none());
        assert_eq!(Release::read(&newest.version).unwrap(), newest);
        assert_eq!(Release::read("v1.34").unwrap().minor, 34);
        for wrong in ["1.20", "1.37.99", "", "/nowhere", "latest"] {
            let error = Release::read(wrong).unwrap_err().to_string();
            assert!(error.contains(&newest.version), "{error}");
        }
    }

    #[test]
    fn a_directory_must_hold_all_of_kubernetes() {
        let directory = tempfile::tempdir().unwrap();
        let error = Release::read(&directory.path().to_string_lossy()).unwrap_err().to_string();
        assert!(error.contains("no kubeadm in it"), "{error}");
    }

    #[test]
    fn container_images_are_named_as_they_were_built() {
        let documents = Release::recipe(37).unwrap().documents().unwrap();
        assert!(documents.contains("imageTag: 3.7.") && documents.contains("imageTag: v1."), "{documents}");
        assert!(Release::recipe(36).unwrap().documents().unwrap().contains("imageTag: 3.6."));
    }
}

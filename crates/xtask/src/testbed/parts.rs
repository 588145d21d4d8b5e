//! The Go programs a testbed is made of. Each part is built once and kept under a name that follows from its recipe.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Result, bail};

use super::build::{digest, make};
use super::layout::Paths;
use super::release::{COMMANDS, Release};
use super::report::Report;
use crate::command::{command, run};

const CNI: &str = "github.com/containernetworking/plugins/plugins";

/// Programs that one recipe builds.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// What it is called in the cache and by people.
    pub(crate) name: String,
    /// The directory of its go.mod, below `tests/testbed/build/parts`.
    module: String,
    packages: Vec<String>,
    /// About how long two cores take with nothing in Go's cache, in seconds; for people.
    about_seconds: u32,
}

impl Part {
    fn new(name: impl Into<String>, about_seconds: u32, packages: impl IntoIterator<Item = String>) -> Self {
        let name = name.into();
        Self { module: name.clone(), name, packages: packages.into_iter().collect(), about_seconds }
    }

    fn of(self, module: impl Into<String>) -> Self {
        Self { module: module.into(), ..self }
    }

    /// All of Kubernetes, of a minor version.
    pub(crate) fn kubernetes(minor: u32) -> Self {
        let packages = COMMANDS.iter().map(|command| format!("k8s.io/kubernetes/cmd/{command}"));
        Self::new(format!("kubernetes-1.{minor}"), 770, packages)
    }

    /// kubeadm alone, for the comparison with the rehearsal.
    pub(crate) fn kubeadm(minor: u32) -> Self {
        let package = "k8s.io/kubernetes/cmd/kubeadm".to_owned();
        Self::new(format!("kubeadm-1.{minor}"), 120, [package]).of(format!("kubernetes-1.{minor}"))
    }

    /// kubeadm's own acceptance tests.
    pub(crate) fn acceptance(minor: u32) -> Self {
        let package = "k8s.io/kubernetes/test/e2e_kubeadm.test".to_owned();
        Self::new(format!("acceptance-1.{minor}"), 90, [package]).of(format!("tests-1.{minor}"))
    }

    /// Kubernetes' conformance tests, among others.
    pub(crate) fn conformance(minor: u32) -> Self {
        let package = "k8s.io/kubernetes/test/e2e.test".to_owned();
        Self::new(format!("conformance-1.{minor}"), 330, [package]).of(format!("tests-1.{minor}"))
    }

    /// The program that pods of Kubernetes' tests run, and those of `check`.
    pub(crate) fn agnhost() -> Self {
        Self::new("agnhost", 15, ["k8s.io/kubernetes/test/images/agnhost".to_owned()]).of("tests-1.37")
    }

    pub(crate) fn etcd(name: &str) -> Self {
        Self::new(name, 55, ["server", "etcdctl", "etcdutl"].map(|program| format!("go.etcd.io/etcd/{program}/v3")))
    }

    pub(crate) fn containerd() -> Self {
        let programs = ["containerd", "containerd-shim-runc-v2", "ctr"];
        Self::new("containerd", 95, programs.map(|name| format!("github.com/containerd/containerd/v2/cmd/{name}")))
    }

    pub(crate) fn cni() -> Self {
        let plugins = ["ipam/host-local", "main/bridge", "main/loopback", "meta/portmap"];
        Self::new("cni", 10, plugins.map(|plugin| format!("{CNI}/{plugin}")))
    }

    pub(crate) fn coredns() -> Self {
        Self::new("coredns", 15, ["testbed/coredns".to_owned()])
    }

    pub(crate) fn flannel() -> Self {
        Self::new("flannel", 30, ["github.com/flannel-io/flannel".to_owned()])
    }

    /// Where it is, once built.
    pub(crate) fn directory(&self, paths: &Paths) -> Result<PathBuf> {
        let build = Paths::recipes().join("build");
        let inputs = [build.join("go.sh"), build.join("common.sh"), Paths::part(&self.module)];
        let key = digest(&inputs.each_ref().map(PathBuf::as_path), &self.packages.join(" "))?;
        Ok(paths.cache.join(format!("part-{}-{key}", self.name)))
    }
}

/// What a cluster of a release is made of.
pub(crate) fn of_cluster(release: &Release) -> Vec<Part> {
    let mut parts = vec![
        Part::etcd(release.etcd_part()),
        Part::containerd(),
        Part::cni(),
        Part::coredns(),
        Part::flannel(),
        Part::agnhost(),
    ];
    if release.given.is_none() {
        parts.insert(0, Part::kubernetes(release.minor));
    }
    parts
}

/// Builds those of the parts that are missing, and says before how many there are and about how long they take.
pub(crate) fn build(paths: &Paths, parts: &[Part], report: &Report) -> Result<()> {
    let mut missing = Vec::new();
    for part in parts {
        if !part.directory(paths)?.exists() {
            missing.push(part);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    require_go(&missing)?;
    let names: Vec<&str> = missing.iter().map(|part| part.name.as_str()).collect();
    let mut left: u32 = missing.iter().map(|part| part.about_seconds).sum();
    report.step(format!("to be built, once: {}; about {} on two idle cores", names.join(", "), minutes(left)));
    let _fetching = Fetching::begin(missing.get(1..).unwrap_or_default());
    for (number, part) in missing.iter().enumerate() {
        report.step(format!(
            "building {} of {}: {} (about {}; {} for all that is left)",
            number + 1,
            missing.len(),
            part.name,
            minutes(part.about_seconds),
            minutes(left)
        ));
        let mut arguments = vec![part.directory(paths)?, Paths::part(&part.module)];
        arguments.extend(part.packages.iter().map(PathBuf::from));
        make(&Paths::recipes().join("build/go.sh"), &arguments.iter().map(PathBuf::as_path).collect::<Vec<&Path>>())?;
        left -= part.about_seconds;
    }
    Ok(())
}

/// The sources of parts, on their way while others compile.
struct Fetching(Option<Child>);

impl Fetching {
    fn begin(parts: &[&Part]) -> Self {
        if parts.is_empty() {
            return Self(None);
        }
        let words = parts.iter().map(|part| {
            let directory = Paths::part(&part.module).into_os_string();
            [directory].into_iter().chain(part.packages.iter().map(Into::into)).collect::<Vec<OsString>>()
        });
        let words: Vec<Vec<OsString>> = words.collect();
        let mut fetch = command("bash", [Paths::recipes().join("build/fetch.sh")]);
        fetch.args(words.join(&OsString::from("--"))).stdout(Stdio::null()).stderr(Stdio::null());
        // Without it each part fetches its own.
        Self(fetch.spawn().ok())
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _ = child.wait();
        }
    }
}

fn minutes(seconds: u32) -> String {
    if seconds < 90 { format!("{seconds} s") } else { format!("{} minutes", seconds.div_ceil(60)) }
}

/// Go fetches the toolchain that a module asks for itself, since 1.21.
fn require_go(missing: &[&Part]) -> Result<()> {
    const OLDEST: u32 = 21;
    let said = run("go", ["env", "GOVERSION"]).unwrap_or_default();
    let minor = said.trim().strip_prefix("go1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    match minor {
        Some(minor) if minor >= OLDEST => Ok(()),
        Some(_) => bail!("{} is too old to build {}: Go 1.{OLDEST} or later is needed", said.trim(), missing[0].name),
        None => {
            bail!("Go 1.{OLDEST} or later is needed to build {}, and there is no `go` on this host", missing[0].name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_module_that_pins_its_sources() {
        let mut parts: Vec<Part> =
            [34, 37].into_iter().flat_map(|minor| of_cluster(&Release::recipe(minor).unwrap())).collect();
        parts.extend(super::super::release::MINORS.into_iter().flat_map(|minor| {
            [Part::kubernetes(minor), Part::kubeadm(minor), Part::acceptance(minor), Part::conformance(minor)]
        }));
        for part in parts {
            let directory = Paths::part(&part.module);
            let sums = std::fs::read_to_string(directory.join("go.sum")).unwrap_or_default();
            assert!(sums.lines().count() > 10, "{} has no go.sum", part.name);
            for package in &part.packages {
                let package = package.strip_suffix(".test").unwrap_or(package);
                if let Some(own) = package.strip_prefix("testbed/") {
                    assert!(directory.join(own).join("main.go").exists(), "{}: {package} is not there", part.name);
                    continue;
                }
                let tools = std::fs::read_to_string(directory.join("tools.go")).unwrap();
                assert!(tools.contains(&format!("\"{package}\"")), "{}: {package} is not in its tools.go", part.name);
            }
        }
    }
}

//! What is made once and kept: the host's packages, Kubernetes, the image, and the muster binary.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::layout::Paths;
use super::parts::{self, Part};
use super::release::{COMMANDS, MINORS, Release, coredns_tag, flannel_tag};
use super::report::{Report, cannot_provision};
use crate::command::{command, output};
use crate::packages::{install, missing};

/// What running machines needs on the host.
const HOST_PACKAGES: [&str; 8] =
    ["gcc", "iproute2", "libc6-dev", "mmdebstrap", "mount", "nftables", "systemd-container", "util-linux"];

/// What a testbed's machines boot from, and what the host uses of the same build.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    /// The image directory.
    pub(crate) image: PathBuf,
    /// The container images in it.
    archives: PathBuf,
    /// Where Kubernetes' own programs are.
    pub(crate) kubernetes: PathBuf,
    /// containerd, the CNI plugins.
    on_machines: [PathBuf; 2],
    /// etcd's programs.
    etcd: PathBuf,
}

impl Built {
    /// Lays out what a disk image needs of it: programs, `cni`, `images`, and in `add` the document that names the images. What is in
    /// these directories already goes.
    pub(crate) fn lay_out(&self, directory: &Path, release: &Release) -> Result<()> {
        let [containerd, cni] = &self.on_machines;
        for part in ["add", "cni", "images"] {
            let _ = fs::remove_dir_all(directory.join(part));
        }
        for program in ["kubeadm", "kubelet", "kubectl"] {
            place(&self.kubernetes.join(program), directory)?;
        }
        for program in ["etcdctl", "etcdutl"] {
            place(&self.etcd.join(program), directory)?;
        }
        let all = |from: &Path, to: &Path| -> Result<()> {
            fs::read_dir(from)?.flatten().try_for_each(|entry| place(&entry.path(), to))
        };
        all(containerd, directory)?;
        all(cni, &directory.join("cni"))?;
        // What only tests of Kubernetes run has no place on other machines.
        let images = directory.join("images");
        all(&self.archives, &images)?;
        let _ = fs::remove_file(images.join("agnhost.tar"));
        let documents = directory.join("add/etc/muster");
        fs::create_dir_all(&documents)?;
        Ok(fs::write(documents.join("container-images.yaml"), release.documents()?)?)
    }
}

/// Puts a copy of a file into a directory.
fn place(file: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let to = directory.join(file.file_name().unwrap_or_default());
    let _ = fs::remove_file(&to);
    fs::copy(file, &to).map(drop).with_context(|| format!("cannot copy {} to {}", file.display(), to.display()))
}

/// Makes whatever is missing or out of date.
///
/// Machines that join a cluster of another Kubernetes, `among`, have its container images, too: those of its DaemonSets run
/// on them. Failing here says nothing about muster, so every failure is "cannot provision this host".
pub(crate) fn build(paths: &Paths, release: &Release, among: Option<&Built>, report: &Report) -> Result<Built> {
    cannot_build(|| build_all(paths, release, among, report))
}

/// What fails while something is built says nothing about muster.
pub(crate) fn cannot_build<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    act().map_err(|error| cannot_provision(format!("{error:#}")))
}

fn build_all(paths: &Paths, release: &Release, among: Option<&Built>, report: &Report) -> Result<Built> {
    require_debian()?;
    // What is complete bears its name; while another command builds another release, this one need not wait.
    let trees = Trees::of(paths, release, among)?;
    if trees.are_there() && missing(&HOST_PACKAGES).is_empty() {
        return Ok(trees.built());
    }
    let _lock = paths.lock(&paths.cache, report)?;
    install(&HOST_PACKAGES, |step| report.step(step))?;
    parts::build(paths, &parts::of_cluster(release), report)?;

    let recipe = |name: &str| Paths::recipes().join("build").join(name);
    if !trees.base.exists() {
        report.step("making the Debian tree (one minute, once)");
        make(&recipe("base.sh"), &[&trees.base])?;
    }
    if !trees.archives.exists() {
        report.step("making the container images' archives (some ten seconds)");
        let [etcd, coredns, flannel, agnhost] = &trees.in_containers;
        let tags = [release.etcd_tag()?, coredns_tag()?, flannel_tag()?, AGNHOST_TAGS.join(" ")].map(PathBuf::from);
        let version = PathBuf::from(&release.version);
        let arguments: [&Path; 12] = [
            &trees.archives,
            &trees.base,
            &trees.kubernetes,
            &version,
            etcd,
            &tags[0],
            coredns,
            &tags[1],
            flannel,
            &tags[2],
            agnhost,
            &tags[3],
        ];
        make(&recipe("archives.sh"), &arguments)?;
    }
    if !trees.image.exists() {
        report.step("putting the machines' image together (some ten seconds)");
        let [containerd, cni] = &trees.on_machines;
        let (etcd, unit) = (&trees.in_containers[0], muster_unit());
        let mut arguments: Vec<&Path> =
            vec![&trees.image, &trees.base, &trees.kubernetes, containerd, cni, etcd, &unit, &trees.archives];
        arguments.extend(among.map(|among| among.archives.as_path()));
        make(&recipe("image.sh"), &arguments)?;
    }
    remove_unused(paths, &trees)?;
    Ok(trees.built())
}

/// The directories in the cache that a release's machines are made of. Each is named by its recipe and its inputs.
struct Trees {
    kubernetes: PathBuf,
    /// containerd, the CNI plugins.
    on_machines: [PathBuf; 2],
    /// etcd, CoreDNS, flannel, agnhost.
    in_containers: [PathBuf; 4],
    base: PathBuf,
    archives: PathBuf,
    image: PathBuf,
}

impl Trees {
    fn of(paths: &Paths, release: &Release, among: Option<&Built>) -> Result<Self> {
        let build = Paths::recipes().join("build");
        let part = |part: Part| part.directory(paths);
        let kubernetes = match &release.given {
            Some(directory) => directory.clone(),
            None => part(Part::kubernetes(release.minor))?,
        };
        let on_machines = [part(Part::containerd())?, part(Part::cni())?];
        let in_containers = [
            part(Part::etcd(release.etcd_part()))?,
            part(Part::coredns())?,
            part(Part::flannel())?,
            part(Part::agnhost())?,
        ];
        let name = |path: &PathBuf| path.display().to_string();
        // Binaries that somebody built may change in place; a part's name changes with what is in it.
        let programs = match &release.given {
            Some(_) => {
                let files = COMMANDS.map(|command| kubernetes.join(command));
                digest(&files.each_ref().map(PathBuf::as_path), &name(&kubernetes))?
            }
            None => name(&kubernetes),
        };
        let base_key = digest(&[&build.join("base.sh"), &build.join("packages"), &build.join("common.sh")], "")?;
        let inputs: Vec<String> = in_containers.iter().map(name).chain([programs, base_key.clone()]).collect();
        let archives_key = digest(&[&build.join("archives.sh"), &Paths::recipes().join("pause.c")], &inputs.join(" "))?;
        let inputs = on_machines.iter().map(name).chain([archives_key.clone()]);
        let inputs: Vec<String> = inputs.chain(among.map(|among| name(&among.archives))).collect();
        let image_key =
            digest(&[&build.join("image.sh"), &Paths::recipes().join("image"), &muster_unit()], &inputs.join(" "))?;
        let minor = release.minor;
        Ok(Self {
            kubernetes,
            on_machines,
            in_containers,
            base: paths.cache.join(format!("debian-{base_key}")),
            archives: paths.cache.join(format!("archives-1.{minor}-{archives_key}")),
            image: paths.cache.join(format!("image-1.{minor}-{image_key}")),
        })
    }
}

impl Trees {
    fn are_there(&self) -> bool {
        let parts = self.on_machines.iter().chain(&self.in_containers);
        parts.chain([&self.kubernetes, &self.base, &self.archives, &self.image]).all(|path| path.exists())
    }

    fn built(self) -> Built {
        let [etcd, ..] = self.in_containers;
        Built {
            image: self.image,
            archives: self.archives,
            kubernetes: self.kubernetes,
            on_machines: self.on_machines,
            etcd,
        }
    }
}

fn muster_unit() -> PathBuf {
    Paths::checkout().join("crates/cli/dist/muster.service")
}

/// One build of agnhost serves the tests of every Kubernetes, each of which asks for a tag of its own.
pub(crate) const AGNHOST_TAGS: [&str; 4] = ["2.56", "2.59", "2.63.0", "2.66.1"];

/// Builds kubeadm of every version and lays them out as `CACHE/kubeadms/1.36`, for the test that compares the rehearsal.
pub(crate) fn kubeadms(paths: &Paths, report: &Report) -> Result<PathBuf> {
    cannot_build(|| {
        let _lock = paths.lock(&paths.cache, report)?;
        let mut parts = Vec::new();
        for minor in MINORS {
            // Where all of a Kubernetes is built, its kubeadm is.
            let whole = Part::kubernetes(minor);
            parts.push((minor, if whole.directory(paths)?.exists() { whole } else { Part::kubeadm(minor) }));
        }
        let wanted: Vec<Part> = parts.iter().map(|(_, part)| part.clone()).collect();
        parts::build(paths, &wanted, report)?;
        let directory = paths.cache.join("kubeadms");
        fs::create_dir_all(&directory)?;
        for (minor, part) in parts {
            let place = directory.join(format!("1.{minor}"));
            let _ = fs::remove_file(&place);
            std::os::unix::fs::symlink(part.directory(paths)?.join("kubeadm"), &place)?;
        }
        Ok(directory)
    })
}

fn require_debian() -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let has = |line: &str| release.lines().any(|other| other == line);
    if !has("ID=debian") || !has("VERSION_ID=\"12\"") {
        bail!("the testbed is made for Debian 12, whose packages it is built from");
    }
    Ok(())
}

/// Runs a recipe; what it says about its progress goes to the terminal.
pub(crate) fn make(recipe: &Path, arguments: &[&Path]) -> Result<()> {
    let mut command = command("bash", [recipe]);
    let status = command.args(arguments).stdout(Stdio::null()).status().context("cannot start bash")?;
    if !status.success() {
        bail!("{} failed ({status}); its own words are above", recipe.display());
    }
    Ok(())
}

/// A short name for the contents of files and directories: another name when anything in them changes.
pub(crate) fn digest(paths: &[&Path], start: &str) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    start.hash(&mut hasher);
    for path in paths {
        digest_into(path, &mut hasher)?;
    }
    Ok(format!("{:016x}", hasher.finish())[..12].to_owned())
}

fn digest_into(path: &Path, hasher: &mut DefaultHasher) -> Result<()> {
    path.file_name().hash(hasher);
    if path.is_dir() {
        let mut entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        entries.sort();
        return entries.iter().try_for_each(|entry| digest_into(entry, hasher));
    }
    let mut contents = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    { file }.read_to_end(&mut contents)?;
    contents.hash(hasher);
    Ok(())
}

/// Removes trees of earlier recipes, except an image some testbed still stands on. What other versions need stays.
fn remove_unused(paths: &Paths, current: &Trees) -> Result<()> {
    let mut descriptions = String::new();
    if let Ok(states) = fs::read_dir(&paths.states) {
        for state in states.flatten() {
            descriptions += &fs::read_to_string(state.path().join("testbed.json")).unwrap_or_default();
        }
    }
    let mut kept = vec![current.archives.clone(), current.image.clone()];
    for minor in MINORS {
        let trees = Trees::of(paths, &Release::recipe(minor)?, None)?;
        kept.extend([trees.kubernetes, trees.base, trees.archives, trees.image]);
        kept.extend(trees.on_machines.into_iter().chain(trees.in_containers));
        for part in [Part::kubeadm(minor), Part::acceptance(minor), Part::conformance(minor)] {
            kept.push(part.directory(paths)?);
        }
    }
    for entry in fs::read_dir(&paths.cache)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let ours = ["part-", "debian-", "archives-", "image-"].iter().any(|prefix| name.starts_with(prefix));
        if ours && !kept.contains(&path) && !descriptions.contains(&*path.to_string_lossy()) {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The muster binary: the one given, or one built from this checkout.
pub(crate) fn muster_binary(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(path) = given {
        return path.canonicalize().with_context(|| format!("no muster binary at {}", path.display()));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--package", "muster", "--message-format=json-render-diagnostics"]);
    build.current_dir(Paths::checkout()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let messages = output(&mut build)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut executables = messages.filter(|message| message["target"]["name"] == "muster");
    let path = executables.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.context("cargo built no executable `muster`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_follows_contents_and_names() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "one").unwrap();
        let first = digest(&[directory.path()], "").unwrap();
        assert_eq!(first, digest(&[directory.path()], "").unwrap());
        fs::write(&file, "two").unwrap();
        let second = digest(&[directory.path()], "").unwrap();
        fs::rename(&file, directory.path().join("other")).unwrap();
        let third = digest(&[directory.path()], "").unwrap();
        assert!(first != second && second != third && first != third);
    }
}

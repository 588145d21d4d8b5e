//! What is made once and kept: the host's packages, Kubernetes, the image, and the muster binary.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::layout::Paths;
use super::report::{Report, cannot_provision};
use crate::command::{command, output, run};

/// What running machines needs on the host.
const HOST_PACKAGES: [&str; 8] =
    ["gcc", "iproute2", "libc6-dev", "mmdebstrap", "mount", "nftables", "systemd-container", "util-linux"];
/// What building Kubernetes needs besides; wanted only while it is not built.
const KUBERNETES_PACKAGES: [&str; 3] = ["dpkg-dev", "golang-go", "golang-github-modern-go-reflect2-dev"];

/// Makes whatever is missing or out of date and returns the image directory.
///
/// Failing here says nothing about muster, so every failure is "cannot provision this host".
pub(crate) fn build(paths: &Paths, report: &Report) -> Result<PathBuf> {
    build_all(paths, report).map_err(|error| cannot_provision(format!("{error:#}")))
}

fn build_all(paths: &Paths, report: &Report) -> Result<PathBuf> {
    require_debian()?;
    let _lock = paths.lock(&paths.cache)?;
    install(&HOST_PACKAGES, report)?;

    let recipes = Paths::recipes();
    let recipe = |name: &str| recipes.join("build").join(name);
    let kubernetes = paths.cache.join("kubernetes-1.20.2");
    if !kubernetes.exists() {
        install(&KUBERNETES_PACKAGES, report)?;
        report.step("building Kubernetes 1.20.2 from its Debian source package (four minutes or more, once)");
        let work = paths.cache.join("work/kubernetes");
        make(&recipe("kubernetes.sh"), &[&kubernetes, &work])?;
    }

    let base_key = digest(&[&recipe("base.sh"), &recipe("packages"), &recipe("common.sh")], "")?;
    let base = paths.cache.join(format!("debian-{base_key}"));
    if !base.exists() {
        report.step("making the Debian tree (one minute, once)");
        make(&recipe("base.sh"), &[&base])?;
    }

    let archives_key = digest(&[&recipe("archives.sh"), &recipes.join("pause.c")], &base_key)?;
    let archives = paths.cache.join(format!("archives-{archives_key}"));
    if !archives.exists() {
        report.step("making the container images' archives");
        make(&recipe("archives.sh"), &[&archives, &kubernetes, &base])?;
    }

    let unit = Paths::checkout().join("crates/cli/dist/muster.service");
    let image_key = digest(&[&recipe("image.sh"), &recipes.join("image"), &unit], &archives_key)?;
    let image = paths.cache.join(format!("image-{image_key}"));
    if !image.exists() {
        report.step("putting the machines' image together");
        make(&recipe("image.sh"), &[&image, &base, &kubernetes, &archives, &unit])?;
    }
    remove_unused(paths, &[&base, &archives, &image])?;
    Ok(image)
}

fn require_debian() -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let has = |line: &str| release.lines().any(|other| other == line);
    if !has("ID=debian") || !has("VERSION_ID=\"12\"") {
        bail!("the testbed is made for Debian 12, whose packages it is built from");
    }
    Ok(())
}

/// Installs those of the packages that are missing.
fn install(packages: &[&str], report: &Report) -> Result<()> {
    let installed = |package: &&&str| {
        run("dpkg-query", ["-W", "-f", "${db:Status-Status}", package]).is_ok_and(|status| status == "installed")
    };
    let missing: Vec<&str> = packages.iter().filter(|package| !installed(package)).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    report.step(format!("installing {}", missing.join(" ")));
    run("apt-get", ["update", "-qq"])?;
    let mut install = command("apt-get", ["install", "-qq", "--yes", "--no-install-recommends"]);
    output(install.args(missing).env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
}

/// Runs a recipe; what it says about its progress goes to the terminal.
fn make(recipe: &Path, arguments: &[&Path]) -> Result<()> {
    let mut command = command("bash", [recipe]);
    let status = command.args(arguments).stdout(Stdio::null()).status().context("cannot start bash")?;
    if !status.success() {
        bail!("{} failed ({status}); its own words are above", recipe.display());
    }
    Ok(())
}

/// A short name for the contents of files and directories: another name when anything in them changes.
fn digest(paths: &[&Path], start: &str) -> Result<String> {
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

/// Removes trees of earlier recipes, except an image some testbed still stands on.
fn remove_unused(paths: &Paths, current: &[&PathBuf]) -> Result<()> {
    let mut descriptions = String::new();
    if let Ok(states) = fs::read_dir(&paths.states) {
        for state in states.flatten() {
            descriptions += &fs::read_to_string(state.path().join("testbed.json")).unwrap_or_default();
        }
    }
    for entry in fs::read_dir(&paths.cache)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let ours = ["debian-", "archives-", "image-"].iter().any(|prefix| name.starts_with(prefix));
        if ours && !current.contains(&&path) && !descriptions.contains(&*path.to_string_lossy()) {
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

//! The root file system: the tree, and what makes it a machine of a cluster. What is one site's own is not in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::tree;
use crate::cache;
use crate::digest::{Key, is_program, sha256};
use crate::files;
use crate::host;
use crate::plan::{Kubernetes, Plan};

/// Where container images lie on a machine.
const IMAGES: &str = "usr/share/muster/images";

/// Directories whose place is on the state partition: a root file system that nobody writes to leads there.
const LED: [(&str, &str); 2] = [("opt", "var/opt"), ("root", "var/roothome")];

/// kubeadm has the controller manager mount it, and make it where it is missing: it cannot be made on a machine.
const FLEX_VOLUMES: &str = "usr/libexec/kubernetes/kubelet-plugins/volume/exec";

/// Units that start with every machine.
const ENABLED: [&str; 6] = [
    "muster-install.service",
    "muster-settings.service",
    "muster.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
];

/// Who says that a boot was good; asked for by whoever counts them.
const HEALTHY: &str = "muster-healthy.service";

/// Who waits for an address waits for this one.
const WAIT_ONLINE: &str = "systemd-networkd-wait-online.service";

/// And those that start where there is a Kubernetes.
const ENABLED_WITH_KUBERNETES: [&str; 3] = ["containerd.service", "muster-images.service", "kubelet.service"];

/// What a machine without packages to update, and without a writable root, has no use for.
const MASKED: [&str; 8] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "nftables.service",
    // The loader comes with the image.
    "systemd-boot-system-token.service",
    "systemd-boot-update.service",
];

pub(crate) fn key(tree: Key, plan: &Plan) -> Result<Key> {
    let files = files::ROOT.iter().flat_map(|file| [file.path, file.text]);
    let key = files.fold(Key::of("root").text(&tree.name()), Key::text).text(files::FSTAB).text(files::CONTAINERD);
    let key = key.text(&format!("{ENABLED:?} {ENABLED_WITH_KUBERNETES:?} {MASKED:?} {LED:?}")).path(&plan.muster)?;
    let key = match &plan.kubernetes {
        Kubernetes::Directory(directory) => key.followed(directory)?,
        Kubernetes::Rehearsal => key.text("rehearsal"),
    };
    plan.add.iter().try_fold(key, |key, directory| key.path_but(directory, Path::new("etc/muster")))
}

/// Lays it out at `path`, which is on the same file system as the tree: what is the same is shared with it by hard links.
pub(crate) fn lay_out(tree: &Path, plan: &Plan, path: &Path) -> Result<()> {
    host::run("cp", ["-al".as_ref(), tree.as_os_str(), path.as_os_str()])?;
    keep_kernel_config(tree, path)?;
    empty(path)?;
    files::write(files::ROOT, path)?;
    put(path, "etc/fstab", files::FSTAB.as_bytes(), 0o644)?;
    copy(&plan.muster, &path.join("usr/bin/muster"), 0o755)?;
    match &plan.kubernetes {
        Kubernetes::Directory(directory) => kubernetes(directory, path)?,
        Kubernetes::Rehearsal => rehearsal(path)?,
    }
    for directory in &plan.add {
        add(directory, path)?;
    }
    let wants = path.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    let there = matches!(plan.kubernetes, Kubernetes::Directory(_));
    for unit in ENABLED.iter().chain(ENABLED_WITH_KUBERNETES.iter().filter(|_| there)) {
        link(&format!("/usr/lib/systemd/system/{unit}"), &wants.join(unit))?;
    }
    for (directory, unit) in [("network-online.target.wants", WAIT_ONLINE), ("boot-complete.target.requires", HEALTHY)]
    {
        let asking = path.join("etc/systemd/system").join(directory);
        fs::create_dir_all(&asking)?;
        link(&format!("/usr/lib/systemd/system/{unit}"), &asking.join(unit))?;
    }
    MASKED.iter().try_for_each(|unit| link("/dev/null", &path.join("etc/systemd/system").join(unit)))
}

/// kubeadm's preflight looks for the kernel's configuration, and takes a machine without one for unfit: `kernel_validator.go` of
/// k8s.io/system-validators. Debian's kernels do not carry their own.
fn keep_kernel_config(tree: &Path, root: &Path) -> Result<()> {
    let (version, _) = tree::kernel(tree)?;
    match fs::read(tree.join(format!("boot/config-{version}"))) {
        Ok(config) => put(root, &format!("usr/lib/modules/{version}/config"), &config, 0o644),
        // A kernel that carries it has no such file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context("the kernel's configuration cannot be read"),
    }
}

/// Takes away what is another place's: what a machine writes, and what was the build host's.
fn empty(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let kernels = ["vmlinuz", "initrd.img"].iter().any(|kernel| name.starts_with(kernel));
        if kernels || ["boot", "var", "run", "tmp", "media", "srv"].contains(&name.as_str()) {
            cache::remove(&root.join(&name))?;
        }
    }
    for place in ["boot", "var", "run", "tmp", "proc", "sys", "dev", "mnt", "srv", "efi"] {
        fs::create_dir_all(root.join(place))?;
    }
    // A machine mounts memory there; a container does not.
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    for (place, led) in LED {
        cache::remove(&root.join(place))?;
        symlink(led, root.join(place))?;
    }
    // Each machine makes its own, and keeps it.
    put(root, "etc/machine-id", b"", 0o444)?;
    for file in ["etc/hostname", "etc/resolv.conf", "etc/fstab", "etc/.pwd.lock"] {
        cache::remove(&root.join(file))?;
    }
    symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf"))?;
    put(root, "etc/hosts", b"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n", 0o644)?;
    // agetty 2.38 looks into /run/issue.d only where there is no /etc/issue; the agent writes there what a console is to show.
    fs::create_dir_all(root.join("etc/issue.d"))?;
    symlink("/run/issue.d/50-muster.issue", root.join("etc/issue.d/50-muster.issue"))?;
    // What is there is one site's own, and appended.
    cache::remove(&root.join("etc/muster"))?;
    symlink("/site", root.join("etc/muster"))?;
    Ok(())
}

/// Programs, plugins and container images of a Kubernetes that somebody built.
fn kubernetes(from: &Path, root: &Path) -> Result<()> {
    for program in ["kubeadm", "kubelet", "kubectl", "containerd", "containerd-shim-runc-v2", "ctr"] {
        if !is_program(&from.join(program)) {
            bail!("{} has no program {program}; docs/image.md says what belongs there", from.display());
        }
    }
    for file in listed(from)?.iter().filter(|file| is_program(file)) {
        copy(file, &root.join("usr/bin").join(name(file)), 0o755)?;
        // systemd looks there first, and would find the one that the tree came with.
        cache::remove(&root.join("usr/sbin").join(name(file)))?;
    }
    for file in listed(&from.join("cni"))?.iter().filter(|file| is_program(file)) {
        copy(file, &root.join("usr/lib/cni").join(name(file)), 0o755)?;
    }
    let archives = archives(from)?;
    let mut sums = String::new();
    for archive in &archives {
        copy(archive, &root.join(IMAGES).join(name(archive)), 0o644)?;
        sums += &format!("{}  {}\n", hex::encode(sha256(archive)?), name(archive));
    }
    put(root, &format!("{IMAGES}/SHA256SUMS"), sums.as_bytes(), 0o644)?;
    fs::create_dir_all(root.join(FLEX_VOLUMES))?;
    let tags = tags(&archives)?;
    let pause = tags.iter().filter(|tag| tag.contains("/pause:")).max_by_key(|tag| version(tag));
    let pause = pause.with_context(|| format!("{}/images has no pause image", from.display()))?;
    put(root, "etc/containerd/config.toml", files::CONTAINERD.replace("@PAUSE@", pause).as_bytes(), 0o644)
}

/// The archives of container images that come with a Kubernetes.
pub(crate) fn archives(from: &Path) -> Result<Vec<PathBuf>> {
    let mut files = listed(&from.join("images"))?;
    files.sort_unstable();
    match files.iter().find(|file| file.extension().is_none_or(|extension| extension != "tar")) {
        Some(other) => {
            bail!("{}: container images must be .tar archives, as `docker save` writes them", other.display())
        }
        None => Ok(files),
    }
}

/// The numbers in a tag, so that 3.10 is later than 3.9.
fn version(tag: &str) -> Vec<u64> {
    let (_, version) = tag.rsplit_once(':').unwrap_or(("", tag));
    version.split(|character: char| !character.is_ascii_digit()).map(|number| number.parse().unwrap_or(0)).collect()
}

/// The names of the images in archives as `docker save` writes them, in order.
pub(crate) fn tags(archives: &[PathBuf]) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Image {
        // Null of an image that was saved by its id.
        #[serde(rename = "RepoTags")]
        tags: Option<Vec<String>>,
    }
    let mut tags = Vec::new();
    for path in archives {
        let wrong = || format!("{} is no archive of container images", path.display());
        let mut archive = tar::Archive::new(fs::File::open(path).with_context(wrong)?);
        let mut entries = archive.entries().with_context(wrong)?.map_while(Result::ok);
        let manifest = entries.find(|entry| entry.path().is_ok_and(|path| path == Path::new("manifest.json")));
        let images: Vec<Image> = serde_json::from_reader(manifest.with_context(wrong)?).with_context(wrong)?;
        tags.extend(images.into_iter().filter_map(|image| image.tags).flatten());
    }
    tags.sort_unstable();
    Ok(tags)
}

/// muster as its own double of kubeadm.
fn rehearsal(root: &Path) -> Result<()> {
    link("muster", &root.join("usr/bin/kubeadm"))?;
    let unit =
        "[Service]\nEnvironment=MUSTER_REHEARSAL_DIR=/etc/kubernetes MUSTER_REHEARSAL_KUBELET_DIR=/var/lib/kubelet\n";
    put(root, "etc/systemd/system/muster.service.d/rehearsal.conf", unit.as_bytes(), 0o644)
}

/// Lays a directory of the user's over the root.
fn add(from: &Path, root: &Path) -> Result<()> {
    // Directories that are there stay as they are; the site's own is taken from there by whoever made the plan.
    let script =
        "tar -C \"$1\" --exclude=./etc/muster -cf - . | tar -C \"$2\" --no-overwrite-dir --no-same-owner -xpf -";
    let words = ["-o", "pipefail", "-euc", script, "add"].map(AsRef::as_ref);
    host::run("bash", words.into_iter().chain([from.as_os_str(), root.as_os_str()]))
}

/// The files of a directory in the order of their names; none of one that is not there.
fn listed(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = match fs::read_dir(directory) {
        Ok(read) => read,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", directory.display())),
    };
    let mut files = read.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort_unstable();
    Ok(files)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Writes a file in place of whatever is there: what is there may be shared with the tree.
fn put(root: &Path, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap_or(root))?;
    cache::remove(&path)?;
    fs::write(&path, bytes).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(mode))?)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    cache::remove(to)?;
    fs::copy(from, to).with_context(|| format!("{} cannot be copied", from.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

fn link(target: &str, path: &Path) -> Result<()> {
    cache::remove(path)?;
    symlink(target, path).with_context(|| format!("{} cannot be linked", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_what_preflight_asks_of_its_kernel() {
        let (tree, root) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        for place in ["boot", "usr/lib/modules/6.1"] {
            fs::create_dir_all(tree.path().join(place)).expect("made");
        }
        fs::write(tree.path().join("boot/vmlinuz-6.1"), "").expect("written");
        keep_kernel_config(tree.path(), root.path()).expect("a kernel that carries its own");
        fs::write(tree.path().join("boot/config-6.1"), "CONFIG_A=y").expect("written");
        keep_kernel_config(tree.path(), root.path()).expect("kept");
        let kept = fs::read_to_string(root.path().join("usr/lib/modules/6.1/config")).expect("there");
        assert_eq!(kept, "CONFIG_A=y");
    }

    #[test]
    fn of_two_pause_images_the_later_is_taken_and_no_archive_is_skipped() {
        let tags = ["r/pause:3.9", "r/pause:3.10.2", "r/pause:3.10"];
        assert_eq!(tags.iter().max_by_key(|tag| version(tag)), Some(&"r/pause:3.10.2"));
        let directory = tempfile::tempdir().expect("a directory");
        let images = directory.path().join("images");
        fs::create_dir(&images).expect("made");
        fs::write(images.join("a.tar"), "").expect("written");
        assert_eq!(archives(directory.path()).expect("one"), [images.join("a.tar")]);
        fs::write(images.join("b.tar.gz"), "").expect("written");
        assert!(archives(directory.path()).expect_err("another").to_string().contains("b.tar.gz"));
    }
}

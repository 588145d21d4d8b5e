//! The system below: Debian's packages, or a tree that somebody brings.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::contents::Package;
use crate::digest::Key;
use crate::host;
use crate::plan::{From, Kernel};

/// What a machine of a cluster needs of Debian, besides what is required of each system.
const PACKAGES: [&str; 30] = [
    "bash",
    "ca-certificates",
    "conntrack",
    "cryptsetup-bin",
    "dbus",
    "dosfstools",
    "dracut",
    "e2fsprogs",
    "ethtool",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "libnss-myhostname",
    "mount",
    "netbase",
    "nftables",
    "procps",
    "runc",
    "socat",
    "systemd",
    "systemd-boot",
    "systemd-boot-efi",
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
    "util-linux",
    "zlib1g",
    "zstd",
];

/// Documentation that nobody reads on a machine; the licences stay.
const EXCLUDED: [&str; 5] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
];

/// What the tree hashes to. Debian's archive counts by its name: a tree that is there stays until the cache is emptied.
pub(crate) fn key(from: &From, kernel: Kernel) -> Result<Key> {
    let key = Key::of("tree");
    match from {
        From::Debian(suite) => {
            Ok(key.text(suite).text(kernel.package()).text(&PACKAGES.join(" ")).text(&EXCLUDED.join(" ")))
        }
        From::Directory(directory) => key.path(directory),
        From::Archive(file) => key.path(file),
    }
}

/// Makes it at `path`.
pub(crate) fn make(from: &From, kernel: Kernel, path: &Path) -> Result<()> {
    match from {
        From::Debian(suite) => debian(suite, kernel, path)?,
        From::Directory(directory) => {
            let source = directory.join(".");
            fs::create_dir(path)?;
            host::run("cp", ["-a".as_ref(), "--reflink=auto".as_ref(), source.as_os_str(), path.as_os_str()])?;
        }
        From::Archive(file) => {
            fs::create_dir(path)?;
            let options = ["-x", "--xattrs", "--numeric-owner", "-f"].map(AsRef::as_ref);
            host::run("tar", options.into_iter().chain([file.as_os_str(), "-C".as_ref(), path.as_os_str()]))?;
        }
    }
    look(path)
}

fn debian(suite: &str, kernel: Kernel, path: &Path) -> Result<()> {
    let packages = [&PACKAGES[..], &[kernel.package()]].concat().join(",");
    let mut arguments: Vec<String> = ["--quiet", "--mode=root", "--variant=minbase"].map(str::to_owned).to_vec();
    arguments.push(format!("--include={packages}"));
    arguments.extend(EXCLUDED.map(|rule| format!("--dpkgopt={rule}")));
    arguments.extend([suite.to_owned(), path.display().to_string(), archive(suite)?]);
    host::run("mmdebstrap", arguments)
}

/// The address of Debian's main archive, as this host's apt knows it, so that a mirror keeps working.
fn archive(suite: &str) -> Result<String> {
    let fields = "$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)";
    let known =
        host::output(&mut host::command("apt-get", ["indextargets", "--format", fields, "Created-By: Packages"]))?;
    let wanted = ["Debian", suite, "main"];
    known
        .lines()
        .find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words.len() == 4 && words[..3] == wanted).then(|| words[3].to_owned())
        })
        .with_context(|| {
            format!("apt on this host knows no Debian {suite}: is this Debian, and did `apt-get update` succeed?")
        })
}

/// What every tree must have, whoever made it.
fn look(tree: &Path) -> Result<()> {
    kernel(tree)?;
    for (file, what) in [
        ("usr/bin/dracut", "dracut"),
        ("usr/bin/systemd-repart", "systemd-repart (systemd 252)"),
        ("usr/sbin/veritysetup", "veritysetup"),
        // Without it no start is ever good, and each image is taken back after its tries.
        ("usr/lib/systemd/systemd-bless-boot", "systemd-bless-boot (Debian's package systemd-boot)"),
    ] {
        if !tree.join(file).exists() {
            bail!("the tree has no {what}: {file} is not there");
        }
    }
    stub(tree).map(drop)
}

/// The tree's one kernel: its version, and the file.
pub(crate) fn kernel(tree: &Path) -> Result<(String, PathBuf)> {
    let modules = tree.join("usr/lib/modules");
    let listed =
        fs::read_dir(&modules).with_context(|| "the tree has no kernel: usr/lib/modules is not there".to_owned())?;
    let mut versions: Vec<String> =
        listed.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    versions.sort_unstable();
    let [version] = versions.as_slice() else {
        bail!("the tree must have one kernel; usr/lib/modules has {}: {}", versions.len(), versions.join(", "));
    };
    let files = [format!("boot/vmlinuz-{version}"), format!("usr/lib/modules/{version}/vmlinuz")];
    let file = files.iter().map(|file| tree.join(file)).find(|file| file.is_file());
    let file = file.with_context(|| format!("the tree has no {}", files.join(" or ")))?;
    Ok((version.clone(), file))
}

/// Where systemd's EFI programs are in it: the stub that a kernel is joined to, and the loader.
pub(crate) fn stub(tree: &Path) -> Result<(PathBuf, PathBuf)> {
    let efi = tree.join("usr/lib/systemd/boot/efi");
    let (stub, loader) = (efi.join("linuxx64.efi.stub"), efi.join("systemd-bootx64.efi"));
    if !stub.is_file() || !loader.is_file() {
        bail!("the tree has no systemd-boot: usr/lib/systemd/boot/efi (package systemd-boot-efi) is not complete");
    }
    Ok((stub, loader))
}

/// The packages of a tree, with their licences as their copyright files name them. None of a tree that dpkg did not make.
pub(crate) fn packages(tree: &Path) -> Vec<Package> {
    let status = fs::read_to_string(tree.join("var/lib/dpkg/status")).unwrap_or_default();
    let package = |stanza: &str| {
        let field = |name: &str| {
            let line = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.map(str::to_owned)
        };
        let name = field("Package")?;
        let copyright =
            fs::read_to_string(tree.join("usr/share/doc").join(&name).join("copyright")).unwrap_or_default();
        Some(Package { version: field("Version")?, licences: licences(&copyright), name })
    };
    let mut packages: Vec<Package> = status.split("\n\n").filter_map(package).collect();
    packages.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    packages
}

/// The short names in a copyright file of Debian's machine-readable form; empty if it has another.
fn licences(copyright: &str) -> Vec<String> {
    let mut names: Vec<String> = copyright
        .lines()
        .filter_map(|line| line.strip_prefix("License:"))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_with_their_licences() {
        let tree = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        };
        write(
            "var/lib/dpkg/status",
            "Package: zlib1g\nStatus: install ok installed\nVersion: 1:1.2\nDescription: a\n Package: not this\n\n\
             Package: bash\nVersion: 5.2\n",
        );
        write(
            "usr/share/doc/bash/copyright",
            "Files: *\nLicense: GPL-3+\n\nLicense: GPL-3+\n Text\n\nLicense: Latex2e\n",
        );
        let packages = packages(tree.path());
        let told: Vec<String> =
            packages.iter().map(|one| format!("{} {} {}", one.name, one.version, one.licences.join(","))).collect();
        assert_eq!(told, ["bash 5.2 GPL-3+,Latex2e", "zlib1g 1:1.2 "]);
    }

    #[test]
    fn a_tree_without_a_kernel_is_refused_by_what_it_lacks() {
        let tree = tempfile::tempdir().expect("a directory");
        assert_eq!(
            look(tree.path()).expect_err("empty").to_string(),
            "the tree has no kernel: usr/lib/modules is not there"
        );
        for version in ["6.1.0-1-amd64", "6.1.0-2-amd64"] {
            fs::create_dir_all(tree.path().join("usr/lib/modules").join(version)).expect("made");
        }
        assert!(look(tree.path()).expect_err("two").to_string().ends_with("has 2: 6.1.0-1-amd64, 6.1.0-2-amd64"));
    }
}

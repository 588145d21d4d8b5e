//! What an image is to be made of.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Result, bail};

/// What is built, for [`build`](crate::build()).
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whose image it is.
    pub cluster: Cluster,
    /// What lies below `/etc/muster` on each machine: `muster.toml` and what it names.
    pub site: PathBuf,
    /// The system below.
    pub from: From,
    /// Which kernel a Debian tree gets.
    pub kernel: Kernel,
    /// Where Kubernetes comes from.
    pub kubernetes: Kubernetes,
    /// Directories whose contents are laid over the root, in this order. `/etc/muster` is not among them.
    pub add: Vec<PathBuf>,
    /// The muster that runs on the machines.
    pub muster: PathBuf,
    /// What stands on the kernel's command line besides what the image needs itself.
    pub command_line: String,
    /// What is written.
    pub outputs: BTreeSet<Output>,
    /// Where it is written.
    pub out: PathBuf,
    /// Where steps are kept.
    pub cache: PathBuf,
}

impl Plan {
    /// Sees that what it names is there.
    ///
    /// # Errors
    /// With the argument that names something else.
    pub fn check(&self) -> Result<()> {
        if self.outputs.is_empty() {
            bail!("no output is asked for");
        }
        if !self.muster.is_file() {
            bail!("--muster {}: is no file", self.muster.display());
        }
        if let Kubernetes::Directory(directory) = &self.kubernetes
            && !directory.is_dir()
        {
            bail!("--kubernetes {}: is no directory", directory.display());
        }
        for directory in &self.add {
            for place in ["var", "opt", "root", "run", "tmp"] {
                if directory.join(place).symlink_metadata().is_ok() {
                    bail!(
                        "{}/{place} cannot be added: on a machine /{place} is on its own disk, which an image never touches",
                        directory.display()
                    );
                }
            }
        }
        self.words()
    }

    /// What the kernel, or a loader, would read otherwise than it is meant.
    fn words(&self) -> Result<()> {
        /// x86 takes 2,048 bytes, and the image has words of its own.
        const LENGTH_MAX: usize = 1_500;
        let words = &self.command_line;
        if words.len() > LENGTH_MAX || words.chars().any(char::is_control) {
            bail!("--command-line: at most {LENGTH_MAX} characters, and no ends of lines");
        }
        if let Some(word) = words.split(' ').find(|word| ["roothash=", "root="].iter().any(|own| word.starts_with(own)))
        {
            bail!("--command-line: {word} is the image's own to say");
        }
        if self.outputs.contains(&Output::Pxe) && ["${", "||", "&&"].iter().any(|sign| words.contains(sign)) {
            bail!("--command-line: iPXE would read ${{, || and && as its own");
        }
        Ok(())
    }
}

/// The cluster of an image, as its `muster.toml` says.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Digest of the settings that all its machines share, as the charter has it, in hexadecimal digits.
    pub settings: String,
}

/// A root file system to begin with. It has a kernel, systemd 252 or later, and dracut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// Debian's release of this name, from the archive that this host's apt knows.
    Debian(String),
    /// A directory, which is read and not changed.
    Directory(PathBuf),
    /// A tar archive, as `tar` reads it.
    Archive(PathBuf),
}

/// Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Kernel {
    /// With the drivers of real machines. Firmware that is not free is not in it.
    Metal,
    /// The smaller one, for virtual machines.
    Vm,
}

impl Kernel {
    /// Debian's package.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Metal => "linux-image-amd64",
            Self::Vm => "linux-image-cloud-amd64",
        }
    }
}

/// The Kubernetes in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kubernetes {
    /// A directory: programs at its top, CNI plugins in `cni`, archives of container images in `images`.
    Directory(PathBuf),
    /// muster's own double of kubeadm: machines that form, and run nothing.
    Rehearsal,
}

/// A form in which an image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Output {
    /// A disk, to be written to a machine's as it is.
    Raw,
    /// The same, compressed.
    RawZst,
    /// A medium that starts in memory, or writes a disk: for a stick and for a drive of compact discs.
    Iso,
    /// One EFI program that starts in memory, for HTTP boot.
    Uki,
    /// Kernel, initrd and command line, for network boot: a directory of these.
    Pxe,
    /// The root file system as an archive of a container image.
    Oci,
    /// The root file system as an archive.
    Tar,
    /// The root file system as a directory.
    Dir,
}

impl Output {
    /// The end of its name in the directory of outputs.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Raw => ".raw",
            Self::RawZst => ".raw.zst",
            Self::Iso => ".iso",
            Self::Uki => ".efi",
            Self::Pxe => "-pxe",
            Self::Oci => "-oci.tar",
            Self::Tar => ".tar",
            Self::Dir => "",
        }
    }
}

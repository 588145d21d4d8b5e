//! The arguments of `muster image`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use muster_image::boot::MACHINES_MAX;

use super::Whom;
use super::machine::{ConfirmArguments, HealthyArguments, InstallArguments, UpdateArguments};

const IMAGE_EXAMPLES: &str = "\
A cluster's machines boot the image that founded it. A machine that boots another one, with another muster.toml, is refused until
that image is accepted; then it may join, and machines of the cluster may be started with it one by one. An image is told apart by
the digest of what all machines of it share, which `muster config check` prints. `machines` and `control_planes` count while founding
only: what a later image says of them changes nothing.

Examples:
  muster image accept new/muster.toml --dry-run   what would change
  muster image accept new/muster.toml
  muster image list                               the accepted images, and which machine runs which

Exit code 0 if it is accepted, 1 if it is refused or nobody took it in time, 2 if the file is wrong, 3 if no agent answers.";

#[derive(Subcommand, Debug)]
pub(crate) enum ImageAction {
    /// Build an image of a muster.toml, Debian and a Kubernetes: one disk that every machine of a site starts from
    Build(BuildArguments),
    /// Say what an image starts, and what it is made of, without mounting it
    Show {
        /// A disk (.raw, .raw.zst), or what starts in memory (.iso, .efi, a directory for network boot)
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Name the packages in it, too, with their licences
        #[arg(long)]
        packages: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// See that every block of an image's root file system is what its kernel asks for, without mounting it
    #[command(after_help = "Exit code 0 if all is as it should be, 1 if anything differs, which is named.")]
    Verify {
        /// A disk (.raw, .raw.zst), or what starts in memory (.iso, .efi, a directory for network boot)
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Boot a disk image in virtual machines on a network of their own, and print their consoles
    Boot(BootArguments),
    /// Write an image to a disk of this machine
    Install(InstallArguments),
    /// Write an image into the slot from which this machine does not run, and start it: if it is not well, it goes back by itself
    Update(UpdateArguments),
    /// Show the two slots of this machine's disk: which runs, which is tried at the next start, which was not well
    Slots {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Wait until this machine is well with the image that it runs: a unit asks this while an image is tried
    Healthy(HealthyArguments),
    /// Forget all that this machine is: the next start makes it anew from its image
    FactoryReset(ConfirmArguments),
    /// Let machines with this image join, too; any machine of the cluster can be asked
    #[command(after_help = IMAGE_EXAMPLES)]
    Accept {
        /// The muster.toml of the image
        file: PathBuf,
        /// Say what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        whom: Whom,
    },
    /// Show the accepted images, those of other machines here, and which machine runs which
    List {
        /// Print a JSON list
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        whom: Whom,
    },
}

const BUILD_HELP: &str = "\
Each step is kept, under the hash of what it is made of: after a change of muster.toml alone a build takes seconds. The same inputs give the
same bytes. What the image is on a machine, and what belongs into --kubernetes, stands in docs/image.md.

Examples (as root, on Debian 12):
  muster config example --cluster site --machines 5 --control-planes 3 > muster.toml
  muster image build --kubernetes /srv/kubernetes-1.37 --out out/
  muster image build --rehearsal --kernel vm --out out/       # nothing but muster's double of kubeadm: to see machines form
  muster image build --kubernetes /srv/kubernetes-1.37 --add files/ --output raw-zst --output tar --out out/

Exit code 0 if it is built, 1 if not, 2 if muster.toml is wrong.";

#[derive(Args, Debug)]
#[command(after_help = BUILD_HELP)]
pub(crate) struct BuildArguments {
    /// The configuration of every machine
    #[arg(long, short, value_name = "FILE", default_value = "muster.toml")]
    pub(crate) config: PathBuf,
    /// A Kubernetes: kubeadm, kubelet, kubectl, containerd and its parts; CNI plugins in cni/, archives of container images in images/
    #[arg(long, value_name = "DIR", required_unless_present = "rehearsal")]
    pub(crate) kubernetes: Option<PathBuf>,
    /// muster's double of kubeadm in place of a Kubernetes: machines form a cluster that runs nothing
    #[arg(long, conflicts_with = "kubernetes")]
    pub(crate) rehearsal: bool,
    /// The system below: Debian's release by name, a directory, or a tar archive, with a kernel, systemd and dracut in it
    #[arg(long, value_name = "NAME|DIR|FILE", default_value = "bookworm")]
    pub(crate) from: String,
    /// Which of Debian's kernels
    #[arg(long, value_enum, default_value = "metal")]
    pub(crate) kernel: KernelWord,
    /// Lay this directory over the root; what is below etc/muster goes beside muster.toml. May be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) add: Vec<PathBuf>,
    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub(crate) command_line: String,
    /// What to write; may be repeated
    #[arg(long, value_enum, value_name = "FORM", default_values = ["raw"])]
    pub(crate) output: Vec<OutputWord>,
    /// Where to write it
    #[arg(long, short, value_name = "DIR", default_value = "out")]
    pub(crate) out: PathBuf,
    /// Where steps are kept
    #[arg(long, env = "MUSTER_IMAGE_CACHE", value_name = "DIR", default_value = "/var/cache/muster-image")]
    pub(crate) cache: PathBuf,
    /// The muster for the machines, in place of this one
    #[arg(long, value_name = "FILE")]
    pub(crate) muster: Option<PathBuf>,
    /// Say what would be built of what, and build nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print a JSON object a step, and one at the end
    #[arg(long)]
    pub(crate) json: bool,
}

/// Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelWord {
    /// With the drivers of real machines
    Metal,
    /// A smaller one, for virtual machines
    Vm,
}

/// What an image is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputWord {
    /// A disk, to be written to each machine's as it is
    Raw,
    /// The same, compressed
    RawZst,
    /// A stick or a compact disc that starts in memory, or writes a disk
    Iso,
    /// One EFI program that starts in memory, for HTTP boot
    Uki,
    /// Kernel, initrd and command line for network boot, in a directory
    Pxe,
    /// The root file system as an archive of a container image
    Oci,
    /// The root file system as an archive
    Tar,
    /// The root file system as a directory
    Dir,
}

const BOOT_HELP: &str = "\
Their processors are this machine's own where that works, which is tried; else they are software, and some ten times slower. Each has a disk
of its own in --dir, which stays: booting again goes on with it.

Examples:
  muster image boot out/muster-site-1a2b3c4d5e6f.raw --machines 3
  muster image boot out/muster-site-1a2b3c4d5e6f.raw --until ': Ready' --timeout 600
  muster image boot out/muster-site-1a2b3c4d5e6f.iso --machines 1

One processor and 1,024 MiB are enough for the rehearsal; a Kubernetes of an image wants `--memory 4096 --processors 2`, and a processor that is no
software.

Exit code 0 if each machine's console printed --until, or without it at Ctrl-C; 1 if one did not in time, or all ended.";

#[derive(Args, Debug)]
#[command(after_help = BOOT_HELP)]
pub(crate) struct BootArguments {
    /// A disk image (.raw); or a medium (.iso), an EFI program (.efi) or a directory for network boot, with empty disks
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Give each machine this disk image or stick as well, read-only. May be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) drive: Vec<PathBuf>,
    /// Give each machine this muster.toml by its firmware, as a hypervisor would
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,
    /// How many machines
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(MACHINES_MAX)))]
    pub(crate) machines: u32,
    /// Memory of each, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub(crate) memory: u32,
    /// Processors of each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) processors: u32,
    /// Length of each machine's disk, in GiB
    #[arg(long, value_name = "GIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(4..=4096))]
    pub(crate) disk: u32,
    /// Where their disks and their consoles' logs are
    #[arg(long, value_name = "DIR", default_value = "machines")]
    pub(crate) dir: PathBuf,
    /// End as soon as each machine's console has printed a line with this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) until: Option<String>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, requires = "until")]
    pub(crate) timeout: u64,
    /// Print a JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

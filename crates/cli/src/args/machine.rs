//! The arguments of what `muster image` does to the machine that it runs on.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Whom;

/// What is asked before something is destroyed.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct ConfirmArguments {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Do not start this machine again
    #[arg(long)]
    pub(crate) no_reboot: bool,
    /// Print JSON objects
    #[arg(long)]
    pub(crate) json: bool,
}

/// What may be written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WipeWord {
    /// What is on a disk, if that is no machine of muster's
    Data,
    /// A machine of muster's as well
    Machines,
}

const INSTALL_HELP: &str = "\
A disk that has anything on it is left alone unless --wipe is said, and one with this very image always. Without a DISK the disks of this machine
are listed, with what is on them. `smallest` and `largest` never mean a stick or a card.

On a machine that was started in memory (--output iso, uki, pxe) the kernel's command line says it, and nobody is asked:
  muster.install=/dev/disk/by-id/...          or smallest, or largest, of the disks on which nothing is
  muster.install=smallest muster.install.wipe           of all disks without a machine of muster's
  muster.install=smallest muster.install.wipe=machines  of all disks; what was installed is lost when another image is started so

Examples:
  muster image install --image out/muster-site-1a2b3c4d5e6f.raw                 which disks there are
  muster image install --image out/muster-site-1a2b3c4d5e6f.raw /dev/sdb --dry-run
  muster image install smallest                                                  of what this machine was started with

Exit code 0 if it is written, 1 if not.";

#[derive(Args, Debug)]
#[command(after_help = INSTALL_HELP)]
pub(crate) struct InstallArguments {
    /// A disk by its device, or the smallest or largest that may be written
    #[arg(value_name = "DISK|smallest|largest")]
    pub(crate) disk: Option<String>,
    /// The disk image (.raw), in place of what this machine was started with
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// A muster.toml with what is this machine's own, which comes onto the disk
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,
    /// Write over what is on the disk; `machines` says that it may be a machine of muster's, with all that it is
    #[arg(long, value_enum, value_name = "WHAT", num_args = 0..=1, require_equals = true, default_missing_value = "data")]
    pub(crate) wipe: Option<WipeWord>,
    /// As the kernel's command line says, and until it is done
    #[arg(long, hide = true)]
    pub(crate) booted: bool,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArguments,
}

const UPDATE_HELP: &str = "\
The image is a disk as `muster image build` writes it, .raw or .raw.zst. All of it is verified before anything is written, and read back from
the disk afterwards. The next start tries it: it is good when this machine is well with it (`muster image healthy`); after three tries
without that the machine starts the image that it had, and `muster explain` says so.

It is refused if the cluster has not accepted the image (`muster image accept`), or while this machine is a control plane that the others
cannot do without.

Examples:
  muster image update muster-site-1a2b3c4d5e6f.raw.zst --dry-run
  muster image update http://10.0.0.5/muster-site-1a2b3c4d5e6f.raw.zst --sha256 ... --yes

Exit code 0 if it is written, or runs already; 1 if not: then the machine starts as before.";

#[derive(Args, Debug)]
#[command(after_help = UPDATE_HELP)]
pub(crate) struct UpdateArguments {
    /// The disk image, or where it is
    #[arg(value_name = "FILE|URL")]
    pub(crate) image: String,
    /// What the file's SHA-256 must be, as in SHA256SUMS
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Option<String>,
    /// Write it although the cluster does not know it, or would be worse off
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArguments,
    #[command(flatten)]
    pub(crate) whom: Whom,
}

const HEALTHY_HELP: &str = "\
A machine is well when its agent answers, and its Node is Ready since this start, or it is not of the cluster yet and sees others. What the
others do, and whether the cluster is whole, counts for nothing: one bad machine would take all others back.

Exit code 0 if it is well, 1 if it was not in time.";

#[derive(Args, Debug)]
#[command(after_help = HEALTHY_HELP)]
pub(crate) struct HealthyArguments {
    /// Wait so long
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) timeout: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) whom: Whom,
}

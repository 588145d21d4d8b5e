//! The arguments of `muster backup`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Whom;

#[derive(Subcommand, Debug)]
pub(crate) enum BackupAction {
    /// The backups that are kept, and on which machines
    List(BackupListArguments),
    /// Write a backup to a file
    Fetch(BackupFetchArguments),
    /// Open a sealed file: needs no agent, and no cluster
    Open(BackupOpenArguments),
}

const BACKUP_OPEN_HELP: &str = "\
What is written is etcd's own snapshot, with all of the cluster's Secrets: `etcdutl snapshot restore` begins a cluster with it.

Example:
  muster backup open backup-7.sealed --key pki/etcd/ca.key --out backup-7.db

Exit code 0 if it is written, 1 if it does not open.";

#[derive(Args, Debug)]
#[command(after_help = BACKUP_OPEN_HELP)]
pub(crate) struct BackupOpenArguments {
    /// The sealed file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The file to write, which must not be there yet
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// The key of etcd's CA, of any control plane of its cluster
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/pki/etcd/ca.key")]
    pub(crate) key: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const BACKUP_LIST_HELP: &str = "\
One is taken every backup.every (12 hours unless the image says otherwise), and before a machine is replaced, repaired, removed or has its certificates
renewed, unless there is one of the last ten minutes. Each is sealed with what is derived of the key of etcd's CA, which control planes have.

Examples:
  muster backup list
  muster backup list --json | jq -r '.[-1].number'

Exit code 0, 3 if no agent answers.";

#[derive(Args, Debug)]
#[command(after_help = BACKUP_LIST_HELP)]
pub(crate) struct BackupListArguments {
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const BACKUP_FETCH_HELP: &str = "\
If it is not on this machine it comes from one that has it. What is written is sealed: to keep it elsewhere, keep also the key of etcd's CA
(/etc/kubernetes/pki/etcd/ca.key of any control plane), without which nobody opens it. With --open, on a control plane, etcd's own snapshot is
written, which `etcdutl snapshot status` reads; all of the cluster's Secrets are in it.

Examples:
  muster backup fetch 7 --out backup-7.sealed
  muster backup fetch 7 --open --out backup-7.db

Exit code 0 if it is written, 1 if it cannot be had, 3 if no agent answers.";

#[derive(Args, Debug)]
#[command(after_help = BACKUP_FETCH_HELP)]
pub(crate) struct BackupFetchArguments {
    /// Which, by its number in `muster backup list`
    #[arg(value_name = "NUMBER")]
    pub(crate) number: u32,
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// The file, which must not be there yet
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Write etcd's own snapshot, not the sealed file
    #[arg(long)]
    pub(crate) open: bool,
    /// The key of etcd's CA, with which it opens
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/pki/etcd/ca.key")]
    pub(crate) key: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

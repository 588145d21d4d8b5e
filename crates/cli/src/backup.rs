//! `muster backup`: which backups of etcd there are, and one of them as a file.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use muster_agent::backups::{BackupKey, open};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::args::{BackupAction, BackupFetchArguments, BackupListArguments, BackupOpenArguments};
use crate::exit::Exit;
use crate::look::agent;
use crate::print;
use crate::text::table;

/// A backup as the agent tells it.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    number: u32,
    taken_s: u64,
    taken_by: String,
    epoch: u32,
    revision: u64,
    bytes: u64,
    digest: String,
    copies: u32,
    by: Vec<String>,
    here: Option<PathBuf>,
}

/// What became of a fetch.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Fetched {
    Here { path: PathBuf },
    Not { why: String },
}

/// Carries out one of them.
///
/// # Errors
/// When no agent answers, or standard output cannot be written.
pub(crate) async fn carry_out(action: &BackupAction) -> anyhow::Result<Exit> {
    match action {
        BackupAction::List(arguments) => list(arguments).await,
        BackupAction::Fetch(arguments) => fetch(arguments).await,
        BackupAction::Open(arguments) => opened(arguments),
    }
}

async fn list(arguments: &BackupListArguments) -> anyhow::Result<Exit> {
    let rows: Vec<Row> = agent(&arguments.whom)?.json("/v1/backups").await?;
    if arguments.json {
        print::line(&json!(rows).to_string())?;
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        print::line(
            "there is no backup: the first is taken ten minutes after the cluster is made, unless backup.every is \"never\"",
        )?;
        return Ok(Exit::Done);
    }
    let mut lines = vec![["BACKUP", "TAKEN", "BY", "EPOCH", "REVISION", "SIZE", "ON"].map(str::to_owned).to_vec()];
    for row in &rows {
        let on = match row.by.len() < row.copies as usize {
            true => format!("{} (of {})", row.by.join(", "), row.copies),
            false => row.by.join(", "),
        };
        lines.push(vec![
            row.number.to_string(),
            ago(row.taken_s),
            row.taken_by.clone(),
            row.epoch.to_string(),
            row.revision.to_string(),
            size(row.bytes),
            on,
        ]);
    }
    for line in table(&lines) {
        print::line(&line)?;
    }
    Ok(Exit::Done)
}

/// How long ago that is by this machine's clock.
fn ago(taken_s: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let Some(age) = now.checked_sub(Duration::from_secs(taken_s)) else { return "in the future".to_owned() };
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7_200 => format!("{} min ago", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

async fn fetch(arguments: &BackupFetchArguments) -> anyhow::Result<Exit> {
    let out = &arguments.out;
    if out.symlink_metadata().is_ok() {
        anyhow::bail!("{} is there already, and is not written over", out.display());
    }
    let key = match arguments.open {
        true => Some(BackupKey::of(&arguments.key).map_err(|why| {
            anyhow::anyhow!("only who has the key of etcd's CA can open it, as control planes do: {why}")
        })?),
        false => None,
    };
    if !arguments.json {
        print::complaint(&format!("backup {}: looked for here, and on the machines that have it", arguments.number));
    }
    let asked = format!("/v1/backups/fetch?number={}", arguments.number);
    let path = match agent(&arguments.whom)?.post(&asked, &()).await? {
        Fetched::Here { path } => path,
        Fetched::Not { why } => {
            if arguments.json {
                print::line(&json!({ "why": why }).to_string())?;
            }
            print::complaint(&format!("error: {why}"));
            return Ok(Exit::Failed);
        }
    };
    write(&path, out, key.as_ref())?;
    told(out, arguments.open, arguments.json)
}

fn opened(arguments: &BackupOpenArguments) -> anyhow::Result<Exit> {
    let key = BackupKey::of(&arguments.key).map_err(|why| anyhow::anyhow!(why))?;
    write(&arguments.file, &arguments.out, Some(&key))?;
    told(&arguments.out, true, arguments.json)
}

fn told(out: &Path, open: bool, json: bool) -> anyhow::Result<Exit> {
    let bytes = out.metadata().map_or(0, |file| file.len());
    let how = if open { "with all Secrets in the clear" } else { "sealed" };
    print::line(&match json {
        true => json!({ "backup": out, "bytes": bytes, "open": open }).to_string(),
        false => format!("{}: {}, {how}", out.display(), size(bytes)),
    })?;
    Ok(Exit::Done)
}

/// Writes a file that is not there yet. Half a backup is none, and is taken away again.
fn write(path: &Path, out: &Path, key: Option<&BackupKey>) -> anyhow::Result<()> {
    let from = File::open(path).with_context(|| path.display().to_string())?;
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out);
    let to = options.with_context(|| format!("{} cannot be written", out.display()))?;
    copy(from, to, key).map_err(|why| {
        let _ = std::fs::remove_file(out);
        why.context(path.display().to_string())
    })
}

fn copy(mut from: File, mut to: File, key: Option<&BackupKey>) -> anyhow::Result<()> {
    match key {
        Some(key) => drop(open(from, key, &mut to).map_err(|why| anyhow::anyhow!(why))?),
        None => drop(std::io::copy(&mut from, &mut to)?),
    }
    to.flush()?;
    to.sync_all()?;
    Ok(())
}

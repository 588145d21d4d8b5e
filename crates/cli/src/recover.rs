//! `muster recover`: the other control planes are gone for good, and this one rebuilds the cluster from what it has. And `muster salvage`,
//! which does the part of that on etcd's files.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_agent::salvage::{Begin, Salvage};
use muster_protocol::{Fate, Phase, Status};
use muster_wire::Digest;
use serde_json::json;

use crate::api::Agent;
use crate::args::{HowArguments, RecoverArguments, SalvageArguments};
use crate::exit::Exit;
use crate::leave::{agreed, say, told};
use crate::look::agent;
use crate::print;

/// Where kubeadm has etcd keep its data.
const ETCD_DIR: &str = "/var/lib/etcd";

/// Pause between two looks at how far it is.
const PAUSE: Duration = Duration::from_millis(300);

/// Rebuilds the cluster from this machine.
///
/// # Errors
/// When no agent answers, or standard output cannot be written.
pub(crate) async fn recover(arguments: &RecoverArguments) -> anyhow::Result<Exit> {
    let how = &arguments.how;
    let agent = agent(&how.whom)?;
    // What is refused need not be asked.
    let from = arguments.from.as_deref().map(named).transpose()?;
    let with = from.as_ref().map_or(String::new(), |from| format!("&backup={}", escaped(from)));
    let fate: Fate = agent.post(&format!("/v1/recover?dry_run=true{with}"), &()).await?;
    let Fate::Would { change } = &fate else { return told(how, &fate, "") };
    if let Some(why) = muster_agent::salvage::lacks(Path::new(ETCD_DIR), arguments.from.is_some()) {
        return told(how, &Fate::Refused { why: why.to_owned() }, "");
    }
    let steps = steps(change, arguments.from.as_deref());
    if how.dry_run {
        match how.json {
            true => {
                let mut fate = json!(fate);
                fate["steps"] = json!(steps);
                print::line(&fate.to_string())?
            }
            false => print::line(&format!("nothing is changed. It would be so:\n  - {}", steps.join("\n  - ")))?,
        };
        return Ok(Exit::Done);
    }
    if !how.yes {
        print::complaint(&format!("  - {}", steps.join("\n  - ")));
        if !std::io::stdin().is_terminal() {
            print::complaint("error: nobody can be asked here: say --yes, or look first with --dry-run");
            return Ok(Exit::Wrong);
        }
        if !agreed("Is there no other control plane that will come back, and is this to be done? [y/N] ")? {
            print::complaint("nothing is changed");
            return Ok(Exit::Failed);
        }
    }
    let fate: Fate = agent.post(&format!("/v1/recover?dry_run=false{with}"), &()).await?;
    if !matches!(fate, Fate::Done { .. }) || how.no_wait {
        return told(how, &fate, "the cluster is being rebuilt; `muster status` says how far it is");
    }
    tokio::select! {
        exit = wait(&agent, how) => exit,
        _ = tokio::signal::ctrl_c() => {
            print::complaint("it goes on all the same: `muster status` says how far it is");
            Ok(Exit::Interrupted)
        }
    }
}

/// What the agent is told of a backup: its number, or the whole path of a file.
fn named(from: &str) -> anyhow::Result<String> {
    if from.parse::<u32>().is_ok() {
        return Ok(from.to_owned());
    }
    let path = std::fs::canonicalize(from).with_context(|| format!("{from} is no backup's number, and no file"))?;
    path.into_os_string().into_string().map_err(|path| anyhow::anyhow!("the path {path:?} is not UTF-8"))
}

/// As a value in a query.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn steps(change: &str, from: Option<&str>) -> Vec<String> {
    let mut steps = vec![change.to_owned()];
    let begins = match from {
        None => [
            "stop etcd and the API server here for some seconds, and copy etcd's data; what is there now is kept aside".to_owned(),
            "begin etcd anew from the copy, with all that this machine's log holds. What only the lost ones had is lost".to_owned(),
        ],
        Some(from) => [
            "stop etcd and the API server here for some seconds; etcd's data is kept aside".to_owned(),
            format!("begin etcd anew from backup {from}: whatever was written since it was taken is lost"),
        ],
    };
    steps.extend(begins);
    let rest = [
        "delete the Nodes of the lost ones; what ran there is started elsewhere",
        "keep the lost ones out if they ever come back: each undoes what it has, and joins as a new machine",
        "give their seats to new machines as they come, and to workers after repair.replace_after",
    ];
    steps.extend(rest.map(str::to_owned));
    steps
}

async fn wait(agent: &Agent, how: &HowArguments) -> anyhow::Result<Exit> {
    let (begun, mut last) = (Instant::now(), String::new());
    while begun.elapsed() < how.timeout {
        // The machine may be busy, or start again.
        if let Ok(status) = agent.json::<Status>("/v1/status").await {
            let ready = status.phase == Phase::Ready;
            let text = match (&status.doing, ready) {
                (_, true) => format!("{} is Ready: the cluster is rebuilt, with one control plane", status.name),
                // Without how long it has been at it.
                (Some(doing), false) => doing.split(" (").next().unwrap_or(doing).to_owned(),
                (None, false) => status.phase.word().to_owned(),
            };
            if text != last {
                match how.json {
                    true => say(how, &text, if ready { "done" } else { "rebuilding" })?,
                    false => say(how, &format!("{:>7.1} s  {text}", begun.elapsed().as_secs_f64()), "")?,
                }
                last = text;
            }
            if ready {
                return Ok(Exit::Done);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    let still = format!("not rebuilt within {} s, and it goes on: {last}", how.timeout.as_secs());
    if how.json {
        say(how, &still, "timeout")?;
    }
    print::complaint(&still);
    Ok(Exit::Failed)
}

/// Makes a cluster of its own of one member's data.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn salvage(arguments: &SalvageArguments) -> anyhow::Result<Exit> {
    let backup = match (&arguments.backup, &arguments.backups, &arguments.key) {
        (Some(digest), Some(directory), Some(key)) => {
            let Some(digest) = Digest::from_hex(digest) else { anyhow::bail!("{digest:?} is no digest") };
            Some(Begin { digest, directory: directory.clone(), key: key.clone() })
        }
        _ => None,
    };
    let salvage = Salvage {
        data_dir: arguments.data_dir.clone(),
        name: arguments.name.clone(),
        peer_url: arguments.peer_url.clone(),
        token: arguments.token.clone(),
        epoch: arguments.epoch,
        backup,
    };
    let done = salvage.carry_out(&mut |words| drop(print::line(&format!("[salvage] {words}"))));
    match done {
        Ok(()) => {
            print::line(&format!("[salvage] done; the data that was here is kept in {}", salvage.aside().display()))?;
            Ok(Exit::Done)
        }
        Err(why) => {
            print::complaint(&format!("error: {why}"));
            Ok(Exit::Failed)
        }
    }
}

//! Former addresses on this machine: its own beside the loopback, and routes for those of others. By `ip` of iproute2, which every image with kubeadm has.
//!
//! What was done is written down in the run directory, which lasts as long as the kernel's tables do: the next start of the agent takes away what
//! is not wanted any more, and does not take the former address for one of the machine's own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_protocol::{FormerAddresses, Input};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

/// How often it is looked whether they are still there: whoever configures the network may flush it.
const LOOK: Duration = Duration::from_secs(20);

/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(5);

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    own: Option<IpAddr>,
    routes: BTreeMap<IpAddr, IpAddr>,
}

impl From<FormerAddresses> for Done {
    fn from(former: FormerAddresses) -> Self {
        Self { own: former.own, routes: former.routes }
    }
}

/// What is wanted, and what is done of it.
pub(crate) struct Former {
    wanted: watch::Sender<Option<Done>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// This machine's former address: none of its own any more.
    own: Option<IpAddr>,
    /// What was last done, whole or in part.
    done: Option<Done>,
}

impl Former {
    /// Goes on from what an earlier start has done.
    pub(crate) fn begin(run_dir: &Path, inputs: mpsc::Sender<Input>) -> Self {
        let path = run_dir.join("former-addresses.json");
        let before: Done =
            std::fs::read(&path).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        let state = Arc::new(Mutex::new(State { own: before.own, done: None }));
        let (wanted, changes) = watch::channel(None);
        tokio::spawn(keep(path, before, changes, state.clone(), inputs));
        Self { wanted, state }
    }

    /// The machine says what leads where.
    pub(crate) fn lead(&self, former: FormerAddresses) {
        self.state().own = former.own;
        self.wanted.send_replace(Some(former.into()));
    }

    /// Whether an address is the machine's former one, which is here for those who know no other.
    pub(crate) fn is_former(&self, address: IpAddr) -> bool {
        self.state().own == Some(address)
    }

    /// Whether what was asked for last was tried.
    pub(crate) fn is_done(&self) -> bool {
        let wanted = self.wanted.borrow();
        wanted.is_none() || self.state().done == *wanted
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

async fn keep(
    path: PathBuf,
    mut before: Done,
    mut changes: watch::Receiver<Option<Done>>,
    state: Arc<Mutex<State>>,
    inputs: mpsc::Sender<Input>,
) {
    let mut told = Vec::new();
    loop {
        let wanted = changes.borrow_and_update().clone();
        if let Some(wanted) = wanted {
            if wanted != before {
                info!(own = ?wanted.own, routes = ?wanted.routes, "former addresses");
                // Before anything is done: what is here must be known to be a former one.
                let both = merged(&before, &wanted);
                note(&path, &both);
                take_away(&both, &wanted).await;
                note(&path, &wanted);
                before = wanted.clone();
            }
            let troubles = if wanted == Done::default() { Vec::new() } else { put(&wanted).await };
            state.lock().expect("no holder panics").done = Some(wanted);
            if troubles != told {
                troubles.iter().for_each(|trouble| warn!("{trouble}"));
                told.clone_from(&troubles);
                if inputs.send(Input::Former { troubles }).await.is_err() {
                    return;
                }
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// What may be here after a change that was cut off.
fn merged(before: &Done, wanted: &Done) -> Done {
    let mut both = wanted.clone();
    both.own = both.own.or(before.own);
    both.routes.extend(before.routes.iter().map(|(former, at)| (*former, *at)));
    both
}

fn note(path: &Path, done: &Done) {
    let written = serde_json::to_vec(done)
        .map_err(std::io::Error::other)
        .and_then(|json| crate::files::write(path, 0o644, &json));
    if let Err(why) = written {
        warn!("{} cannot be written: {why}", path.display());
    }
}

/// An address as a network of its own.
fn alone(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

async fn take_away(before: &Done, wanted: &Done) {
    for former in before.routes.keys().filter(|former| !wanted.routes.contains_key(former)) {
        let _ = ip(&["route", "del", &alone(*former)]).await;
    }
    if let Some(own) = before.own.filter(|own| wanted.own != Some(*own)) {
        let _ = ip(&["address", "del", &alone(own), "dev", "lo"]).await;
    }
}

/// Does all of it, again if it is there. What could not be done, for people.
async fn put(wanted: &Done) -> Vec<String> {
    let mut troubles = Vec::new();
    if let Some(own) = wanted.own
        && let Err(why) = ip(&["address", "replace", &alone(own), "dev", "lo"]).await
    {
        troubles.push(format!("this machine's former address {own} cannot be kept: {why}"));
    }
    for (former, at) in &wanted.routes {
        if let Err(why) = route(*former, *at, wanted.own).await {
            troubles.push(format!("{former} cannot be led to {at}: {why}"));
        }
    }
    troubles
}

async fn route(former: IpAddr, at: IpAddr, own: Option<IpAddr>) -> Result<(), String> {
    let way = ip(&["route", "get", &at.to_string()]).await?;
    let words: Vec<&str> = way.split_whitespace().collect();
    let after = |word: &str| words.iter().position(|found| *found == word).and_then(|at| words.get(at + 1)).copied();
    let device = after("dev").ok_or("there is no way there")?;
    let to = alone(former);
    let at_text = at.to_string();
    let own = own.filter(|own| own.is_ipv4() == former.is_ipv4()).map(|own| own.to_string());
    let mut arguments = vec!["route", "replace", to.as_str()];
    if former != at {
        if let Some(gateway) = after("via").filter(|gateway| *gateway != at_text) {
            return Err(format!("it is beyond the gateway {gateway}, which knows no way to {former}"));
        }
        arguments.extend(["via", at_text.as_str()]);
    }
    arguments.extend(["dev", device]);
    if let Some(own) = &own {
        arguments.extend(["src", own.as_str()]);
    }
    ip(&arguments).await.map(drop)
}

/// Runs `ip`. What it printed, or its last words.
async fn ip(arguments: &[&str]) -> Result<String, String> {
    let mut command = tokio::process::Command::new("ip");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(COMMAND, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(why)) => return Err(format!("ip: {why}")),
        Err(_) => return Err("ip took too long".to_owned()),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr).lines().last().unwrap_or("ip failed").to_owned()),
    }
}

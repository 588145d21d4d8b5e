//! The kubeadm device: carries out what a step asks for. What that is, and what the answers mean, is [`muster_kubeadm::work`].

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use muster_kubeadm::work::{Answer, Ask, Next, Ran};
use muster_kubeadm::{Command, Place, Plan, Work};
use muster_protocol::{Step, StepFailure, StepOutput};
use serde::Serialize;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use crate::backups::{self, Store};
use crate::endpoint::Endpoint;
use crate::hosts::Hosts;
use crate::proxy::Proxies;
use crate::{files, https, process};

/// Most finished phases whose times are kept.
const TIMES_MAX: usize = 512;

/// When a phase ran, in milliseconds since the agent's start.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseTime {
    /// The step it belongs to.
    pub step: &'static str,
    /// The phase, in kubeadm's words; empty for the step as a whole.
    pub phase: String,
    /// Its beginning.
    pub start_ms: u64,
    /// Its end.
    pub end_ms: u64,
}

/// What the device works with.
pub(crate) struct Device {
    pub(crate) place: Arc<Place>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) hosts: Hosts,
    pub(crate) proxies: Proxies,
    /// What it runs.
    pub(crate) runs: process::Runs,
    /// What an earlier start of the agent has left running, until it was waited for.
    pub(crate) former: tokio::sync::Mutex<process::Former>,
    /// Where this machine's own endpoint listens.
    pub(crate) listens: SocketAddr,
    pub(crate) endpoint: Endpoint,
    pub(crate) backups: Arc<Store>,
    pub(crate) started: Instant,
    pub(crate) times: Mutex<Vec<PhaseTime>>,
    /// What the last look at kubeadm made.
    pub(crate) plan: Mutex<Option<Arc<Plan>>>,
}

/// Longest time for a backup: whoever waits for it goes on without.
const BACKUP: Duration = Duration::from_secs(600);

/// Longest time for the kernel to end connections.
const CUT_OFF: Duration = Duration::from_secs(2);

type Progress<'a> = &'a (dyn Fn(&str, Option<&str>) + Send + Sync);

impl Device {
    /// Carries out a step. `progress` hears of every phase that begins, and of what holds it up.
    pub(crate) async fn carry_out(&self, step: Step, progress: Progress<'_>) -> Result<StepOutput, StepFailure> {
        let (name, begun) = (step.name(), Instant::now());
        self.wait_for_former(progress).await;
        let plan = self.plan.lock().expect("no holder panics").clone();
        let mut work = Work::begin(self.place.clone(), plan, step, seed());
        let mut phase: Option<(String, Instant)> = None;
        let mut held: Option<String> = None;
        let mut answer = None;
        let result = loop {
            let next = work.next(self.started.elapsed(), answer.take());
            for words in work.told() {
                warn!(step = name, "{words}");
            }
            let (now_at, holds) = (work.phase(), work.held());
            if phase.as_ref().map(|(name, _)| name) != now_at.as_ref() {
                if let Some((ended, begun)) = phase.take() {
                    self.note(name, ended, begun);
                }
                if let Some(begins) = now_at {
                    progress(&begins, None);
                    phase = Some((begins, Instant::now()));
                }
            }
            if held != holds {
                held = holds;
                progress(phase.as_ref().map_or("", |(name, _)| name), held.as_deref());
            }
            match next {
                Next::Ask(ask) => answer = Some(self.answer(ask).await),
                Next::Ended(result) => break result,
            }
        };
        if let Some((ended, begun)) = phase {
            self.note(name, ended, begun);
        }
        self.note(name, String::new(), begun);
        result
    }

    /// Nothing is begun beside what an earlier start has begun.
    async fn wait_for_former(&self, progress: Progress<'_>) {
        let mut former = self.former.lock().await;
        if let Some(phase) = former.running().first() {
            progress(&format!("{phase}, begun by an earlier start of muster"), None);
        }
        // Where this is aborted, whoever comes next waits for the rest.
        former.wait().await;
    }

    async fn answer(&self, ask: Ask) -> Answer {
        let named = |done: std::io::Result<()>, what: &str, path: &Path| {
            Answer::Did(done.map_err(|why| format!("{} cannot be {what}: {why}", path.display())))
        };
        match ask {
            Ask::Write { path, mode, contents } => {
                named(files::write(&path, mode, contents.expose()), "written", &path)
            }
            Ask::Remove(path) => named(files::remove(&path), "removed", &path),
            Ask::Empty(path) => named(files::empty(&path), "emptied", &path),
            Ask::Exists(path) => Answer::Exists(path.symlink_metadata().is_ok()),
            Ask::Read(path) => Answer::Read(files::read(&path)),
            Ask::List(directory) => Answer::Listed(files::list(&directory)),
            Ask::ListBelow(directory) => Answer::Listed(files::list_below(&directory)),
            Ask::Run(command) => Answer::Ran(self.run(&command).await),
            Ask::Send(request) => {
                let heard = https::send(&request, request.at.unwrap_or(self.listens)).await;
                debug!(server = request.server, path = request.path, status = ?heard.as_ref().map(|heard| heard.0), "asked");
                Answer::Heard(heard)
            }
            Ask::Pause(pause) => {
                tokio::time::sleep(pause).await;
                Answer::Did(Ok(()))
            }
            Ask::Clock => Answer::Clock(SystemTime::now()),
            Ask::Servers => Answer::Servers(self.endpoint.addresses()),
            Ask::Endpoint(address) => Answer::Did(self.mean(address)),
            Ask::CutOff(at) => Answer::Did(cut_off(at).await),
            Ask::Sync(places) => Answer::Did(sync(places).await),
            Ask::BackUp { request, label } => {
                let taken = backups::take(&self.backups, &self.place.settings, &request, label);
                let taken = tokio::time::timeout(BACKUP, taken).await;
                Answer::BackedUp(taken.unwrap_or_else(|_| Err(format!("it took longer than {} s", BACKUP.as_secs()))))
            }
            Ask::Keep(plan) => {
                *self.plan.lock().expect("no holder panics") = Some(plan);
                Answer::Did(Ok(()))
            }
        }
    }

    fn mean(&self, address: IpAddr) -> Result<(), String> {
        self.hosts.require(address).map_err(|why| why.to_string())?;
        self.proxies.except([address.to_string().as_str()]);
        Ok(())
    }

    async fn run(&self, command: &Command) -> Ran {
        // Opens the endpoint again however this ends, an abort included.
        let _reopen = Reopen(&self.endpoint);
        let environment: Vec<_> = self.env.iter().cloned().chain(self.proxies.variables()).collect();
        let ran = process::run(command, &environment, &self.runs, &|line| {
            if command.starts_etcd_at.is_some_and(|mark| line.starts_with(mark)) {
                self.endpoint.close(true);
            }
        })
        .await;
        Ran { note: self.proxies.note(), ..ran }
    }

    fn note(&self, step: &'static str, phase: String, begun: Instant) {
        let since = |at: Instant| at.duration_since(self.started).as_millis() as u64;
        let time = PhaseTime { step, phase, start_ms: since(begun), end_ms: since(Instant::now()) };
        info!(step, phase = time.phase, ms = time.end_ms - time.start_ms, "done");
        let mut times = self.times.lock().expect("no holder panics");
        if times.len() < TIMES_MAX {
            times.push(time);
        }
    }
}

struct Reopen<'a>(&'a Endpoint);

impl Drop for Reopen<'_> {
    fn drop(&mut self) {
        self.0.close(false);
    }
}

/// 32 bytes of the operating system's entropy.
pub(crate) fn seed() -> Zeroizing<[u8; 32]> {
    let mut seed = Zeroizing::new([0; 32]);
    // Without entropy there are no keys, and no machine.
    getrandom::fill(&mut seed[..]).expect("the operating system gives entropy");
    seed
}

/// Has the kernel end the TCP connections from here to `at` (`ss -K` of iproute2, which needs `CONFIG_INET_DIAG_DESTROY`). A connection to a
/// machine without power has no other end before its retransmissions are over.
async fn cut_off(at: SocketAddr) -> Result<(), String> {
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    let mut command = tokio::process::Command::new("ss");
    command.args(["-H", "-K", "dst", &host, "dport", "=", &port]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(CUT_OFF, command.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("ss ended with {status}")),
        Ok(Err(why)) => Err(format!("ss: {why}")),
        Err(_) => Err("ss took too long".to_owned()),
    }
}

async fn sync(places: Vec<(PathBuf, bool)>) -> Result<(), String> {
    let sync = move || {
        let failed = |path: &Path, why| format!("{} cannot be synced: {why}", path.display());
        places.iter().try_for_each(|(path, deep)| files::sync(path, *deep).map_err(|why| failed(path, why)))
    };
    tokio::task::spawn_blocking(sync).await.unwrap_or_else(|why| Err(why.to_string()))
}

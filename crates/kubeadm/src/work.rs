//! One step under way: what it asks of the machine, what the answers mean, what comes next, and how it ends.
//!
//! It is the same in the agent, which carries the asks out on a machine, and in the simulator, which carries them out on a
//! model of one. Nothing here does I/O, reads a clock or draws entropy: time and a seed are arguments.
//!
//! A step is written as a function that waits for its answers (`work/step.rs`); [`Work`] runs it up to its next ask.
//! Secrets are in the clear only within it.

mod actions;
mod apply;
mod backup;
mod drain;
mod etcd;
mod hands;
mod node;
mod recovery;
mod remains;
mod secrets;
mod step;
#[cfg(test)]
pub(crate) mod tests;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use muster_protocol::{Step, StepFailure, StepOutput};
use muster_wire::seal::SealingKey;
use muster_wire::{Digest, MachineId};
use zeroize::Zeroizing;

pub(crate) use self::actions::PATIENCE;
use self::hands::Hands;
use crate::action::Command;
use crate::backup::Label;
use crate::kubeconfig::Kubeconfig;
use crate::manifests::Manifests;
use crate::outcome::{Exit, Failure};
use crate::plan::Plan;
use crate::secret::Secret;
use crate::settings::Settings;

/// Longest file that a step reads, in bytes: the kubelet reads no more of a resolv.conf (`pkg/kubelet/network/dns/dns.go`).
pub const FILE_BYTES_MAX: u64 = 10 << 20;

/// The machine that steps are taken on.
#[derive(Debug)]
pub struct Place {
    /// Who it is.
    pub me: MachineId,
    /// Opens what is sealed to it.
    pub key: SealingKey,
    /// What its image asks of kubeadm.
    pub settings: Settings,
    /// The objects that the image brings.
    pub manifests: Manifests,
}

/// Something to do or to find out. Whoever carries it out gives the [`Answer`] that stands beside it.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Write a file whole: to a temporary name in the same directory, synced, renamed. Missing parent directories are made
    /// with mode 0755. Nobody but the owner may read it unless `mode` says so, not even for a moment. [`Answer::Did`].
    Write {
        /// Where.
        path: PathBuf,
        /// The permission bits, as 0o600.
        mode: u32,
        /// What.
        contents: Secret,
    },
    /// Remove a file that may be absent. [`Answer::Did`].
    Remove(PathBuf),
    /// Remove everything below a directory that may be absent, and stays; a file system's own `lost+found` as well.
    /// [`Answer::Did`].
    Empty(PathBuf),
    /// Whether something of that name is there, a link that leads nowhere included. [`Answer::Exists`].
    Exists(PathBuf),
    /// A file's bytes, up to [`FILE_BYTES_MAX`]. [`Answer::Read`].
    Read(PathBuf),
    /// The names in a directory, in order; none if there is no such directory. [`Answer::Listed`].
    List(PathBuf),
    /// All below a directory that is no directory itself; links are named and not followed. [`Answer::Listed`].
    ListBelow(PathBuf),
    /// Run kubeadm to its end, or to its limit. [`Answer::Ran`].
    Run(Command),
    /// Ask an API server or etcd once. [`Answer::Heard`].
    Send(Request),
    /// Wait at least so long. [`Answer::Did`].
    Pause(Duration),
    /// What the wall clock shows. [`Answer::Clock`].
    Clock,
    /// The machines with API servers, and so with etcd members, that this one knows. [`Answer::Servers`].
    Servers,
    /// From here on the endpoint's name means this machine, which is at this address. [`Answer::Did`].
    Endpoint(IpAddr),
    /// End the TCP connections of this machine to there, which nobody answers any more. [`Answer::Did`].
    CutOff(SocketAddr),
    /// Take a snapshot of etcd by this request, seal it, and keep it among this machine's backups; of the label all but the database's length is
    /// known. [`Answer::BackedUp`].
    BackUp {
        /// Streams the snapshot.
        request: Request,
        /// What it is to say of itself.
        label: Label,
    },
    /// Have the disk keep the files in these directories, and what is below where it says so; one may be absent. [`Answer::Did`].
    Sync(Vec<(PathBuf, bool)>),
    /// Steps that begin from here on are given this plan. [`Answer::Did`].
    Keep(Arc<Plan>),
}

/// One HTTPS request.
#[derive(Debug, Clone)]
pub struct Request {
    /// `host:port`; the host is the name in the server's certificate.
    pub server: String,
    /// Where it is; this machine's own balancer if absent.
    pub at: Option<SocketAddr>,
    /// Whose CA is believed, and who asks.
    pub identity: Kubeconfig,
    /// `GET`, `POST`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// Of the body.
    pub content_type: &'static str,
    /// The body; may be empty.
    pub body: Secret,
    /// Longest time for it.
    pub patience: Duration,
}

/// What a machine says to an [`Ask`].
#[derive(Debug)]
pub enum Answer {
    /// It is done, or why it could not be.
    Did(Result<(), String>),
    /// Whether it is there.
    Exists(bool),
    /// The bytes; nothing if there is no such file; or why it cannot be read.
    Read(Result<Option<Secret>, String>),
    /// The paths, or why the directory cannot be read.
    Listed(Result<Vec<PathBuf>, String>),
    /// How kubeadm ended.
    Ran(Ran),
    /// Status and body, or why there is no answer. The body of an apply that went well may be left out.
    Heard(Result<(u16, Bytes), String>),
    /// Length of the sealed file and its SHA-256, or why there is none.
    BackedUp(Result<(u64, Digest), String>),
    /// The wall clock's time.
    Clock(SystemTime),
    /// Their addresses.
    Servers(Vec<IpAddr>),
}

/// A finished run of kubeadm.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub exit: Exit,
    /// The last [`crate::OUTPUT_LIMIT`] bytes of its output.
    pub stdout: Vec<u8>,
    /// The same of its errors.
    pub stderr: Vec<u8>,
    /// What people should know beside its words if it failed: through which proxy it went.
    pub note: Option<String>,
}

/// Where a step stands.
#[derive(Debug)]
pub enum Next {
    /// It waits for the answer to this.
    Ask(Ask),
    /// It has ended.
    Ended(Result<StepOutput, StepFailure>),
}

/// Why a step did not do what it should, before it has the step's name.
#[derive(Debug)]
pub(crate) struct Trouble {
    phase: Option<String>,
    why: String,
    hopeless: bool,
}

impl Trouble {
    fn new(why: impl ToString) -> Self {
        Self { phase: None, why: why.to_string(), hopeless: false }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let hopeless = failure.is_hopeless();
        let why = match failure.excerpt.is_empty() {
            true => failure.kind.to_string(),
            false => format!("{}: {}", failure.kind, failure.excerpt),
        };
        Self { phase: Some(failure.phase), why, hopeless }
    }
}

/// One step under way.
pub struct Work {
    name: &'static str,
    hands: Hands,
    deed: Pin<Box<dyn Future<Output = Result<StepOutput, Trouble>> + Send>>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("step", &self.name).field("phase", &self.phase()).finish_non_exhaustive()
    }
}

impl Work {
    /// A step that has done nothing yet. `plan` is what an earlier step had kept ([`Ask::Keep`]); `seed` must be fit for keys.
    pub fn begin(place: Arc<Place>, plan: Option<Arc<Plan>>, step: Step, seed: Zeroizing<[u8; 32]>) -> Self {
        let hands = Hands::default();
        let name = step.name();
        Self { name, deed: Box::pin(step::take(hands.clone(), place, plan, step, seed)), hands }
    }

    /// Goes on to the next ask, or to the end, after which it must not be called again. `now` is the time since any moment
    /// before the step began, and never goes back. `answer` is the one to the ask before; none to begin with.
    pub fn next(&mut self, now: Duration, answer: Option<Answer>) -> Next {
        self.hands.give(now, answer);
        match self.deed.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(output)) => Next::Ended(Ok(output)),
            Poll::Ready(Err(Trouble { phase, why, hopeless })) => {
                Next::Ended(Err(StepFailure { step: self.name, phase, why, hopeless }))
            }
            Poll::Pending => match self.hands.asked() {
                Some(ask) => Next::Ask(ask),
                None => unreachable!("a step waits for nothing but its hands"),
            },
        }
    }

    /// What it is at, in kubeadm's words as far as there are any.
    pub fn phase(&self) -> Option<String> {
        self.hands.phase()
    }

    /// What holds it up there, if something does.
    pub fn held(&self) -> Option<String> {
        self.hands.what_holds()
    }

    /// What people should know of it, since this was last asked.
    pub fn told(&mut self) -> Vec<String> {
        self.hands.told()
    }
}

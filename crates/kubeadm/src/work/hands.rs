//! How a step asks and is answered.

use std::future::poll_fn;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use muster_wire::Digest;

use super::{Answer, Ask, Ran, Request, Trouble};
use crate::action::Command;
use crate::kubeconfig::{Identity, Kubeconfig, Material};
use crate::secret::Secret;

/// A place for one ask and one answer, shared by a step and whoever carries its asks out.
#[derive(Clone, Default)]
pub(super) struct Hands(Arc<Mutex<Desk>>);

#[derive(Default)]
struct Desk {
    ask: Option<Ask>,
    answer: Option<Answer>,
    now: Duration,
    phase: Option<String>,
    held: Option<String>,
    told: Vec<String>,
}

/// Takes one kind of answer. Another kind is a mistake of whoever carries out, and fails the step.
macro_rules! answered {
    ($hands:expr, $ask:expr, $kind:path) => {
        match $hands.ask($ask).await {
            $kind(answer) => Ok(answer),
            _ => Err(Trouble::new("a mistake in muster: the answer to another question came")),
        }
    };
}

impl Hands {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().expect("no holder panics")
    }

    pub(super) fn give(&self, now: Duration, answer: Option<Answer>) {
        let mut desk = self.desk();
        (desk.now, desk.answer) = (now, answer);
    }

    pub(super) fn asked(&self) -> Option<Ask> {
        self.desk().ask.take()
    }

    pub(super) fn phase(&self) -> Option<String> {
        self.desk().phase.clone()
    }

    pub(super) fn what_holds(&self) -> Option<String> {
        self.desk().held.clone()
    }

    pub(super) fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.desk().told)
    }

    /// The time since some moment before the step began.
    pub(super) fn now(&self) -> Duration {
        self.desk().now
    }

    /// Says what the step is at.
    pub(super) fn at(&self, phase: &str) {
        let mut desk = self.desk();
        (desk.phase, desk.held) = (Some(phase.to_owned()), None);
    }

    /// Says what holds the step up in this phase.
    pub(super) fn held(&self, why: &str) {
        self.desk().held = Some(why.to_owned());
    }

    /// The phase is over.
    pub(super) fn past(&self) {
        self.desk().phase = None;
    }

    /// Tells people.
    pub(super) fn say(&self, what: String) {
        self.desk().told.push(what);
    }

    async fn ask(&self, ask: Ask) -> Answer {
        self.desk().ask = Some(ask);
        poll_fn(|_| match self.desk().answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => Poll::Pending,
        })
        .await
    }

    /// Does something that the machine can only do or fail to do.
    pub(super) async fn does(&self, ask: Ask) -> Result<(), Trouble> {
        answered!(self, ask, Answer::Did)?.map_err(Trouble::new)
    }

    pub(super) async fn pause(&self, pause: Duration) -> Result<(), Trouble> {
        self.does(Ask::Pause(pause)).await
    }

    pub(super) async fn exists(&self, path: &Path) -> Result<bool, Trouble> {
        answered!(self, Ask::Exists(path.into()), Answer::Exists)
    }

    pub(super) async fn read(&self, path: &Path) -> Result<Option<Secret>, Trouble> {
        answered!(self, Ask::Read(path.into()), Answer::Read)?.map_err(Trouble::new)
    }

    pub(super) async fn list(&self, ask: Ask) -> Result<Vec<PathBuf>, Trouble> {
        answered!(self, ask, Answer::Listed)?.map_err(Trouble::new)
    }

    pub(super) async fn run(&self, command: &Command) -> Result<Ran, Trouble> {
        answered!(self, Ask::Run(command.clone()), Answer::Ran)
    }

    /// Asks a server once. The inner error says why it gave no answer.
    pub(super) async fn send(&self, request: Request) -> Result<Result<(u16, Bytes), String>, Trouble> {
        answered!(self, Ask::Send(request), Answer::Heard)
    }

    /// Takes a backup: length and digest of the sealed file.
    pub(super) async fn backs_up(&self, ask: Ask) -> Result<(u64, Digest), Trouble> {
        answered!(self, ask, Answer::BackedUp)?.map_err(Trouble::new)
    }

    pub(super) async fn clock(&self) -> Result<SystemTime, Trouble> {
        answered!(self, Ask::Clock, Answer::Clock)
    }

    pub(super) async fn servers(&self) -> Result<Vec<IpAddr>, Trouble> {
        answered!(self, Ask::Servers, Answer::Servers)
    }

    /// Reads a kubeconfig. It is read anew each time: kubeadm and the kubelet replace it.
    pub(super) async fn identity(&self, path: &Path) -> Result<Kubeconfig, Trouble> {
        let named = |why: &dyn std::fmt::Display| Trouble::new(format!("{}: {why}", path.display()));
        let text = self.read(path).await?.ok_or_else(|| named(&"No such file or directory"))?;
        Kubeconfig::parse(text.expose_str()).map_err(|why| named(&why))
    }

    /// The same identity with nothing of it in files any more.
    pub(super) async fn in_memory(&self, kubeconfig: &Kubeconfig) -> Result<Kubeconfig, Trouble> {
        let identity = match &kubeconfig.identity {
            Some(Identity::Certificate { certificate, key }) => Some(Identity::Certificate {
                certificate: self.inline(certificate).await?,
                key: self.inline(key).await?,
            }),
            other => other.clone(),
        };
        Ok(Kubeconfig { server: kubeconfig.server.clone(), ca: self.inline(&kubeconfig.ca).await?, identity })
    }

    async fn inline(&self, material: &Material) -> Result<Material, Trouble> {
        match material {
            Material::Inline(pem) => Ok(Material::Inline(pem.clone())),
            Material::File(path) => {
                let pem = self.read(path).await?;
                pem.map(Material::Inline).ok_or_else(|| Trouble::new(format!("{} is missing", path.display())))
            }
        }
    }
}

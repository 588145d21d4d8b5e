//! Carrying out a plan's actions, in order, stopping at the first that fails.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use muster_protocol::StepOutput;

use super::step::Deed;
use super::{Ask, Request, Trouble};
use crate::action::{Action, Command};
use crate::api::Wait;
use crate::kubelet::KubeletServer;
use crate::outcome::{Failure, outcome};
use crate::plan::StepInput;
use crate::renewal::restarted;
use crate::secret::Secret;

/// Pause between two questions of a wait.
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// Pause before a run that may be repeated is.
const AGAIN_PAUSE: Duration = Duration::from_secs(1);

/// Longest time for one question.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

impl Deed {
    /// Does what the plan says for a step.
    pub(super) async fn carry_out(&self, input: &StepInput<'_>) -> Result<StepOutput, Trouble> {
        let mut noted = StepOutput::Done;
        for action in self.plan()?.step(input) {
            if let Some(text) = self.act(action).await? {
                noted = StepOutput::Noted(text);
            }
        }
        Ok(noted)
    }

    /// Does it, and says what people should know of it.
    async fn act(&self, action: Action) -> Result<Option<String>, Trouble> {
        match action {
            Action::WriteFile { path, mode, contents } => self.hands.does(Ask::Write { path, mode, contents }).await?,
            Action::RemoveFile { path } => self.hands.does(Ask::Remove(path)).await?,
            Action::EmptyDirectory { path } => self.hands.does(Ask::Empty(path)).await?,
            Action::Require { phase, path } => {
                if !self.hands.exists(&path).await? {
                    return Err(Failure::left_undone(&phase, &path).into());
                }
            }
            Action::Run(command) => {
                self.hands.at(&command.phase);
                self.run(&command).await?;
                self.hands.past();
            }
            Action::Await(wait) => {
                self.hands.at(&wait.phase);
                self.wait(&wait).await?;
                self.hands.past();
            }
            Action::AwaitFile { phase, path, limit } => {
                self.hands.at(&phase);
                self.wait_for_file(&phase, &path, limit).await?;
                self.hands.past();
            }
            Action::KubeletServer(change) => self.change_server(&change).await?,
            Action::Restart { path } => self.restart(path).await?,
            Action::LocalDns(dns) => {
                self.hands.at("local-dns");
                return self.local_dns(&dns).await;
            }
        }
        Ok(None)
    }

    /// Runs kubeadm, and runs it again if it may be.
    async fn run(&self, command: &Command) -> Result<(), Trouble> {
        let mut tries = 1;
        loop {
            match self.run_once(command).await? {
                Err(failure) if tries < command.tries && failure.may_pass() => {
                    self.hands.say(format!("{failure}: is run again, after {tries} tries"));
                    tries += 1;
                    self.hands.pause(AGAIN_PAUSE).await?;
                }
                result => return Ok(result?),
            }
        }
    }

    async fn run_once(&self, command: &Command) -> Result<Result<(), Failure>, Trouble> {
        let ran = self.hands.run(command).await?;
        Ok(outcome(command, &ran.exit, &ran.stdout, &ran.stderr).map_err(|mut failure| {
            if let Some(note) = ran.note {
                let words = std::mem::take(&mut failure.excerpt);
                failure.excerpt = if words.is_empty() { note } else { format!("{words} ({note})") };
            }
            failure
        }))
    }

    async fn wait(&self, wait: &Wait) -> Result<(), Trouble> {
        // The endpoint is a name only kubeadm must resolve; this machine's own balancer is what it means.
        let at = match wait.server == self.place.settings.endpoint {
            true => None,
            false => {
                let at = wait.server.parse();
                Some(at.map_err(|_| Trouble::new(format!("{:?} is not an address", wait.server)))?)
            }
        };
        let begun = self.hands.now();
        loop {
            // What cannot be read now may be there at the next look.
            let heard = match self.hands.identity(&wait.kubeconfig).await {
                Ok(identity) => {
                    let request = Request {
                        server: wait.server.clone(),
                        at,
                        identity,
                        method: "GET",
                        path: wait.path.clone(),
                        content_type: "application/json",
                        body: Secret::default(),
                        patience: PATIENCE,
                    };
                    self.hands.send(request).await?
                }
                Err(trouble) => Err(trouble.why),
            };
            let missing = match heard.and_then(|(status, body)| wait.met(status, &body)) {
                Ok(()) => return Ok(()),
                Err(missing) => missing,
            };
            if self.hands.now() - begun >= wait.limit {
                return Err(Failure::waited(&wait.phase, &missing).into());
            }
            self.hands.pause(ASK_PAUSE).await?;
        }
    }

    async fn wait_for_file(&self, phase: &str, path: &Path, limit: Duration) -> Result<(), Trouble> {
        let begun = self.hands.now();
        while !self.hands.exists(path).await? {
            if self.hands.now() - begun >= limit {
                return Err(Failure::waited(phase, &format!("{} is missing", path.display())).into());
            }
            self.hands.pause(ASK_PAUSE).await?;
        }
        Ok(())
    }

    /// Where there is no such manifest there is no such Pod.
    async fn restart(&self, path: PathBuf) -> Result<(), Trouble> {
        let Some(text) = self.hands.read(&path).await? else { return Ok(()) };
        let now = self.hands.clock().await?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let Some(text) = restarted(text.expose_str(), &now.as_secs().to_string()) else {
            return Err(Trouble::new(format!("{}: not a manifest of kubeadm's", path.display())));
        };
        self.hands.does(Ask::Write { path, mode: 0o600, contents: Secret::new(text.as_bytes()) }).await
    }

    /// Rewrites the kubelet's kubeconfig in its place, readable by its owner alone. What is no kubeconfig stays as it was.
    async fn change_server(&self, change: &KubeletServer) -> Result<(), Trouble> {
        let path = &change.path;
        let renewed = match &change.renewed {
            Some(renewed) => self.hands.exists(renewed).await?,
            None => false,
        };
        // A kubelet that renews nothing keeps what it has, as kubeadm leaves it.
        if change.server.is_none() && !renewed {
            return Ok(());
        }
        let named = |why: &dyn std::fmt::Display| Trouble::new(format!("{}: {why}", path.display()));
        let text = self.hands.read(path).await?.ok_or_else(|| named(&"No such file or directory"))?;
        let contents = change.rewrite(text.expose_str(), renewed).map_err(|why| named(&why))?;
        self.hands.does(Ask::Write { path: path.clone(), mode: 0o600, contents }).await
    }
}

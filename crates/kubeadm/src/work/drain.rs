//! A Node is drained by another machine. What is asked and what the answers mean is [`crate::drain`].

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::Trouble;
use super::actions::PATIENCE;
use super::step::Deed;
use crate::drain::{self, Pod};
use crate::kubeconfig::Kubeconfig;
use crate::secret::Secret;

/// How long what runs on a Node may take to go. A Pod has 30 s by itself unless it says otherwise.
const LIMIT: Duration = Duration::from_secs(300);

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// How many Pods are named that do not go.
const NAMED: usize = 2;

const PATCH: &str = "application/strategic-merge-patch+json";

/// Status and body, or why there is no answer.
type Heard = Result<(u16, Bytes), String>;

impl Deed {
    /// Returns once nothing that can be moved is on the Node any more, or the Node is gone.
    pub(super) async fn drain(&self, node: &str) -> Result<(), Trouble> {
        self.hands.at("drain");
        let identity = self.hands.identity(&self.place.settings.admin_kubeconfig()).await?;
        match self.change_node(&identity, node, drain::close).await? {
            true => self.drain_closed(&identity, node).await,
            false => Ok(()),
        }
    }

    /// Lets something come again to a Node that was closed by [`Deed::drain`].
    pub(super) async fn open(&self, node: &str) -> Result<(), Trouble> {
        self.hands.at("open");
        let identity = self.hands.identity(&self.place.settings.admin_kubeconfig()).await?;
        self.change_node(&identity, node, drain::open).await.map(drop)
    }

    /// Changes a Node as `change` says, given what it is. Says whether there is one.
    async fn change_node(
        &self,
        identity: &Kubeconfig,
        node: &str,
        change: fn(&Value) -> Option<String>,
    ) -> Result<bool, Trouble> {
        let told = |status: u16| {
            Trouble::new(format!("the API server answers with status {status} to a question for Node {node}"))
        };
        let now = match self.ask(identity, "GET", drain::node(node), "").await?.map_err(Trouble::new)? {
            (404, _) => return Ok(false),
            (200, body) => {
                serde_json::from_slice::<Value>(&body).map_err(|_| Trouble::new("a Node that is not JSON"))?
            }
            (status, _) => return Err(told(status)),
        };
        let Some(body) = change(&now) else { return Ok(true) };
        match self.ask(identity, "PATCH", drain::node(node), &body).await?.map_err(Trouble::new)? {
            (200, _) => Ok(true),
            (404, _) => Ok(false),
            (status, _) => Err(told(status)),
        }
    }

    async fn drain_closed(&self, identity: &Kubeconfig, node: &str) -> Result<(), Trouble> {
        let begun = self.hands.now();
        loop {
            let held = match self.pods(identity, node).await? {
                Ok(pods) if pods.is_empty() => return Ok(()),
                Ok(pods) => self.evict(identity, &pods).await?,
                Err(why) => why,
            };
            if self.hands.now() - begun >= LIMIT {
                return Err(Trouble::new(held));
            }
            self.hands.pause(PAUSE).await?;
        }
    }

    /// All Pods of the Node that have to go.
    async fn pods(&self, identity: &Kubeconfig, node: &str) -> Result<Result<Vec<Pod>, String>, Trouble> {
        let (mut all, mut from) = (Vec::new(), String::new());
        loop {
            let heard = self.ask(identity, "GET", drain::pods(node, &from), "").await?;
            match heard.and_then(|(status, body)| drain::listed(status, &body)) {
                Ok((pods, next)) => {
                    all.extend(pods);
                    match next {
                        Some(next) => from = next,
                        None => return Ok(Ok(all)),
                    }
                }
                Err(why) => return Ok(Err(why)),
            }
        }
    }

    /// One round. Says what is still there, and what holds it.
    async fn evict(&self, identity: &Kubeconfig, pods: &[Pod]) -> Result<String, Trouble> {
        let (mut held, mut end) = (Vec::new(), Vec::new());
        for pod in pods {
            if pod.ends {
                end.push(pod.to_string());
                continue;
            }
            let (path, body) = drain::evict(pod);
            let heard = self.ask(identity, "POST", path, &body).await?;
            match heard.and_then(|(status, body)| drain::evicted(status, &body)) {
                Ok(()) => end.push(pod.to_string()),
                Err(why) => held.push(format!("{pod}: {why}")),
            }
        }
        let more = |all: &[String]| match all.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let named = |all: &[String]| all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let why = match held.is_empty() {
            true => format!("still ending: {}{}", named(&end), more(&end)),
            false => format!("{}{}", named(&held), more(&held)),
        };
        self.hands.held(&why);
        Ok(why)
    }

    async fn ask(
        &self,
        identity: &Kubeconfig,
        method: &'static str,
        path: String,
        body: &str,
    ) -> Result<Heard, Trouble> {
        let content_type = if method == "PATCH" { PATCH } else { "application/json" };
        self.ask_api(identity, method, path, content_type, Secret::new(body), PATIENCE).await
    }
}

//! The Node of a machine that is being reset. What is asked and what the answers mean is [`crate::farewell`].

use std::path::Path;
use std::time::Duration;

use super::Trouble;
use super::actions::PATIENCE;
use super::step::Deed;
use crate::farewell::Farewell;
use crate::kubeconfig::Kubeconfig;
use crate::secret::Secret;

/// How long the API server is asked to take the Node back.
const LIMIT: Duration = Duration::from_secs(15);

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// A Node of which something is still to be said when its kubelet has stopped.
pub(super) struct Leaving {
    node: String,
    /// The kubelet's identity, held in memory: its files go with the reset.
    kubelet: Option<Kubeconfig>,
}

impl Deed {
    /// Before a reset: with an administrator's identity the Node is deleted.
    pub(super) async fn take_leave(&self, node: &str) -> Result<Leaving, Trouble> {
        self.hands.at("node/farewell");
        let settings = &self.place.settings;
        let admin = self.held(&settings.admin_kubeconfig()).await?;
        let kubelet = match &admin {
            Some(_) => None,
            None => self.held(&settings.kubelet_kubeconfig()).await?,
        };
        if let Some(identity) = &admin {
            self.say_farewell(Farewell::Delete, node, identity).await?;
        }
        Ok(Leaving { node: node.to_owned(), kubelet })
    }

    /// Has another machine's Node deleted, which is gone for good, with its Pods.
    pub(super) async fn remove_node(&self, node: &str) -> Result<(), Trouble> {
        self.hands.at("node/remove");
        let identity = self.hands.identity(&self.place.settings.admin_kubeconfig()).await?;
        self.say_farewell(Farewell::Delete, node, &identity).await
    }

    /// Whether a machine's Node is there.
    pub(super) async fn has_node(&self, node: &str) -> Result<bool, Trouble> {
        self.hands.at("node/look");
        let identity = self.hands.identity(&self.place.settings.admin_kubeconfig()).await?;
        let path = format!("/api/v1/nodes/{node}");
        let heard = self.ask_api(&identity, "GET", path, "", Secret::new(Vec::new()), PATIENCE).await?;
        match heard {
            Ok((200, _)) => Ok(true),
            Ok((404, _)) => Ok(false),
            Ok((status, _)) => Err(Trouble::new(format!("whether {node} has a Node is not known: status {status}"))),
            Err(why) => Err(Trouble::new(format!("whether {node} has a Node is not known: {why}"))),
        }
    }

    /// The same, and an error where it stays: nobody else will do it.
    pub(super) async fn surely_remove_node(&self, node: &str) -> Result<(), Trouble> {
        self.hands.at("node/remove");
        let identity = self.hands.identity(&self.place.settings.admin_kubeconfig()).await?;
        let farewell = self.farewell_taken(Farewell::Delete, node, &identity).await?;
        farewell.map_err(|why| Trouble::new(format!("the Node {node} is not deleted: {why}")))
    }

    /// After it: with the kubelet's identity alone the Node is said not to be Ready, now that no kubelet says otherwise.
    pub(super) async fn end_leave(&self, leaving: Leaving) -> Result<(), Trouble> {
        match &leaving.kubelet {
            Some(identity) => self.say_farewell(Farewell::NotReady, &leaving.node, identity).await,
            None => Ok(()),
        }
    }

    /// An identity with nothing of it in files; none if there is none that can be used.
    async fn held(&self, path: &Path) -> Result<Option<Kubeconfig>, Trouble> {
        let Ok(identity) = self.hands.identity(path).await else { return Ok(None) };
        Ok(self.hands.in_memory(&identity).await.ok())
    }

    /// Tries for a while. What remains is a Node that looks Ready for less than a minute, for which a join just waits.
    async fn say_farewell(&self, farewell: Farewell, node: &str, identity: &Kubeconfig) -> Result<(), Trouble> {
        if let Err(why) = self.farewell_taken(farewell, node, identity).await? {
            let words = "its Node stays, and may keep this machine out for a minute";
            self.hands.say(format!("{node}: {words}: {why}"));
        }
        Ok(())
    }

    /// Whether the API server took it, or why not within the time for it.
    async fn farewell_taken(
        &self,
        farewell: Farewell,
        node: &str,
        identity: &Kubeconfig,
    ) -> Result<Result<(), String>, Trouble> {
        let begun = self.hands.now();
        loop {
            let said = farewell.request(node);
            let body = Secret::new(said.body);
            let heard = self.ask_api(identity, said.method, said.path, said.content_type, body, PATIENCE).await?;
            match heard.and_then(|(status, _)| Farewell::judge(status)) {
                Ok(()) => return Ok(Ok(())),
                Err(why) if self.hands.now() - begun >= LIMIT => return Ok(Err(why)),
                Err(_) => self.hands.pause(PAUSE).await?,
            }
        }
    }
}

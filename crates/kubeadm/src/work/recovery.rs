//! What is done once etcd serves again that was rebuilt from one member: what the lost ones hold is taken from them.

use muster_protocol::StepOutput;

use super::Trouble;
use super::actions::PATIENCE;
use super::step::Deed;
use crate::plan::StepInput;
use crate::secret::Secret;

/// Their holders may be gone; whoever is left would wait for them for as long as they last (20 s seen where deleting them took 3).
const LEASES: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

impl Deed {
    pub(super) async fn rebuild_etcd(
        &self,
        input: &StepInput<'_>,
        own: &str,
        lost: &[String],
    ) -> Result<StepOutput, Trouble> {
        self.carry_out(input).await?;
        self.hands.at("leases/delete");
        let identity = self.hands.identity(&self.place.settings.admin_kubeconfig()).await?;
        for lease in LEASES {
            let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{lease}");
            let heard =
                self.ask_api(&identity, "DELETE", path, "application/json", Secret::default(), PATIENCE).await?;
            // It ends by itself, a little later.
            let refused =
                heard.map(|(status, _)| (!matches!(status, 200..300 | 404)).then(|| format!("status {status}")));
            if let Some(why) = refused.unwrap_or_else(Some) {
                self.hands.say(format!("the lease {lease} is not deleted: {why}"));
            }
        }
        for name in lost.iter().filter(|name| **name != own) {
            self.surely_remove_node(name).await?;
        }
        Ok(StepOutput::Done)
    }
}

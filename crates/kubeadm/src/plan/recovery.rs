//! etcd made anew from what one member has. The work on its files is `muster salvage`'s; here is how it is called, and what is waited for.

use super::{Action, Command, Node, Plan, phases};

impl Plan {
    pub(super) fn rebuild_etcd(&self, node: &Node, epoch: u32, token: &str) -> Vec<Action> {
        let mut salvage =
            Command::new("etcd/salvage", self.settings.muster.clone(), ["salvage"], phases::SALVAGE_LIMIT);
        let peer = format!("https://{}", std::net::SocketAddr::new(node.address, crate::etcd::PEER_PORT));
        let epoch = epoch.to_string();
        let data = self.settings.etcd_dir.display().to_string();
        let arguments = [
            ("data-dir", &data),
            ("name", &node.name),
            ("peer-url", &peer),
            ("token", &token.to_owned()),
            ("epoch", &epoch),
        ];
        salvage.args.extend(arguments.map(|(name, value)| format!("--{name}={value}")));
        vec![Action::Run(salvage), self.await_serving(node, "etcd/salvage", "/readyz")]
    }
}

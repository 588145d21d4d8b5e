//! etcd made anew from what one member has. The work on its files is `muster salvage`'s; here is how it is called, and what is waited for.

use muster_wire::Digest;

use super::{Action, Command, Node, Plan, phases};

impl Plan {
    pub(super) fn rebuild_etcd(&self, node: &Node, epoch: u32, token: &str, backup: Option<Digest>) -> Vec<Action> {
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
        if let Some(backup) = backup {
            let directory = self.settings.backups_dir.display();
            let key = self.settings.etcd_ca_key();
            salvage.args.extend([
                format!("--backup={}", hex::encode(backup.0)),
                format!("--backups={directory}"),
                format!("--key={}", key.display()),
            ]);
        }
        vec![Action::Run(salvage), self.await_serving(node, "etcd/salvage", "/readyz")]
    }

    /// What runs on the machine goes on meanwhile. A kubelet that the system does not run, as in a rehearsal, is left alone.
    pub(super) fn register(&self) -> Vec<Action> {
        let arguments = ["try-restart", "kubelet.service"];
        let restart = Command::new("kubelet/restart", "systemctl".into(), arguments, phases::RESTART_LIMIT);
        let restart = Some(restart).filter(|_| self.settings.environment().is_empty());
        restart.map(Action::Run).into_iter().collect()
    }
}

//! How all of it is undone.

use super::{Action, PkiBundle, Plan, phases, remove, with_config};

impl Plan {
    pub(super) fn reset(&self, outside_etcd: bool) -> Vec<Action> {
        let mut reset = self.command("reset", &["reset", "--force"], phases::RESET_LIMIT);
        let mut actions = Vec::new();
        match self.documents.reset() {
            Some(document) => {
                actions.push(self.write("reset.yaml", document));
                reset = with_config(self.command("reset", &["reset"], phases::RESET_LIMIT), &self.work("reset.yaml"));
            }
            None => {
                reset.args.push(format!("--cert-dir={}", self.settings.pki_dir().display()));
                if let Some(socket) = self.documents.cri_socket() {
                    reset.args.push(format!("--cri-socket={socket}"));
                }
                reset.args.extend(self.ignored_checks(None));
            }
        }
        if outside_etcd {
            reset.args.push("--skip-phases=remove-etcd-member".to_owned());
        }
        actions.push(Action::Run(reset));
        if let Some(path) = self.documents.etcd_dir() {
            // kubeadm empties it only if etcd's manifest still names it, and not without the phase.
            actions.push(Action::EmptyDirectory { path });
        }
        let leftovers = [
            "prepare.yaml",
            "init.yaml",
            "discovery.conf",
            "join.yaml",
            "join-later.yaml",
            "kubelet.yaml",
            "reset.yaml",
        ];
        actions.extend(leftovers.map(|name| remove(self.work(name))));
        actions.extend([remove(self.finish_document()), remove(self.settings.etcd_mark())]);
        // kubeadm reset empties its certificates' directory, yet a run that was cut short may not have.
        actions.extend(PkiBundle::file_names().map(|name| remove(self.settings.pki_dir().join(name))));
        actions
    }
}

//! What is done about certificates that end. Which these are says [`crate::renewal`].

use muster_protocol::EtcdTiming;

use super::{Action, Node, Pair, Plan, Ticket, phases, remove, with_config};

impl Plan {
    /// The kubelet comes last: where kubeadm can sign nothing, as without a CA's key, nothing is taken from it. kubeadm keeps a kubeconfig that is
    /// there, whatever has become of its certificate.
    pub(super) fn renew(&self, node: &Node, overdue: bool) -> Vec<Action> {
        let document = self.work("kubelet.yaml");
        let mut actions = vec![self.write("kubelet.yaml", self.documents.finish(node, EtcdTiming::Own))];
        let renew = self.command("certs/renew", &["certs", "renew", "all"], phases::RENEW_LIMIT);
        actions.push(Action::Run(with_config(renew, &document)));
        let pods = ["kube-controller-manager", "kube-scheduler"];
        actions.extend(pods.map(|pod| Action::Restart { path: self.settings.manifest(pod) }));
        if overdue {
            actions.push(remove(self.settings.kubelet_kubeconfig()));
            actions.extend(self.run(&phases::kubelet_kubeconfig()));
            actions.push(remove(self.renewed()));
            actions.extend(phases::kubelet_start(&self.kubeadm).iter().flat_map(|run| self.run(run)));
        } else {
            actions.push(self.await_serving(node, "renew", "/readyz"));
        }
        actions.push(remove(document));
        actions
    }

    /// Its kubelet begins as it did when it joined. It ends again and again for want of a certificate, and the system starts it anew; one that
    /// still runs ends when it has been refused for five minutes (`pkg/kubelet/certificate`). kubeadm would not do it: to `init phase
    /// kubelet-start` a worker is a control plane that lacks its certificates.
    pub(super) fn renew_kubelet(&self, node: &Node, ticket: &Ticket, pair: &Pair) -> Vec<Action> {
        let contents = self.documents.node_kubeconfig(node, ticket, pair);
        let path = self.settings.kubelet_kubeconfig();
        vec![Action::WriteFile { path, mode: 0o600, contents }, remove(self.renewed())]
    }
}

//! How a machine joins a cluster that is made.

use super::{
    Action, EtcdTiming, Form, KubeletServer, Node, Pair, PathBuf, PkiBundle, Plan, Role, Run, SocketAddr, Ticket,
    join_keeps_kubeconfig, phases, remove,
};

impl Plan {
    pub(super) fn join(&self, role: Role, node: &Node, ticket: &Ticket, pki: Option<&PkiBundle>) -> Vec<Action> {
        let mut actions = pki.filter(|_| role == Role::ControlPlane).map(|pki| self.write_pki(pki)).unwrap_or_default();
        // A disk that came back as it was before may have forgotten that an init was cut short here.
        actions.push(remove(self.work("init.yaml")));
        let discovery = self.work("discovery.conf");
        actions.push(self.write("discovery.conf", self.documents.discovery_kubeconfig(ticket)));
        actions.push(self.write("join.yaml", self.documents.join(role, node, ticket, &discovery)));
        let early = role == Role::ControlPlane && self.documents.kubelets_ask_own_server();
        if role == Role::ControlPlane {
            actions.push(self.write("join-later.yaml", self.documents.join_later(role, node, ticket)));
        }
        if early {
            actions.push(self.write("kubelet.yaml", self.documents.finish(node, EtcdTiming::Own)));
            actions.extend(self.run(&phases::kubelet_kubeconfig()));
            actions.push(remove(self.work("kubelet.yaml")));
            actions.push(self.kubelet_server(format!("https://{}", self.settings.endpoint), None));
        }
        let known_by = self.known_by(role, ticket);
        if let Some(pair) = known_by {
            let contents = self.documents.node_kubeconfig(node, ticket, pair);
            actions.push(Action::WriteFile { path: self.settings.kubelet_kubeconfig(), mode: 0o600, contents });
        }
        let mut run = phases::join(&self.kubeadm, role);
        run.made_before = early || known_by.is_some();
        actions.extend(self.run(&run));
        actions.extend([remove(self.work("join.yaml")), remove(discovery)]);
        actions
    }

    pub(super) fn join_etcd(&self) -> Vec<Action> {
        self.run(&phases::join_etcd(&self.kubeadm))
    }

    /// What a worker's kubelet begins with, if not with its token alone.
    fn known_by<'a>(&self, role: Role, ticket: &'a Ticket) -> Option<&'a Pair> {
        let may = role == Role::Worker && join_keeps_kubeconfig(self.kubeadm.minor) && self.documents.kubelets_renew();
        ticket.node.as_ref().filter(|_| may)
    }

    /// A worker whose kubelet began with the certificate of its ticket is not done before that has one of its own. The wait for a
    /// control plane's API server is muster's own here, too: kubeadm's phase of that name takes no `--config` in any version.
    pub(super) fn join_finish(&self, role: Role, node: &Node, ticket: &Ticket) -> Vec<Action> {
        if role == Role::Worker {
            let (phase, path, limit) = ("join/kubelet-certificate".to_owned(), self.renewed(), phases::READY_LIMIT);
            let wait = Action::AwaitFile { phase, path, limit };
            let server = format!("https://{}", self.settings.endpoint);
            let kept = self.known_by(role, ticket).map(|_| [wait, self.kubelet_server(server, Some(self.renewed()))]);
            return kept.into_iter().flatten().collect();
        }
        let mut actions = vec![
            self.write("join-later.yaml", self.documents.join_later(role, node, ticket)),
            self.await_serving(node, "join/wait-control-plane", "/readyz"),
        ];
        let runs = phases::join_finish(&self.kubeadm);
        let skipped = |run: &&Run| {
            let marks = run.form == Form::Phase(vec!["control-plane-join", "mark-control-plane"]);
            !(marks && self.skips("control-plane-join/mark-control-plane"))
        };
        actions.extend(runs.iter().filter(skipped).flat_map(|run| self.run(run)));
        if self.documents.kubelets_ask_own_server() {
            let own = SocketAddr::new(node.address, self.settings.api_port);
            actions.push(self.kubelet_server(format!("https://{own}"), Some(self.renewed())));
        }
        if !muster_wire::planted::planted("join-document-left") {
            actions.push(remove(self.work("join-later.yaml")));
        }
        actions
    }

    fn kubelet_server(&self, server: String, renewed: Option<PathBuf>) -> Action {
        let path = self.settings.kubelet_kubeconfig();
        Action::KubeletServer(KubeletServer { path, server: Some(server), renewed })
    }
}

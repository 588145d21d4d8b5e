//! From a step of the ladder to the actions that carry it out.

mod join;
mod recovery;
mod renewal;
mod reset;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use muster_protocol::EtcdTiming;
use muster_wire::{Digest, MachineId, Role};

use crate::action::{Action, Command, Settled};
use crate::api::{Until, Wait};
use crate::dns::LocalDns;
use crate::document::{DocumentError, Documents, TOKEN_TTL};
use crate::kubelet::KubeletServer;
use crate::phases::{self, Form, Reads, Run};
use crate::pki::{Pair, PkiBundle, Ticket};
use crate::secret::{Secret, Token};
use crate::settings::Settings;
use crate::version::{Version, VersionError};
use crate::versions::join_keeps_kubeconfig;

/// The machine a step runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its Node name.
    pub name: String,
    /// The address its API server advertises.
    pub address: IpAddr,
}

/// How etcd begins on several machines at once: one list that all of them are given, and one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    /// Of this attempt alone.
    pub token: String,
    /// The founders, in one order everywhere.
    pub members: Vec<Node>,
}

/// A step, with what the agent has opened for it. Steps that only make or seal secrets need no kubeadm and are not here:
/// see [`PkiBundle`] and [`Ticket`].
#[derive(Debug, Clone)]
pub enum StepInput<'a> {
    /// What can be done before anybody else is ready.
    Prepare {
        /// This machine's role.
        role: Role,
    },
    /// init until other machines can join.
    InitCluster {
        /// This machine.
        node: &'a Node,
        /// The attempt's CAs.
        pki: &'a PkiBundle,
        /// The tokens to register, one a machine.
        tokens: &'a [Token],
        /// How etcd is timed.
        timing: EtcdTiming,
        /// With whom it begins etcd, unless it does so alone.
        founding: Option<&'a Founding>,
    },
    /// The rest of init.
    InitFinish,
    /// init on another founder, as far as it needs no API server. Safe to repeat: what etcd wrote is kept.
    Found {
        /// This machine.
        node: &'a Node,
        /// The attempt's CAs.
        pki: &'a PkiBundle,
        /// How etcd is timed.
        timing: EtcdTiming,
        /// With whom it begins etcd.
        founding: &'a Founding,
        /// An earlier run came part of the way: what it made is no obstacle.
        again: bool,
    },
    /// The rest of init on another founder, once the cluster is made.
    FoundFinish {
        /// This machine.
        node: &'a Node,
        /// How etcd is timed.
        timing: EtcdTiming,
    },
    /// Join until others must be waited for: all of it for a worker, all before etcd for a control plane.
    Join {
        /// This machine's role.
        role: Role,
        /// This machine.
        node: &'a Node,
        /// Its ticket.
        ticket: &'a Ticket,
        /// The attempt's CAs; for a control plane, and only for one.
        pki: Option<&'a PkiBundle>,
    },
    /// Add this machine's etcd member.
    JoinEtcd,
    /// The rest of a join. Safe to repeat.
    JoinFinish {
        /// This machine's role.
        role: Role,
        /// This machine.
        node: &'a Node,
        /// Its ticket.
        ticket: &'a Ticket,
    },
    /// Renew what kubeadm has signed on a control plane. Safe to repeat.
    Renew {
        /// This machine.
        node: &'a Node,
        /// Whether the kubelet is given a certificate, too, and started anew.
        overdue: bool,
    },
    /// Give a worker's kubelet another certificate. Safe to repeat.
    RenewKubelet {
        /// This machine.
        node: &'a Node,
        /// Its ticket.
        ticket: &'a Ticket,
        /// The certificate that the ticket holds, and its key.
        pair: &'a Pair,
    },
    /// Rebuild etcd from this machine's member, as a cluster of its own. Safe to repeat.
    RebuildEtcd {
        /// This machine.
        node: &'a Node,
        /// The epoch.
        epoch: u32,
        /// The new cluster's.
        token: &'a str,
        /// The backup with which it begins instead.
        backup: Option<Digest>,
    },
    /// Have the kubelet register its Node again. Safe to repeat.
    Register,
    /// Wait until this machine's Node is Ready.
    AwaitReady {
        /// Its name.
        name: &'a str,
    },
    /// Register a token that init did not; fine if it is registered already. Control planes only.
    CreateToken {
        /// Which.
        token: &'a Token,
    },
    /// Delete a token; fine if it is gone. Control planes only.
    DeleteToken {
        /// Which.
        token: &'a Token,
    },
    /// Undo whatever kubeadm and muster did for the cluster. Safe to repeat.
    Reset,
    /// The same for a machine that is no member of etcd any more, see [`crate::etcd`]: kubeadm would look for the member for
    /// minutes, and not end well.
    ResetOutsideEtcd,
}

/// Why there is no plan. All of it is found when the agent starts, before anything has been run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// kubeadm's version is not one that muster works with, or cannot deploy the wanted one.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// A document of the user's cannot be used.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A phase that cannot be skipped.
    #[error("kubernetes.skip_phases: {phase:?}: {why}")]
    SkipPhases {
        /// The name in muster.toml.
        phase: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A check name that is none.
    #[error("kubernetes.ignore_preflight: {0:?} is not the name of a preflight check")]
    IgnorePreflight(String),
}

/// kubeadm's words when the member is added and only its static Pod is still to be written; the same in all versions.
const STARTS_ETCD: &str = "[etcd] Creating static Pod manifest for";

/// How many minor versions a kubelet may be older than its API server: Kubernetes' version skew policy, three since 1.28.
const WORKERS_MINORS_BEHIND: u32 = 3;

/// How this kubeadm makes or joins the image's cluster.
#[derive(Debug, Clone)]
pub struct Plan {
    kubeadm: Version,
    settings: Settings,
    documents: Documents,
}

impl Plan {
    /// Checks everything that can be wrong in `settings` for this kubeadm.
    ///
    /// # Errors
    /// Names the setting or the document and its field.
    pub fn new(kubeadm: &Version, settings: Settings) -> Result<Self, PlanError> {
        let kubeadm = kubeadm.clone().supported()?;
        let wanted = settings.version.clone().unwrap_or_else(|| kubeadm.clone());
        let oldest = wanted.minor.saturating_sub(WORKERS_MINORS_BEHIND);
        if wanted.major != kubeadm.major || !(oldest..=wanted.minor + 1).contains(&kubeadm.minor) {
            return Err(VersionError::Skew { kubeadm, wanted }.into());
        }
        for phase in &settings.skip_phases {
            phases::may_skip(phase).map_err(|why| PlanError::SkipPhases { phase: phase.clone(), why })?;
        }
        let is_check = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
        };
        if let Some(name) = settings.ignore_preflight.iter().find(|name| !is_check(name)) {
            return Err(PlanError::IgnorePreflight(name.clone()));
        }
        let documents = Documents::new(&kubeadm, &wanted, &settings)?;
        Ok(Self { kubeadm, settings, documents })
    }

    /// Why this machine can be nothing but a worker, if so: an older kubeadm deploys no newer control plane, and a kubelet may
    /// be older than its API server.
    pub fn worker_only(&self) -> Option<String> {
        let wanted = self.settings.version.as_ref()?;
        (self.kubeadm.minor < wanted.minor)
            .then(|| format!("kubeadm {} is older than {wanted}: a worker at most", self.kubeadm))
    }

    /// kubeadm's version.
    pub fn version(&self) -> &Version {
        &self.kubeadm
    }

    /// What to do for a step, in order.
    pub fn step(&self, step: &StepInput<'_>) -> Vec<Action> {
        match step {
            StepInput::Prepare { role: Role::Worker } => Vec::new(),
            StepInput::Prepare { role: Role::ControlPlane } => self.prepare(),
            StepInput::InitCluster { node, pki, tokens, timing, founding } => {
                self.init_cluster(node, pki, tokens, *timing, *founding)
            }
            StepInput::InitFinish => self.init_finish(),
            StepInput::Found { node, pki, timing, founding, again } => self.found(node, pki, *timing, founding, *again),
            StepInput::FoundFinish { node, timing } => self.found_finish(node, *timing),
            StepInput::Join { role, node, ticket, pki } => self.join(*role, node, ticket, *pki),
            StepInput::JoinEtcd => self.join_etcd(),
            StepInput::JoinFinish { role, node, ticket } => self.join_finish(*role, node, ticket),
            StepInput::Renew { node, overdue } => self.renew(node, *overdue),
            StepInput::RenewKubelet { node, ticket, pair } => self.renew_kubelet(node, ticket, pair),
            StepInput::RebuildEtcd { node, epoch, token, backup } => self.rebuild_etcd(node, *epoch, token, *backup),
            StepInput::Register => self.register(),
            StepInput::AwaitReady { name } => vec![self.await_ready(name)],
            StepInput::CreateToken { token } => self.create_token(token),
            StepInput::DeleteToken { token } => vec![self.delete_token(token)],
            StepInput::Reset => self.reset(false),
            StepInput::ResetOutsideEtcd => self.reset(true),
        }
    }

    /// A worker pulls nothing: kubeadm would pull the control plane's images for it as well.
    fn prepare(&self) -> Vec<Action> {
        let path = self.work("prepare.yaml");
        let mut pull = self.command("config/images-pull", &["config", "images", "pull"], phases::PULL_LIMIT);
        pull.settled = Settled::Anyhow;
        vec![self.write("prepare.yaml", self.documents.prepare()), Action::Run(with_config(pull, &path)), remove(path)]
    }

    fn init_cluster(
        &self,
        node: &Node,
        pki: &PkiBundle,
        tokens: &[Token],
        timing: EtcdTiming,
        founding: Option<&Founding>,
    ) -> Vec<Action> {
        let skip = &self.settings.skip_phases;
        let mut actions = self.write_pki(pki);
        // Without any token kubeadm would make one of its own, which lives for a day and nobody deletes.
        let spare = [pki.token_for(MachineId::default())];
        let (tokens, ttl) = if tokens.is_empty() { (&spare[..], "1m0s") } else { (tokens, TOKEN_TTL) };
        actions.push(self.write("init.yaml", self.documents.init(node, Some((tokens, ttl)), timing, founding)));
        actions.push(self.write_finish_document(node, timing));
        for run in phases::before_serving(&self.kubeadm, skip) {
            actions.extend(self.run(&run));
        }
        actions.push(self.await_serving(node, "init/wait-control-plane", "/readyz"));
        for run in phases::once_serving(&self.kubeadm, skip) {
            actions.extend(self.run(&run));
        }
        // What a joining machine asks for first: kubeadm that made nothing of the kind has not run `bootstrap-token`.
        let cluster_info = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
        actions.push(self.await_serving(node, "init/bootstrap-token", cluster_info));
        actions.push(remove(self.work("init.yaml")));
        actions
    }

    fn write_finish_document(&self, node: &Node, timing: EtcdTiming) -> Action {
        Action::WriteFile { path: self.finish_document(), mode: 0o600, contents: self.documents.finish(node, timing) }
    }

    /// The founders' files are the initialiser's, but for the tokens: kubeadm's phases need nobody else up to here.
    fn found(&self, node: &Node, pki: &PkiBundle, timing: EtcdTiming, founding: &Founding, again: bool) -> Vec<Action> {
        let mut actions = self.write_pki(pki);
        actions.push(self.write("init.yaml", self.documents.init(node, None, timing, Some(founding))));
        let runs = phases::before_serving(&self.kubeadm, &self.settings.skip_phases);
        let looks = |run: &&Run| !again || run.form != Form::Phase(vec!["preflight"]);
        actions.extend(runs.iter().filter(looks).flat_map(|run| self.run(run)));
        actions.push(remove(self.work("init.yaml")));
        actions
    }

    fn found_finish(&self, node: &Node, timing: EtcdTiming) -> Vec<Action> {
        let mut actions = vec![
            self.write_finish_document(node, timing),
            self.await_serving(node, "init/wait-control-plane", "/readyz"),
        ];
        let runs = phases::found_finish(&self.kubeadm, &self.settings.skip_phases);
        actions.extend(runs.iter().flat_map(|run| self.run(run)));
        actions
    }

    /// Waits for status 200 from this machine's own API server.
    fn await_serving(&self, node: &Node, phase: &str, path: &str) -> Action {
        Action::Await(Wait {
            phase: phase.to_owned(),
            server: SocketAddr::new(node.address, self.settings.api_port).to_string(),
            path: path.to_owned(),
            kubeconfig: self.settings.admin_kubeconfig(),
            until: Until::Serving,
            limit: phases::CONTROL_PLANE_LIMIT,
        })
    }

    fn init_finish(&self) -> Vec<Action> {
        let runs = phases::init_finish(&self.kubeadm, &self.settings.skip_phases);
        let brings_dns = |run: &Run| matches!(&run.form, Form::Phase(words) if words[..] == ["addon", "all"] || words[..] == ["addon", "coredns"]);
        let mut actions = Vec::new();
        for run in &runs {
            if brings_dns(run) {
                actions.extend(self.local_dns().map(Action::LocalDns));
            }
            actions.extend(self.run(run));
        }
        actions
    }

    /// What `kubelet-finalize` would do, without starting the kubelet anew. See [`KubeletServer`].
    fn finalize(&self, run: &Run) -> Option<Action> {
        let finalizes = matches!(&run.form, Form::Phase(words) if words.first() == Some(&"kubelet-finalize"));
        let (path, renewed) = (self.settings.kubelet_kubeconfig(), Some(self.renewed()));
        finalizes.then(|| Action::KubeletServer(KubeletServer { path, server: None, renewed }))
    }

    /// None if CoreDNS is not to run.
    fn local_dns(&self) -> Option<LocalDns> {
        Some(LocalDns {
            domain: self.documents.dns_domain()?,
            server: self.settings.endpoint.clone(),
            kubeconfig: self.settings.admin_kubeconfig(),
            kubelet_config: self.settings.kubelet_dir.join("config.yaml"),
        })
    }

    /// Where the kubelet keeps the certificate that it renews.
    fn renewed(&self) -> PathBuf {
        self.settings.kubelet_dir.join("pki/kubelet-client-current.pem")
    }

    fn await_ready(&self, name: &str) -> Action {
        Action::Await(Wait {
            phase: "await-ready".to_owned(),
            server: self.settings.endpoint.clone(),
            path: format!("/api/v1/nodes/{name}"),
            kubeconfig: self.settings.kubelet_kubeconfig(),
            until: Until::NodeReady,
            limit: phases::READY_LIMIT,
        })
    }

    fn create_token(&self, token: &Token) -> Vec<Action> {
        let name = format!("token-{}.yaml", token.id());
        let mut create = self.command("token/create", &["token", "create"], phases::TOKEN_LIMIT);
        create.settled = Settled::Existing;
        create.tries = phases::TRIES;
        if muster_wire::planted::planted("token-in-environment") {
            create.env.push(("TOKEN".to_owned(), token.expose().to_owned()));
        }
        create.args.extend(self.kubeconfig());
        let path = self.work(&name);
        vec![self.write(&name, self.documents.token(token)), Action::Run(with_config(create, &path)), remove(path)]
    }

    /// By the token's public id alone, so that no secret is among the arguments.
    fn delete_token(&self, token: &Token) -> Action {
        let mut delete = self.command("token/delete", &["token", "delete", token.id()], phases::TOKEN_LIMIT);
        delete.settled = Settled::Missing;
        delete.tries = phases::TRIES;
        delete.args.extend(self.kubeconfig());
        Action::Run(delete)
    }

    fn kubeconfig(&self) -> [String; 2] {
        ["--kubeconfig".to_owned(), self.settings.admin_kubeconfig().display().to_string()]
    }

    /// One run, and what must exist after it.
    fn run(&self, run: &Run) -> Vec<Action> {
        if let Some(finalize) = self.finalize(run) {
            return vec![finalize];
        }
        let workflow = run.reads.workflow();
        let config = match run.reads {
            Reads::Init => self.work("init.yaml"),
            Reads::Finish => self.finish_document(),
            Reads::Kubelet => self.work("kubelet.yaml"),
            Reads::Join => self.work("join.yaml"),
            Reads::JoinLater => self.work("join-later.yaml"),
        };
        let (phase, mut command) = match &run.form {
            Form::Phase(words) => {
                let shown: Vec<_> = words.iter().filter(|word| **word != "all").copied().collect();
                let phase = format!("{workflow}/{}", shown.join("/"));
                let args: Vec<_> = [workflow, "phase"].into_iter().chain(words.iter().copied()).collect();
                (phase.clone(), self.command(&phase, &args, run.limit))
            }
            Form::Skipping { runs, skip } => {
                let phase = format!("{workflow}/{runs}");
                let mut command = self.command(&phase, &[workflow], run.limit);
                let mut all = skip.clone();
                let asked = self.settings.skip_phases.iter();
                all.extend(asked.filter(|name| phases::of_join(name) && !skip.contains(name)).cloned());
                // What is no child of a skipped phase, or kubeadm would name it twice.
                all.retain(|name| !name.split_once('/').is_some_and(|(parent, _)| skip.iter().any(|s| s == parent)));
                if !all.is_empty() {
                    command.args.push(format!("--skip-phases={}", all.join(",")));
                }
                (phase, command)
            }
        };
        command.tries = run.tries;
        command.starts_etcd_at = run.adds_member.then_some(STARTS_ETCD);
        if phase.contains("preflight") {
            command.args.extend(self.ignored_checks(Some(run)));
        }
        let made = self.made_by(&phase).into_iter().map(|path| Action::Require { phase: phase.clone(), path });
        std::iter::once(Action::Run(with_config(command, &config))).chain(made).collect()
    }

    /// Files by which a phase that claims to have run is believed.
    fn made_by(&self, phase: &str) -> Vec<PathBuf> {
        let (dir, manifests) = (&self.settings.dir, self.settings.dir.join("manifests"));
        match phase {
            "init/certs" => vec![self.settings.pki_dir().join("apiserver.crt")],
            "init/kubeconfig" => vec![self.settings.admin_kubeconfig()],
            "init/kubeconfig/kubelet" => vec![self.settings.kubelet_kubeconfig()],
            "init/kubelet-start" => vec![self.settings.kubelet_dir.join("config.yaml")],
            "init/control-plane" => vec![manifests.join("kube-apiserver.yaml")],
            "join/preflight+kubelet-start"
            | "join/preflight+kubelet-start+kubelet-wait-bootstrap"
            | "join/kubelet-wait-bootstrap"
            | "join/kubelet-wait-bootstrap+mark-control-plane" => vec![self.settings.kubelet_kubeconfig()],
            "join/preflight+control-plane-prepare+kubelet-start" => {
                vec![dir.join("admin.conf"), manifests.join("kube-apiserver.yaml")]
            }
            "init/etcd/local" | "join/etcd-join" | "join/control-plane-join/etcd" => vec![manifests.join("etcd.yaml")],
            _ => Vec::new(),
        }
    }

    fn write_pki(&self, pki: &PkiBundle) -> Vec<Action> {
        let dir = self.settings.pki_dir();
        let write = |(name, mode, contents)| Action::WriteFile { path: dir.join(name), mode, contents };
        pki.files().map(write).into()
    }

    /// The user's, and those that would wonder at what muster has seen to: the kubelet's kubeconfig it had made, and etcd's directory
    /// it has looked into itself, where kubeadm takes a file system's `lost+found` for somebody's data.
    fn ignored_checks(&self, run: Option<&Run>) -> Option<String> {
        let mut checks = self.settings.ignore_preflight.clone();
        // kubeadm refuses `all` together with a check's name.
        if let Some(run) = run.filter(|_| !checks.iter().any(|check| check.eq_ignore_ascii_case("all"))) {
            checks.extend(run.made_before.then(|| "FileAvailable--etc-kubernetes-kubelet.conf".to_owned()));
            let etcd = self.documents.etcd_dir().filter(|_| run.hosts_etcd);
            checks.extend(etcd.map(|path| format!("DirAvailable-{}", path.display().to_string().replace('/', "-"))));
        }
        (!checks.is_empty()).then(|| format!("--ignore-preflight-errors={}", checks.join(",")))
    }

    fn skips(&self, phase: &str) -> bool {
        self.settings.skip_phases.iter().any(|skipped| skipped == phase)
    }

    fn command(&self, phase: &str, args: &[&str], limit: std::time::Duration) -> Command {
        let mut command = Command::new(phase, self.settings.kubeadm.clone(), [], limit);
        command.env = self.settings.environment();
        command.args = args.iter().map(|&arg| arg.to_owned()).collect();
        command
    }

    /// Not in the working directory, which may be gone after a restart: an init that others have joined must be finished.
    fn finish_document(&self) -> PathBuf {
        self.settings.dir.join("muster-init.yaml")
    }

    fn work(&self, name: &str) -> PathBuf {
        self.settings.work_dir.join(name)
    }

    fn write(&self, name: &str, contents: Secret) -> Action {
        Action::WriteFile { path: self.work(name), mode: 0o600, contents }
    }
}

fn with_config(mut command: Command, path: &std::path::Path) -> Command {
    command.args.extend(["--config".to_owned(), path.display().to_string()]);
    command
}

fn remove(path: PathBuf) -> Action {
    Action::RemoveFile { path }
}

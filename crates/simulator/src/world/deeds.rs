//! What the device's steps do, as the agent's device does it: secrets opened and sealed with the real code, actions from
//! muster-kubeadm's plans carried out in order, kubeadm's words read by its `outcome`. Only the process is a model.
//!
//! What is sealed begins with a mark, so that a secret that leaks is seen.

use std::net::IpAddr;

use bytes::Bytes;
use muster_kubeadm::{
    Action, Command, Failure, Node, PkiBundle, Plan, Settings, StepInput, Ticket, Token, Version, outcome,
};
use muster_protocol::{ManifestOutcome, ManifestResult, Recipient, Step, StepOutput};
use muster_wire::Digest;
use muster_wire::entry::Sealed;
use muster_wire::seal::{SealingKey, seal};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use xxhash_rust::xxh3::xxh3_64;

use super::World;
use super::event::Slot;
use super::kubeadm::SealedTo;
use super::program::Ran;
use crate::check::legible;
use crate::scenario::Sort;
use crate::watch::Seen;

pub(super) const API_PORT: u16 = 6443;
/// The administrator's identity.
const ADMIN: &str = "/etc/kubernetes/admin.conf";
/// How the files of single tokens begin.
const TOKEN_FILE: &str = "/run/muster/kubeadm/token-";
/// The kubeadm of a run: those whose service accounts' key needs no RSA, which takes long to make.
const VERSIONS: [&str; 4] = ["v1.31.4", "v1.33.1", "v1.35.0", "v1.36.1"];

/// Why a step does not come to a good end at once.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No API server is reached yet; kubeadm goes on asking.
    NoApi,
    /// It is not let come to its end.
    CutShort,
    Failed {
        phase: Option<String>,
        why: String,
        hopeless: bool,
    },
}

impl Trouble {
    pub(super) fn new(why: impl ToString) -> Self {
        Self::Failed { phase: None, why: why.to_string(), hopeless: false }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let hopeless = failure.is_hopeless();
        Self::Failed { phase: Some(failure.phase.clone()), why: failure.to_string(), hopeless }
    }
}

impl World {
    pub(super) fn carry_out(&mut self, slot: Slot, step: &Step) -> Result<StepOutput, Trouble> {
        match step {
            Step::Check { fresh } => self.check_kubeadm(slot, *fresh),
            Step::Prepare { role } => self.follow_plan(slot, &StepInput::Prepare { role: *role }),
            Step::MakePki { recipients, .. } => self.make_pki(slot, recipients),
            Step::SealPki { sealed_pki, recipient } => {
                let bundle = self.open_pki(slot, sealed_pki)?;
                self.seal_pki(&bundle, std::slice::from_ref(recipient))
            }
            Step::IssueTicket { attempt, sealed_pki, recipient, token_registered } => {
                let bundle = self.open_pki(slot, sealed_pki)?;
                self.issue(slot, *attempt, &bundle, recipient, *token_registered)
            }
            Step::InitCluster { attempt, name, address, sealed_pki, tokens } => {
                let bundle = self.open_pki(slot, sealed_pki)?;
                let node = self.node(slot, *attempt, name, address)?;
                let tokens: Vec<Token> = tokens.iter().map(|machine| bundle.token_for(*machine)).collect();
                self.follow_plan(slot, &StepInput::InitCluster { node: &node, pki: &bundle, tokens: &tokens })?;
                self.hosts[slot as usize].kube.dirty = false;
                self.see(Seen::Initialised { slot, attempt: *attempt });
                let endpoints = vec![format!("{address}:{API_PORT}")];
                Ok(StepOutput::Initialised { ca_hash: bundle.ca_hash(), endpoints })
            }
            Step::InitFinish { .. } => self.follow_plan(slot, &StepInput::InitFinish),
            Step::Join { attempt, role, name, address, ticket, sealed_pki } => {
                let ticket = self.open_ticket(slot, *attempt, ticket)?;
                let bundle = sealed_pki.as_ref().map(|sealed| self.open_pki(slot, sealed)).transpose()?;
                let node = self.node(slot, *attempt, name, address)?;
                let input = StepInput::Join { role: *role, node: &node, ticket: &ticket, pki: bundle.as_ref() };
                self.follow_plan(slot, &input)
            }
            Step::JoinEtcd { .. } => self.follow_plan(slot, &StepInput::JoinEtcd),
            Step::JoinFinish { attempt, role, name, address, ticket } => {
                let ticket = self.open_ticket(slot, *attempt, ticket)?;
                let node = self.node(slot, *attempt, name, address)?;
                self.follow_plan(slot, &StepInput::JoinFinish { role: *role, node: &node, ticket: &ticket })
            }
            Step::AwaitReady { name } => {
                let done = self.follow_plan(slot, &StepInput::AwaitReady { name })?;
                self.nothing_left(slot, "/run/");
                Ok(done)
            }
            Step::DeleteToken { sealed_pki, machine } => {
                let token = self.open_pki(slot, sealed_pki)?.token_for(*machine);
                self.follow_plan(slot, &StepInput::DeleteToken { token: &token })
            }
            Step::ApplyManifests { objects } => self.apply_manifests(slot, objects),
            Step::Reset { member, node } => self.undo(slot, member.as_deref(), node.as_deref()),
        }
    }

    /// As the agent applies them: through whichever API server is reached, each object for itself.
    fn apply_manifests(&mut self, slot: Slot, objects: &[u32]) -> Result<StepOutput, Trouble> {
        if !self.has(slot, ADMIN) {
            return Err(Trouble::new(format!("{ADMIN}: No such file or directory")));
        }
        let theirs = |server: Slot| self.hosts[server as usize].kube.cluster;
        let ours = self.hosts[slot as usize].kube.cluster;
        let cluster = self.api_of(slot).and_then(theirs).filter(|cluster| Some(*cluster) == ours);
        let now = self.now;
        let mut apply = |object: u32| {
            let Some(cluster) = cluster else { return ManifestOutcome::Later("no API server answers".to_owned()) };
            let cluster = &mut self.site.clusters[cluster];
            if object % 2 == 1 && cluster.put_off.insert(object) {
                return ManifestOutcome::Later("the API server does not serve its kind yet".to_owned());
            }
            cluster.manifests.entry(object).or_insert((slot, now));
            ManifestOutcome::Applied
        };
        let result = |object: &u32| ManifestResult { object: *object, outcome: apply(*object) };
        Ok(StepOutput::Manifests(objects.iter().map(result).collect()))
    }

    fn check_kubeadm(&mut self, slot: Slot, fresh: bool) -> Result<StepOutput, Trouble> {
        // As the agent's look at what is left on the disk.
        if fresh && self.hosts[slot as usize].kube.files.keys().any(|path| path.starts_with("/etc/kubernetes/")) {
            return Err(Trouble::Failed {
                phase: None,
                why: "work that muster did not begin".to_owned(),
                hopeless: true,
            });
        }
        // In the agent's order: what was there before muster, then the clock, then kubeadm.
        if self.clock_unset(slot) {
            return Err(Trouble::new("this machine's clock is not set, it shows a time before 2026"));
        }
        let command = Command::version("/usr/bin/kubeadm".into());
        let said = VERSIONS[self.chance.fixed("kubeadm", 0, 0) as usize % VERSIONS.len()];
        let ran = Ran::printing(format!("{{\"clientVersion\": {{\"gitVersion\": \"{said}\"}}}}"));
        outcome(&command, &ran.exit, ran.stdout.as_bytes(), ran.stderr.as_bytes())?;
        let hopeless = |why: String| Trouble::Failed { phase: Some("version".to_owned()), why, hopeless: true };
        let version = Version::from_kubeadm(ran.stdout.as_bytes()).map_err(|why| hopeless(why.to_string()))?;
        let plan = Plan::new(&version, settings()).map_err(|why| hopeless(why.to_string()))?;
        self.hosts[slot as usize].plan = Some(plan);
        Ok(StepOutput::Checked { version: version.to_string(), worker_only: None })
    }

    /// Whether its wall clock shows 1970.
    fn clock_unset(&mut self, slot: Slot) -> bool {
        let unset = |active: &super::faults::Active| {
            self.plan[active.index].kind == Sort::ClockUnset && active.targets.contains(&slot)
        };
        let unset = self.active.iter().any(unset);
        if unset {
            self.took_on(slot, &[Sort::ClockUnset]);
        }
        unset
    }

    fn plan_of(&self, slot: Slot) -> Result<&Plan, Trouble> {
        self.hosts[slot as usize].plan.as_ref().ok_or_else(|| Trouble::new("kubeadm has not been checked yet"))
    }

    /// This machine as kubeadm is to see it.
    fn node(&mut self, slot: Slot, attempt: u32, name: &str, address: &str) -> Result<Node, Trouble> {
        let at: IpAddr = address.parse().map_err(|_| Trouble::new(format!("{address:?} is not an address")))?;
        let kube = &mut self.hosts[slot as usize].kube;
        kube.attempt = attempt;
        Ok(Node { name: name.to_owned(), address: at })
    }

    fn follow_plan(&mut self, slot: Slot, input: &StepInput<'_>) -> Result<StepOutput, Trouble> {
        for action in self.plan_of(slot)?.step(input) {
            self.act(slot, action)?;
        }
        Ok(StepOutput::Done)
    }

    /// As the agent resets: out of etcd first, since kubeadm only warns when it could not leave it; and the Node goes with it.
    fn undo(&mut self, slot: Slot, member: Option<&str>, node: Option<&str>) -> Result<StepOutput, Trouble> {
        let left = match member {
            Some(address) => self.leave_etcd(slot, address)?,
            None => false,
        };
        if let Some(node) = node {
            self.take_node_back(slot, node);
        }
        let input = if left { StepInput::ResetOutsideEtcd } else { StepInput::Reset };
        let done = self.follow_plan(slot, &input)?;
        self.nothing_left(slot, "/");
        Ok(done)
    }

    /// Work is done: whoever reads these files must find no secret of it. Tokens that the leader makes for others are another
    /// work, which may still go on.
    fn nothing_left(&mut self, slot: Slot, under: &str) {
        let others = |path: &str| path.starts_with(TOKEN_FILE) && !under.starts_with(TOKEN_FILE);
        let files =
            self.hosts[slot as usize].kube.files.iter().filter(|(path, _)| path.starts_with(under) && !others(path));
        let left: Vec<String> =
            files.filter(|(_, contents)| legible::secret(contents)).map(|(path, _)| path.clone()).collect();
        for path in left {
            let place = format!("{path}, which nothing needs any more");
            self.see(Seen::Exposed { slot, place: &place });
        }
    }

    fn act(&mut self, slot: Slot, action: Action) -> Result<(), Trouble> {
        if !self.goes_on() {
            return Err(Trouble::CutShort);
        }
        match action {
            Action::WriteFile { path, mode, contents } => {
                if legible::secret(contents.expose()) && mode & 0o077 != 0 {
                    self.see(Seen::Exposed { slot, place: &path.display().to_string() });
                }
                let kube = &mut self.hosts[slot as usize].kube;
                kube.files.insert(path.display().to_string(), contents.expose().to_vec());
            }
            Action::RemoveFile { path } => {
                self.hosts[slot as usize].kube.files.remove(&path.display().to_string());
            }
            Action::EmptyDirectory { path } => {
                let kube = &mut self.hosts[slot as usize].kube;
                kube.files.retain(|name, _| !std::path::Path::new(name).starts_with(&path));
            }
            Action::Require { phase, path } => {
                if !self.hosts[slot as usize].kube.files.contains_key(&path.display().to_string()) {
                    return Err(Failure::left_undone(&phase, &path).into());
                }
            }
            Action::Run(command) => {
                if command.args.iter().any(|arg| legible::secret(arg.as_bytes())) {
                    self.see(Seen::Exposed { slot, place: "the arguments of kubeadm" });
                }
                if command.env.iter().any(|(_, value)| legible::secret(value.as_bytes())) {
                    self.see(Seen::Exposed { slot, place: "the environment of kubeadm" });
                }
                let Some(ran) = self.kubeadm(slot, &command) else {
                    return Err(if self.cut == Some(0) { Trouble::CutShort } else { Trouble::NoApi });
                };
                let told = outcome(&command, &ran.exit, ran.stdout.as_bytes(), ran.stderr.as_bytes());
                if told.as_ref().is_err_and(|failure| legible::secret(failure.to_string().as_bytes())) {
                    self.see(Seen::Exposed { slot, place: "what is said of a failed run" });
                }
                told?;
            }
            Action::KubeletServer(change) => {
                if !self.has(slot, &change.path.display().to_string()) {
                    return Err(Failure::left_undone("init/kubeconfig/kubelet", &change.path).into());
                }
            }
            // Every machine of the simulator knows a DNS server.
            Action::LocalDns(_) => {}
            Action::Await(wait) => {
                let (status, body) = self.ask_api(slot, &wait).ok_or(Trouble::NoApi)?;
                wait.met(status, body.as_bytes()).map_err(|missing| Failure::waited(&wait.phase, &missing))?;
            }
        }
        Ok(())
    }

    fn make_pki(&mut self, slot: Slot, recipients: &[Recipient]) -> Result<StepOutput, Trouble> {
        self.site.secrets += 1;
        let mut entropy = ChaCha8Rng::seed_from_u64(self.chance.fixed("pki", self.site.secrets, 0));
        let bundle = PkiBundle::make(self.plan_of(slot)?.version(), &mut entropy).map_err(Trouble::new)?;
        self.site.cas.insert(bundle.ca_certificate().to_owned(), bundle.ca_hash());
        self.seal_pki(&bundle, recipients)
    }

    fn seal_pki(&mut self, bundle: &PkiBundle, recipients: &[Recipient]) -> Result<StepOutput, Trouble> {
        let secret = bundle.encode();
        let ca_hash: Digest = bundle.ca_hash();
        let sealed = recipients.iter().map(|recipient| {
            Ok(Sealed { machine: recipient.machine, ciphertext: self.seal("pki", recipient, &secret)? })
        });
        Ok(StepOutput::PkiMade { ca_hash, sealed: sealed.collect::<Result<_, Trouble>>()? })
    }

    fn issue(
        &mut self,
        slot: Slot,
        attempt: u32,
        bundle: &PkiBundle,
        recipient: &Recipient,
        token_registered: bool,
    ) -> Result<StepOutput, Trouble> {
        let token = bundle.token_for(recipient.machine);
        if !token_registered {
            self.follow_plan(slot, &StepInput::CreateToken { token: &token })?;
            self.nothing_left(slot, &format!("{TOKEN_FILE}{}", token.id()));
        }
        let ticket = Ticket {
            attempt,
            token,
            ca_certificate: bundle.ca_certificate().to_owned(),
            ca_hash: bundle.ca_hash(),
            endpoints: Vec::new(),
        };
        let ciphertext = self.seal(&format!("ticket/{attempt}"), recipient, &ticket.encode())?;
        Ok(StepOutput::Ticket { ciphertext })
    }

    fn seal(&mut self, purpose: &str, recipient: &Recipient, secret: &[u8]) -> Result<Bytes, Trouble> {
        self.site.secrets += 1;
        let mut entropy = ChaCha8Rng::seed_from_u64(self.chance.fixed("seal", self.site.secrets, 0));
        let marked = [&self.site.mark[..], secret].concat();
        let ciphertext =
            seal(purpose, recipient.machine, &recipient.sealing_key, &marked, &mut entropy).map_err(Trouble::new)?;
        let to = SealedTo { machine: recipient.machine, key: recipient.sealing_key };
        self.see(Seen::Sealed { hash: xxh3_64(&ciphertext), to });
        Ok(ciphertext.into())
    }

    fn open(&self, slot: Slot, purpose: &str, ciphertext: &Bytes) -> Result<Vec<u8>, Trouble> {
        let host = &self.hosts[slot as usize];
        let key = SealingKey::from_seed(&host.sealing_seed);
        let opened = key.open(purpose, host.me, ciphertext).map_err(Trouble::new)?;
        Ok(opened.strip_prefix(&self.site.mark[..]).unwrap_or(&opened).to_vec())
    }

    fn open_pki(&self, slot: Slot, sealed: &Bytes) -> Result<PkiBundle, Trouble> {
        PkiBundle::decode(&self.open(slot, "pki", sealed)?).map_err(Trouble::new)
    }

    fn open_ticket(&self, slot: Slot, attempt: u32, sealed: &Bytes) -> Result<Ticket, Trouble> {
        Ticket::decode(&self.open(slot, &format!("ticket/{attempt}"), sealed)?).map_err(Trouble::new)
    }
}

/// muster.toml's part about kubeadm.
fn settings() -> Settings {
    Settings {
        cluster: super::CLUSTER.to_owned(),
        version: None,
        kubeadm: "/usr/bin/kubeadm".into(),
        dir: "/etc/kubernetes".into(),
        kubelet_dir: "/var/lib/kubelet".into(),
        etcd_dir: "/var/lib/etcd".into(),
        work_dir: "/run/muster/kubeadm".into(),
        hosts_file: "/etc/hosts".into(),
        endpoint: "api.site.muster:7443".to_owned(),
        api_port: API_PORT,
        pod_subnet: None,
        service_subnet: None,
        image_repository: None,
        cri_socket: None,
        documents: Vec::new(),
        skip_phases: Vec::new(),
        ignore_preflight: Vec::new(),
    }
}

//! The kubeadm device: carries out the steps that the core orders. Only here are secrets in the clear.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use muster_kubeadm::{
    Action, Command, Failure, Manifests, Node, PkiBundle, Plan, Settings, StepInput, Ticket, Token, Version, Wait,
    outcome,
};
use muster_protocol::{Recipient, Step, StepFailure, StepOutput};
use muster_wire::entry::Sealed;
use muster_wire::seal::{SealingKey, seal};
use muster_wire::{Digest, MachineId};
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use serde::Serialize;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::balancer::Balancer;
use crate::hosts::Hosts;
use crate::proxy::Proxies;
use crate::{ask, files, kubelet, leave, local_dns, manifests, process, remains, wall_clock};

/// Pause between two questions of a wait.
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// Pause before a run that may be repeated is.
const AGAIN_PAUSE: Duration = Duration::from_secs(1);

/// The last phase of a worker's join, which only waits.
const WAIT: &str = "kubelet-wait-bootstrap";

/// Most finished phases whose times are kept.
const TIMES_MAX: usize = 512;

/// When a phase ran, in milliseconds since the agent's start.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseTime {
    /// The step it belongs to.
    pub step: &'static str,
    /// The phase, in kubeadm's words; empty for the step as a whole.
    pub phase: String,
    /// Its beginning.
    pub start_ms: u64,
    /// Its end.
    pub end_ms: u64,
}

/// What the device works with.
pub(crate) struct Device {
    pub(crate) me: MachineId,
    pub(crate) key: SealingKey,
    pub(crate) settings: Settings,
    pub(crate) manifests: Manifests,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) hosts: Hosts,
    pub(crate) proxies: Proxies,
    /// Where this machine's own balancer listens.
    pub(crate) endpoint: SocketAddr,
    pub(crate) balancer: Balancer,
    pub(crate) started: Instant,
    pub(crate) times: Mutex<Vec<PhaseTime>>,
    pub(crate) plan: Mutex<Option<Arc<Plan>>>,
}

type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Why a step did not do what it should, before it has the step's name.
struct Trouble {
    phase: Option<String>,
    why: String,
    hopeless: bool,
}

impl Trouble {
    fn new(why: impl ToString) -> Self {
        Self { phase: None, why: why.to_string(), hopeless: false }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let hopeless = failure.is_hopeless();
        let why = match failure.excerpt.is_empty() {
            true => failure.kind.to_string(),
            false => format!("{}: {}", failure.kind, failure.excerpt),
        };
        Self { phase: Some(failure.phase), why, hopeless }
    }
}

impl Device {
    /// Carries out a step. `progress` hears of every phase that begins.
    pub(crate) async fn carry_out(&self, step: Step, progress: Progress<'_>) -> Result<StepOutput, StepFailure> {
        let name = step.name();
        let begun = Instant::now();
        let result = self.step(name, step, progress).await;
        self.note(name, String::new(), begun);
        result.map_err(|Trouble { phase, why, hopeless }| StepFailure { step: name, phase, why, hopeless })
    }

    async fn step(&self, name: &'static str, step: Step, progress: Progress<'_>) -> Result<StepOutput, Trouble> {
        let run = |input| self.run(name, input, progress);
        match step {
            Step::Check { fresh } => self.check(fresh).await,
            Step::Prepare { role } => run(StepInput::Prepare { role }).await,
            Step::MakePki { recipients, .. } => self.make_pki(&recipients),
            Step::SealPki { sealed_pki, recipient } => {
                let bundle = self.open_pki(&sealed_pki)?;
                seal_pki(&bundle, &[recipient])
            }
            Step::IssueTicket { attempt, sealed_pki, recipient, token_registered } => {
                let bundle = self.open_pki(&sealed_pki)?;
                self.issue(name, attempt, &bundle, &recipient, token_registered, progress).await
            }
            Step::InitCluster { name: node, address, sealed_pki, tokens, .. } => {
                let bundle = self.open_pki(&sealed_pki)?;
                let node = self.node(node, &address)?;
                let tokens: Vec<Token> = tokens.iter().map(|machine| bundle.token_for(*machine)).collect();
                run(StepInput::InitCluster { node: &node, pki: &bundle, tokens: &tokens }).await?;
                let endpoint = SocketAddr::new(node.address, self.settings.api_port).to_string();
                Ok(StepOutput::Initialised { ca_hash: bundle.ca_hash(), endpoints: vec![endpoint] })
            }
            Step::InitFinish { .. } => run(StepInput::InitFinish).await,
            Step::Join { attempt, role, name: node, address, ticket, sealed_pki } => {
                let ticket = self.open_ticket(attempt, &ticket)?;
                let bundle = sealed_pki.map(|sealed| self.open_pki(&sealed)).transpose()?;
                let node = self.node(node, &address)?;
                let joined = run(StepInput::Join { role, node: &node, ticket: &ticket, pki: bundle.as_ref() }).await;
                // The kubelet has its own certificate: that kubeadm's wait for it ended badly takes nothing away.
                let waited = |trouble: &Trouble| trouble.phase.as_deref().is_some_and(|phase| phase.ends_with(WAIT));
                match joined {
                    Err(trouble) if waited(&trouble) && self.settings.kubelet_kubeconfig().exists() => {
                        warn!(why = trouble.why, "kubeadm's wait failed, and the kubelet has joined all the same");
                        Ok(StepOutput::Done)
                    }
                    joined => joined,
                }
            }
            Step::JoinEtcd { address, .. } => self.join_etcd(name, &address, progress).await,
            Step::JoinFinish { attempt, role, name: node, address, ticket } => {
                let ticket = self.open_ticket(attempt, &ticket)?;
                let node = self.node(node, &address)?;
                run(StepInput::JoinFinish { role, node: &node, ticket: &ticket }).await
            }
            Step::AwaitReady { name: node } => run(StepInput::AwaitReady { name: &node }).await,
            Step::DeleteToken { sealed_pki, machine } => {
                let token = self.open_pki(&sealed_pki)?.token_for(machine);
                run(StepInput::DeleteToken { token: &token }).await
            }
            Step::ApplyManifests { objects } => self.apply(&objects).await.map_err(Trouble::new),
            Step::Reset { member, node } => self.reset(name, member.as_deref(), node.as_deref(), progress).await,
        }
    }

    /// kubeadm that adds a member waits for it in several ways, and each may end badly. What counts is whether etcd has it.
    async fn join_etcd(
        &self,
        name: &'static str,
        address: &str,
        progress: Progress<'_>,
    ) -> Result<StepOutput, Trouble> {
        let Err(trouble) = self.run(name, StepInput::JoinEtcd, progress).await else { return Ok(StepOutput::Done) };
        let us: IpAddr = address.parse().map_err(|_| Trouble::new(format!("{address:?} is not an address")))?;
        if leave::votes(&self.settings, us).await {
            warn!(
                why = trouble.why,
                "kubeadm did not see this machine's etcd member through, and it votes all the same"
            );
            return Ok(StepOutput::Done);
        }
        Err(trouble)
    }

    /// Membership and Node go first, as far as they can; then everything here.
    async fn reset(
        &self,
        name: &'static str,
        member: Option<&str>,
        node: Option<&str>,
        progress: Progress<'_>,
    ) -> Result<StepOutput, Trouble> {
        let outside = match member {
            Some(address) => self.leave_etcd(address, progress).await?,
            None => false,
        };
        let leaving = node.map(|node| leave::Leaving::new(&self.settings, self.endpoint, node));
        if let Some(leaving) = &leaving {
            progress("node/farewell");
            leaving.before_reset().await;
        }
        let input = if outside { StepInput::ResetOutsideEtcd } else { StepInput::Reset };
        let done = self.run(name, input, progress).await?;
        if let Some(leaving) = &leaving {
            leaving.after_reset().await;
        }
        Ok(done)
    }

    /// Applies objects of the image's manifests through this machine's own balancer.
    async fn apply(&self, objects: &[u32]) -> Result<StepOutput, String> {
        let identity = ask::identity(&self.settings.admin_kubeconfig())?;
        let server = manifests::Server { name: &self.settings.endpoint, at: self.endpoint, identity: &identity };
        Ok(StepOutput::Manifests(manifests::apply(&server, &self.manifests, objects).await))
    }

    /// Looks at the clock, asks kubeadm for its version, and sees whether there is a plan for it and these settings.
    async fn check(&self, fresh: bool) -> Result<StepOutput, Trouble> {
        if let Some(remains) = remains::find(&self.settings).map_err(Trouble::new)?.filter(|_| fresh) {
            return Err(Trouble { phase: None, why: remains, hopeless: true });
        }
        wall_clock::check(SystemTime::now()).map_err(Trouble::new)?;
        let command = Command::version(self.settings.kubeadm.clone());
        let ran = process::run(&command, &self.environment(), &|_| {}).await;
        outcome(&command, &ran.exit, &ran.stdout, &ran.stderr)?;
        let hopeless = |why: String| Trouble { phase: Some("version".to_owned()), why, hopeless: true };
        let version = Version::from_kubeadm(&ran.stdout).map_err(|why| hopeless(why.to_string()))?;
        let plan = Plan::new(&version, self.settings.clone()).map_err(|why| hopeless(why.to_string()))?;
        let worker_only = plan.worker_only();
        *self.plan.lock().expect("no holder panics") = Some(Arc::new(plan));
        Ok(StepOutput::Checked { version: version.to_string(), worker_only })
    }

    fn make_pki(&self, recipients: &[Recipient]) -> Result<StepOutput, Trouble> {
        let bundle = PkiBundle::make(self.plan()?.version(), &mut entropy()).map_err(Trouble::new)?;
        seal_pki(&bundle, recipients)
    }

    async fn issue(
        &self,
        name: &'static str,
        attempt: u32,
        bundle: &PkiBundle,
        recipient: &Recipient,
        token_registered: bool,
        progress: Progress<'_>,
    ) -> Result<StepOutput, Trouble> {
        let token = bundle.token_for(recipient.machine);
        if !token_registered {
            self.run(name, StepInput::CreateToken { token: &token }, progress).await?;
        }
        let ticket = Ticket {
            attempt,
            token,
            ca_certificate: bundle.ca_certificate().to_owned(),
            ca_hash: bundle.ca_hash(),
            endpoints: Vec::new(),
        };
        let purpose = format!("ticket/{attempt}");
        let sealed = seal(&purpose, recipient.machine, &recipient.sealing_key, &ticket.encode(), &mut entropy());
        Ok(StepOutput::Ticket { ciphertext: sealed.map_err(Trouble::new)?.into() })
    }

    fn open_pki(&self, sealed: &Bytes) -> Result<PkiBundle, Trouble> {
        let plain = self.key.open("pki", self.me, sealed).map_err(Trouble::new)?;
        PkiBundle::decode(&plain).map_err(Trouble::new)
    }

    fn open_ticket(&self, attempt: u32, sealed: &Bytes) -> Result<Ticket, Trouble> {
        let plain = self.key.open(&format!("ticket/{attempt}"), self.me, sealed).map_err(Trouble::new)?;
        Ticket::decode(&plain).map_err(Trouble::new)
    }

    /// Whether this machine had come so far that it could have been a member; in any case it is none afterwards.
    async fn leave_etcd(&self, address: &str, progress: Progress<'_>) -> Result<bool, Trouble> {
        progress("etcd/member-remove");
        let us: IpAddr = address.parse().map_err(|_| Trouble::new(format!("{address:?} is not an address")))?;
        leave::etcd(&self.settings, us, &self.balancer).await.map_err(Trouble::new)
    }

    /// This machine as kubeadm is to see it; from here on the endpoint's name means this machine.
    fn node(&self, name: String, address: &str) -> Result<Node, Trouble> {
        let address: IpAddr = address.parse().map_err(|_| Trouble::new(format!("{address:?} is not an address")))?;
        self.hosts.require(address).map_err(Trouble::new)?;
        self.proxies.except([address.to_string().as_str()]);
        Ok(Node { name, address })
    }

    async fn run(
        &self,
        name: &'static str,
        input: StepInput<'_>,
        progress: Progress<'_>,
    ) -> Result<StepOutput, Trouble> {
        let mut noted = StepOutput::Done;
        for action in self.plan()?.step(&input) {
            if let Some(text) = self.act(name, action, progress).await? {
                noted = StepOutput::Noted(text);
            }
        }
        Ok(noted)
    }

    fn plan(&self) -> Result<Arc<Plan>, Trouble> {
        let plan = self.plan.lock().expect("no holder panics").clone();
        plan.ok_or_else(|| Trouble::new("kubeadm has not been checked yet"))
    }

    /// Does it, and says what people should know of it.
    async fn act(&self, name: &'static str, action: Action, progress: Progress<'_>) -> Result<Option<String>, Trouble> {
        let begun = Instant::now();
        let done =
            match action {
                Action::WriteFile { path, mode, contents } => files::write(&path, mode, contents.expose())
                    .map_err(|why| Trouble::new(format!("{} cannot be written: {why}", path.display()))),
                Action::RemoveFile { path } => files::remove(&path)
                    .map_err(|why| Trouble::new(format!("{} cannot be removed: {why}", path.display()))),
                Action::EmptyDirectory { path } => files::empty(&path)
                    .map_err(|why| Trouble::new(format!("{} cannot be emptied: {why}", path.display()))),
                Action::Require { phase, path } if !path.exists() => Err(Failure::left_undone(&phase, &path).into()),
                Action::Require { .. } => Ok(()),
                Action::Run(command) => {
                    progress(&command.phase);
                    let result = self.run_command(&command).await;
                    self.note(name, command.phase, begun);
                    result
                }
                Action::Await(wait) => {
                    progress(&wait.phase);
                    let result = self.wait(&wait).await;
                    self.note(name, wait.phase, begun);
                    result
                }
                Action::KubeletServer(change) => kubelet::change_server(&change).map_err(Trouble::new),
                Action::LocalDns(dns) => {
                    progress("local-dns");
                    return local_dns::ensure(&dns, self.endpoint).await.map_err(Trouble::new);
                }
            };
        done.map(|()| None)
    }

    /// Runs it, and runs it again if it may be.
    async fn run_command(&self, command: &Command) -> Result<(), Trouble> {
        let mut tries = 1;
        loop {
            match self.run_once(command).await {
                Err(failure) if tries < command.tries && failure.may_pass() => {
                    warn!(phase = command.phase, tries, why = %failure, "is run again");
                    tries += 1;
                    tokio::time::sleep(AGAIN_PAUSE).await;
                }
                result => return Ok(result?),
            }
        }
    }

    async fn run_once(&self, command: &Command) -> Result<(), Failure> {
        // Opens the endpoint again however this ends, an abort included.
        let reopen = Reopen(&self.balancer);
        let ran = process::run(command, &self.environment(), &|line| {
            if command.starts_etcd_at.is_some_and(|mark| line.starts_with(mark)) {
                self.balancer.close(true);
            }
        })
        .await;
        drop(reopen);
        outcome(command, &ran.exit, &ran.stdout, &ran.stderr).map_err(|mut failure| {
            if let Some(note) = self.proxies.note() {
                let words = std::mem::take(&mut failure.excerpt);
                failure.excerpt = if words.is_empty() { note } else { format!("{words} ({note})") };
            }
            failure
        })
    }

    /// What kubeadm is told besides the agent's own environment.
    fn environment(&self) -> Vec<(String, String)> {
        self.env.iter().cloned().chain(self.proxies.variables()).collect()
    }

    async fn wait(&self, wait: &Wait) -> Result<(), Trouble> {
        // The endpoint is a name only kubeadm must resolve; this machine's own balancer is what it means.
        let at = match wait.server == self.settings.endpoint {
            true => self.endpoint,
            false => wait.server.parse().map_err(|_| Trouble::new(format!("{:?} is not an address", wait.server)))?,
        };
        let begun = Instant::now();
        loop {
            let missing = match ask::once(wait, at).await {
                Ok((status, body)) => match wait.met(status, &body) {
                    Ok(()) => return Ok(()),
                    Err(missing) => missing,
                },
                Err(missing) => missing,
            };
            if begun.elapsed() >= wait.limit {
                return Err(Failure::waited(&wait.phase, &missing).into());
            }
            tokio::time::sleep(ASK_PAUSE).await;
        }
    }

    fn note(&self, step: &'static str, phase: String, begun: Instant) {
        let since = |at: Instant| at.duration_since(self.started).as_millis() as u64;
        let time = PhaseTime { step, phase, start_ms: since(begun), end_ms: since(Instant::now()) };
        info!(step, phase = time.phase, ms = time.end_ms - time.start_ms, "done");
        let mut times = self.times.lock().expect("no holder panics");
        if times.len() < TIMES_MAX {
            times.push(time);
        }
    }
}

struct Reopen<'a>(&'a Balancer);

impl Drop for Reopen<'_> {
    fn drop(&mut self) {
        self.0.close(false);
    }
}

fn seal_pki(bundle: &PkiBundle, recipients: &[Recipient]) -> Result<StepOutput, Trouble> {
    let plain = bundle.encode();
    let sealed = recipients.iter().map(|recipient| {
        let ciphertext = seal("pki", recipient.machine, &recipient.sealing_key, &plain, &mut entropy())?;
        Ok(Sealed { machine: recipient.machine, ciphertext: ciphertext.into() })
    });
    let sealed = sealed.collect::<Result<_, muster_wire::seal::Unopenable>>().map_err(Trouble::new)?;
    let ca_hash: Digest = bundle.ca_hash();
    Ok(StepOutput::PkiMade { ca_hash, sealed })
}

/// The operating system's entropy, stretched.
pub(crate) fn entropy() -> ChaCha20Rng {
    ChaCha20Rng::from_seed(*seed())
}

/// 32 bytes of the operating system's entropy.
pub(crate) fn seed() -> Zeroizing<[u8; 32]> {
    let mut seed = Zeroizing::new([0; 32]);
    // Without entropy there are no keys, and no machine.
    getrandom::fill(&mut seed[..]).expect("the operating system gives entropy");
    seed
}

//! What each step does, and what its end means.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use muster_protocol::{Before, EtcdTiming, Recipient, Step, StepOutput};
use muster_wire::{Attempt, MachineId};
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use zeroize::Zeroizing;

use super::hands::Hands;
use super::{Ask, Place, Trouble, secrets};
use crate::action::Command;
use crate::outcome::outcome;
use crate::pki::{PkiBundle, Ticket};
use crate::plan::{Founding, Node, Plan, StepInput};
use crate::secret::Token;
use crate::version::Version;

/// The last phase of a worker's join, which only waits.
const WAIT: &str = "kubelet-wait-bootstrap";

/// How long a kubelet that was started may take until etcd has written something: it may have to pull etcd's image.
const ETCD_BEGINS: Duration = Duration::from_secs(60);

/// Pause between two looks for that.
const ETCD_PAUSE: Duration = Duration::from_millis(500);

/// 2026-01-01T00:00:00Z, before the first muster: a clock that shows less is not set.
const FIRST: Duration = Duration::from_secs(1_767_225_600);

/// How long the certificate in a worker's ticket is good: as long as its token. Its kubelet asks for one of its own as soon as it runs.
const NODE_CERTIFICATE: Duration = Duration::from_secs(24 * 60 * 60);

/// What a step works with.
pub(super) struct Deed {
    pub(super) hands: Hands,
    pub(super) place: Arc<Place>,
    plan: Option<Arc<Plan>>,
    pub(super) entropy: ChaCha20Rng,
}

pub(super) async fn take(
    hands: Hands,
    place: Arc<Place>,
    plan: Option<Arc<Plan>>,
    step: Step,
    seed: Zeroizing<[u8; 32]>,
) -> Result<StepOutput, Trouble> {
    let entropy = ChaCha20Rng::from_seed(*seed);
    let lasts = step.lasts();
    let mut deed = Deed { hands, place, plan, entropy };
    let output = deed.step(step).await?;
    if lasts {
        deed.keep().await?;
    }
    Ok(output)
}

impl Deed {
    /// Has the disk keep what kubeadm wrote. What Pods have below the kubelet's directory is theirs.
    async fn keep(&self) -> Result<(), Trouble> {
        let settings = &self.place.settings;
        let places = vec![
            (settings.dir.clone(), true),
            (settings.kubelet_dir.clone(), false),
            (settings.kubelet_dir.join("pki"), true),
        ];
        self.hands.at("sync");
        let failed = |trouble| Trouble { phase: Some("sync".to_owned()), ..trouble };
        self.hands.does(Ask::Sync(places)).await.map_err(failed)?;
        self.hands.past();
        Ok(())
    }

    async fn step(&mut self, step: Step) -> Result<StepOutput, Trouble> {
        match step {
            Step::Check { fresh } => self.check(fresh).await,
            Step::Prepare { role } => self.carry_out(&StepInput::Prepare { role }).await,
            Step::MakePki { recipients, .. } => self.make_pki(&recipients),
            Step::SealPki { sealed_pki, recipient } => {
                let bundle = secrets::open_pki(&self.place, &sealed_pki)?;
                secrets::seal_pki(&bundle, &[recipient], &mut self.entropy)
            }
            Step::IssueTicket { attempt, sealed_pki, recipient, token_registered, worker } => {
                self.issue(attempt, &sealed_pki, &recipient, token_registered, worker).await
            }
            Step::InitCluster { name, address, sealed_pki, tokens, timing, founding, .. } => {
                let bundle = secrets::open_pki(&self.place, &sealed_pki)?;
                let node = self.node(name, &address).await?;
                let founding = founding.map(parsed_founding).transpose()?;
                self.init(&node, &bundle, &tokens, timing, founding.as_ref()).await
            }
            Step::InitFinish { .. } => self.carry_out(&StepInput::InitFinish).await,
            Step::Found { name, address, sealed_pki, timing, founding, before, .. } => {
                let bundle = secrets::open_pki(&self.place, &sealed_pki)?;
                let node = self.node(name, &address).await?;
                self.found(&node, &bundle, timing, &parsed_founding(founding)?, before).await
            }
            Step::FoundFinish { name, address, timing } => {
                let node = self.node(name, &address).await?;
                self.carry_out(&StepInput::FoundFinish { node: &node, timing }).await
            }
            Step::Join { attempt, role, name, address, ticket, sealed_pki } => {
                let ticket = secrets::open_ticket(&self.place, attempt, &ticket)?;
                let bundle = sealed_pki.map(|sealed| secrets::open_pki(&self.place, &sealed)).transpose()?;
                let node = self.node(name, &address).await?;
                self.join(&StepInput::Join { role, node: &node, ticket: &ticket, pki: bundle.as_ref() }).await
            }
            Step::JoinEtcd { address, with, without, .. } => {
                self.join_etcd(parsed(&address)?, &all_parsed(&with)?, &all_parsed(&without)?).await
            }
            Step::JoinFinish { attempt, role, name, address, ticket } => {
                let ticket = secrets::open_ticket(&self.place, attempt, &ticket)?;
                let node = self.node(name, &address).await?;
                self.carry_out(&StepInput::JoinFinish { role, node: &node, ticket: &ticket }).await
            }
            Step::Renew { name, address, overdue } => {
                clock_is_set(self.hands.clock().await?).map_err(Trouble::new)?;
                let node = self.node(name, &address).await?;
                self.carry_out(&StepInput::Renew { node: &node, overdue }).await
            }
            Step::RenewKubelet { attempt, name, address, ticket } => {
                let ticket = secrets::open_ticket(&self.place, attempt, &ticket)?;
                let node = self.node(name, &address).await?;
                self.renew_kubelet(&node, &ticket).await
            }
            Step::Register => self.carry_out(&StepInput::Register).await,
            Step::AwaitReady { name } => self.await_ready(&name).await,
            Step::DeleteToken { sealed_pki, machine } => {
                let token = secrets::open_pki(&self.place, &sealed_pki)?.token_for(machine);
                self.carry_out(&StepInput::DeleteToken { token: &token }).await
            }
            Step::ApplyManifests { objects } => self.apply(&objects).await,
            Step::RebuildEtcd { epoch, name, address, token, lost, backup } => {
                let node = self.node(name, &address).await?;
                let input = StepInput::RebuildEtcd { node: &node, epoch, token: &token, backup };
                self.rebuild_etcd(&input, &node.name, &lost).await
            }
            Step::BackUp { number, epoch, charter } => self.back_up(number, epoch, &charter).await,
            Step::Strike { member, node, back } => self.strike_machine(member.as_deref(), &node, back).await,
            Step::Drain { node } => self.drain(&node).await.map(|()| StepOutput::Done),
            Step::Open { node } => self.open(&node).await.map(|()| StepOutput::Done),
            Step::LeaveEtcd { address } => Ok(match self.give_up_member(parsed(&address)?).await? {
                true => StepOutput::Done,
                false => StepOutput::Noted("etcd's data is there again".to_owned()),
            }),
            Step::Reset { member, node } => self.reset(member.as_deref(), node.as_deref()).await,
        }
    }

    /// A machine that is gone leaves etcd, and its Node is deleted.
    async fn strike_machine(&mut self, member: Option<&str>, node: &str, back: bool) -> Result<StepOutput, Trouble> {
        match member {
            Some(member) if back => {
                if self.is_member(parsed(member)?).await? {
                    return Ok(StepOutput::Noted(format!("{node} is here again, and still a member of etcd")));
                }
            }
            Some(member) => self.strike_out(parsed(member)?).await?,
            // Its kubelet registers once: without its Node it is no part of Kubernetes any more.
            None if back && self.has_node(node).await? => {
                return Ok(StepOutput::Noted(format!("{node} is here again, and its Node is there")));
            }
            None => {}
        }
        self.remove_node(node).await?;
        Ok(StepOutput::Done)
    }

    /// Makes the cluster, alone or as one of its founders.
    async fn init(
        &mut self,
        node: &Node,
        pki: &PkiBundle,
        tokens: &[MachineId],
        timing: EtcdTiming,
        founding: Option<&Founding>,
    ) -> Result<StepOutput, Trouble> {
        let tokens: Vec<Token> = tokens.iter().map(|machine| pki.token_for(*machine)).collect();
        self.carry_out(&StepInput::InitCluster { node, pki, tokens: &tokens, timing, founding }).await?;
        let endpoint = SocketAddr::new(node.address, self.place.settings.api_port).to_string();
        Ok(StepOutput::Initialised { ca_hash: pki.ca_hash(), endpoints: vec![endpoint] })
    }

    async fn renew_kubelet(&mut self, node: &Node, ticket: &Ticket) -> Result<StepOutput, Trouble> {
        let lacks = || Trouble::new("the ticket holds no certificate for a kubelet, and nothing was taken away");
        let pair = ticket.node.as_ref().ok_or_else(lacks)?;
        self.carry_out(&StepInput::RenewKubelet { node, ticket, pair }).await
    }

    async fn await_ready(&mut self, name: &str) -> Result<StepOutput, Trouble> {
        let ready = self.carry_out(&StepInput::AwaitReady { name }).await?;
        // A worker that was drained and became a control plane has the Node that it had.
        if self.hands.exists(&self.place.settings.admin_kubeconfig()).await? {
            let _ = self.open(name).await;
        }
        Ok(ready)
    }

    /// What kubeadm is to do by the plan that was made when it was checked.
    pub(super) fn plan(&self) -> Result<Arc<Plan>, Trouble> {
        self.plan.clone().ok_or_else(|| Trouble::new("kubeadm has not been checked yet"))
    }

    /// Sees what was there before muster, looks at the clock, asks kubeadm for its version, and makes the plan for it and these
    /// settings.
    async fn check(&self, fresh: bool) -> Result<StepOutput, Trouble> {
        if let Some(why) = self.remains().await?.filter(|_| fresh) {
            return Err(Trouble { phase: None, why, hopeless: true });
        }
        clock_is_set(self.hands.clock().await?).map_err(Trouble::new)?;
        let settings = &self.place.settings;
        let command = Command::version(settings.kubeadm.clone());
        let ran = self.hands.run(&command).await?;
        outcome(&command, &ran.exit, &ran.stdout, &ran.stderr)?;
        let hopeless = |why: String| Trouble { phase: Some("version".to_owned()), why, hopeless: true };
        let version = Version::from_kubeadm(&ran.stdout).map_err(|why| hopeless(why.to_string()))?;
        let plan = Plan::new(&version, settings.clone()).map_err(|why| hopeless(why.to_string()))?;
        let worker_only = plan.worker_only();
        self.hands.does(Ask::Keep(Arc::new(plan))).await?;
        Ok(StepOutput::Checked { version: version.to_string(), worker_only })
    }

    fn make_pki(&mut self, recipients: &[Recipient]) -> Result<StepOutput, Trouble> {
        let bundle = PkiBundle::make(self.plan()?.version(), &mut self.entropy).map_err(Trouble::new)?;
        secrets::seal_pki(&bundle, recipients, &mut self.entropy)
    }

    async fn issue(
        &mut self,
        attempt: Attempt,
        sealed_pki: &Bytes,
        recipient: &Recipient,
        token_registered: bool,
        worker: Option<String>,
    ) -> Result<StepOutput, Trouble> {
        let bundle = secrets::open_pki(&self.place, sealed_pki)?;
        let token = bundle.token_for(recipient.machine);
        if !token_registered {
            self.carry_out(&StepInput::CreateToken { token: &token }).await?;
        }
        let node = match worker {
            Some(name) => {
                let until = self.hands.clock().await? + NODE_CERTIFICATE;
                Some(bundle.node_certificate(&name, until, &mut self.entropy).map_err(Trouble::new)?)
            }
            None => None,
        };
        let ticket = Ticket {
            attempt,
            token,
            ca_certificate: bundle.ca_certificate().to_owned(),
            ca_hash: bundle.ca_hash(),
            endpoints: Vec::new(),
            node,
        };
        let ciphertext = secrets::seal_ticket(&ticket, recipient, &mut self.entropy)?;
        Ok(StepOutput::Ticket { ciphertext })
    }

    /// Where etcd cannot have been started yet, nothing is kept of a run that came part of the way: what it was just writing may be
    /// broken. Where it may have been, and its data is not there, it is never begun again (promise S13).
    async fn found(
        &self,
        node: &Node,
        pki: &PkiBundle,
        timing: EtcdTiming,
        founding: &Founding,
        before: Before,
    ) -> Result<StepOutput, Trouble> {
        let settings = &self.place.settings;
        let again = before != Before::Nothing;
        let mut data = again && self.has_data().await?;
        let starts = again
            && self.hands.exists(&settings.etcd_manifest()).await?
            && self.hands.exists(&settings.kubelet_dir.join("config.yaml")).await?;
        // A kubelet that was started a moment ago has not come to etcd yet.
        let begun = self.hands.now();
        while starts && !data && self.hands.now() - begun < ETCD_BEGINS {
            self.hands.pause(ETCD_PAUSE).await?;
            data = self.has_data().await?;
        }
        let may_have_started = data || starts || before == Before::All;
        if may_have_started && !data {
            let why = format!("etcd may have begun here, and {} holds nothing of it", settings.etcd_dir.display());
            return Err(Trouble { phase: None, why, hopeless: true });
        }
        if again && !may_have_started {
            self.carry_out(&StepInput::ResetOutsideEtcd).await?;
        }
        self.carry_out(&StepInput::Found { node, pki, timing, founding, again: may_have_started }).await
    }

    /// The kubelet has its own certificate: that kubeadm's wait for it ended badly takes nothing away.
    async fn join(&self, input: &StepInput<'_>) -> Result<StepOutput, Trouble> {
        let joined = self.carry_out(input).await;
        let waited = |trouble: &Trouble| trouble.phase.as_deref().is_some_and(|phase| phase.ends_with(WAIT));
        match joined {
            Err(trouble)
                if waited(&trouble) && self.hands.exists(&self.place.settings.kubelet_kubeconfig()).await? =>
            {
                let why = trouble.why;
                self.hands.say(format!("kubeadm's wait failed, and the kubelet has joined all the same: {why}"));
                Ok(StepOutput::Done)
            }
            joined => joined,
        }
    }

    /// kubeadm that adds a member waits for it in several ways, and each may end badly. What counts is whether etcd has it.
    async fn join_etcd(&self, us: IpAddr, with: &[IpAddr], without: &[IpAddr]) -> Result<StepOutput, Trouble> {
        // A member of this address whose data is not here would be started on nothing: newer kubeadm goes on with one that is listed.
        if !self.has_data().await? {
            self.leave_etcd(us).await?;
        }
        self.make_room(us, with, without).await?;
        let Err(trouble) = self.carry_out(&StepInput::JoinEtcd).await else { return Ok(StepOutput::Done) };
        if self.votes(us).await? {
            let why = trouble.why;
            self.hands.say(format!(
                "kubeadm did not see this machine's etcd member through, and it votes all the same: {why}"
            ));
            return Ok(StepOutput::Done);
        }
        Err(trouble)
    }

    /// Membership and Node go first, as far as they can; then everything here.
    async fn reset(&self, member: Option<&str>, node: Option<&str>) -> Result<StepOutput, Trouble> {
        let outside = match member {
            Some(address) => self.leave_etcd(parsed(address)?).await?,
            // What was begun as a founder is given up by all of them: no member of it is to be asked.
            None => self.hands.exists(&self.place.settings.etcd_manifest()).await?,
        };
        let leaving = match node {
            Some(node) => Some(self.take_leave(node).await?),
            None => None,
        };
        let done = self.carry_out(if outside { &StepInput::ResetOutsideEtcd } else { &StepInput::Reset }).await?;
        if let Some(leaving) = leaving {
            self.end_leave(leaving).await?;
        }
        Ok(done)
    }

    /// This machine as kubeadm is to see it; from here on the endpoint's name means this machine.
    async fn node(&self, name: String, address: &str) -> Result<Node, Trouble> {
        let address = parsed(address)?;
        self.hands.does(Ask::Endpoint(address)).await?;
        Ok(Node { name, address })
    }
}

fn parsed_founding(founding: muster_protocol::Founding) -> Result<Founding, Trouble> {
    let member = |(name, address): (String, String)| Ok(Node { name, address: parsed(&address)? });
    let members = founding.members.into_iter().map(member).collect::<Result<_, Trouble>>()?;
    Ok(Founding { token: founding.token, members })
}

fn parsed(address: &str) -> Result<IpAddr, Trouble> {
    address.parse().map_err(|_| Trouble::new(format!("{address:?} is not an address")))
}

fn all_parsed(addresses: &[String]) -> Result<Vec<IpAddr>, Trouble> {
    addresses.iter().map(|address| parsed(address)).collect()
}

/// The one question muster asks the wall clock: whether it has been set at all.
///
/// Nothing of muster's own depends on it. But kubeadm makes certificates that end a year after the clock of the machine that
/// makes them, so an init on a machine that thinks it is 1970 makes a cluster that every other machine refuses, and that ends
/// for good when time is set right.
pub(super) fn clock_is_set(now: SystemTime) -> Result<(), String> {
    let shown = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if shown >= FIRST {
        return Ok(());
    }
    Err("this machine's clock is not set, it shows a time before 2026: the certificates that kubeadm makes here would be \
         refused everywhere else. It goes on when the clock is set, by NTP or `date -s`"
        .to_owned())
}

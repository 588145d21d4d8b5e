//! kubeadm's process: what it does to a machine and to the cluster, how long it takes, and how it lies.
//!
//! Secrets here are real bytes sealed with the real code; they begin with a mark, so that one that leaks is seen.

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_protocol::{Input, Recipient, RunId, Step, StepFailure, StepOutput};
use muster_wire::entry::Sealed;
use muster_wire::seal::{SealingKey, seal};
use muster_wire::{Digest, MachineId, Role};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use xxhash_rust::xxh3::xxh3_64;

use super::World;
use super::chance::{S, seconds};
use super::event::{At, Event, Slot};
use crate::scenario::{Range, Sort};
use crate::watch::Seen;

/// What kubeadm has made of a machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kube {
    /// Files of work that did not come to its end.
    pub(crate) dirty: bool,
    /// The cluster that this machine belongs to, by number in [`Site::clusters`].
    pub(crate) cluster: Option<usize>,
    /// Its etcd member is in.
    pub(crate) etcd: bool,
    /// Its API server serves.
    pub(crate) serves: bool,
    /// Its Node is Ready.
    pub(crate) ready: bool,
}

/// A cluster that some `kubeadm init` made. There may be several; only one of them may ever be *the* cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The attempt.
    pub attempt: u32,
    /// Who ran it.
    pub machine: MachineId,
    /// Its CA.
    pub ca_hash: Digest,
    /// Machines that belong to it.
    pub members: BTreeSet<Slot>,
}

/// Whose a ciphertext is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedTo {
    /// The machine named.
    pub machine: MachineId,
    /// The key used.
    pub key: [u8; 32],
}

/// What kubeadm's processes share: the site's clusters and the truth about secrets.
#[derive(Debug, Default)]
pub(crate) struct Site {
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) adding_etcd: BTreeSet<Slot>,
    pub(crate) mark: [u8; 16],
    pub(crate) secrets: u64,
}

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Fine,
    Hangs,
    Fails,
    LosesAnswer,
    /// Takes long, and does not die when it is told to.
    Late,
}

/// A step under way.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) step: Step,
    turn: Turn,
    begun: At,
    aborted: bool,
}

const API_PORT: u16 = 6443;
/// kubeadm polls for the API server this often.
const POLL: At = 1_000_000;

impl World {
    /// Starts a step.
    pub(super) fn run_step(&mut self, slot: Slot, run: RunId, step: Step) {
        let turn = self.turn_of(slot, step.name());
        let times = &self.scenario.kubeadm;
        let range: Range = match &step {
            Step::Prepare { .. } => times.prepare_s,
            Step::InitCluster { .. } => times.init_s,
            Step::InitFinish { .. } => times.init_finish_s,
            Step::Join { .. } => times.join_s,
            Step::JoinEtcd { .. } => times.etcd_s,
            Step::JoinFinish { .. } | Step::AwaitReady { .. } => times.ready_s,
            Step::Reset => [0.3, 1.0],
            Step::Check | Step::MakePki { .. } | Step::SealPki { .. } | Step::IssueTicket { .. } => [0.001, 0.03],
            Step::DeleteToken { .. } => [0.01, 0.2],
        };
        let step_max = seconds(times.step_max_s);
        let takes = match turn {
            Turn::Hangs => step_max,
            Turn::Late => self.chance.draw([range[1], range[1] * 6.0], S),
            _ => self.chance.draw(range, S),
        };
        if matches!(step, Step::InitCluster { .. } | Step::Join { .. }) && self.clean(slot) {
            self.hosts[slot as usize].kube.dirty = true;
        }
        if matches!(step, Step::JoinEtcd { .. }) {
            let others = self.others_adding(slot);
            self.site.adding_etcd.insert(slot);
            self.see(Seen::EtcdAdding { slot, others });
        }
        self.see(Seen::StepBegan { slot, step: &step });
        let host = &mut self.hosts[slot as usize];
        let life = host.life;
        host.runs.insert(run.0, Running { step, turn, begun: self.now, aborted: false });
        self.events.push(self.now + takes.min(step_max), Event::Step { slot, life, run: run.0 });
    }

    /// How many other machines of the same cluster are adding their etcd members.
    fn others_adding(&self, slot: Slot) -> usize {
        let same = |other: &&Slot| **other != slot && self.elsewhere(**other) == self.elsewhere(slot);
        self.site.adding_etcd.iter().filter(same).count()
    }

    fn clean(&self, slot: Slot) -> bool {
        let kube = &self.hosts[slot as usize].kube;
        !kube.dirty && kube.cluster.is_none()
    }

    /// Ends a step early, unless it is one that does not die.
    pub(super) fn abort_step(&mut self, slot: Slot, run: RunId) {
        let Some(running) = self.hosts[slot as usize].runs.get_mut(&run.0) else { return };
        running.aborted = true;
        if running.turn != Turn::Late {
            let life = self.hosts[slot as usize].life;
            self.events.push(self.now + 5_000, Event::Step { slot, life, run: run.0 });
        }
    }

    /// The processes of a machine die with it.
    pub(super) fn kill_steps(&mut self, slot: Slot) {
        self.hosts[slot as usize].runs.clear();
        self.site.adding_etcd.remove(&slot);
    }

    /// What hung is found and killed.
    pub(super) fn end_hung_steps(&mut self, slot: Slot) {
        let host = &self.hosts[slot as usize];
        let life = host.life;
        let hung = host.runs.iter().filter(|(_, running)| running.turn == Turn::Hangs);
        for run in hung.map(|(run, _)| *run).collect::<Vec<_>>() {
            self.events.push(self.now + 1_000, Event::Step { slot, life, run });
        }
    }

    /// A step goes on, or comes to its end.
    pub(super) fn step_goes_on(&mut self, slot: Slot, run: u64) {
        let Some(running) = self.hosts[slot as usize].runs.remove(&run) else { return };
        let late = self.now >= running.begun + seconds(self.scenario.kubeadm.step_max_s);
        let failure = |phase: Option<&str>, why: &str| StepFailure {
            step: running.step.name(),
            phase: phase.map(str::to_owned),
            why: why.to_owned(),
            hopeless: false,
        };
        let result = if running.aborted && running.turn != Turn::Late {
            Err(failure(None, "ended on request"))
        } else if running.turn == Turn::Hangs || late {
            Err(failure(None, "took too long and was killed"))
        } else if running.turn == Turn::Fails {
            Err(failure(Some("preflight"), "error execution phase preflight: made to fail"))
        } else {
            match self.carry_out(slot, &running.step) {
                Ok(_) if running.aborted => Err(failure(None, "ended on request")),
                Ok(_) if running.turn == Turn::LosesAnswer => Err(failure(None, "its process vanished")),
                Ok(output) => Ok(output),
                Err(Trouble::NoApi) => {
                    let life = self.hosts[slot as usize].life;
                    self.hosts[slot as usize].runs.insert(run, running);
                    self.events.push(self.now + POLL, Event::Step { slot, life, run });
                    return;
                }
                Err(Trouble::Failed(why)) => Err(failure(None, why)),
            }
        };
        if matches!(running.step, Step::JoinEtcd { .. }) {
            self.site.adding_etcd.remove(&slot);
        }
        self.see(Seen::StepEnded { slot, step: &running.step, result: &result });
        self.feed(slot, Input::Finished { run: RunId(run), result });
    }

    fn turn_of(&mut self, slot: Slot, step: &str) -> Turn {
        for fault in &self.active {
            let what = &self.plan[fault.index];
            if !fault.targets.contains(&slot) || what.step.as_deref().is_some_and(|only| only != step) {
                continue;
            }
            match what.kind {
                Sort::KubeadmHang => return Turn::Hangs,
                Sort::KubeadmFail => return Turn::Fails,
                Sort::KubeadmLostAnswer => return Turn::LosesAnswer,
                Sort::KubeadmLate => return Turn::Late,
                _ => {}
            }
        }
        Turn::Fine
    }

    fn carry_out(&mut self, slot: Slot, step: &Step) -> Result<StepOutput, Trouble> {
        match step {
            Step::Check => Ok(StepOutput::Checked { version: super::KUBERNETES.to_owned() }),
            Step::Prepare { .. } => Ok(StepOutput::Done),
            Step::MakePki { recipients, .. } => {
                let secret = self.new_secret();
                self.seal_pki(&secret, recipients)
            }
            Step::SealPki { sealed_pki, recipient } => {
                let secret = self.open(slot, "pki", sealed_pki)?;
                self.seal_pki(&secret, std::slice::from_ref(recipient))
            }
            Step::IssueTicket { attempt, sealed_pki, recipient, token_registered } => {
                let pki = self.open(slot, "pki", sealed_pki)?;
                if !token_registered {
                    self.api_of(slot).ok_or(Trouble::NoApi)?;
                }
                let secret = [&self.site.mark[..], &recipient.machine.0, &ca_of(&pki).0].concat();
                let ciphertext = self.seal(&format!("ticket/{attempt}"), recipient, &secret)?;
                Ok(StepOutput::Ticket { ciphertext })
            }
            Step::InitCluster { attempt, sealed_pki, address, .. } => self.init(slot, *attempt, sealed_pki, address),
            Step::InitFinish { .. } => self.in_cluster(slot),
            Step::Join { attempt, role, ticket, sealed_pki, .. } => {
                self.join(slot, *attempt, *role, ticket, sealed_pki.as_ref())
            }
            Step::JoinEtcd { .. } => {
                self.in_cluster(slot)?;
                self.api_of(slot).ok_or(Trouble::NoApi)?;
                if self.others_adding(slot) > 0 {
                    return Err(Trouble::Failed("etcdserver: too many learner members in cluster"));
                }
                self.hosts[slot as usize].kube.etcd = true;
                Ok(StepOutput::Done)
            }
            Step::JoinFinish { .. } => {
                self.in_cluster(slot)?;
                self.hosts[slot as usize].kube.serves = true;
                Ok(StepOutput::Done)
            }
            Step::AwaitReady { .. } => {
                self.in_cluster(slot)?;
                self.api_of(slot).ok_or(Trouble::NoApi)?;
                self.hosts[slot as usize].kube.ready = true;
                Ok(StepOutput::Done)
            }
            Step::DeleteToken { .. } => self.api_of(slot).map(|_| StepOutput::Done).ok_or(Trouble::NoApi),
            Step::Reset => {
                let kube = std::mem::take(&mut self.hosts[slot as usize].kube);
                if let Some(cluster) = kube.cluster {
                    self.site.clusters[cluster].members.remove(&slot);
                }
                Ok(StepOutput::Done)
            }
        }
    }

    fn init(&mut self, slot: Slot, attempt: u32, sealed_pki: &Bytes, address: &str) -> Result<StepOutput, Trouble> {
        let pki = self.open(slot, "pki", sealed_pki)?;
        let host = &mut self.hosts[slot as usize];
        if host.kube.cluster.is_some() {
            return Err(Trouble::Failed("error execution phase preflight: /etc/kubernetes exists"));
        }
        let ca_hash = ca_of(&pki);
        host.kube =
            Kube { dirty: false, cluster: Some(self.site.clusters.len()), etcd: true, serves: true, ready: false };
        let machine = host.me;
        self.site.clusters.push(Cluster { attempt, machine, ca_hash, members: BTreeSet::from([slot]) });
        self.see(Seen::Initialised { slot, attempt });
        Ok(StepOutput::Initialised { ca_hash, endpoints: vec![format!("{address}:{API_PORT}")] })
    }

    fn join(
        &mut self,
        slot: Slot,
        attempt: u32,
        role: Role,
        ticket: &Bytes,
        sealed_pki: Option<&Bytes>,
    ) -> Result<StepOutput, Trouble> {
        let ticket = self.open(slot, &format!("ticket/{attempt}"), ticket)?;
        if role == Role::ControlPlane {
            self.open(slot, "pki", sealed_pki.ok_or(Trouble::Failed("no CA key to join with"))?)?;
        }
        if self.hosts[slot as usize].kube.cluster.is_some() {
            return Err(Trouble::Failed("error execution phase preflight: /etc/kubernetes exists"));
        }
        let server = self.api_of(slot).ok_or(Trouble::NoApi)?;
        let number = self.hosts[server as usize].kube.cluster.ok_or(Trouble::NoApi)?;
        let cluster = &mut self.site.clusters[number];
        if ticket[48..] != cluster.ca_hash.0 {
            return Err(Trouble::Failed("the cluster's CA is not the one in the ticket"));
        }
        cluster.members.insert(slot);
        let joined = cluster.clone();
        let kube = &mut self.hosts[slot as usize].kube;
        *kube = Kube { dirty: false, cluster: Some(number), etcd: false, serves: false, ready: false };
        self.see(Seen::JoinedKube { slot, cluster: &joined });
        Ok(StepOutput::Done)
    }

    fn in_cluster(&self, slot: Slot) -> Result<StepOutput, Trouble> {
        match self.hosts[slot as usize].kube.cluster {
            Some(_) => Ok(StepOutput::Done),
            None => Err(Trouble::Failed("this machine is in no cluster")),
        }
    }

    /// The first API server this machine reaches by the list it was given, its own included.
    fn api_of(&self, slot: Slot) -> Option<Slot> {
        let host = &self.hosts[slot as usize];
        if host.kube.serves {
            return Some(slot);
        }
        host.api_servers.iter().filter_map(|server| self.slot_at(server)).find(|server| {
            let there = &self.hosts[*server as usize];
            there.kube.serves
                && !self.dark[*server as usize]
                && !self.net.blocked(slot, *server)
                && !self.net.blocked(*server, slot)
        })
    }

    fn new_secret(&mut self) -> Vec<u8> {
        self.site.secrets += 1;
        let bytes = self.chance.fixed_bytes("pki", self.site.secrets, 0);
        [&self.site.mark[..], &bytes].concat()
    }

    fn seal_pki(&mut self, secret: &[u8], recipients: &[Recipient]) -> Result<StepOutput, Trouble> {
        let mut sealed = Vec::new();
        for recipient in recipients {
            let ciphertext = self.seal("pki", recipient, secret)?;
            sealed.push(Sealed { machine: recipient.machine, ciphertext });
        }
        Ok(StepOutput::PkiMade { ca_hash: ca_of(secret), sealed })
    }

    fn seal(&mut self, purpose: &str, recipient: &Recipient, secret: &[u8]) -> Result<Bytes, Trouble> {
        self.site.secrets += 1;
        let mut entropy = ChaCha8Rng::seed_from_u64(self.chance.fixed("seal", self.site.secrets, 0));
        let ciphertext = seal(purpose, recipient.machine, &recipient.sealing_key, secret, &mut entropy)
            .map_err(|_| Trouble::Failed("the recipient's sealing key is not usable"))?;
        let to = SealedTo { machine: recipient.machine, key: recipient.sealing_key };
        self.see(Seen::Sealed { hash: xxh3_64(&ciphertext), to });
        Ok(ciphertext.into())
    }

    fn open(&self, slot: Slot, purpose: &str, ciphertext: &Bytes) -> Result<Vec<u8>, Trouble> {
        let host = &self.hosts[slot as usize];
        SealingKey::from_seed(&host.sealing_seed)
            .open(purpose, host.me, ciphertext)
            .map(|secret| secret.to_vec())
            .map_err(|_| Trouble::Failed("what was sealed does not open with this machine's key"))
    }
}

/// Why a step does not come to a good end at once.
enum Trouble {
    /// No API server is reached yet; kubeadm goes on asking.
    NoApi,
    Failed(&'static str),
}

fn ca_of(pki: &[u8]) -> Digest {
    Digest::of("ca", &[pki])
}

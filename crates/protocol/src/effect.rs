//! Everything a machine can want done.

use std::time::Duration;

use bytes::Bytes;
use muster_wire::entry::Sealed;
use muster_wire::{Attempt, CallNumber, Charter, Digest, Durable, Entry, Frame, MachineId, Role};

use crate::NextEpoch;
use crate::ladder::EtcdTiming;
use crate::lead::manifests::ManifestResult;
use crate::machine::{Fate, FormerAddresses};
use crate::words::notices::{Notice, NoticeKind};

/// Number of a run of a [`Step`]; unique within one start of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct RunId(pub u64);

/// One thing to do. Effects are carried out in order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Write this, whole, synced, before any later effect is looked at. If that is impossible, stop the machine at once:
    /// a promise that was not kept must not be spoken.
    Persist(Durable),
    /// Send a frame, dialling if no connection stands. May be lost; the core sends again what matters.
    Send {
        /// To whom.
        to: MachineId,
        /// The frame.
        frame: Frame,
    },
    /// These are a machine's addresses, from its signed card: connect if no connection stands and there is room.
    Learn {
        /// Whose.
        machine: MachineId,
        /// `ip:port`, most useful first.
        addresses: Vec<String>,
    },
    /// Close the connection, and neither dial nor hear this machine for a while.
    Refuse {
        /// Whom.
        machine: MachineId,
        /// For how long.
        rest: Duration,
        /// Why, for people.
        why: String,
    },
    /// Start this machine's Raft on its own store with these voters. Given once per start of the machine.
    StartRaft {
        /// The charter; its voters are Raft's first membership and its id marks the store.
        charter: Box<Charter>,
    },
    /// Call the first election among the charter's voters, or the next one if that gave no leader. Several of them may.
    CallElection,
    /// Stop this machine's Raft: its identity is not its own (a cloned disk), or it was removed.
    StopRaft,
    /// Make this machine's store of Raft anew, in one change on the disk: the ledger is [`crate::Ledger::rebuilt`] of all that its log holds, it alone
    /// votes, and its term is above all that it has heard of. Then start Raft on it, which tells that ledger with [`crate::Input::Restored`]. Raft is
    /// stopped before. If that is impossible, stop the machine at once.
    RebuildRaft {
        /// The charter, as for [`Effect::StartRaft`].
        charter: Box<Charter>,
        /// The latest ledger that any machine has shown, encoded: what the log must lead through to count.
        known: Bytes,
        /// The epoch that begins.
        next: NextEpoch,
    },
    /// This machine was removed, and nothing of it is left: forget its identity and all that it knew, and start again as another.
    Renew,
    /// Let Raft's voters be these (a joint consensus change). Only given to the leader; repeated until it holds.
    SetVoters(std::collections::BTreeSet<MachineId>),
    /// Propose an entry to this machine's Raft.
    Propose {
        /// Number that the answer repeats.
        call: CallNumber,
        /// The entry.
        entry: Entry,
    },
    /// Carry out a step; answer with [`crate::Input::Finished`].
    Run {
        /// Number that the answer repeats.
        run: RunId,
        /// The step.
        step: Step,
    },
    /// End a run: kill what it started. It is answered with `Finished(Err)` all the same, once that is dead: nothing is begun beside it.
    Abort {
        /// The run.
        run: RunId,
    },
    /// Let the name of the API's endpoint mean this address of this machine, and keep it so, whoever changes the hosts
    /// file. Given whenever the address changes, and in each start; answered with [`crate::Input::HostsFile`] when something
    /// is wrong with the file.
    Endpoint(std::net::IpAddr),
    /// The API servers that may serve the cluster, `host:port`, this machine's own first if it has one. Given whenever
    /// the list changes. The balancer probes which of them live.
    ApiServers(Vec<String>),
    /// Keep copies of these backups, fetch those that are not here, and remove all others that are counted up to `last`: what was taken since then
    /// may not be in the ledger yet. Given whenever that changes, and in each start; what is here is told with [`crate::Input::Backups`].
    KeepBackups {
        /// The number of the last backup in the ledger.
        last: u32,
        /// Which.
        wanted: Vec<WantedBackup>,
    },
    /// Keep this machine's former address, and routes for those of others, and no others. Given whenever that changes, and in each start; answered with
    /// [`crate::Input::Former`] when something is wrong with it.
    Former(FormerAddresses),
    /// Answer an [`crate::Input::Wish`] or an [`crate::Input::Recover`].
    Answer {
        /// Its number.
        call: CallNumber,
        /// What became of it.
        fate: Fate,
    },
    /// Tell people.
    Notice(Notice),
}

/// A backup of which this machine keeps a copy, or is to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedBackup {
    /// Its number.
    pub number: u32,
    /// SHA-256 of the sealed file.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
    /// Who has it.
    pub from: Vec<MachineId>,
}

/// A machine for which something is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Who.
    pub machine: MachineId,
    /// Its X25519 public key, from the ledger.
    pub sealing_key: [u8; 32],
}

/// How etcd begins on several machines at once: one list that all of them are given, and one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    /// Of the charter and the attempt, so that no member ever speaks with one of another attempt.
    pub token: String,
    /// The founders' Node names and addresses, this machine among them, in one order everywhere.
    pub members: Vec<(String, String)>,
}

/// Work for the kubeadm device. The core never sees a secret in the clear.
#[derive(Debug, Clone, PartialEq, Eq, strum::IntoStaticStr, strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum Step {
    /// Is kubeadm there, and of a version that muster knows? Answered with [`StepOutput::Checked`].
    Check {
        /// Nothing of kubeadm's was ever begun for this identity, or all of it was undone: what is there of kubeadm's is
        /// somebody else's. The step then fails, and touches nothing.
        fresh: bool,
    },
    /// What can be done before anybody else is ready: pull images, and the like.
    Prepare {
        /// This machine's role.
        role: Role,
    },
    /// Make the CAs and the token secret, and seal them. Answered with [`StepOutput::PkiMade`].
    MakePki {
        /// The live attempt.
        attempt: Attempt,
        /// All admitted control planes, this machine among them.
        recipients: Vec<Recipient>,
    },
    /// Open `sealed_pki`, and seal it to one more control plane. Answered with [`StepOutput::PkiMade`].
    SealPki {
        /// This machine's own ciphertext from the ledger.
        sealed_pki: Bytes,
        /// For whom.
        recipient: Recipient,
    },
    /// Make one machine's ticket. Answered with [`StepOutput::Ticket`].
    IssueTicket {
        /// The attempt whose cluster it joins; bound into the sealing.
        attempt: Attempt,
        /// This machine's own ciphertext from the ledger.
        sealed_pki: Bytes,
        /// For whom.
        recipient: Recipient,
        /// Whether init registered the machine's token. If not, the step registers it.
        token_registered: bool,
        /// The Node's name if the ticket is a worker's: it then holds a certificate for its kubelet.
        worker: Option<String>,
    },
    /// init's phases up to and including bootstrap-token. Answered with [`StepOutput::Initialised`].
    #[strum(serialize = "init")]
    InitCluster {
        /// The attempt.
        attempt: Attempt,
        /// This machine's Node name.
        name: String,
        /// Address its API server advertises.
        address: String,
        /// This machine's own ciphertext from the ledger.
        sealed_pki: Bytes,
        /// The machines whose tokens init registers.
        tokens: Vec<MachineId>,
        /// How its etcd is timed, and that of all who join it.
        timing: EtcdTiming,
        /// With whom it begins etcd, unless it does so alone.
        founding: Option<Founding>,
    },
    /// What another founder than the initialiser does of init before there is an API server: all of it without a network, up to its own
    /// etcd and API server. Safe to repeat: what etcd wrote is kept. Fails for good, in no phase, where etcd may have begun and its data is
    /// gone.
    Found {
        /// The attempt.
        attempt: Attempt,
        /// This machine's Node name.
        name: String,
        /// Address its API server advertises.
        address: String,
        /// This machine's own ciphertext from the ledger.
        sealed_pki: Bytes,
        /// How its etcd is timed.
        timing: EtcdTiming,
        /// With whom it begins etcd.
        founding: Founding,
        /// What of it is done already.
        before: Before,
    },
    /// The rest of init on a founder, once the cluster is made: its own API server serves, its Node is marked. Safe to repeat.
    FoundFinish {
        /// This machine's Node name.
        name: String,
        /// Address its API server advertises.
        address: String,
        /// How its etcd is timed.
        timing: EtcdTiming,
    },
    /// init's phases after bootstrap-token.
    InitFinish {
        /// The attempt.
        attempt: Attempt,
    },
    /// Everything of a join that no other machine must wait for: all of it for a worker, all before etcd for a control
    /// plane.
    Join {
        /// The attempt.
        attempt: Attempt,
        /// This machine's role.
        role: Role,
        /// This machine's Node name.
        name: String,
        /// Address its API server advertises.
        address: String,
        /// The ticket from the ledger.
        ticket: Bytes,
        /// For a control plane, its ciphertext of the PKI.
        sealed_pki: Option<Bytes>,
    },
    /// The part of a control plane's join that adds its etcd member.
    JoinEtcd {
        /// The attempt.
        attempt: Attempt,
        /// This machine's address, by which etcd knows it.
        address: String,
        /// The addresses of the machines that have a member, by the ledger.
        with: Vec<String>,
        /// Those of the other control planes: who had a turn and died in it may have left a member behind.
        without: Vec<String>,
    },
    /// The rest of a join: what is tried again when it fails, because by now the kubelet and, on a control plane, etcd and the
    /// API server do their work.
    JoinFinish {
        /// The attempt.
        attempt: Attempt,
        /// This machine's role.
        role: Role,
        /// This machine's Node name.
        name: String,
        /// Address its API server advertises.
        address: String,
        /// The ticket from the ledger: the step may be taken again after a restart, when nothing of it is on disk.
        ticket: Bytes,
    },
    /// Take this machine's own member out of etcd, whose data is gone from it. Answered with [`StepOutput::Noted`] if the data is there
    /// again: nothing is done then.
    LeaveEtcd {
        /// Its address, by which etcd knows it.
        address: String,
    },
    /// Renew what kubeadm has signed on this control plane.
    Renew {
        /// This machine's Node name.
        name: String,
        /// Address its API server advertises.
        address: String,
        /// Whether one of them is good no more: then the kubelet is given one, too, and started anew.
        overdue: bool,
    },
    /// Give a worker's kubelet another certificate, from a new ticket: its own is good no more, and it ends until it has one.
    RenewKubelet {
        /// The attempt.
        attempt: Attempt,
        /// This machine's Node name.
        name: String,
        /// This machine's address.
        address: String,
        /// The ticket from the ledger.
        ticket: Bytes,
    },
    /// Have the kubelet start anew, so that it registers its Node again: etcd was restored from a backup that may not have it.
    Register,
    /// Wait until this machine's Node is Ready.
    AwaitReady {
        /// This machine's Node name.
        name: String,
    },
    /// Delete the used token of a machine that has joined.
    DeleteToken {
        /// This machine's own ciphertext from the ledger.
        sealed_pki: Bytes,
        /// Whose token.
        machine: MachineId,
    },
    /// Apply these objects of the image's manifests, in this order. One that cannot be applied hinders no other. Answered
    /// with [`StepOutput::Manifests`].
    ApplyManifests {
        /// Their numbers, from 0.
        objects: Vec<u32>,
    },
    /// Rebuild etcd from what this machine's member has, as the only member of a cluster of its own, and delete the Nodes of the others. What
    /// was there is kept aside. Safe to repeat.
    RebuildEtcd {
        /// The epoch: what it makes is told apart from what another one made.
        epoch: u32,
        /// This machine's Node name.
        name: String,
        /// Its address, by which etcd knows it.
        address: String,
        /// What no cluster of etcd's before it was begun with.
        token: String,
        /// The names of the lost Nodes.
        lost: Vec<String>,
        /// The backup from which it is restored instead.
        backup: Option<Digest>,
    },
    /// Take a backup of etcd, sealed so that control planes alone can open it. Answered with [`StepOutput::BackedUp`].
    BackUp {
        /// Its number.
        number: u32,
        /// The epoch of etcd's data.
        epoch: u32,
        /// The charter's id: it says whose it is.
        charter: [u8; 16],
    },
    /// Take a machine that is gone for good out of etcd, and its Node away. Safe to repeat.
    Strike {
        /// The address by which etcd knows its member; none if it is a worker.
        member: Option<String>,
        /// Its Node's name.
        node: String,
        /// Whether this was begun, and the machine is here again: it is let be where etcd still has its member, answered with
        /// [`StepOutput::Noted`], and finished where etcd has none of it any more.
        back: bool,
    },
    /// Let nothing new come to a Node, and have what runs on it moved away. Fails with what holds it.
    Drain {
        /// Its name.
        node: String,
    },
    /// Let something come again to a Node that was drained in vain, unless somebody else had closed it before.
    Open {
        /// Its name.
        node: String,
    },
    /// Undo whatever kubeadm and muster did to this machine for the cluster. Safe to repeat.
    Reset {
        /// Set for a control plane that may have joined etcd: its address there. It is no member any more before anything
        /// is wiped, or nothing is wiped.
        member: Option<String>,
        /// Set for a machine that may have registered: its Node's name. A Node looks Ready for most of a minute after its
        /// kubelet stopped, and keeps a machine of its name out; so it is taken away, as far as this machine may.
        node: Option<String>,
    },
}

impl Step {
    /// A short name for people and traces.
    pub fn name(&self) -> &'static str {
        self.into()
    }

    /// Whether what it writes must be on the disk when it ends, since it is marked as done there: kubeadm syncs nothing, and a power cut would leave
    /// files without content.
    pub fn lasts(&self) -> bool {
        matches!(
            self,
            Self::Found { .. }
                | Self::FoundFinish { .. }
                | Self::InitFinish { .. }
                | Self::JoinEtcd { .. }
                | Self::JoinFinish { .. }
                | Self::Renew { .. }
                | Self::RenewKubelet { .. }
                | Self::RebuildEtcd { .. }
        )
    }
}

/// What of a founder's step is done already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nothing: this is its first run in the attempt.
    Nothing,
    /// An earlier run came part of the way; how far, the files say.
    Part,
    /// All of it was done once: etcd has been started here.
    All,
}

/// What a step found or made. Secrets in it are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutput {
    /// The step did what it should.
    Done,
    /// The step did what it should, and people should know something.
    Noted(String),
    /// kubeadm's version, as `v1.31.4`.
    Checked {
        /// The version.
        version: String,
        /// Why this machine can be nothing but a worker, if so.
        worker_only: Option<String>,
    },
    /// The PKI, sealed.
    PkiMade {
        /// SHA-256 of the CA certificate's public key info.
        ca_hash: Digest,
        /// One ciphertext per recipient.
        sealed: Vec<Sealed>,
    },
    /// A ticket, sealed.
    Ticket {
        /// The ciphertext.
        ciphertext: Bytes,
    },
    /// The cluster's first API server serves.
    Initialised {
        /// SHA-256 of the CA certificate's public key info.
        ca_hash: Digest,
        /// `host:port` of the API server.
        endpoints: Vec<String>,
    },
    /// A backup was taken, and is on this machine's disk.
    BackedUp {
        /// When, in seconds since 1970.
        taken_s: u64,
        /// etcd's revision before it was taken.
        revision: u64,
        /// Length of the sealed file.
        bytes: u64,
        /// Its SHA-256.
        digest: Digest,
    },
    /// What became of each object that was to be applied.
    Manifests(Vec<ManifestResult>),
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}{}: {why}", phase.as_ref().map(|phase| format!(" at {phase}")).unwrap_or_default())]
pub struct StepFailure {
    /// The step's name.
    pub step: &'static str,
    /// The kubeadm phase that failed, if one did.
    pub phase: Option<String>,
    /// What happened, bounded, without secrets.
    pub why: String,
    /// Whether trying again on this machine is pointless until someone changes it (kubeadm missing, too old).
    pub hopeless: bool,
}

impl StepFailure {
    /// How a step ends that [`Effect::Abort`] ended: once everything that it had started is dead.
    pub fn ended_on_request(step: &'static str) -> Self {
        Self { step, phase: None, why: "it was ended on request".to_owned(), hopeless: false }
    }
}

/// The effects of one input, in order.
#[derive(Debug, Default)]
pub struct Effects(Vec<Effect>);

/// Proof that what was promised is on its way to disk before anything sent with it: the only way to send a vote.
#[must_use = "a vote is sent through this"]
pub struct Synced<'a>(&'a mut Effects);

impl Effects {
    /// Adds an effect.
    pub fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// Sends a frame that promises nothing.
    pub fn send(&mut self, to: MachineId, frame: Frame) {
        debug_assert!(!matches!(frame, Frame::Promise(_) | Frame::Accepted { .. }), "votes go through persist");
        self.push(Effect::Send { to, frame });
    }

    /// Writes the durable state; what is sent through the answer leaves after it is synced.
    pub fn persist(&mut self, durable: &Durable) -> Synced<'_> {
        self.push(Effect::Persist(durable.clone()));
        Synced(self)
    }

    /// Tells people.
    pub fn notice(&mut self, kind: NoticeKind, text: String) {
        self.push(Effect::Notice(Notice { kind, text }));
    }

    /// Looks at all effects, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Effect> + '_ {
        self.0.iter()
    }

    /// Takes all effects, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> + '_ {
        self.0.drain(..)
    }
}

impl Synced<'_> {
    /// Sends a frame after the barrier.
    pub fn send(self, to: MachineId, frame: Frame) {
        self.0.push(Effect::Send { to, frame });
    }

    /// Nothing needs to follow the write.
    pub fn done(self) {}
}

//! What people are told of as it happens.

/// Something people should know. Its text names no secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Notice {
    /// What it is about. Programs go by this and by nothing in the text.
    pub kind: NoticeKind,
    /// What happened, to which machine, and what to do.
    pub text: String,
}

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It went as it should.
    Info,
    /// Something is wrong that muster may not mend by itself.
    Warning,
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, strum::Display, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum NoticeKind {
    /// This machine stands elsewhere in its life.
    Phase,
    /// A charter is followed.
    Charter,
    /// Founding halts until a person mends something.
    FoundingHalted,
    /// What halted founding is gone.
    FoundingGoesOn,
    /// This machine's own identity runs elsewhere too: it votes no more.
    OwnClone,
    /// Another machine's identity runs twice.
    Clone,
    /// Another machine is refused.
    PeerRefused,
    /// A machine was admitted.
    Admitted,
    /// A machine was removed.
    Removed,
    /// A machine may run `kubeadm init`.
    InitClaimed,
    /// A founder is about to start etcd.
    Founds,
    /// The CA is sealed to the control planes.
    Pki,
    /// An attempt made the cluster.
    InitReady,
    /// An attempt was given up.
    InitAbandoned,
    /// What is to be known of the rest of init.
    InitFinish,
    /// A machine has its ticket.
    Ticket,
    /// A turn at etcd began or ended.
    Etcd,
    /// A turn at taking something down on purpose began or ended.
    Disrupt,
    /// The ledger's level was raised.
    Level,
    /// The ledger is beyond the levels that this machine knows.
    Outgrown,
    /// A person wished something.
    Wish,
    /// A machine is Ready.
    Joined,
    /// A machine has lost what it had joined with.
    Left,
    /// A worker becomes a control plane.
    Promoted,
    /// The removal of a machine does not go on.
    RemovalHeld,
    /// This machine was removed, and nothing of the cluster is left here.
    Departed,
    /// A step of kubeadm's failed.
    StepFailed,
    /// This disk is an old copy.
    DiskForgot,
    /// Something of the leader's is tried again.
    Retry,
    /// A token could not be deleted.
    Token,
    /// The manifests are applied.
    Manifests,
    /// The API server refuses a manifest.
    ManifestRefused,
    /// The endpoint's name does not mean what it should.
    Hosts,
    /// The cluster is rebuilt from what one machine has, or was.
    Recovery,
    /// A backup was taken, or copied.
    Backup,
    /// Certificates were renewed.
    Renewed,
    /// Raft handed over what is no ledger.
    Ledger,
}

impl NoticeKind {
    /// The word in events and traces; it stays.
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// How much it matters.
    pub fn severity(self) -> Severity {
        match self {
            Self::FoundingHalted
            | Self::OwnClone
            | Self::Clone
            | Self::PeerRefused
            | Self::StepFailed
            | Self::DiskForgot
            | Self::ManifestRefused
            | Self::Hosts
            | Self::RemovalHeld
            | Self::Outgrown
            | Self::Recovery
            | Self::Ledger => Severity::Warning,
            _ => Severity::Info,
        }
    }
}

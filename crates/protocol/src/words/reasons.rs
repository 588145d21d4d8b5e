//! Why nothing seems to happen, and for whom a machine waits.

use serde::{Deserialize, Serialize};

/// One reason why a machine waits, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What it is about. Programs go by this and by nothing in the text.
    pub about: Topic,
    /// The sentence people read.
    pub text: String,
    /// The machines that it is about, in full hexadecimal.
    pub machines: Vec<String>,
}

/// What a reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Topic {
    /// One identity runs on two machines.
    Clone,
    /// Two identities show the same hardware.
    Hardware,
    /// This machine cannot run kubeadm, or not as its role needs.
    Kubeadm,
    /// Another machine cannot.
    Unable,
    /// A step of kubeadm's is under way, or failed and is tried again.
    Step,
    /// Machines are met.
    Meeting,
    /// The charter is agreed on.
    Founding,
    /// Founding halts for good: there is a cluster already, and it is not this image's.
    Founded,
    /// Founding halts: more machines than the image says.
    TooMany,
    /// Founding halts: machines with another image's settings are here.
    OtherSettings,
    /// Nobody leads.
    Leader,
    /// A control plane does not answer.
    ControlPlane,
    /// A machine waits to be admitted.
    Admission,
    /// A machine is not admitted for want of an address.
    Address,
    /// Two machines have one address.
    SharedAddress,
    /// The right to init, or whoever has it.
    Init,
    /// A machine's ticket.
    Ticket,
    /// A turn at etcd.
    Etcd,
    /// A turn whose holder is silent.
    Turn,
    /// A machine that leaves, or has left.
    Removal,
    /// A control plane's seat, and who takes it.
    Repair,
    /// Certificates that end, or have ended.
    Certificates,
    /// A majority of the control planes is gone, or the cluster was rebuilt.
    Recovery,
    /// Backups of etcd.
    Backup,
    /// An update of this machine's image that was taken back.
    Update,
    /// This machine's disk takes nothing, or does not give back what it took.
    Disk,
    /// A kubelet that waits until others were met.
    Guard,
    /// The ledger's level: a machine does not know it, or keeps it from rising.
    Level,
    /// An entry is to be committed.
    Proposal,
    /// The image's manifests.
    Manifests,
    /// The endpoint's name does not mean what it should.
    Hosts,
    /// No API server serves with an etcd that works.
    Api,
    /// Large packets are lost on the way to a machine.
    Mtu,
    /// What came of looking at a place.
    Hint,
    /// A machine that is not of this cluster.
    Stranger,
    /// Machines that were turned away.
    TurnedAway,
}

impl Topic {
    /// The word before its sentence.
    pub fn word(self) -> &'static str {
        self.aside().unwrap_or("waits")
    }

    /// Whether something is waited for.
    pub fn waits(self) -> bool {
        self.aside().is_none()
    }

    /// What it is instead of something that is waited for: nobody waits for a machine of another cluster, or with another key, and a hint is a
    /// place.
    fn aside(self) -> Option<&'static str> {
        match self {
            Self::TurnedAway | Self::Stranger => Some("not ours"),
            Self::Hint => Some("hint"),
            Self::Removal => Some("leaves"),
            Self::Update => Some("update"),
            _ => None,
        }
    }
}

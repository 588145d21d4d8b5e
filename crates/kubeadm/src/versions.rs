//! What kubeadm's minor versions differ in: one table, as data, each row with its source.
//!
//! Rows that hold for 1.34 to 1.37 were read in Kubernetes v1.34.4, v1.35.4, v1.36.3 and v1.37.2, and `crates/rehearsal`
//! compares them with those executables. What ends or begins below 1.34 is data alone: nothing here compares it. A flag whose
//! beginning was not looked up counts from 1.34, so that the table lacks flags rather than invents some.

mod flags;
mod init;
mod join;
mod line;
mod others;
mod release;

pub use flags::Flag;
pub use init::INIT;
pub use join::JOIN;
pub use line::{CommandLine, Refusal};
pub use others::{OTHERS, RESET};
pub use release::{APIS, Api, EXIT_FAILED, IMAGES, Images, api_written, refuses_cgroup_v1};

use crate::version::Version;

/// A phase of a workflow, or a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// `certs`, `certs/apiserver`; for commands their words, `token create`.
    pub name: &'static str,
    /// The flags of the command of that name. Those of the commands above it that hold for all below are not repeated.
    pub flags: &'static [Flag],
    /// The first minor version that has it in this place.
    pub first: u32,
    /// The last one.
    pub last: u32,
    /// How it shows.
    pub shown: Shown,
    /// How many words may follow it.
    pub operands: usize,
    /// The file in Kubernetes' tree, below `cmd/kubeadm/app/cmd`, in the versions named above.
    pub source: &'static str,
}

/// How a phase shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// In the list of phases, and as a command.
    Listed,
    /// It runs in its workflow and can be skipped, but is no command and in no list.
    Hidden,
    /// A command that runs all parts of its phase, but no phase itself.
    All,
}

const fn row(name: &'static str, flags: &'static [Flag], source: &'static str) -> Row {
    let (first, last) = (Version::OLDEST_MINOR, Version::NEWEST_MINOR);
    Row { name, flags, first, last, shown: Shown::Listed, operands: 0, source }
}

impl Row {
    const fn since(mut self, minor: u32) -> Self {
        self.first = minor;
        self
    }

    const fn until(mut self, minor: u32) -> Self {
        self.last = minor;
        self
    }

    const fn hidden(mut self) -> Self {
        self.shown = Shown::Hidden;
        self
    }

    const fn all(mut self) -> Self {
        self.shown = Shown::All;
        self
    }

    const fn takes(mut self, operands: usize) -> Self {
        self.operands = operands;
        self
    }

    /// Whether this minor version has it.
    pub fn is_in(&self, minor: u32) -> bool {
        (self.first..=self.last).contains(&minor)
    }
}

/// kubeadm's workflows that consist of phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workflow {
    /// `kubeadm init`.
    Init,
    /// `kubeadm join`.
    Join,
    /// `kubeadm reset`.
    Reset,
}

impl Workflow {
    /// Its command.
    pub fn name(self) -> &'static str {
        match self {
            Workflow::Init => "init",
            Workflow::Join => "join",
            Workflow::Reset => "reset",
        }
    }

    /// Its rows in this minor version, phases before their parts, in the order in which kubeadm runs them.
    pub fn rows(self, minor: u32) -> impl Iterator<Item = &'static Row> {
        let rows = match self {
            Workflow::Init => INIT,
            Workflow::Join => JOIN,
            Workflow::Reset => RESET,
        };
        rows.iter().filter(move |row| row.is_in(minor))
    }

    /// Its phases without their parts, in order, hidden ones among them.
    pub fn phases(self, minor: u32) -> impl Iterator<Item = &'static str> {
        self.rows(minor).map(|row| row.name).filter(|name| !name.contains('/'))
    }

    /// The parts of a phase, in order, hidden ones among them, without the phase's own name.
    pub fn parts(self, phase: &str, minor: u32) -> impl Iterator<Item = &'static str> {
        let rows = self.rows(minor).filter(|row| row.shown != Shown::All);
        rows.filter_map(move |row| row.name.strip_prefix(phase)?.strip_prefix('/'))
    }

    /// The row of a phase or part, by `certs` or `certs/apiserver`.
    pub fn row(self, name: &str, minor: u32) -> Option<&'static Row> {
        self.rows(minor).find(|row| row.name == name)
    }

    /// Whether `kubeadm W phase NAME` exists.
    pub fn is_command(self, name: &str, minor: u32) -> bool {
        self.row(name, minor).is_some_and(|row| row.shown != Shown::Hidden)
    }
}

/// The phases of a join that may add the etcd member; it is for the cluster's feature gates to say which of several does.
///
/// Source: `phases/join/controlplanejoin.go`, v1.34.4: `etcd-join` runs with ControlPlaneKubeletLocalMode, the part `etcd`
/// without; v1.35.4: the part is there, hidden, and never runs.
pub fn adds_member(minor: u32) -> &'static [&'static str] {
    match minor {
        ..31 => &["control-plane-join/etcd"],
        31..35 => &["etcd-join", "control-plane-join/etcd"],
        35.. => &["etcd-join"],
    }
}

/// Whether a cluster that says nothing of ControlPlaneKubeletLocalMode has it: kubelets of control planes then talk to their own
/// API server, which has to run before they are bootstrapped.
///
/// Source: `cmd/kubeadm/app/features/features.go`: on by default since its beta in 1.33 (v1.34.4), locked on in v1.35.4, gone in
/// v1.36.3, where it always holds.
pub fn kubelet_local_mode(minor: u32) -> bool {
    minor >= 33
}

/// Whether a worker's join leaves a kubelet's kubeconfig alone that is there before. Seen with 1.34.4, 1.35.4, 1.36.3 and 1.37.2; what
/// older ones do was not tried.
pub fn join_keeps_kubeconfig(minor: u32) -> bool {
    minor >= 34
}

/// Whether kubeadm writes `instance-config.yaml` beside the kubelet's configuration: where its container runtime listens.
///
/// Source: `cmd/kubeadm/app/cmd/phases/init/kubelet.go`, v1.37.2; by the feature gate NodeLocalCRISocket, which is on by
/// default in v1.34.4 (`features.go`).
pub fn instance_config(minor: u32) -> bool {
    minor >= 34
}

#[cfg(test)]
mod tests;

//! Which images are accepted, and which machine runs which.

use muster_wire::{Card, Digest, MachineId};
use serde::{Deserialize, Serialize};

use super::Machine;
use crate::Effects;

/// An image, as `muster image list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageStatus {
    /// Digest of its settings, in hexadecimal.
    pub digest: String,
    /// The Kubernetes version that it names; empty if it names none.
    pub kubernetes_version: String,
    /// Whether machines with it may join.
    pub accepted: bool,
    /// The machines that run it, as far as this one knows.
    pub machines: Vec<RunsImage>,
}

/// What a machine says that it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsImage {
    /// Its identity, in full hexadecimal.
    pub machine: String,
    /// Its identity as people see it.
    pub short: String,
    /// Its name in the ledger, or its host name.
    pub name: String,
    /// Whether it is admitted.
    pub admitted: bool,
    /// Whether it is held for alive.
    pub alive: bool,
    /// kubeadm's version; empty until it was looked at.
    pub kubernetes: String,
    /// The highest level of the ledger that it knows.
    pub level: u32,
    /// Digest of its kubelet's configuration, in hexadecimal, if there is one.
    pub kubelet: Option<String>,
    /// When the first of its certificates ends, in seconds since 1970; 0 if it has none.
    pub certificates_end_s: u64,
    /// The median of some syncs of its disk when it started, in microseconds; 0 if none was measured.
    pub sync_us: u32,
}

impl Machine {
    /// The accepted images, the one that founded the cluster first, and after them those that other machines here carry.
    pub fn images(&self) -> Vec<ImageStatus> {
        let accepted = self.follow.ledger().images();
        let mut images: Vec<(Digest, &str)> =
            accepted.iter().map(|image| (image.digest, image.kubernetes_version.as_str())).collect();
        for card in self.cards() {
            if images.iter().all(|(digest, _)| *digest != card.settings.digest) {
                images.push((card.settings.digest, &card.settings.kubernetes_version));
            }
        }
        let status = |(place, (digest, version)): (usize, (Digest, &str))| ImageStatus {
            digest: digest.0.iter().map(|byte| format!("{byte:02x}")).collect(),
            kubernetes_version: version.to_owned(),
            accepted: place < accepted.len(),
            machines: self.runs_image(digest),
        };
        images.into_iter().enumerate().map(status).collect()
    }

    /// A machine that was connected before its image was accepted here is told of it now: its greeting was answered without.
    pub(super) fn tell_accepted(&mut self, effects: &mut Effects) {
        // The image that founded the cluster needs no telling.
        let accepted = self.follow.ledger().images().len().max(1);
        if std::mem::replace(&mut self.images_told, accepted) >= accepted {
            return;
        }
        let waits = |peer: &MachineId| {
            let card = self.roster.card(*peer);
            card.is_some_and(|card| card.charter.is_none() && self.follow.ledger().accepts(card.settings.digest))
        };
        let waiting: Vec<MachineId> = self.roster.connected_peers().filter(waits).collect();
        waiting.into_iter().for_each(|peer| self.show_charter(peer, effects));
    }

    /// The machines that carry an image, this one among them.
    fn runs_image(&self, image: Digest) -> Vec<RunsImage> {
        let ledger = self.follow.ledger();
        let runs = |card: &Card| {
            let member = ledger.member(card.machine);
            RunsImage {
                machine: card.machine.to_hex(),
                short: card.machine.to_string(),
                name: member.map_or_else(|| card.hostname.clone(), |member| member.admitted.name.clone()),
                admitted: member.is_some(),
                alive: card.machine == self.id() || self.roster.is_alive(card.machine),
                kubernetes: card.running.kubernetes.clone(),
                level: card.level,
                kubelet: card.running.kubelet.map(|digest| digest.0.iter().map(|byte| format!("{byte:02x}")).collect()),
                certificates_end_s: card.running.certificates_end_s,
                sync_us: card.running.sync_us,
            }
        };
        self.cards().filter(|card| card.settings.digest == image).map(runs).collect()
    }

    fn cards(&self) -> impl Iterator<Item = &Card> {
        self.roster.known().values().map(|known| known.card.card()).chain([self.mine.card()])
    }
}

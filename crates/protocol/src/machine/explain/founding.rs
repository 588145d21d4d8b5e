//! Why there is no charter yet.

use muster_wire::{MachineId, Settings};

use crate::Time;
use crate::founding::Impediment;
use crate::machine::Machine;
use crate::status::list;
use crate::words::reasons::Topic;

impl Machine {
    pub(super) fn explain_founding(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let quorum = self.settings.quorum();
        if let Some(impediment) = self.founding.impediment() {
            let machines = match impediment {
                Impediment::OtherSettings(machines) => machines.clone(),
                Impediment::TooMany { .. } => self.roster.known().keys().copied().collect(),
                Impediment::Cloned | Impediment::Founded { .. } => vec![self.id()],
            };
            let about = match impediment {
                Impediment::OtherSettings(_) => Topic::OtherSettings,
                Impediment::TooMany { .. } => Topic::TooMany,
                Impediment::Cloned => Topic::Clone,
                Impediment::Founded { .. } => Topic::Founded,
            };
            let text = match impediment {
                Impediment::OtherSettings(_) => format!(
                    "founding halts: this image says machines = {} (settings {}), and {} carry others: boot one image \
                     everywhere",
                    self.settings.machines,
                    self.settings.digest,
                    self.other_settings(&machines),
                ),
                Impediment::TooMany { .. } => format!(
                    "founding halts: {impediment} ({}). Set `machines` to the true number, or wipe what is left over",
                    list(&machines)
                ),
                Impediment::Cloned => format!("founding halts: {impediment}"),
                Impediment::Founded { .. } => format!(
                    "founding halts for good: {impediment}; this image says machines = {} (settings {}). A second cluster \
                     would have the same name and mesh key, so this machine waits, whether or not that one is in sight. Boot \
                     the image of that cluster here, and this machine joins it; or have this image accepted there \
                     (`muster image accept FILE` on one of its machines); or wipe its state, and boot an image with \
                     another `cluster` or `mesh_key`; or, if that cluster is gone for good, wipe the state of all that saw it",
                    self.settings.machines, self.settings.digest
                ),
            };
            add(about, text, &machines);
            return;
        }
        let electorate = self.founding.electorate();
        if let Some(answers) = self.founding.answers() {
            let missing: Vec<MachineId> = electorate.difference(&answers).copied().collect();
            let names: Vec<String> = missing.iter().take(5).map(|machine| self.heard(*machine, now)).collect();
            let text = format!("founding: {} of {quorum} votes; missing {}", answers.len(), names.join("; "));
            add(Topic::Founding, text, &missing);
            return;
        }
        let away: Vec<MachineId> =
            self.roster.known().keys().copied().filter(|machine| !electorate.contains(machine)).collect();
        if electorate.len() < quorum as usize {
            let names: Vec<String> = away.iter().take(5).map(|machine| self.heard(*machine, now)).collect();
            let known =
                if names.is_empty() { String::new() } else { format!("; known but not voting: {}", names.join("; ")) };
            let text = format!(
                "meeting: {} of {} machines are here, founding needs {quorum}{known}",
                electorate.len(),
                self.settings.machines
            );
            add(Topic::Meeting, text, &away);
        } else {
            let first = electorate.first().copied().into_iter().collect::<Vec<_>>();
            let text = format!(
                "founding: {} of {} machines are here, enough to found; {} is to propose the charter",
                electorate.len(),
                self.settings.machines,
                list(&first)
            );
            add(Topic::Founding, text, &first);
        }
    }

    fn other_settings(&self, machines: &[MachineId]) -> String {
        let described = machines.iter().take(5).map(|machine| match self.roster.card(*machine) {
            Some(card) => format!(
                "{machine} ({}, machines = {}, settings {}; {})",
                card.hostname,
                card.settings.machines,
                card.settings.digest,
                differing(&self.settings, &card.settings)
            ),
            None => machine.to_string(),
        });
        described.collect::<Vec<_>>().join(", ")
    }
}

/// The keys in which two images are known to differ, with both values, this machine's first. Of the others a card has the
/// digest alone.
pub(in crate::machine) fn differing(here: &Settings, there: &Settings) -> String {
    let keys = [
        ("machines", here.machines.to_string(), there.machines.to_string()),
        ("control_planes", here.control_planes.to_string(), there.control_planes.to_string()),
        ("state.durable", here.durable.to_string(), there.durable.to_string()),
        ("kubernetes.version", here.kubernetes_version.clone(), there.kubernetes_version.clone()),
    ];
    let word = |value: String| if value.is_empty() { "not set".to_owned() } else { value };
    let differ = keys.into_iter().filter(|(_, ours, theirs)| ours != theirs);
    let told: Vec<String> =
        differ.map(|(key, ours, theirs)| format!("{key}: {} here, {} there", word(ours), word(theirs))).collect();
    if told.is_empty() {
        return "another shared key differs: compare `muster config show` of both".to_owned();
    }
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use muster_wire::Digest;

    use super::*;

    #[test]
    fn two_images_are_told_apart_by_their_keys_and_both_values() {
        let here = Settings {
            machines: 3,
            control_planes: 3,
            durable: true,
            kubernetes_version: "v1.37.2".into(),
            digest: Digest([1; 32]),
        };
        let there = Settings { control_planes: 1, kubernetes_version: String::new(), ..here.clone() };
        assert_eq!(
            differing(&here, &there),
            "control_planes: 3 here, 1 there, kubernetes.version: v1.37.2 here, not set there"
        );
        let other = Settings { digest: Digest([2; 32]), ..here.clone() };
        assert!(differing(&here, &other).contains("another shared key differs"));
    }
}

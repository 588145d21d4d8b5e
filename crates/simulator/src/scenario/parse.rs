//! Reading scenarios: whatever is wrong is named with its line and what would be right.

use super::{Fault, Pick, Policy, Scenario};

/// Why a scenario is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// The text is no TOML, or a key or a value is not known.
    #[error("{0}")]
    Text(String),
    /// A value is out of its bounds.
    #[error("line {line}: {key} {rule}")]
    Value {
        /// Line in the file, counting from 1.
        line: usize,
        /// The key.
        key: String,
        /// The rule that it breaks.
        rule: String,
    },
}

impl ScenarioError {
    /// Without the line.
    pub fn rule(&self) -> String {
        match self {
            ScenarioError::Text(text) => text.clone(),
            ScenarioError::Value { key, rule, .. } => format!("{key} {rule}"),
        }
    }
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// With the line, the key, and what is accepted.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Scenario = toml::from_str(text).map_err(|error| ScenarioError::Text(error.to_string()))?;
        scenario.check(text)?;
        Ok(scenario)
    }

    /// The text that [`Scenario::parse`] takes.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# not writable: {error}\n"))
    }

    fn check(&self, text: &str) -> Result<(), ScenarioError> {
        let rule = |holds: bool, section: &str, nth: usize, key: &str, rule: String| {
            if holds {
                Ok(())
            } else {
                Err(ScenarioError::Value { line: line_of(text, section, nth, key), key: key.to_owned(), rule })
            }
        };
        let machines = self.machines;
        rule((1..=10_000).contains(&machines), "", 0, "machines", "must be 1 to 10000".into())?;
        let control_planes = self.image.control_planes;
        rule(
            (1..=9).contains(&control_planes) && control_planes <= self.image_machines(),
            "image",
            0,
            "control_planes",
            "must be 1 to 9, and at most the image's machines".into(),
        )?;
        if self.image.policy == Policy::Threshold {
            rule(self.image.expect.is_some(), "image", 0, "policy", "= \"threshold\" needs `expect`".into())?;
        }
        let others: u32 = self.others.iter().map(|other| other.count).sum();
        rule(others < machines, "other", 0, "count", "of all [[other]] must leave a machine".into())?;
        for (section, key, [least, most]) in self.ranges() {
            rule(least >= 0.0 && least <= most, section, 0, key, "must be [least, most], 0 or more".into())?;
        }
        rule((0.0..=1.0).contains(&self.network.loss), "network", 0, "loss", "must be 0 to 1".into())?;
        let [shortest, longest] = self.raft.election_ms;
        rule(
            self.raft.heartbeat_ms > 0 && self.raft.heartbeat_ms < shortest && shortest < longest,
            "raft",
            0,
            "election_ms",
            "must be [shortest, longest], both above heartbeat_ms".into(),
        )?;
        if let Some(swarm) = &self.swarm {
            rule(!swarm.sorts.is_empty(), "swarm", 0, "sorts", "must name at least one sort".into())?;
            rule(swarm.faults[0] <= swarm.faults[1], "swarm", 0, "faults", "must be [least, most]".into())?;
            rule((0.0..=1.0).contains(&swarm.loss_max), "swarm", 0, "loss_max", "must be 0 to 1".into())?;
        }
        for seed in &self.discovery.seeds {
            rule(
                *seed < machines,
                "discovery",
                0,
                "seeds",
                format!("names machine {seed}, the last is {}", machines - 1),
            )?;
        }
        for name in &self.expect.sometimes {
            let known = crate::sometimes::names();
            let accepted = known.join(", ");
            rule(
                known.contains(&name.as_str()),
                "expect",
                0,
                "sometimes",
                format!("has {name:?}; accepted: {accepted}"),
            )?;
        }
        for (nth, fault) in self.faults.iter().enumerate() {
            check_fault(fault, machines, &|holds, key, why| rule(holds, "fault", nth, key, why))?;
        }
        Ok(())
    }

    fn ranges(&self) -> [(&'static str, &'static str, [f64; 2]); 10] {
        [
            ("network", "latency_ms", self.network.latency_ms),
            ("discovery", "delay_ms", self.discovery.delay_ms),
            ("discovery", "repeat_s", self.discovery.repeat_s),
            ("boots", "restart_s", self.boots.restart_s),
            ("disk", "sync_ms", self.disk.sync_ms),
            ("kubeadm", "prepare_s", self.kubeadm.prepare_s),
            ("kubeadm", "init_s", self.kubeadm.init_s),
            ("kubeadm", "join_s", self.kubeadm.join_s),
            ("kubeadm", "etcd_s", self.kubeadm.etcd_s),
            ("kubeadm", "ready_s", self.kubeadm.ready_s),
        ]
    }

    /// `machines` in the image's settings.
    pub fn image_machines(&self) -> u32 {
        self.image.machines.unwrap_or(self.machines)
    }
}

type Rule<'a> = &'a dyn Fn(bool, &str, String) -> Result<(), ScenarioError>;

fn check_fault(fault: &Fault, machines: u32, rule: Rule<'_>) -> Result<(), ScenarioError> {
    rule(fault.at_s >= 0.0, "at_s", "must be 0 or more".into())?;
    rule(fault.for_s >= 0.0, "for_s", "must be 0 or more".into())?;
    let takes = fault.kind.takes();
    for given in fault.given() {
        let accepted = if takes.is_empty() { "nothing".to_owned() } else { takes.join(", ") };
        rule(
            takes.contains(&given),
            given,
            format!("is not for kind = \"{}\", which takes {accepted}", fault.kind.word()),
        )?;
    }
    for needed in takes.iter().filter(|takes| **takes != "step") {
        rule(fault.given().contains(needed), "kind", format!("= \"{}\" needs `{needed}`", fault.kind.word()))?;
    }
    rule(fault.rate.is_none_or(|rate| (0.0..=1.0).contains(&rate)), "rate", "must be 0 to 1".into())?;
    rule(fault.period_s.is_none_or(|period| period >= 0.01), "period_s", "must be 0.01 or more".into())?;
    rule(fault.kbit.is_none_or(|kbit| kbit > 0.0), "kbit", "must be more than 0".into())?;
    if let Pick::These(these) = &fault.machines {
        let stranger = these.iter().find(|machine| **machine >= machines);
        rule(stranger.is_none(), "machines", format!("names {stranger:?}, the last is {}", machines - 1))?;
    }
    Ok(())
}

/// The line of a key: the `nth` section of that name, then the first line that sets the key, or the section's own.
fn line_of(text: &str, section: &str, nth: usize, key: &str) -> usize {
    let header = |line: &str| line.trim_start().starts_with('[');
    let mut lines = text.lines().enumerate().peekable();
    let mut begin = 1;
    if !section.is_empty() {
        let names = [format!("[{section}]"), format!("[[{section}]]")];
        let found = lines.by_ref().filter(|(_, line)| names.contains(&line.trim().to_owned())).nth(nth);
        begin = found.map_or(1, |(index, _)| index + 1);
    }
    lines
        .take_while(|(_, line)| !header(line))
        .find(|(_, line)| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('=')))
        .map_or(begin, |(index, _)| index + 1)
}

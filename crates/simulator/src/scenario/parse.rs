//! Reading scenarios: whatever is wrong is named with its line and what would be right.

use super::{Other, Scenario, rules};

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
        let mut scenario: Scenario =
            toml::from_str(text).map_err(|error| ScenarioError::Text(plain(&error.to_string())))?;
        if scenario.image.control_planes == super::UNSAID {
            scenario.image.control_planes = if scenario.image_machines() < 3 { 1 } else { 3 };
        }
        let say = |holds: bool, section: &str, nth: usize, key: &str, rule: String| {
            let wrong = || ScenarioError::Value { line: line_of(text, section, nth, key), key: key.to_owned(), rule };
            if holds { Ok(()) } else { Err(wrong()) }
        };
        rules::check(&scenario, &say)?;
        Ok(scenario)
    }

    /// The text that [`Scenario::parse`] takes.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# not writable: {error}\n"))
    }

    /// Whether it has faults, or draws some.
    pub fn disturbs(&self) -> bool {
        !self.faults.is_empty() || self.swarm.is_some()
    }

    /// The other image that a machine carries, if it does.
    pub(crate) fn other(&self, slot: u32) -> Option<&Other> {
        let mut end = self.machines;
        self.others.iter().rev().find(|other| {
            let last = end;
            end = end.saturating_sub(other.count);
            (end..last).contains(&slot)
        })
    }

    /// So many seconds after the others a machine boots.
    pub(crate) fn boots_at_s(&self, slot: u32) -> f64 {
        let late = self.lates.iter().find(|late| late.machines.contains(&slot)).map_or(0.0, |late| late.boots_at_s);
        self.other(slot).map_or(late, |other| other.boots_at_s.max(late))
    }

    /// `machines` in the image's settings.
    pub fn image_machines(&self) -> u32 {
        self.image.machines.unwrap_or(self.machines)
    }
}

/// In words that need no knowledge of Rust.
fn plain(error: &str) -> String {
    let words = [("expected u32", "expected a whole number"), ("expected u64", "expected a whole number")];
    let words = words.into_iter().chain([("expected f64", "expected a number")]);
    words.fold(error.trim_end().to_owned(), |error, (rust, plain)| error.replace(rust, plain))
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

//! The scenario that a command takes.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::scenario::Scenario;

/// Where scenarios lie.
const FOLDERS: [&str; 2] = ["simulations", "simulations/regressions"];

/// How much of a name may be wrong for it to be suggested.
const NEAR: f64 = 0.7;

/// The scenario every command takes.
#[derive(Args)]
pub(super) struct Which {
    /// A scenario file, or the name of one in simulations/ (without .toml).
    scenario: PathBuf,
    /// So many machines instead of the scenario's own number.
    #[arg(long = "machines", value_name = "N")]
    size: Option<u32>,
}

impl Which {
    pub(super) fn path(&self) -> PathBuf {
        if self.scenario.exists() {
            return self.scenario.clone();
        }
        let mut named = FOLDERS.iter().chain([&"."]).map(|folder| {
            let mut file = Path::new(folder).join(&self.scenario).into_os_string();
            file.push(".toml");
            PathBuf::from(file)
        });
        named.find(|path| path.exists()).unwrap_or_else(|| self.scenario.clone())
    }

    pub(super) fn read(&self) -> Result<Scenario, Failure> {
        let path = self.path();
        if !path.exists() {
            return Err(Failure(self.unknown()));
        }
        if path.is_dir() {
            return Err(Failure(format!("{} is a directory; a scenario is a file", path.display())));
        }
        let named = |why: &dyn std::fmt::Display| Failure(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|error| named(&error))?;
        let mut scenario = Scenario::parse(&text).map_err(|error| named(&error))?;
        if let Some(machines) = self.size {
            scenario.machines = machines;
            let rule = |error| Failure(format!("--machines {machines} does not fit {}: {error}", path.display()));
            // What must hold of a scenario must hold of this one; its lines are nobody's.
            Scenario::parse(&scenario.to_toml()).map_err(|error: crate::scenario::ScenarioError| rule(error.rule()))?;
        }
        Ok(scenario)
    }

    /// What stands for it on a command line.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![self.path().display().to_string()];
        arguments.extend(self.size.map(|machines| format!("--machines={machines}")));
        arguments
    }

    /// The command that does `what` to it.
    pub(super) fn command(&self, what: &str, more: &str) -> String {
        format!("muster-sim {what} {} {more}", self.arguments().join(" ")).trim_end().to_owned()
    }

    fn unknown(&self) -> String {
        let wanted = self.scenario.display().to_string();
        let names = names();
        if names.is_empty() {
            return format!("there is no file {wanted}, and no simulations/ here to look for it by name");
        }
        let near = |name: &&String| strsim::jaro_winkler(name, &wanted) >= NEAR || name.contains(&wanted);
        let mut meant: Vec<&String> = names.iter().filter(near).collect();
        meant.sort_by(|a, b| strsim::jaro_winkler(b, &wanted).total_cmp(&strsim::jaro_winkler(a, &wanted)));
        let meant: Vec<&str> = meant.into_iter().take(3).map(String::as_str).collect();
        let hint = match meant.as_slice() {
            [] => "`muster-sim list` names all there are".to_owned(),
            meant => format!("did you mean {}?", meant.join(" or ")),
        };
        format!("there is no scenario {wanted}, neither as a file nor in simulations/; {hint}")
    }
}

/// Names of all scenarios, as commands take them.
pub(super) fn names() -> Vec<String> {
    let mut names: Vec<String> = FOLDERS
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| path.strip_prefix("simulations").unwrap_or(&path).with_extension("").display().to_string())
        .collect();
    names.sort();
    names
}

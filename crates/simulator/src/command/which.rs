//! The scenario that a command takes.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::built_in;
use crate::scenario::Scenario;

/// Where scenarios lie that are files.
const FOLDERS: [&str; 2] = ["simulations", "simulations/regressions"];

/// How much of a name may be wrong for it to be suggested.
const NEAR: f64 = 0.7;

/// The scenario every command takes.
#[derive(Args)]
pub(super) struct Which {
    /// A scenario file, or the name of a scenario as `muster-sim list` prints it. A file wins.
    scenario: PathBuf,
    /// So many machines instead of the scenario's own number.
    #[arg(long = "machines", value_name = "N")]
    size: Option<u32>,
}

impl Which {
    /// The file or directory that is meant; what was given if it is the name of a scenario that the program has.
    pub(super) fn path(&self) -> PathBuf {
        self.file().unwrap_or_else(|| self.scenario.clone())
    }

    /// The file that is meant: at this path, or of this name in `simulations/` here.
    fn file(&self) -> Option<PathBuf> {
        let named = FOLDERS.iter().chain([&"."]).map(|folder| {
            let mut file = Path::new(folder).join(&self.scenario).into_os_string();
            file.push(".toml");
            PathBuf::from(file)
        });
        std::iter::once(self.scenario.clone()).chain(named).find(|path| path.exists() && !path.is_dir())
    }

    fn text(&self) -> Result<String, Failure> {
        if let Some(path) = self.file() {
            return std::fs::read_to_string(&path).map_err(|error| Failure(format!("{}: {error}", path.display())));
        }
        match self.scenario.to_str().and_then(built_in::text) {
            Some(text) => Ok(text.to_owned()),
            None if self.scenario.is_dir() => {
                Err(Failure(format!("{} is a directory; a scenario is a file", self.scenario.display())))
            }
            None => Err(Failure(self.unknown())),
        }
    }

    pub(super) fn read(&self) -> Result<Scenario, Failure> {
        let path = self.path();
        let mut scenario =
            Scenario::parse(&self.text()?).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
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
        let near = |name: &&String| strsim::jaro_winkler(name, &wanted) >= NEAR || name.contains(&wanted);
        let mut meant: Vec<&String> = names.iter().filter(near).collect();
        meant.sort_by(|a, b| strsim::jaro_winkler(b, &wanted).total_cmp(&strsim::jaro_winkler(a, &wanted)));
        let meant: Vec<&str> = meant.into_iter().take(3).map(String::as_str).collect();
        let hint = match meant.as_slice() {
            [] => "`muster-sim list` names all there are".to_owned(),
            meant => format!("did you mean {}?", meant.join(" or ")),
        };
        format!("there is no file and no scenario {wanted}; {hint}")
    }
}

/// Names of all scenarios, as commands take them: those in `simulations/` here, and those in the program.
pub(super) fn names() -> Vec<String> {
    let here = FOLDERS
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| path.strip_prefix("simulations").unwrap_or(&path).with_extension("").display().to_string());
    let names: BTreeSet<String> = here.chain(built_in::SCENARIOS.iter().map(|(name, _)| (*name).to_owned())).collect();
    names.into_iter().collect()
}

/// The text of the scenario of this name, and whether it is a file here.
pub(super) fn text_of(name: &str) -> (std::io::Result<String>, bool) {
    match (std::fs::read_to_string(format!("simulations/{name}.toml")), built_in::text(name)) {
        (Err(error), Some(text)) if error.kind() == ErrorKind::NotFound => (Ok(text.to_owned()), false),
        (read, _) => (read, true),
    }
}

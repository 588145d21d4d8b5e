//! Runs some seeds of a sweep again in processes of their own. What differs would make every other result worthless.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::run::Outcome;

/// A seed that was another run in another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Differs {
    /// The seed, or the variation of one.
    pub seed: Name,
    /// Its hash in the sweep.
    pub here: String,
    /// Its hash in the other process, or why there is none.
    pub there: String,
}

/// What came of running seeds again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Twice {
    /// Seeds that were run again.
    pub seeds: Vec<Name>,
    /// Those that were not the same.
    pub differ: Vec<Differs>,
}

/// Runs every so many of these seeds again, 0 for none: `program run SCENARIO... --json --seed S`.
pub fn twice(program: &Path, scenario: &[String], outcomes: &[Outcome], every: u64) -> Twice {
    let mut twice = Twice::default();
    let every = usize::try_from(every).unwrap_or(usize::MAX);
    if every == 0 {
        return twice;
    }
    for outcome in outcomes.iter().step_by(every) {
        let there = again(program, scenario, &outcome.name).unwrap_or_else(|why| why);
        twice.seeds.push(outcome.name.clone());
        if there != outcome.hash {
            twice.differ.push(Differs { seed: outcome.name.clone(), here: outcome.hash.clone(), there });
        }
    }
    twice
}

fn again(program: &Path, scenario: &[String], seed: &Name) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Again {
        hash: String,
    }
    let mut command = Command::new(program);
    command.arg("run").args(scenario).args(["--json", "--seed", &seed.to_string()]).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("none: {}: {error}", program.display()))?;
    serde_json::from_slice::<Again>(&output.stdout).map(|again| again.hash).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("none: it ended with {}: {}", output.status, said.lines().last().unwrap_or("nothing was said"))
    })
}

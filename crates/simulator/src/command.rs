//! The command line.

mod list;
mod mistakes;
mod numbers;
mod one;
mod pace;
mod page;
mod recorded;
mod reduce;
mod several;
mod steps;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::run::Verdict;
use crate::scenario::Scenario;

/// Exit code for a scenario that is not taken.
const SCENARIO_WRONG: u8 = 4;

/// Forms muster clusters in virtual time, breaks whatever can break, and checks every promise.
///
/// Exit codes: 0 everything held, 1 a safety promise was broken, 2 a liveness promise was broken, 3 not enough was seen
/// to judge, 4 the scenario (or the command line) is wrong.
#[derive(Parser)]
#[command(name = "muster-sim", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed of a scenario: verdict, what happened, and the command that reproduces it.
    Run(one::Run),
    /// Run many seeds: verdicts by class, throughput, and how often each "sometimes" was reached.
    Sweep(several::Sweep),
    /// Find the smallest list of faults with which a seed still fails, and save it as a scenario.
    Shrink(reduce::Shrink),
    /// Step through a run: stop at a time or at a condition, and show what the machines know then.
    Replay(steps::Replay),
    /// Write one run as a self-contained HTML page.
    Report(page::Report),
    /// Plant mistakes in the protocol, one at a time, and say how many seeds it took to see each.
    Planted(mistakes::Planted),
    /// Measure how fast this simulator is, and how fast clusters form and heal in it.
    Numbers(numbers::Numbers),
    /// Print numbers from papers beside ours, on the same conditions.
    Tables(table::Tables),
    /// List scenarios, promises, faults and "sometimes".
    List(list::List),
}

/// The scenario every command takes.
#[derive(Args)]
struct Which {
    /// A scenario file, or the name of one in simulations/ (without .toml).
    scenario: PathBuf,
}

impl Which {
    fn path(&self) -> PathBuf {
        if self.scenario.exists() {
            return self.scenario.clone();
        }
        let named = Path::new("simulations").join(&self.scenario).with_extension("toml");
        if named.exists() { named } else { self.scenario.clone() }
    }

    fn read(&self) -> Result<Scenario, Failure> {
        let path = self.path();
        let text = std::fs::read_to_string(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
        Scenario::parse(&text).map_err(|error| Failure(format!("{}: {error}", path.display())))
    }
}

/// Why a command did nothing.
struct Failure(String);

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { SCENARIO_WRONG } else { 0 });
        }
    };
    let done = match arguments.command {
        Command::Run(run) => run.execute(),
        Command::Sweep(sweep) => sweep.execute(),
        Command::Shrink(shrink) => shrink.execute(),
        Command::Replay(replay) => replay.execute(),
        Command::Report(report) => report.execute(),
        Command::Planted(planted) => planted.execute(),
        Command::Numbers(numbers) => numbers.execute(),
        Command::Tables(tables) => tables.execute(),
        Command::List(list) => list.execute(),
    };
    match done {
        Ok(verdict) => ExitCode::from(verdict.code()),
        Err(Failure(why)) => {
            eprintln!("muster-sim: {why}");
            ExitCode::from(SCENARIO_WRONG)
        }
    }
}

/// How people read a verdict.
fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Held => "every promise held",
        Verdict::SafetyBroken => "a SAFETY promise was BROKEN",
        Verdict::LivenessBroken => "a LIVENESS promise was BROKEN",
        Verdict::NotEnoughSeen => "not enough was seen to judge",
    }
}

/// Prints a value as one line of JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure(error.to_string()))?;
    println!("{text}");
    Ok(())
}

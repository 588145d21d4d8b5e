//! The command line.

mod list;
mod mistakes;
mod numbers;
mod one;
mod pace;
mod page;
mod progress;
mod promised;
mod recorded;
mod reduce;
mod several;
mod steps;
mod table;
mod which;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::name::Name;
use crate::run::Verdict;
use which::Which;

/// Exit code for a scenario that is not taken.
const SCENARIO_WRONG: u8 = 4;

const EXAMPLES: &str = "\
Examples:
  muster-sim list                                   what there is
  muster-sim run five                               one run: what happened, and what held
  muster-sim sweep swarm-5 --seeds 0..1000          many
  muster-sim shrink swarm-5 --seed 17               fewer faults that break the same promise
  muster-sim replay swarm-5 --seed 17 --machine 2   what one machine did, and what changed in it
  muster-sim report swarm-5 --seed 17 --out a.html  a page with everything";

/// Forms muster clusters in virtual time, breaks whatever can break, and checks every promise.
///
/// Exit codes: 0 everything held, 1 a safety promise was broken, 2 a liveness promise was broken, 3 not enough was seen
/// to judge, or no fault took effect, 4 the scenario (or the command line) is wrong, 5 two charters were founded because the scenario broke what
/// promise S1 assumes.
#[derive(Parser)]
#[command(name = "muster-sim", version, max_term_width = 100, after_help = EXAMPLES)]
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
    /// Step through a run, or through what a real machine recorded: stop at a time or at a condition, and show what
    /// machines know then.
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
    /// Print a completion script: source <(muster-sim completions bash).
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// Why a command did nothing.
struct Failure(String);

/// Runs the command line.
pub fn main() -> ExitCode {
    // Asked of the words themselves: what cannot be parsed may have asked for JSON, too.
    let json = std::env::args().any(|argument| argument == "--json");
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            if json && error.use_stderr() {
                tell_failure(&error.to_string(), SCENARIO_WRONG);
            }
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
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "muster-sim", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
            Ok(Verdict::Held)
        }
    };
    match done {
        Ok(verdict) => ExitCode::from(verdict.code()),
        Err(Failure(why)) => {
            eprintln!("muster-sim: {why}");
            if json {
                tell_failure(&why, SCENARIO_WRONG);
            }
            ExitCode::from(SCENARIO_WRONG)
        }
    }
}

/// The end of a replay whose text to stop at may never have come. A broken promise weighs more than that, but both are told.
fn unless_missed(verdict: Verdict, missed: Option<String>, json: bool) -> Result<Verdict, Failure> {
    match (missed, verdict) {
        (None, _) => Ok(verdict),
        (Some(why), Verdict::Held | Verdict::NotEnoughSeen | Verdict::NothingHappened) => Err(Failure(why)),
        (Some(why), _) => {
            eprintln!("muster-sim: {why}");
            if json {
                tell_failure(&why, verdict.code());
            }
            Ok(verdict)
        }
    }
}

/// Says the same to a program: one line, as with everything else under `--json`.
fn tell_failure(why: &str, code: u8) {
    println!("{}", serde_json::json!({ "error": why.trim_end(), "exit_code": code }));
}

/// Reads a seed.
fn seed(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("a seed is a whole number from 0 to {}", u64::MAX))
}

/// Reads a seed, or a variation of one as a sweep names it.
fn name(text: &str) -> Result<Name, String> {
    text.parse()
}

/// Reads a machine's number: `2` or `node-2`.
fn slot(text: &str, slots: u32) -> Result<u32, Failure> {
    match text.strip_prefix("node-").unwrap_or(text).parse::<u32>() {
        Ok(number) if number < slots => Ok(number),
        _ => Err(Failure(format!("there is no machine {text}; there are 0 to {}", slots - 1))),
    }
}

/// How people read a verdict.
fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Held => "every promise held",
        Verdict::SafetyBroken => "a SAFETY promise was BROKEN",
        Verdict::LivenessBroken => "a LIVENESS promise was BROKEN",
        Verdict::NotEnoughSeen => "not enough was seen to judge",
        Verdict::AssumptionBroken => "the scenario broke what a safety promise assumes",
        Verdict::NothingHappened => "no fault took effect, so this shows nothing of what the scenario is for",
    }
}

/// Prints a value as one line of JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure(error.to_string()))?;
    println!("{text}");
    Ok(())
}

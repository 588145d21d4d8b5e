//! `verify`: what must hold on a clean clone, in the order of what fails soonest.

mod parts;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::interrupt;

/// The parts, in the order in which they run. The test command of the README comes last, so that its summaries are what is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Formatting
    Fmt,
    /// Licences, sources, duplicates and advisories of the dependencies
    Deny,
    /// Clippy, where a warning is an error
    Clippy,
    /// The documentation of all crates, where a warning is an error
    Doc,
    /// The fuzz targets compile
    Fuzz,
    /// Labs of several sizes form
    Lab,
    /// A fixed set of seeds of every scenario
    Simulations,
    /// The simulator's pages in a browser
    Browser,
    /// Three control planes and a worker on today's Kubernetes: formed, used, passing kubeadm's own tests, and still whole after it
    Testbed,
    /// A disk image: the same bytes twice, damage that is found
    Image,
    /// The real kubeadms that the rehearsal is compared with are built
    Kubeadms,
    /// All tests
    Tests,
}

/// Runs what every change must pass, fastest first. It stops at the first part that fails.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 all passed; 1 a part failed, and its own words are above; 130 Ctrl-C.\n\n\
                        The testbed, the disk image and the real kubeadms need root on Debian; elsewhere they are left out, and that is said.")]
pub(crate) struct Arguments {
    /// Run only these parts; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Leave these parts out; may be repeated
    #[arg(long, value_enum)]
    skip: Vec<Part>,
    /// Say what would run, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object a part, beside what the parts themselves print
    #[arg(long)]
    json: bool,
}

/// What became of a part that did not fail.
pub(crate) enum Outcome {
    /// It holds.
    Passed,
    /// Some of it could not be tried here, for this reason.
    LeftOut(String),
}

/// Runs the parts that are asked for.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    // A part that is interrupted takes away what it began, before this ends.
    if let Err(error) = interrupt::watch() {
        eprintln!("cargo xtask verify: {error:#}");
        return ExitCode::FAILURE;
    }
    let begun = Instant::now();
    let wanted =
        |part: &Part| (arguments.only.is_empty() || arguments.only.contains(part)) && !arguments.skip.contains(part);
    let mut notes = Vec::new();
    for part in Part::value_variants().iter().copied().filter(wanted) {
        let name = name(part);
        println!("\n=== {name}: {} (after {} s)", about(part), begun.elapsed().as_secs());
        if arguments.dry_run {
            continue;
        }
        let started = Instant::now();
        let outcome = parts::run(part);
        let seconds = started.elapsed().as_secs();
        if arguments.json {
            println!(
                "{}",
                json!({ "part": name, "seconds": seconds, "outcome": word(&outcome), "why": why(&outcome) })
            );
        }
        match outcome {
            Ok(Outcome::Passed) => notes.push(format!("{name}: passed in {seconds} s")),
            Ok(Outcome::LeftOut(why)) => notes.push(format!("{name}: {why}")),
            Err(_) if interrupt::requested() => return ExitCode::from(interrupt::EXIT_CODE),
            Err(error) => {
                eprintln!("\n=== {name} FAILED after {} s: {error:#}", begun.elapsed().as_secs());
                if let Some(room) = too_little_room() {
                    eprintln!("    {room}");
                }
                return ExitCode::FAILURE;
            }
        }
    }
    let left_out = Part::value_variants().iter().copied().filter(|part| !wanted(part));
    notes.extend(left_out.map(|part| format!("{}: left out on request", name(part))));
    println!("\n=== all passed in {} s\n    {}", begun.elapsed().as_secs(), notes.join("\n    "));
    ExitCode::SUCCESS
}

/// A disk that is full fails in as many words as there are programs; which one it is, none of them says.
fn too_little_room() -> Option<String> {
    const LITTLE: u64 = 2 << 30;
    let there = rustix::fs::statvfs(".").ok()?;
    let free = there.f_bavail.saturating_mul(there.f_frsize);
    let text = || format!("only {} MiB are free here: all parts together take some 8 GiB below `target`", free >> 20);
    (free < LITTLE).then(text)
}

fn name(part: Part) -> String {
    part.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn about(part: Part) -> String {
    part.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
}

fn word(outcome: &Result<Outcome>) -> &'static str {
    match outcome {
        Ok(Outcome::Passed) => "passed",
        Ok(Outcome::LeftOut(_)) => "left-out",
        Err(_) => "failed",
    }
}

fn why(outcome: &Result<Outcome>) -> Option<String> {
    match outcome {
        Ok(Outcome::Passed) => None,
        Ok(Outcome::LeftOut(why)) => Some(why.clone()),
        Err(error) => Some(format!("{error:#}")),
    }
}

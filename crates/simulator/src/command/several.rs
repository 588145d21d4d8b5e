//! `muster-sim sweep`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use serde::Deserialize;

use super::promised::Promised;
use super::{Failure, Which, print_json, progress, words};
use crate::junit;
use crate::run::{Outcome, Verdict};
use crate::sweep::{Summary, sweep};

/// Run many seeds.
#[derive(Args)]
pub(super) struct Sweep {
    #[command(flatten)]
    which: Which,
    /// The seeds, from the first up to and without the last: `0..1000`.
    #[arg(long, value_parser = seeds, default_value = "0..100")]
    seeds: (u64, u64),
    /// Threads; as many as there are cores unless given.
    #[arg(long, short, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    jobs: Option<u16>,
    /// Every this many seeds one is run again in a process of its own, and its hash compared; 0 for none.
    #[arg(long, default_value_t = 50)]
    twice_every: u64,
    /// Print every result, and then the summary, as a line of JSON each.
    #[arg(long)]
    json: bool,
    /// Write the results as JUnit XML to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let (first, end) = text.split_once("..").ok_or("expected FIRST..END, as 0..1000")?;
    let (first, end) = (super::seed(first)?, super::seed(end)?);
    if first < end { Ok((first, end)) } else { Err("the range is empty".into()) }
}

impl Sweep {
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        let scenario = self.which.read()?;
        let (first, end) = self.seeds;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.jobs.map_or_else(cores, usize::from);
        let junit = self.junit.as_deref().map(Promised::new).transpose()?;
        let progress = progress::seeds(end - first, self.json);
        let (summary, outcomes) = sweep(&scenario, first, end, jobs, |outcome| {
            progress.inc(1);
            if outcome.verdict.code() == 1 || outcome.verdict.code() == 2 {
                progress.println(format!("seed {}: {}", outcome.seed, outcome.what()));
            }
        });
        progress.finish_and_clear();
        let differing = self.run_twice(&outcomes)?;
        if let Some(junit) = junit {
            junit.write(&junit::text(&scenario.title, &outcomes))?;
        }
        if self.json {
            outcomes.iter().try_for_each(print_json)?;
            print_json(&summary)?;
        } else {
            self.print(&summary, &differing);
        }
        if let Some((seed, ours, theirs)) = differing.first() {
            let why = format!("seed {seed} is not deterministic: hash {ours} here, {theirs} in another process");
            eprintln!("muster-sim: {why}");
            return Ok(Verdict::SafetyBroken);
        }
        Ok(summary.verdict)
    }

    /// Runs some seeds again in processes of their own. What differs would make every other result worthless.
    fn run_twice(&self, outcomes: &[Outcome]) -> Result<Vec<(u64, String, String)>, Failure> {
        #[derive(Deserialize)]
        struct Again {
            hash: String,
        }
        let mut differing = Vec::new();
        if self.twice_every == 0 {
            return Ok(differing);
        }
        let program = std::env::current_exe().map_err(|error| Failure(error.to_string()))?;
        for outcome in outcomes.iter().step_by(self.twice_every as usize) {
            let output = Command::new(&program)
                .arg("run")
                .args(self.which.arguments())
                .args(["--json", "--seed", &outcome.seed.to_string()])
                .stdin(Stdio::null())
                .output()
                .map_err(|error| Failure(format!("running a seed again: {error}")))?;
            let again: Again = serde_json::from_slice(&output.stdout)
                .map_err(|error| Failure(format!("reading seed {} run again: {error}", outcome.seed)))?;
            if again.hash != outcome.hash {
                differing.push((outcome.seed, outcome.hash.clone(), again.hash));
            }
        }
        Ok(differing)
    }

    fn print(&self, summary: &Summary, differing: &[(u64, String, String)]) {
        println!("{} (seeds {}..{})\n", summary.title, summary.first, summary.end);
        for class in &summary.classes {
            println!("  {:>7}  {} {}", class.count, class.verdict.word(), class.promise.unwrap_or(""));
            for (seed, what) in &class.examples {
                println!("           seed {seed}: {}", what.chars().take(400).collect::<String>());
            }
        }
        println!("\nsometimes (seeds that reached it)");
        for (name, meaning) in crate::sometimes::SOMETIMES {
            match summary.sometimes.get(name) {
                Some(count) => println!("  {count:>7}  {name}: {meaning}"),
                None => println!("  unknown  {name}: {meaning}"),
            }
        }
        println!();
        let spread = |what: &str, values: Option<[f64; 3]>| {
            if let Some([median, high, worst]) = values {
                println!("{what}: median {median:.1} s, 99th percentile {high:.1} s, worst {worst:.1} s");
            }
        };
        spread("from heal to one charter everywhere", summary.charter_after_s);
        spread("from the start to everyone Ready", summary.ready_at_s);
        println!(
            "{:.1} s on {} threads: {:.0} seeds a minute, {:.1} machine-hours per second of a core, {} events",
            summary.wall_s,
            summary.jobs,
            summary.seeds_per_minute,
            summary.machine_hours_per_core_second,
            summary.events
        );
        let twice = if self.twice_every == 0 {
            "not checked"
        } else if differing.is_empty() {
            "the same twice"
        } else {
            "DIFFER"
        };
        println!("hash of all runs {} ({twice})", summary.hash);
        if !summary.missing.is_empty() {
            println!("never reached, though the scenario expects it: {}", summary.missing.join(", "));
        }
        println!("\n{}: {}", summary.verdict.word(), words(summary.verdict));
        let failing = summary.classes.iter().find_map(|class| class.examples.first());
        let again = match failing {
            Some((seed, _)) => self.which.command("run", &format!("--seed {seed}")),
            None => self.which.command("sweep", &format!("--seeds {}..{}", summary.first, summary.end)),
        };
        println!("{again}");
    }
}

//! `muster-sim sweep`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use signal_hook::consts::SIGINT;
use signal_hook::flag;

use super::promised::Promised;
use super::{Failure, Which, print_json, progress, words};
use crate::junit;
use crate::reach::Reach;
use crate::run::{Outcome, Verdict};
use crate::scenario::Scenario;
use crate::states::Reached;
use crate::sweep::{self, Class, SEEDS_A_VARIATION, Summary};
use crate::twice::{Differs, twice};
use crate::vary;

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
    /// Only the seeds. Else, on top of every two seeds, one run is varied that came to states of the protocol which few others
    /// came to, if the scenario draws faults.
    #[arg(long)]
    unguided: bool,
    /// Every this many runs one is run again in a process of its own, and its hash compared; 0 for none.
    #[arg(long, default_value_t = 50)]
    twice_every: u64,
    /// Print every result, and then the summary, as a line of JSON each.
    #[arg(long)]
    json: bool,
    /// Write the results as JUnit XML to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Set by the first Ctrl-C, after which what was seen so far is told. The second ends the program at once.
fn stop_on_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let failure = |error: std::io::Error| Failure(format!("Ctrl-C cannot be heard: {error}"));
    flag::register_conditional_shutdown(SIGINT, 130, stop.clone()).map_err(failure)?;
    flag::register(SIGINT, stop.clone()).map_err(failure)?;
    Ok(stop)
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
        let stop = stop_on_interrupt()?;
        let all = |scenario: &Scenario| {
            let guided = self.guides(scenario);
            let runs = end - first + if guided { (end - first) / SEEDS_A_VARIATION } else { 0 };
            let progress = progress::runs(runs, self.json);
            let told = |outcome: &Outcome| {
                progress.inc(1);
                if outcome.verdict.code() == 1 || outcome.verdict.code() == 2 {
                    progress.println(format!("seed {}: {}", outcome.name, outcome.what()));
                }
            };
            let done = if guided {
                sweep::guided(scenario, first, end, jobs, &stop, told)
            } else {
                sweep::sweep(scenario, first, end, jobs, &stop, told)
            };
            progress.finish_and_clear();
            done
        };
        let (mut summary, outcomes) = all(&scenario);
        if let Some(ours) = sweep::with_majority(&scenario) {
            summary.beside(all(&ours).0);
        }
        if stop.load(Ordering::Relaxed) {
            summary.stop();
        }
        let program = std::env::current_exe().map_err(|error| Failure(error.to_string()))?;
        summary.compare(twice(&program, &self.which.arguments(), &outcomes, self.twice_every));
        if let Some(junit) = junit {
            junit.write(&junit::text(&scenario.title, &outcomes, &summary.twice))?;
        }
        if self.json {
            outcomes.iter().try_for_each(print_json)?;
            let mut summary_json = serde_json::to_value(&summary).map_err(|error| Failure(error.to_string()))?;
            summary_json["too_little"] = summary.too_little().into();
            print_json(&summary_json)?;
        } else {
            self.print(&summary);
        }
        for Differs { seed, here, there } in &summary.twice.differ {
            eprintln!("muster-sim: seed {seed} is not deterministic: hash {here} here, {there} in another process");
        }
        Ok(summary.verdict)
    }

    /// A baseline that is meant to break is compared seed by seed, and shows it by the seeds that it was given.
    fn guides(&self, scenario: &Scenario) -> bool {
        !self.unguided && scenario.expect.breaks.is_none() && vary::varies(scenario)
    }

    fn print(&self, summary: &Summary) {
        let more = match summary.varied {
            0 => String::new(),
            varied => format!(", and {varied} variations of them"),
        };
        println!("{} (seeds {}..{}{more})\n", summary.title, summary.first, summary.end);
        print_classes(&summary.classes);
        if let Some(ours) = &summary.with_majority {
            println!("\nthe same seeds with muster's majority in place of the threshold");
            print_classes(&ours.classes);
        }
        println!("\nsometimes (runs that reached it)");
        for (name, meaning) in crate::sometimes::SOMETIMES {
            match summary.sometimes.get(name) {
                Some(count) => println!("  {count:>7}  {name}: {meaning}"),
                None => println!("  unknown  {name}: {meaning}"),
            }
        }
        if !summary.faults.is_empty() {
            println!("\nfaults (drawn, took effect)");
        }
        for (sort, reach) in &summary.faults {
            let (missed, Reach { drawn, took, .. }) = (reach.missed(), reach);
            println!("  {drawn:>7} {took:>7}  {}{}{missed}", sort.word(), if missed.is_empty() { "" } else { ": " });
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
            "{:.1} s on {} threads: {:.0} runs a minute, {:.1} machine-hours per second of a core, {} events",
            summary.wall_s,
            summary.jobs,
            summary.seeds_per_minute,
            summary.machine_hours_per_core_second,
            summary.events
        );
        let again = match (summary.twice.seeds.len(), summary.twice.differ.len()) {
            (0, _) => "none was run again".to_owned(),
            (seeds, 0) => format!("{seeds} run again in another process: the same"),
            (seeds, differ) => format!("{seeds} run again in another process: {differ} DIFFER"),
        };
        println!("hash of all runs {} ({again})", summary.hash);
        if !summary.missing.is_empty() {
            println!("never reached, though the scenario expects it: {}", summary.missing.join(", "));
        }
        if !summary.never_took.is_empty() {
            let sorts: Vec<String> = summary.never_took.iter().map(|sort| sort.word()).collect();
            println!("drawn, and never took effect: {}", sorts.join(", "));
        }
        let meant = match (&summary.with_majority, summary.verdict) {
            (Some(_), Verdict::Held) => "the threshold breaks what it should, and the majority holds on the same seeds",
            (_, verdict) => words(verdict),
        };
        let judged = format!("on {} of {}", summary.held, summary.counted());
        if summary.stopped {
            println!("stopped after {} of {} seeds", summary.run - summary.varied, summary.end - summary.first);
        }
        print_states(&summary.states);
        println!("\n{}: {meant} (everything was seen to hold {judged})", summary.verdict.word());
        let failing = summary.classes.iter().find_map(|class| class.examples.first());
        let again = match failing {
            Some((seed, _)) => self.which.command("run", &format!("--seed {seed}")),
            None => {
                let unguided = if self.unguided { " --unguided" } else { "" };
                self.which.command("sweep", &format!("--seeds {}..{}{unguided}", summary.first, summary.end))
            }
        };
        println!("{again}");
        let too_little = summary.too_little();
        if !too_little.is_empty() {
            println!("\nTOO LITTLE WAS SEEN: {}", too_little.join("; "));
        }
    }
}

fn print_states(states: &Reached) {
    println!("states of the protocol: {} different ones", states.distinct);
    if !states.never.is_empty() {
        let never = states.never.iter().map(|(dimension, values)| format!("{dimension}: {}", values.join(", ")));
        println!("  never, though this scenario could: {}", never.collect::<Vec<_>>().join("; "));
    }
}

fn print_classes(classes: &[Class]) {
    for class in classes {
        println!("  {:>7}  {} {}", class.count, class.verdict.word(), class.promise.unwrap_or(""));
        for (seed, what) in &class.examples {
            println!("           seed {seed}: {}", what.chars().take(400).collect::<String>());
        }
    }
}

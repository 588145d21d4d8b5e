//! `muster-sim`: runs scenarios and says what held.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use muster_simulator::run::run_traced;
use muster_simulator::scenario::Scenario;
use muster_simulator::trace::Trace;

#[derive(Parser)]
struct Arguments {
    scenario: PathBuf,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long)]
    to: Option<u64>,
    #[arg(long)]
    trace: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let text = std::fs::read_to_string(&arguments.scenario).context("reading the scenario")?;
    let scenario = Scenario::parse(&text)?;
    for seed in arguments.seed..=arguments.to.unwrap_or(arguments.seed) {
        let (outcome, world) = run_traced(&scenario, seed, Trace::new(0));
        if arguments.trace {
            let trace = world.watch().trace.as_ref().context("traced")?;
            for line in &trace.lines {
                println!("{:>12.6} {:>4} {:<14} {}", line.at_us as f64 / 1e6, line.slot.map_or("-".into(), |slot| slot.to_string()), line.kind, line.text);
            }
        }
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    }
    Ok(())
}

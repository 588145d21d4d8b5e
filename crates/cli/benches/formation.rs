//! How long a lab takes from its first agent's start to every machine Ready, and to the charter. Prints; asserts nothing.

#![forbid(unsafe_code)]

use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use serde_json::Value;

#[derive(Parser)]
struct Arguments {
    /// How many labs
    #[arg(long, default_value_t = 20)]
    runs: u32,
    /// Machines of each
    #[arg(long, default_value_t = 5)]
    machines: u32,
    /// Control planes of each
    #[arg(long, default_value_t = 3)]
    control_planes: u32,
    /// The rehearsal kubeadm's pace
    #[arg(long, default_value_t = 0.0)]
    pace: f64,
    /// Random kills while each forms
    #[arg(long, default_value_t = 0)]
    kill_random: u32,
    /// Seconds after which a lab counts as stuck
    #[arg(long, default_value_t = 60)]
    timeout: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (mut ready, mut charter, mut stuck) = (Vec::new(), Vec::new(), 0);
    for run in 1..=arguments.runs {
        match form(&arguments, run) {
            Ok(last) if last["ready"] == true => {
                ready.extend(last["seconds"].as_f64());
                charter.extend(last["charter_seconds"].as_f64());
            }
            Ok(last) => {
                stuck += 1;
                println!("run {run} is stuck: {last}");
            }
            Err(why) => {
                println!("run {run} failed: {why}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{} machines, {} control planes, pace {}, {} random kills, {} runs, {stuck} stuck",
        arguments.machines, arguments.control_planes, arguments.pace, arguments.kill_random, arguments.runs
    );
    println!("{:<28}{:>10}{:>10}{:>10}", "seconds", "min", "median", "max");
    line("first start to all Ready", &mut ready);
    line("first start to charter", &mut charter);
    ExitCode::SUCCESS
}

/// Forms one lab. Its last line says what came of it.
fn form(arguments: &Arguments, seed: u32) -> Result<Value, String> {
    let lab = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["lab", "--once", "--json"])
        .args(["--machines", &arguments.machines.to_string()])
        .args(["--control-planes", &arguments.control_planes.to_string()])
        .args(["--pace", &arguments.pace.to_string()])
        .args(["--kill-random", &arguments.kill_random.to_string()])
        .args(["--seed", &seed.to_string()])
        .args(["--timeout", &arguments.timeout.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&lab.stdout);
    let last = text.lines().last().ok_or_else(|| format!("the lab said nothing: {}", lab.status))?;
    serde_json::from_str(last).map_err(|error| format!("{error}: {last}"))
}

fn line(name: &str, values: &mut [f64]) {
    values.sort_by(f64::total_cmp);
    if let (Some(min), Some(max)) = (values.first(), values.last()) {
        println!("{name:<28}{min:>10.3}{:>10.3}{max:>10.3}", values[values.len() / 2]);
    }
}

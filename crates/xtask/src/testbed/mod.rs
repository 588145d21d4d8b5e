//! The testbed: real machines from one image directory, on this host.

mod arguments;
mod build;
mod by_hand;
mod chaos;
mod check;
mod clients;
mod compare;
mod conformance;
mod failover;
mod host;
mod kubernetes;
mod layout;
mod machine;
mod matrix;
mod network;
mod outage;
mod parts;
mod recover;
mod release;
mod report;
mod timeline;
mod up;
mod written;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Error, Result, bail};

pub(crate) use arguments::Arguments;
use arguments::{Action, NameArguments};
use layout::{Paths, Testbed};
use release::Release;
use report::Report;
use serde_json::json;

use crate::interrupt;

/// Runs one `cargo xtask testbed` command and turns its outcome into an exit code.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let report = Report::new(arguments.json);
    match act(arguments, &report) {
        Ok(code) => code,
        Err(error) => report.failed(&error),
    }
}

fn act(arguments: Arguments, report: &Report) -> Result<ExitCode> {
    let paths = Paths::new(arguments.cache, arguments.state, &arguments.name)?;
    if !paths.is_root() {
        return Err(report::cannot_provision("the testbed needs root: sudo cargo xtask testbed ..."));
    }
    match arguments.action {
        Action::Build(build) => make(&paths, build, report)?,
        Action::Up(form) => {
            interrupt::watch()?;
            up::up(&paths, &form, report)?;
        }
        Action::Status => return status(&paths, report),
        Action::Exec { machine, command } => {
            let testbed = Testbed::load(&paths)?;
            return Err(become_command(testbed.machine(&machine)?.exec(&command)?));
        }
        Action::Kubectl { arguments } => {
            let testbed = Testbed::load(&paths)?;
            return Err(become_command(kubernetes::Cluster::find(&testbed)?.kubectl(&arguments)));
        }
        Action::Logs { machine, follow, unit } => {
            let testbed = Testbed::load(&paths)?;
            return Err(become_command(testbed.machine(&machine)?.exec(&journal(follow, unit))?));
        }
        Action::Kill(names) => each(&paths, &names, |machine| machine.kill())?,
        Action::Wipe(names) => each(&paths, &names, |machine| machine.wipe())?,
        Action::Start(names) => each(&paths, &names, |machine| machine.start())?,
        Action::Move(names) => {
            let mut testbed = Testbed::load(&paths)?;
            for name in &names.machines {
                testbed.machine(name)?.kill()?;
                testbed.lease_again(name)?;
                testbed.machine(name)?.start()?;
            }
        }
        Action::Failover(arguments) => {
            interrupt::watch()?;
            failover::failover(&paths, &arguments, report)?;
        }
        Action::Outage(arguments) => {
            interrupt::watch()?;
            outage::outage(&paths, &arguments, report)?;
        }
        Action::Recover(arguments) => {
            interrupt::watch()?;
            recover::recover(&paths, &arguments, report)?;
        }
        Action::Chaos(arguments) => {
            interrupt::watch()?;
            chaos::chaos(&paths, &arguments, report)?;
        }
        Action::Cut(names) => each(&paths, &names, network::cut)?,
        Action::Heal => {
            for machine in &Testbed::load(&paths)?.machines {
                network::heal(machine)?;
            }
        }
        Action::Check => {
            interrupt::watch()?;
            check::check(&Testbed::load(&paths)?, report)?;
        }
        Action::Conformance(arguments) => conformance::conformance(&paths, &arguments, report)?,
        Action::Matrix(arguments) => {
            interrupt::watch()?;
            matrix::matrix(&paths, &arguments, report)?;
        }
        Action::Down => up::down(&paths, report)?,
        Action::Compare(form) => {
            interrupt::watch()?;
            compare::compare(&paths, &form, report)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds Kubernetes or its kubeadms, and muster where machines are to run it.
fn make(paths: &Paths, build: arguments::BuildArguments, report: &Report) -> Result<()> {
    if build.kubeadms {
        let directory = build::kubeadms(paths, report)?;
        report.result(&json!({ "kubeadms": directory }), directory.display().to_string());
        return Ok(());
    }
    let release = Release::read(&build.kubernetes)?;
    let built = build::build(paths, &release, None, report)?;
    match build.lay_out {
        Some(directory) => {
            built.lay_out(&directory, &release)?;
            report.result(&json!({ "kubernetes": directory }), directory.display().to_string());
        }
        None => _ = build::muster_binary(build.muster)?,
    }
    Ok(())
}

/// The command that prints a machine's journal.
fn journal(follow: bool, unit: String) -> Vec<String> {
    let mut command = vec!["journalctl".to_owned(), "--no-pager".to_owned()];
    if follow {
        command.push("--follow".to_owned());
    }
    if unit != "all" {
        command.extend(["--unit".to_owned(), unit]);
    }
    command
}

/// Turns this process into a command, which then has its terminal, its signals and its exit code; returns only if that fails.
fn become_command(mut command: Command) -> Error {
    let error = command.exec();
    Error::new(error).context(format!("cannot start {}", command.get_program().to_string_lossy()))
}

fn each(paths: &Paths, names: &NameArguments, act: impl Fn(&machine::Machine) -> Result<()>) -> Result<()> {
    let testbed = Testbed::load(paths)?;
    for name in &names.machines {
        act(testbed.machine(name)?).with_context(|| format!("machine {name}"))?;
    }
    Ok(())
}

/// Prints each machine and what Kubernetes says of it; exit code 1 unless all of it is as `up` promises.
fn status(paths: &Paths, report: &Report) -> Result<ExitCode> {
    let testbed = Testbed::load(paths)?;
    let view = kubernetes::Cluster::find(&testbed).and_then(|cluster| cluster.view(&testbed));
    let running = testbed.machines.iter().filter(|machine| machine.running()).count();
    report.machines(&testbed, view.as_ref().ok());
    match view {
        Ok(view) if view.missing(&testbed).is_empty() => Ok(ExitCode::SUCCESS),
        Ok(view) => bail!("{}", view.missing(&testbed).join("; ")),
        Err(error) => Err(error.context(format!("{running} of {} machines run", testbed.machines.len()))),
    }
}

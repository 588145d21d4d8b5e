//! The one binary, `muster`: the agent, the lab, and the commands that look into a machine. Called by the name `kubeadm`
//! it is the rehearsal kubeadm of a lab.

#![forbid(unsafe_code)]

mod api;
mod args;
mod backup;
mod bundle;
mod config;
mod configure;
mod exit;
mod guard;
mod image;
mod lab;
mod leave;
mod look;
mod print;
mod recover;
mod run;
mod text;
mod volumes;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};

use api::Unheard;
use args::{Arguments, Command};
use exit::Exit;

fn main() -> ExitCode {
    if muster_rehearsal::is_called_by(std::env::args_os()) {
        return muster_rehearsal::main(std::env::args_os());
    }
    let arguments = Arguments::parse();
    match carry_out(arguments.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            print::complaint(&format!("error: {error:#}"));
            match error.downcast_ref::<Unheard>() {
                Some(_) => Exit::NoAgent.into(),
                None => Exit::Failed.into(),
            }
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Lab(arguments) => runtime()?.block_on(lab::run(*arguments)),
        Command::Status(arguments) => runtime()?.block_on(look::status(&arguments)),
        Command::Explain(arguments) => runtime()?.block_on(look::explain(&arguments)),
        Command::Logs(arguments) => runtime()?.block_on(look::logs(&arguments)),
        Command::Bundle(arguments) => runtime()?.block_on(bundle::bundle(&arguments)),
        Command::Remove(arguments) => runtime()?.block_on(leave::remove(&arguments)),
        Command::Reset(arguments) => runtime()?.block_on(leave::reset(&arguments)),
        Command::Recover(arguments) => runtime()?.block_on(recover::recover(&arguments)),
        Command::Backup { action } => runtime()?.block_on(backup::carry_out(&action)),
        Command::Salvage(arguments) => recover::salvage(&arguments),
        Command::Image { action } => runtime()?.block_on(image::carry_out(&action)),
        Command::Guard(arguments) => runtime()?.block_on(guard::carry_out(&arguments)),
        Command::Endpoint(arguments) => run::endpoint(arguments),
        Command::Config { action } => configure::carry_out(&action),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "muster", &mut script);
            print::raw(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Done)
        }
        Command::Man { directory } => manual(directory.as_deref()),
        Command::Version { json } => {
            configure::version(json)?;
            Ok(Exit::Done)
        }
    }
}

/// Writes what `--help` says as manual pages.
fn manual(directory: Option<&Path>) -> anyhow::Result<Exit> {
    let command = Arguments::command();
    match directory {
        Some(directory) => {
            let cannot = || format!("{} cannot be written", directory.display());
            std::fs::create_dir_all(directory).with_context(cannot)?;
            clap_mangen::generate_to(command, directory).with_context(cannot)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            print::raw(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(Exit::Done)
}

/// One thread: it waits nearly always, and a lab's machines are to end with the thread that started them.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

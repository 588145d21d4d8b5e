//! `fix` and `transcripts`: what is written by the machine and read by people.

use std::process::{Command, ExitCode};

use clap::Args;

/// The protocol's exchanges, a command a line with all that it brings about: crates/protocol/tests/transcripts.
#[derive(Debug, Args)]
pub(crate) struct Transcripts {
    /// Write what comes out; `git diff` is then what a change does
    #[arg(long)]
    bless: bool,
}

pub(crate) fn transcripts(arguments: &Transcripts) -> ExitCode {
    let mut test = Command::new("cargo");
    test.args(["test", "--locked", "--package", "muster-protocol", "--test", "transcripts"]);
    if arguments.bless {
        test.env("MUSTER_BLESS", "1");
    }
    end(&mut test)
}

pub(crate) fn fix() -> ExitCode {
    let mut clippy = Command::new("cargo");
    clippy.args(["clippy", "--fix", "--allow-dirty", "--allow-staged", "--workspace", "--all-targets", "--locked"]);
    let mended = end(&mut clippy);
    let formatted = end(Command::new("cargo").args(["fmt", "--all"]));
    if mended == ExitCode::SUCCESS { formatted } else { mended }
}

fn end(command: &mut Command) -> ExitCode {
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("cargo xtask: {command:?} ended with {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cargo xtask: cannot start {command:?}: {error}");
            ExitCode::FAILURE
        }
    }
}

//! The project's own tasks, started as `cargo xtask`.
#![forbid(unsafe_code)]

mod command;
mod image_test;
mod interrupt;
mod package;
mod packages;
mod testbed;
mod upkeep;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "muster's own tasks", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Real machines with real systemd, kubelet, kubeadm and etcd on this host
    Testbed(testbed::Arguments),
    /// Build a disk image twice, compare, damage and boot it
    ImageTest(image_test::Arguments),
    /// Build muster's Debian package, for images that are built in another way
    Deb(package::Arguments),
    /// What every change must pass, fastest first
    Verify(verify::Arguments),
    /// Format, and mend what clippy can mend
    Fix,
    /// The protocol's transcripts: compare them with what happens, or write them
    Transcripts(upkeep::Transcripts),
}

fn main() -> ExitCode {
    match Arguments::parse().task {
        Task::Testbed(arguments) => testbed::run(arguments),
        Task::ImageTest(arguments) => image_test::run(&arguments),
        Task::Deb(arguments) => package::run(&arguments),
        Task::Verify(arguments) => verify::run(&arguments),
        Task::Fix => upkeep::fix(),
        Task::Transcripts(arguments) => upkeep::transcripts(&arguments),
    }
}

//! `deb`: muster's Debian package, for images that somebody builds in another way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::command::{command, output};
use crate::packages;

/// The version of cargo-deb that is installed where it is missing.
const CARGO_DEB: &str = "3.8.0";

/// Where what belongs to the package besides the program is made: `crates/cli/Cargo.toml` takes it from there.
const MADE: &str = "target/deb";

/// What a package must have, whatever else is in it.
const CONTENTS: [&str; 7] = [
    "./usr/bin/muster",
    "./usr/lib/systemd/system/muster.service",
    "./usr/lib/systemd/system/kubelet.service.d/20-muster.conf",
    "./usr/share/bash-completion/completions/muster",
    "./usr/share/fish/vendor_completions.d/muster.fish",
    "./usr/share/man/man1/muster-run.1.gz",
    "./usr/share/zsh/vendor-completions/_muster",
];

/// Builds muster's Debian package: the program, its units, completions for shells, manual pages and docs.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where to write it
    #[arg(long, value_name = "DIR", default_value = "target/debian")]
    out: PathBuf,
}

/// Builds it.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match carry_out(&arguments.out) {
        Ok(package) => {
            println!("{}", package.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cargo xtask deb: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(out: &Path) -> Result<PathBuf> {
    packages::install(&["dpkg-dev"], |step| println!("{step}"))?;
    cargo(&["build", "--release", "--locked", "--package", "muster"])?;
    let made = Path::new(MADE);
    fs::create_dir_all(made.join("man"))?;
    let muster = Path::new("target/release/muster");
    for (shell, file) in [("bash", "muster.bash"), ("zsh", "_muster"), ("fish", "muster.fish")] {
        fs::write(made.join(file), output(&mut command(muster, ["completions", shell]))?)?;
    }
    output(command(muster, ["man"]).arg(made.join("man")))?;
    if !Command::new("cargo").args(["deb", "--version"]).output().is_ok_and(|said| said.status.success()) {
        cargo(&["install", "--locked", "--quiet", "cargo-deb", "--version", CARGO_DEB])?;
    }
    fs::create_dir_all(out)?;
    let words = ["deb", "--package", "muster", "--no-build", "--no-strip", "--locked", "--quiet", "--output"];
    let file = out.join("muster.deb");
    let done = Command::new("cargo").args(words).arg(&file).status()?;
    ensure!(done.success(), "cargo deb failed");
    let contents = output(command("dpkg-deb", ["--contents"]).arg(&file))?;
    for path in CONTENTS {
        ensure!(contents.lines().any(|line| line.ends_with(&format!(" {path}"))), "the package has no {path}");
    }
    let about =
        output(command("dpkg-deb", ["--showformat=${Package}_${Version}_${Architecture}", "--show"]).arg(&file))?;
    let named = out.join(format!("{}.deb", about.trim()));
    fs::rename(file, &named).context("the package cannot be named")?;
    Ok(named)
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let done = Command::new("cargo").args(arguments).status().context("cargo cannot be started")?;
    ensure!(done.success(), "cargo {} failed", arguments[0]);
    Ok(())
}

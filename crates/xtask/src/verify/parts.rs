//! What each part of `verify` runs.

use std::fs;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Outcome, Part};

/// The version of cargo-deny that is installed where it is missing.
const DENY_VERSION: &str = "0.20.2";

/// Machines and control planes of the labs.
const LABS: [(&str, &str); 4] = [("5", "3"), ("1", "1"), ("3", "1"), ("7", "5")];

/// A thousand machines take minutes a seed: for benchmarks, not for every change.
const LARGE: &str = "thousand.toml";

/// Where the testbed keeps the kubeadms that it builds.
const KUBEADMS: &str = "/var/cache/muster-testbed/kubeadms";

pub(super) fn run(part: Part) -> Result<Outcome> {
    match part {
        Part::Fmt => cargo(&["fmt", "--all", "--check"])?,
        Part::Deny => return deny(),
        Part::Clippy => {
            cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"])?;
        }
        Part::Doc => succeed(
            Command::new("cargo")
                .args(["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"])
                .env("RUSTDOCFLAGS", "--deny warnings"),
        )?,
        Part::Fuzz => {
            cargo(&["check", "--manifest-path", "tests/fuzz/Cargo.toml", "--locked", "--target-dir", "target/fuzz"])?;
        }
        Part::Lab => lab()?,
        Part::Simulations => simulations()?,
        Part::Browser => succeed(&mut Command::new("tests/browser/run.sh"))?,
        Part::Testbed => return testbed(),
        Part::Image => return image(),
        Part::Kubeadms => return kubeadms(),
        Part::Tests => tests()?,
    }
    Ok(Outcome::Passed)
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    succeed(Command::new("cargo").args(arguments))
}

/// Whether machines can be made here: root on Debian.
fn is_testbed_host() -> bool {
    let root = fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t0\t")));
    root && fs::read_to_string("/etc/os-release").is_ok_and(|release| release.lines().any(|line| line == "ID=debian"))
}

/// Advisories come from the network; without it there is nothing to say of them.
fn deny() -> Result<Outcome> {
    let there = Command::new("cargo").args(["deny", "--version"]).output().is_ok_and(|output| output.status.success());
    if !there {
        cargo(&["install", "--locked", "--quiet", "cargo-deny", "--version", DENY_VERSION])?;
    }
    cargo(&["deny", "--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"])?;
    Ok(match cargo(&["deny", "--locked", "check", "advisories"]) {
        Ok(()) => Outcome::Passed,
        Err(_) => Outcome::LeftOut("passed, but for advisories: see above".to_owned()),
    })
}

fn lab() -> Result<()> {
    cargo(&["build", "--release", "--locked"])?;
    for (machines, control_planes) in LABS {
        succeed(Command::new("target/release/muster").args(["lab", "--once", "--timeout", "120"]).args([
            "--machines",
            machines,
            "--control-planes",
            control_planes,
        ]))?;
    }
    Ok(())
}

/// Exit code 3 says that too few seeds were run to see everything: no failure here.
fn simulations() -> Result<()> {
    cargo(&["build", "--release", "--locked", "--package", "muster-simulator"])?;
    for scenario in scenarios()? {
        let mut sweep = Command::new("target/release/muster-sim");
        sweep.arg("sweep").arg(&scenario).args(["--seeds", "0..20"]).stdin(Stdio::null());
        let status = sweep.status().context("cannot start muster-sim")?;
        if !matches!(status.code(), Some(0 | 3)) {
            bail!("{} ended with {status}", scenario.display());
        }
    }
    Ok(())
}

fn scenarios() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir("simulations").context("cannot read simulations")?;
    let paths =
        entries.map(|entry| Ok(entry.context("cannot read simulations")?.path())).collect::<Result<Vec<_>>>()?;
    let is_small = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml") && !path.ends_with(LARGE);
    let mut scenarios: Vec<PathBuf> = paths.into_iter().filter(is_small).collect();
    scenarios.sort();
    Ok(scenarios)
}

/// Takes the testbed down again, whatever became of it.
struct Down(String);

impl Drop for Down {
    fn drop(&mut self) {
        if let Err(error) = cargo(&["xtask", "testbed", "--name", &self.0, "down"]) {
            eprintln!("the testbed {:?} is left: {error:#}", self.0);
        }
    }
}

/// Its exit code 1 is a cluster that did not form; 2 is a host that cannot be provisioned, which is reported and passes.
fn testbed() -> Result<Outcome> {
    if !is_testbed_host() {
        return Ok(Outcome::LeftOut("needs root on Debian: left out".to_owned()));
    }
    let down = Down(format!("ci-{}", process::id()));
    let name = ["xtask", "testbed", "--name", down.0.as_str()];
    let mut up = Command::new("cargo");
    up.args(name).args(["up", "--machines", "4", "--control-planes", "3", "--timeout", "900"]).stdin(Stdio::null());
    let status = up.status().context("cannot start cargo")?;
    match status.code() {
        Some(0) => {}
        Some(2) => return Ok(Outcome::LeftOut("THIS HOST COULD NOT BE PROVISIONED; no real machines".to_owned())),
        _ => bail!("{up:?} ended with {status}"),
    }
    for command in ["check", "conformance", "status"] {
        succeed(Command::new("cargo").args(name).arg(command))?;
    }
    Ok(Outcome::LeftOut(
        "passed on 1.37, 3 control planes and a worker; left out for time: 1.34 to 1.36 (`matrix`), failover, compare, \
         Kubernetes' own conformance tests (--focus)"
            .to_owned(),
    ))
}

/// The disk image, built twice, damaged, verified.
fn image() -> Result<Outcome> {
    if !is_testbed_host() {
        return Ok(Outcome::LeftOut("needs root on Debian: left out".to_owned()));
    }
    cargo(&["build", "--release", "--locked"])?;
    cargo(&["xtask", "image-test", "--muster", "target/release/muster", "--no-boot"])?;
    Ok(Outcome::LeftOut(
        "passed; left out for time: machines that start from it and form (`image-test --machines 3`), Debian's packages \
         fetched twice (--whole)"
            .to_owned(),
    ))
}

fn kubeadms() -> Result<Outcome> {
    if !is_testbed_host() {
        return Ok(Outcome::LeftOut(
            "need root on Debian: the rehearsal is not compared with the real ones".to_owned(),
        ));
    }
    if cargo(&["xtask", "testbed", "build", "--kubeadms"]).is_err() {
        return Ok(Outcome::LeftOut(
            "COULD NOT BE BUILT; the rehearsal is compared with those that are there".to_owned(),
        ));
    }
    Ok(Outcome::Passed)
}

/// The README's own command. Where the real kubeadms can be there, the comparison with them is required.
fn tests() -> Result<()> {
    let mut tests = Command::new("cargo");
    tests.args(["test", "--workspace", "--locked"]);
    // Where the testbed runs there are network namespaces, too.
    if is_testbed_host() {
        tests.env("MUSTER_NAMESPACES_REQUIRED", "1");
    }
    if fs::read_dir(KUBEADMS).is_ok_and(|mut kubeadms| kubeadms.next().is_some()) {
        tests.env("MUSTER_KUBEADMS", KUBEADMS).env("MUSTER_KUBEADMS_REQUIRED", "1");
    }
    succeed(&mut tests)
}

//! `conformance`: Kubernetes' own tests against a cluster that is up. Their own words decide.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::arguments::ConformanceArguments;
use super::build::cannot_build;
use super::kubernetes::Cluster;
use super::layout::{Paths, Testbed};
use super::parts::{self, Part};
use super::release::Release;
use super::report::Report;

/// Specs of kubeadm's acceptance tests that a cluster of muster's cannot pass, and why. They are left out by name.
const LEFT_OUT: [(&str, &str); 2] = [
    ("copy-certs", "muster uploads no certificates: whoever holds a join token could read them"),
    ("networking", "these ask for a dual-stack cluster by a file that the cluster's maker writes"),
];

/// Runs kubeadm's acceptance tests, or those of Kubernetes' own that `--focus` chooses.
pub(crate) fn conformance(paths: &Paths, arguments: &ConformanceArguments, report: &Report) -> Result<()> {
    let testbed = Testbed::load(paths)?;
    // Finding the cluster writes the kubeconfig that a person, and these tests, can use as it is.
    Cluster::find(&testbed)?;
    let kubeconfig = testbed.state.join("kubeconfig");
    let minor = Release::minor_of(&testbed.kubernetes).context("the testbed's Kubernetes has no minor version")?;
    let (part, program) = match arguments.focus {
        None => (Part::acceptance(minor), "e2e_kubeadm.test"),
        Some(_) => (Part::conformance(minor), "e2e.test"),
    };
    cannot_build(|| {
        let _lock = paths.lock(&paths.cache)?;
        parts::build(paths, std::slice::from_ref(&part), report)
    })?;
    let mut tests = Command::new(part.directory(paths)?.join(program));
    tests.current_dir(&testbed.state).arg(format!("--kubeconfig={}", kubeconfig.display()));
    match &arguments.focus {
        None => {
            for (name, why) in LEFT_OUT {
                report.step(format!("left out: {name}: {why}"));
            }
            let skip = LEFT_OUT.map(|(name, _)| name).join("|");
            tests.args(["--ginkgo.v", &format!("--ginkgo.skip={skip}")]);
        }
        Some(focus) => {
            tests.args(["--provider=skeleton", "--ginkgo.v", &format!("--ginkgo.focus={focus}")]);
        }
    }
    let status = tests.status().with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("{program} ended with {status}; its own words are above");
    }
    report.result(
        &json!({ "conformance": true, "tests": program }),
        format!("{program} passed; its own words are above."),
    );
    Ok(())
}

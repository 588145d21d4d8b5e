//! `conformance`: Kubernetes' own tests against a cluster that is up. Their own words decide.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::arguments::ConformanceArguments;
use super::build::cannot_build;
use super::kubernetes::Cluster;
use super::layout::{Paths, Testbed};
use super::machine::Machine;
use super::parts::{self, Part};
use super::release::Release;
use super::report::Report;
use crate::command::output;

/// Specs of kubeadm's acceptance tests that a cluster of muster's cannot pass, and why. They are left out by name.
const LEFT_OUT: [(&str, &str); 2] = [
    ("copy-certs", "muster uploads no certificates: whoever holds a join token could read them"),
    ("networking", "these ask for a dual-stack cluster by a file that the cluster's maker writes"),
];

/// How long the controller manager may take to sign with a new token: it looks every few seconds.
const SIGNED_WITHIN: Duration = Duration::from_secs(60);

/// Runs kubeadm's acceptance tests, or those of Kubernetes' own that `--focus` chooses.
pub(crate) fn conformance(paths: &Paths, arguments: &ConformanceArguments, report: &Report) -> Result<()> {
    let testbed = Testbed::load(paths)?;
    let kubeconfig = testbed.state.join("conformance.conf");
    let nodes = Cluster::find(&testbed)?.nodes()?;
    let plane = |machine: &&Machine| nodes.iter().any(|node| node.control_plane && node.address == machine.address);
    let mut planes = testbed.machines.iter().filter(plane).map(|machine| (machine, Cluster::at(&testbed, machine)));
    let (machine, server) =
        planes.find(|(_, server)| server.raw("/readyz").is_ok()).context("no control plane's API server answers")?;
    server.write_direct(&kubeconfig)?;
    let minor = Release::minor_of(&testbed.kubernetes).context("the testbed's Kubernetes has no minor version")?;
    let (part, program) = match arguments.focus {
        None => (Part::acceptance(minor), "e2e_kubeadm.test"),
        Some(_) => (Part::conformance(minor), "e2e.test"),
    };
    cannot_build(|| {
        let _lock = paths.lock(&paths.cache, report)?;
        parts::build(paths, std::slice::from_ref(&part), report)
    })?;
    let mut tests = Command::new(part.directory(paths)?.join(program));
    tests.current_dir(&testbed.state).arg(format!("--kubeconfig={}", kubeconfig.display()));
    match &arguments.focus {
        None => {
            report
                .step("these want a live bootstrap token, and muster leaves none behind: one is made for ten minutes");
            make_token(machine, &server)?;
            for (name, why) in LEFT_OUT {
                report.step(format!("left out: {name}: {why}"));
            }
            let skip = LEFT_OUT.map(|(name, _)| name).join("|");
            tests.args(["--ginkgo.v", "--ginkgo.no-color", &format!("--ginkgo.skip={skip}")]);
        }
        Some(focus) => {
            report.step("of the images that these tests use agnhost and pause are here; a test that wants another one fails for it");
            tests.args(["--provider=skeleton", "--ginkgo.v", "--ginkgo.no-color", &format!("--ginkgo.focus={focus}")]);
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

/// Makes a bootstrap token as a person would, and waits until the cluster signs what it shows to joining machines with it.
fn make_token(machine: &Machine, cluster: &Cluster) -> Result<()> {
    let create = ["kubeadm", "--kubeconfig=/etc/kubernetes/admin.conf", "token", "create", "--ttl=10m"];
    let token = output(&mut machine.exec(&create)?)?;
    let signature = format!("jws-kubeconfig-{}", token.trim().split('.').next().unwrap_or_default());
    let started = Instant::now();
    while !cluster.raw("/api/v1/namespaces/kube-public/configmaps/cluster-info")?.contains(&signature) {
        if started.elapsed() > SIGNED_WITHIN {
            bail!("cluster-info has no {signature} after {} s", SIGNED_WITHIN.as_secs());
        }
        sleep(Duration::from_millis(500));
    }
    Ok(())
}

//! `failover`: takes the power of one control plane after the other, and asks everywhere whether kubectl still works.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::arguments::FailoverArguments;
use super::kubernetes::{Cluster, View};
use super::layout::{Paths, Testbed};
use super::machine::Machine;
use super::report::{Report, round};
use super::up;
use crate::command::output;
use crate::interrupt;

/// How often it is asked whether everything works again.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// What kubectl is told to wait for an answer at most.
const ANSWER_TIMEOUT: &str = "--request-timeout=5s";

/// Kills each control plane in turn; fails if kubectl stops working anywhere, or the machine does not come back.
pub(crate) fn failover(paths: &Paths, arguments: &FailoverArguments, report: &Report) -> Result<()> {
    let testbed = Testbed::load(paths)?;
    if testbed.control_planes < 3 {
        bail!("{} control planes cannot lose one: etcd needs a majority", testbed.control_planes);
    }
    let mut losses = Vec::new();
    for machine in control_planes(&testbed, &whole(&testbed)?) {
        let name = machine.name.as_str();
        let (works, back) = lose(&testbed, machine, arguments, report)
            .with_context(|| format!("after the loss of {name}; `start {name}` brings it back"))?;
        report.step(format!(
            "{name}: everywhere else kubectl had answered within {works:.1} s of its loss, and did for {:.0} s on; \
             back and whole {back:.1} s after it was started",
            arguments.steady.as_secs_f64()
        ));
        losses.push(json!({ "machine": name, "works_seconds": round(works), "back_seconds": round(back) }));
    }
    let text = format!("kubectl worked everywhere through the loss of each of {} control planes.", losses.len());
    report.result(&json!({ "failover": true, "losses": losses }), text);
    Ok(())
}

/// A look at a cluster that lacks nothing.
fn whole(testbed: &Testbed) -> Result<View> {
    let view = Cluster::find(testbed)?.view(testbed)?;
    let missing = view.missing(testbed);
    if !missing.is_empty() {
        bail!("the cluster is not whole: {}", missing.join("; "));
    }
    Ok(view)
}

fn control_planes<'a>(testbed: &'a Testbed, view: &View) -> Vec<&'a Machine> {
    let is_one =
        |machine: &&Machine| view.nodes.iter().any(|node| node.control_plane && node.address == machine.address);
    testbed.machines.iter().filter(is_one).collect()
}

/// Takes one machine away and gives it back; returns how long each took to be well again.
fn lose(testbed: &Testbed, lost: &Machine, arguments: &FailoverArguments, report: &Report) -> Result<(f64, f64)> {
    let name = &lost.name;
    report.step(format!("{name}: the power is gone"));
    let killed = Instant::now();
    lost.kill()?;
    let others: Vec<&Machine> = testbed.machines.iter().filter(|machine| machine.name != *name).collect();
    let works =
        until(arguments.timeout, || others.iter().try_for_each(|machine| kubectl_works(testbed, machine, name)))?;
    let worked = Instant::now();
    while worked.elapsed() < arguments.steady {
        others.iter().try_for_each(|machine| kubectl_works(testbed, machine, name)).context("it had worked again")?;
        interrupt::sleep(ASK_EVERY)?;
    }
    report.step(format!("{name}: starts, {:.1} s after its power was gone", killed.elapsed().as_secs_f64()));
    let started_at = up::now();
    lost.start()?;
    let back = until(arguments.timeout, || is_back(testbed, lost, started_at))?;
    Ok((works, back))
}

/// Repeats a question until its answer is good, and returns after how many seconds that was there.
fn until(timeout: Duration, question: impl Fn() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    loop {
        match question() {
            Ok(()) => return Ok(started.elapsed().as_secs_f64()),
            Err(error) if started.elapsed() > timeout => {
                return Err(error.context(format!("still so after {} s", timeout.as_secs())));
            }
            Err(_) => interrupt::sleep(ASK_EVERY)?,
        }
    }
}

/// Asks as a person would: from the host through the machine, where something is written, and on the machine itself.
fn kubectl_works(testbed: &Testbed, machine: &Machine, lost: &str) -> Result<()> {
    let note = format!("testbed/last-lost={lost}");
    let mut write = Cluster::through(testbed, machine).kubectl(&[
        "annotate",
        "namespace",
        "default",
        "--overwrite",
        &note,
        ANSWER_TIMEOUT,
    ]);
    answered(&mut write).with_context(|| format!("kubectl on the host, through {}", machine.name))?;
    // A worker has no administrator's kubeconfig; its kubelet's may read its own Node.
    let read = "config=/etc/kubernetes/admin.conf; [ -e $config ] || config=/etc/kubernetes/kubelet.conf; \
                kubectl --kubeconfig $config get node $(hostname) $0";
    let mut read = machine.exec(&["sh", "-c", read, ANSWER_TIMEOUT])?;
    answered(&mut read).with_context(|| format!("kubectl on {}", machine.name))
}

fn answered(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Whether a machine does its part again: its Node is alive, its own API server serves, and nothing of the cluster is missing.
fn is_back(testbed: &Testbed, machine: &Machine, started_at: f64) -> Result<()> {
    let cluster = Cluster::find(testbed)?;
    let nodes = cluster.nodes()?;
    let node = nodes.iter().find(|node| node.address == machine.address).context("its Node is gone")?;
    // A Node counts as Ready for 40 s after its machine died: only a sign of life since then says something.
    if cluster.renewed_at(&node.name)? < started_at {
        bail!("the kubelet of {} has not said anything since it was started", machine.name);
    }
    Cluster::at(testbed, machine).raw("/readyz").with_context(|| format!("the API server of {}", machine.name))?;
    whole(testbed).map(drop)
}

//! `matrix`: every version, with one control plane and with three: formed, used, still whole two minutes later, taken down.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::arguments::{FormArguments, MatrixArguments};
use super::kubernetes::Cluster;
use super::layout::{Images, Paths, Testbed};
use super::report::{Report, round};
use super::{build, check, up};
use crate::command::output;
use crate::interrupt;

/// One row of the table.
struct Row {
    kubernetes: String,
    control_planes: u8,
    workers: u8,
    older: u8,
    outcome: Result<Times>,
}

struct Times {
    ready: f64,
    whole: f64,
    check: f64,
    resets: u64,
}

/// Forms a cluster of each version and size, one after the other, and prints a table. Fails if any row does.
pub(crate) fn matrix(paths: &Paths, arguments: &MatrixArguments, report: &Report) -> Result<()> {
    let muster = build::muster_binary(arguments.muster.clone())?;
    let mut rows = Vec::new();
    for kubernetes in &arguments.kubernetes {
        for control_planes in arguments.control_planes.iter().copied() {
            let older = u8::from(arguments.older_kubernetes.is_some());
            let form = FormArguments {
                kubernetes: kubernetes.clone(),
                control_planes,
                machines: control_planes + arguments.workers.max(older),
                older,
                older_kubernetes: arguments.older_kubernetes.clone().unwrap_or_default(),
                ..FormArguments::plain(arguments.timeout)
            };
            report.step(format!("Kubernetes {kubernetes}, {control_planes} control planes"));
            let place = paths.sibling("matrix")?;
            let outcome = once(&place, &form, &muster, arguments.later, report);
            if interrupt::requested() {
                up::down(&place, report)?;
                bail!("interrupted");
            }
            if let Err(error) = &outcome {
                report.step(format!("failed: {error:#}"));
            }
            up::down(&place, report)?;
            let workers = form.machines - control_planes;
            rows.push(Row { kubernetes: kubernetes.clone(), control_planes, workers, older, outcome });
        }
    }
    let failed = rows.iter().filter(|row| row.outcome.is_err()).count();
    report.result(&json!({ "matrix": rows.iter().map(Row::json).collect::<Vec<_>>(), "failed": failed }), table(&rows));
    if failed > 0 {
        bail!("{failed} of {} rows failed", rows.len());
    }
    Ok(())
}

fn once(
    paths: &Paths,
    form: &FormArguments,
    muster: &std::path::Path,
    later: Duration,
    report: &Report,
) -> Result<Times> {
    if paths.state.exists() {
        up::down(paths, report)?;
    }
    let images = Images::build(paths, form, report)?;
    let testbed = Testbed::create(paths, &images, form, report)?;
    up::boot(&testbed, form, Some(muster), report)?;
    let formed = up::wait_until_formed(&testbed, form.timeout, report)?;
    let check = check::check(&testbed, report)?;
    interrupt::sleep(later)?;
    still_whole(&testbed)?;
    Ok(Times { ready: formed.ready, whole: formed.whole, check, resets: resets(&testbed)? })
}

/// Five Ready Nodes may be a moment in a loop, so it is looked at again.
fn still_whole(testbed: &Testbed) -> Result<()> {
    let missing = Cluster::find(testbed)?.view(testbed)?.missing(testbed);
    if !missing.is_empty() {
        bail!("it is not whole any more: {}", missing.join("; "));
    }
    Ok(())
}

/// How often any machine reset its kubeadm work.
pub(crate) fn resets(testbed: &Testbed) -> Result<u64> {
    let mut resets = 0;
    for machine in testbed.machines.iter().filter(|machine| machine.muster) {
        // Exit code 1 says that the machine is not Ready; what it prints is the same.
        let said = output(&mut machine.exec(&["sh", "-c", "timeout 5 muster status --json || :"])?)?;
        let status: Value = serde_json::from_str(&said).with_context(|| format!("{} says no JSON", machine.name))?;
        resets += status["resets"].as_u64().unwrap_or_default();
    }
    Ok(resets)
}

impl Row {
    fn json(&self) -> Value {
        let (times, error) = match &self.outcome {
            Ok(times) => (Some(times), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        json!({
            "kubernetes": self.kubernetes,
            "control_planes": self.control_planes,
            "workers": self.workers,
            "older": self.older,
            "ready_seconds": times.map(|times| round(times.ready)),
            "whole_seconds": times.map(|times| round(times.whole)),
            "check_seconds": times.map(|times| round(times.check)),
            "resets": times.map(|times| times.resets),
            "error": error,
        })
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<12} {:>14} {:>8} {:>6} {:>8} {:>8} {:>10} {:>7}  LATER",
        "KUBERNETES", "CONTROL PLANES", "WORKERS", "OLDER", "READY", "WHOLE", "NETWORK", "RESETS"
    );
    for row in rows {
        let start = format!("\n{:<12} {:>14} {:>8} {:>6}", row.kubernetes, row.control_planes, row.workers, row.older);
        text += &start;
        text += &match &row.outcome {
            Ok(times) => format!(
                " {:>6.1} s {:>6.1} s {:>8.1} s {:>7}  whole",
                times.ready, times.whole, times.check, times.resets
            ),
            Err(error) => format!("  failed: {}", format!("{error:#}").lines().next().unwrap_or_default()),
        };
    }
    text
}

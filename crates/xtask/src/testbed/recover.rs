//! `recover`: all control planes but one lose their power for good, and `muster recover` on the one that is left goes on with what it has. It is
//! measured how long that takes, how long until there are as many as before, and whether what had been acknowledged is lost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::arguments::RecoverArguments;
use super::failover::{until, whole};
use super::kubernetes::Cluster;
use super::layout::{Paths, Testbed};
use super::machine::Machine;
use super::report::{Report, round};
use super::written::{WRITTEN, Written};
use crate::command::output;
use crate::interrupt;

/// Longest time for each part of it.
const LIMIT: Duration = Duration::from_secs(900);

/// One recovery.
struct Recovery {
    /// Seconds from the command until the API answered.
    answers: f64,
    /// Seconds from the others' start until all was whole.
    whole: f64,
    /// How many of what was acknowledged before is gone.
    lost: usize,
}

/// Takes a majority's power away for good.
pub(crate) fn recover(paths: &Paths, arguments: &RecoverArguments, report: &Report) -> Result<()> {
    let testbed = Testbed::load(paths)?;
    let mut all = Vec::new();
    for round in 1..=arguments.rounds {
        until(LIMIT, || whole(&testbed).map(drop))?;
        all.push(one(&testbed, arguments, round, report)?);
    }
    let lost: usize = all.iter().map(|recovery| recovery.lost).sum();
    let rows: Vec<Value> = all.iter().map(Recovery::json).collect();
    report.result(&json!({ "recover": lost == 0, "old_disks": arguments.old, "recoveries": rows }), table(&all));
    if lost > 0 {
        bail!("{lost} acknowledged writes are lost");
    }
    Ok(())
}

impl Recovery {
    fn json(&self) -> Value {
        json!({ "answers_seconds": round(self.answers), "whole_seconds": round(self.whole), "lost_writes": self.lost })
    }
}

fn table(all: &[Recovery]) -> String {
    let mut text = format!("{:>14} {:>10} {:>12}\n", "API AGAIN", "WHOLE", "WRITES LOST");
    for recovery in all {
        text += &format!("{:>12.1} s {:>8.1} s {:>7} of {WRITTEN}\n", recovery.answers, recovery.whole, recovery.lost);
    }
    text + "API again: counted from the command. Whole: as many control planes as before, counted from the start of the others."
}

/// Whether the kubelet of a machine that came back with its old disk was not let start before what it would have started was gone.
fn old_kubelet_waited(machine: &Machine) -> Result<()> {
    let said = output(&mut machine.exec(&["journalctl", "-b", "--unit=kubelet", "--output=cat"])?)?;
    let first = |words: &str| said.lines().position(|line| line.starts_with(words));
    match (first("Stopped kubelet"), first("Started kubelet")) {
        (Some(stopped), Some(started)) if stopped < started => Ok(()),
        _ => bail!("{}: its kubelet started with what was there before the recovery", machine.name),
    }
}

fn one(testbed: &Testbed, arguments: &RecoverArguments, round: u32, report: &Report) -> Result<Recovery> {
    let cluster = Cluster::find(testbed)?;
    let written = Written::write(&cluster, &format!("recover-{round}"))?;
    let view = cluster.view(testbed)?;
    let plane =
        |machine: &&Machine| view.nodes.iter().any(|node| node.control_plane && node.address == machine.address);
    let (planes, others): (Vec<&Machine>, Vec<&Machine>) = testbed.machines.iter().partition(plane);
    let (left, gone) = planes.split_last().context("no control plane")?;
    if gone.is_empty() {
        bail!("there is one control plane: nothing is lost with no other one");
    }
    for machine in gone {
        machine.kill()?;
    }
    report.step(format!("recovery {round}: {} is left of {} control planes", left.name, planes.len()));
    if arguments.reboot {
        left.kill()?;
        left.start()?;
    }
    // Until then it may still be that they are merely slow.
    until(LIMIT, || output(&mut left.exec(&["muster", "recover", "--dry-run"])?).map(drop))?;
    let asked = Instant::now();
    output(&mut left.exec(&["muster", "recover", "--yes", "--no-wait"])?)?;
    let answers = until(LIMIT, || {
        interrupt::sleep(Duration::from_millis(50))?;
        // Before etcd is stopped the old one still reads.
        let epoch = output(&mut left.exec(&["sh", "-c", "ls -d /var/lib/etcd/member-before-epoch-*"])?)?;
        let epochs = epoch.lines().count();
        let rebuilt =
            output(&mut left.exec(&["sh", "-c", "ls -d /var/lib/etcd/muster-salvage-* 2>/dev/null | wc -l"])?)?;
        if epochs == 0 || rebuilt.trim() != "0" {
            bail!("etcd is not rebuilt yet");
        }
        Cluster::at(testbed, left).raw("/readyz").map(drop)
    })?;
    report.step(format!(
        "recovery {round}: the API answers again {:.1} s after the command",
        asked.elapsed().as_secs_f64()
    ));
    let lost = written.lost(&Cluster::at(testbed, left))?;
    for machine in gone {
        match arguments.old {
            true => machine.start()?,
            false => machine.wipe()?,
        }
    }
    let whole = until(LIMIT, || {
        interrupt::sleep(Duration::from_millis(200))?;
        whole(testbed).map(drop)
    })?;
    report.step(format!(
        "recovery {round}: all was whole {whole:.1} s after the others had started, {} workers among them",
        others.len()
    ));
    if arguments.old {
        gone.iter().try_for_each(|machine| old_kubelet_waited(machine))?;
    }
    written.tidy(&Cluster::find(testbed)?);
    Ok(Recovery { answers, whole, lost })
}

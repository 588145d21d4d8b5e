//! `outage`: all machines lose their power at once. They are given it back, one control plane before the others if told so, and it is
//! measured how long the site takes to be whole again, and whether it lost what it had acknowledged.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::arguments::OutageArguments;
use super::failover::{until, whole};
use super::kubernetes::Cluster;
use super::layout::Testbed;
use super::machine::Machine;
use super::report::{Report, round};
use super::written::{WRITTEN, Written};
use super::{layout::Paths, up};
use crate::interrupt;

/// One outage.
struct Outage {
    /// Seconds from the last machine's start until the API answered through every machine, and until all was whole.
    answers: f64,
    whole: f64,
    /// How many of what was acknowledged before is gone.
    lost: usize,
}

/// Takes all power away, and gives it back.
pub(crate) fn outage(paths: &Paths, arguments: &OutageArguments, report: &Report) -> Result<()> {
    let mut testbed = Testbed::load(paths)?;
    let mut all = Vec::new();
    for round in 1..=arguments.rounds {
        whole(&testbed)?;
        let outage = one(&mut testbed, arguments, round, report)?;
        report.step(format!(
            "outage {round}: the API answered through every machine {:.1} s after the last one was started, all was whole after {:.1} s",
            outage.answers, outage.whole
        ));
        all.push(outage);
    }
    let lost: usize = all.iter().map(|outage| outage.lost).sum();
    let rows: Vec<Value> = all.iter().map(Outage::json).collect();
    report.result(
        &json!({ "outage": lost == 0, "elsewhere": arguments.elsewhere, "off_seconds": arguments.off.as_secs(), "alone_seconds": arguments.alone.as_secs(), "outages": rows }),
        table(&all),
    );
    if lost > 0 {
        bail!("{lost} acknowledged writes are lost");
    }
    Ok(())
}

impl Outage {
    fn json(&self) -> Value {
        json!({ "answers_seconds": round(self.answers), "whole_seconds": round(self.whole), "lost_writes": self.lost })
    }
}

fn table(all: &[Outage]) -> String {
    let mut text = format!("{:>16} {:>10} {:>12}\n", "API EVERYWHERE", "WHOLE", "WRITES LOST");
    for outage in all {
        text += &format!("{:>14.1} s {:>8.1} s {:>7} of {WRITTEN}\n", outage.answers, outage.whole, outage.lost);
    }
    text + "Counted from the start of the last machine. Whole: every kubelet heard since, every Node Ready, every etcd member there."
}

fn one(testbed: &mut Testbed, arguments: &OutageArguments, round: u32, report: &Report) -> Result<Outage> {
    let alone = arguments.alone;
    let cluster = Cluster::find(testbed)?;
    let written = Written::write(&cluster, &format!("outage-{round}"))?;
    let view = cluster.view(testbed)?;
    let plane =
        |machine: &&Machine| view.nodes.iter().any(|node| node.control_plane && node.address == machine.address);
    let first = testbed.machines.iter().find(plane).context("no control plane")?.name.clone();
    for machine in &testbed.machines {
        machine.kill()?;
    }
    if arguments.elsewhere {
        testbed.move_elsewhere()?;
        report.step(format!("outage {round}: they come up again in {}/24", testbed.host_address));
    }
    let (testbed, first) = (&*testbed, testbed.machine(&first)?);
    report.step(format!("outage {round}: {} machines have lost their power", testbed.machines.len()));
    if !arguments.off.is_zero() {
        report.step(format!("outage {round}: they stay off for {} s", arguments.off.as_secs()));
        interrupt::sleep(arguments.off)?;
    }
    if !alone.is_zero() {
        first.start()?;
        report.step(format!("outage {round}: {} has it back, the others in {} s", first.name, alone.as_secs()));
        interrupt::sleep(alone)?;
    }
    for machine in testbed.machines.iter().filter(|machine| alone.is_zero() || machine.name != first.name) {
        machine.start()?;
    }
    let (started, started_at) = (Instant::now(), up::now());
    let limit = Duration::from_secs(900);
    let answers = until(limit, || {
        // An administrator's certificate may be another one since.
        Cluster::find(testbed)?;
        testbed.machines.iter().try_for_each(|machine| Cluster::through(testbed, machine).raw("/readyz").map(drop))
    })?;
    until(limit, || {
        let cluster = Cluster::find(testbed)?;
        for node in cluster.nodes()? {
            // Nodes look Ready for most of a minute after their machines died.
            if cluster.renewed_at(&node.name)? < started_at {
                bail!("the kubelet of {} was not heard since", node.name);
            }
        }
        whole(testbed).map(drop)
    })?;
    let whole = started.elapsed().as_secs_f64();
    let cluster = Cluster::find(testbed)?;
    let lost = written.lost(&cluster)?;
    written.tidy(&cluster);
    Ok(Outage { answers, whole, lost })
}

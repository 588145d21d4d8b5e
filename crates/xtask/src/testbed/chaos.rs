//! `chaos`: random faults of real machines, one round after the other, while a writer appends. After each round the site must be whole
//! again, the same cluster, and have everything that it acknowledged.

mod faults;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use clap::ValueEnum as _;
use faults::{Dice, Round};
use serde_json::{Value, json};
use writer::Writer;

pub(crate) use faults::Sort;

use super::arguments::ChaosArguments;
use super::failover::{until, whole};
use super::kubernetes::Cluster;
use super::layout::{Paths, Testbed};
use super::machine::Machine;
use super::report::{Report, round};
use super::up::now;
use crate::command::output;
use crate::interrupt;

/// Pause between two faults of a round, and after a round.
const PAUSE: Duration = Duration::from_secs(2);

/// What tells one cluster from another: the UID of its first namespace, and muster's charter.
#[derive(Debug, PartialEq, Eq)]
struct WhoItIs {
    uid: String,
    charter: String,
}

/// One round that the site came back from.
struct Came {
    what: String,
    /// Seconds from the end of the faults.
    whole: f64,
}

/// Rounds of faults, until the time is over or a promise is broken.
pub(crate) fn chaos(paths: &Paths, arguments: &ChaosArguments, report: &Report) -> Result<()> {
    let mut testbed = Testbed::load(paths)?;
    let seed = arguments.seed.unwrap_or((now() * 1e3) as u64);
    until(arguments.timeout, || whole(&testbed).map(drop))?;
    let writer = Writer::start(&testbed)?;
    report.step(format!("seed {seed}: {} machines, faults for {} minutes", testbed.machines.len(), arguments.minutes));
    let mut rounds = Vec::new();
    let done = rounds_of(&mut testbed, arguments, seed, &writer, &mut rounds, report);
    let written = writer.count();
    let stopped = writer.finish();
    if let Err(error) = done.and(stopped) {
        if interrupt::requested() {
            return Err(error);
        }
        let kept = keep(paths, &testbed, seed, &error)?;
        let word = |sort: &Sort| sort.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned());
        let only: Vec<String> = arguments.only.iter().map(word).collect();
        let only = if only.is_empty() { String::new() } else { format!(" --only {}", only.join(",")) };
        let again = format!(
            "cargo xtask testbed chaos --seed {seed} --minutes {} --timeout {}{only}",
            arguments.minutes,
            arguments.timeout.as_secs()
        );
        let text = format!(
            "{}\nBroken in round {}. What each machine says is in {}.\nThe same faults again: {again}",
            table(&rounds),
            rounds.len() + 1,
            kept.display()
        );
        let object = json!({ "chaos": false, "seed": seed, "rounds": rows(&rounds), "kept": kept, "again": again });
        report.result(&object, text);
        return Err(error);
    }
    Writer::tidy(&Cluster::find(&testbed)?)?;
    let text = format!(
        "{}\nSeed {seed}: {} rounds, {written} writes acknowledged, none of them lost.",
        table(&rounds),
        rounds.len()
    );
    report.result(&json!({ "chaos": true, "seed": seed, "acknowledged": written, "rounds": rows(&rounds) }), text);
    Ok(())
}

fn rows(rounds: &[Came]) -> Vec<Value> {
    rounds.iter().map(|came| json!({ "faults": came.what, "whole_seconds": round(came.whole) })).collect()
}

fn table(rounds: &[Came]) -> String {
    let line = |came: &Came| format!("{:>8.1} s  {}\n", came.whole, came.what);
    format!("{:>10}  FAULTS\n", "WHOLE") + &rounds.iter().map(line).collect::<String>()
}

fn rounds_of(
    testbed: &mut Testbed,
    arguments: &ChaosArguments,
    seed: u64,
    writer: &Writer,
    rounds: &mut Vec<Came>,
    report: &Report,
) -> Result<()> {
    let sorts = if arguments.only.is_empty() { Sort::value_variants() } else { &arguments.only };
    let (mut dice, started) = (Dice::new(seed), Instant::now());
    let before = who_it_is(testbed)?;
    while started.elapsed() < Duration::from_secs(arguments.minutes * 60) {
        let drawn = dice.round(testbed.machines.len(), sorts);
        report.step(format!("round {}: {drawn}", rounds.len() + 1));
        let whole = befall(testbed, &drawn, &before, writer, arguments.timeout)?;
        let lost = writer.lost(&Cluster::find(testbed)?)?;
        if !lost.is_empty() {
            bail!("{} acknowledged writes are lost: {}", lost.len(), lost.join(", "));
        }
        report.step(format!("whole {whole:.1} s after that, {} writes acknowledged so far", writer.count()));
        rounds.push(Came { what: drawn.to_string(), whole });
        interrupt::sleep(PAUSE)?;
    }
    Ok(())
}

/// Lets a round's faults begin and end, and returns how many seconds later all was whole.
fn befall(testbed: &mut Testbed, drawn: &Round, before: &WhoItIs, writer: &Writer, timeout: Duration) -> Result<f64> {
    let mut begun = 0;
    let begins = drawn.faults.iter().try_for_each(|fault| {
        begun += 1;
        fault.begin(testbed).with_context(|| format!("{fault:?} begins"))?;
        interrupt::sleep(PAUSE)
    });
    let slept = begins.and_then(|()| interrupt::sleep(drawn.lasts));
    // What has begun ends, each of them, also where one failed or somebody wants no more.
    let ends = drawn.faults.iter().take(begun);
    let ends: Vec<_> = ends.map(|fault| fault.end(testbed).with_context(|| format!("{fault:?} ends"))).collect();
    let testbed = &*testbed;
    slept?;
    ends.into_iter().collect::<Result<()>>()?;
    // Some may be elsewhere now.
    writer.goes_by(testbed)?;
    let ended = now();
    until(timeout, || {
        let cluster = Cluster::find(testbed)?;
        for node in cluster.nodes()? {
            // A Node looks Ready for most of a minute after its machine died.
            if cluster.renewed_at(&node.name)? < ended {
                bail!("the kubelet of {} was not heard since", node.name);
            }
        }
        whole(testbed)?;
        testbed.machines.iter().try_for_each(agent_is_ready)?;
        let now = who_it_is(testbed)?;
        if now != *before {
            bail!("this is another cluster: {before:?} before, {now:?} now");
        }
        Ok(())
    })
}

fn status_of(machine: &Machine) -> Result<Value> {
    let said = machine.exec(&["muster", "status", "--json"])?.output().context("muster status")?;
    serde_json::from_slice(&said.stdout).with_context(|| format!("{}: muster does not answer", machine.name))
}

fn agent_is_ready(machine: &Machine) -> Result<()> {
    let status = status_of(machine)?;
    if status["phase"] != "ready" {
        bail!("{}: muster says {}", machine.name, status["phase"]);
    }
    Ok(())
}

/// One cluster: every API server and every agent says the same.
fn who_it_is(testbed: &Testbed) -> Result<WhoItIs> {
    let view = Cluster::find(testbed)?.view(testbed)?;
    let mut said = Vec::new();
    for machine in &testbed.machines {
        let plane = view.nodes.iter().any(|node| node.control_plane && node.address == machine.address);
        let cluster = if plane { Cluster::at(testbed, machine) } else { Cluster::through(testbed, machine) };
        let namespace: Value = serde_json::from_str(&cluster.raw("/api/v1/namespaces/kube-system")?)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let who = WhoItIs { uid: text(&namespace["metadata"]["uid"]), charter: text(&status_of(machine)?["charter"]) };
        said.push((machine.name.as_str(), who));
    }
    let others: Vec<_> = said.iter().filter(|(_, who)| Some(who) != said.first().map(|(_, first)| first)).collect();
    if !others.is_empty() {
        bail!("there are two clusters: {said:?}");
    }
    said.pop().map(|(_, who)| who).context("there are no machines")
}

/// Keeps what each machine says, for whoever looks for the reason.
fn keep(paths: &Paths, testbed: &Testbed, seed: u64, error: &Error) -> Result<PathBuf> {
    let kept = paths.states.join(format!("chaos-{}-{seed}", testbed.name));
    fs::create_dir_all(&kept).with_context(|| format!("cannot create {}", kept.display()))?;
    fs::write(kept.join("broken.txt"), format!("{error:#}\n"))?;
    for machine in &testbed.machines {
        let said: [(&str, &[&str]); 4] = [
            ("journal.txt", &["journalctl", "--no-pager", "--output=short-precise"]),
            ("status.json", &["muster", "status", "--json"]),
            ("explain.txt", &["muster", "explain"]),
            ("pods.txt", &["crictl", "ps", "--all"]),
        ];
        for (file, words) in said {
            let said = machine.exec(words).and_then(|mut command| output(&mut command));
            let text = said.unwrap_or_else(|error| format!("{error:#}\n"));
            write(&kept, &format!("{}-{file}", machine.name), &text)?;
        }
    }
    Ok(kept)
}

fn write(directory: &Path, name: &str, text: &str) -> Result<()> {
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

//! `failover`: takes the power of one control plane after the other, or its cable, or its API server alone, asks everywhere whether
//! kubectl still works, and measures for how long the API was away for clients that go through a machine that stays.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::arguments::{FailoverArguments, What};
use super::clients::{Clients, Kind};
use super::host::{busy, processors};
use super::kubernetes::{Cluster, View, leads_etcd};
use super::layout::{Paths, Testbed};
use super::machine::Machine;
use super::report::{Report, round};
use super::{network, up};
use crate::command::output;
use crate::interrupt;

/// How often it is asked whether everything works again.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// What kubectl is told to wait for an answer at most.
const ANSWER_TIMEOUT: &str = "--request-timeout=5s";

/// How long clients ask before the power is taken.
const CALM: Duration = Duration::from_secs(4);
/// How many watches stand.
const WATCHES: usize = 6;

/// One loss.
struct Loss {
    machine: String,
    /// Whether its member led etcd.
    etcd_leader: bool,
    /// Seconds until kubectl had answered everywhere, and until it was back.
    works: f64,
    back: f64,
    /// The longest time without an answer, for each kind of client.
    gaps: [f64; 4],
    /// How many of the connections that clients keep ended.
    ended: usize,
}

/// Kills each control plane in turn; fails if kubectl stops working anywhere, or the machine does not come back.
pub(crate) fn failover(paths: &Paths, arguments: &FailoverArguments, report: &Report) -> Result<()> {
    let testbed = Testbed::load(paths)?;
    if testbed.control_planes < 3 {
        bail!("{} control planes cannot lose one: etcd needs a majority", testbed.control_planes);
    }
    let (begun, before) = (Instant::now(), busy());
    let mut losses = Vec::new();
    for _ in 0..arguments.rounds {
        let planes = control_planes(&testbed, &whole(&testbed)?);
        for machine in &planes {
            let name = machine.name.as_str();
            let loss = lose(&testbed, &planes, machine, arguments, report)
                .with_context(|| format!("after the loss of {name}; what it lost is to be given back by hand"))?;
            report.step(format!(
                "{name}: everywhere else kubectl had answered within {:.1} s of its loss, and did for {:.0} s on; \
                 back and whole {:.1} s after it was given back",
                loss.works,
                arguments.steady.as_secs_f64(),
                loss.back
            ));
            losses.push(loss);
        }
    }
    let used = (busy() - before) / begun.elapsed().as_secs_f64();
    let rows: Vec<Value> = losses.iter().map(Loss::json).collect();
    let text = format!(
        "{}\nOn average {used:.1} of this host's {} processors were busy.\n\
         kubectl worked everywhere through the loss of each of {} control planes.",
        table(&losses),
        processors(),
        losses.len()
    );
    let what = arguments.what.word();
    report.result(&json!({ "failover": true, "what": what, "losses": rows, "processors_busy": round(used) }), text);
    Clients::tidy(&Cluster::find(&testbed)?)
}

impl Loss {
    fn json(&self) -> Value {
        let hundredths = |seconds: f64| (seconds * 100.0).round() / 100.0;
        let gaps: serde_json::Map<String, Value> = Kind::ALL
            .iter()
            .zip(self.gaps)
            .map(|(kind, gap)| (kind.word().to_owned(), json!(hundredths(gap))))
            .collect();
        json!({
            "machine": self.machine, "etcd_leader": self.etcd_leader, "works_seconds": round(self.works),
            "back_seconds": round(self.back), "gap_seconds": gaps, "connections_ended": self.ended,
        })
    }

    /// What a client waits at most that asks anew.
    fn gap(&self) -> f64 {
        self.gaps[0].max(self.gaps[1])
    }
}

fn table(losses: &[Loss]) -> String {
    let mut text = format!(
        "Longest time without an answer, in seconds, for clients through a machine that stayed: `read` and `write` connect anew each \
         time and wait for 1 s, `held` keeps its connection, `watch` sees what `write` writes. Of {WATCHES} watches and one held \
         connection so many ended.\n{:<10} {:<12} {:>6} {:>6} {:>6} {:>6} {:>6}",
        "LOST", "ITS ETCD", "read", "write", "held", "watch", "ended"
    );
    for loss in losses {
        let led = if loss.etcd_leader { "leader" } else { "follower" };
        let [read, write, held, watch] = loss.gaps;
        text += &format!(
            "\n{:<10} {led:<12} {read:>6.2} {write:>6.2} {held:>6.2} {watch:>6.2} {:>6}",
            loss.machine, loss.ended
        );
    }
    for (led, word) in [(false, "follower"), (true, "leader")] {
        let mut gaps: Vec<f64> = losses.iter().filter(|loss| loss.etcd_leader == led).map(Loss::gap).collect();
        gaps.sort_by(f64::total_cmp);
        if let Some(longest) = gaps.last() {
            let at = |share: f64| gaps[((gaps.len() - 1) as f64 * share).ceil() as usize];
            text += &format!(
                "\nread or write, {word} lost {} times: median {:.2}, 95th percentile {:.2}, longest {longest:.2}",
                gaps.len(),
                at(0.5),
                at(0.95)
            );
        }
    }
    text
}

/// A look at a cluster that lacks nothing.
pub(super) fn whole(testbed: &Testbed) -> Result<View> {
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

/// Takes one machine away and gives it back.
fn lose(
    testbed: &Testbed,
    planes: &[&Machine],
    lost: &Machine,
    arguments: &FailoverArguments,
    report: &Report,
) -> Result<Loss> {
    let name = &lost.name;
    // Whose API server alone is gone is as well off as the others.
    let stays = |machine: &&Machine| arguments.what.pod().is_some() || machine.name != *name;
    let others: Vec<&Machine> = testbed.machines.iter().filter(stays).collect();
    // A control plane's clients go to its own server first.
    let worker = others.iter().find(|machine| planes.iter().all(|plane| plane.name != machine.name));
    let through = worker.or(others.last()).context("nobody stays")?;
    let etcd_leader = leads_etcd(lost)?;
    let clients = Clients::start(testbed, through, WATCHES)?;
    interrupt::sleep(CALM)?;
    let what = arguments.what;
    report.step(format!("{name}: its {} is gone", what.word()));
    let (killed, killed_at) = (Instant::now(), up::now());
    take(lost, what)?;
    let works =
        until(arguments.timeout, || others.iter().try_for_each(|machine| kubectl_works(testbed, machine, name)))?;
    let worked = Instant::now();
    while worked.elapsed() < arguments.steady {
        others.iter().try_for_each(|machine| kubectl_works(testbed, machine, name)).context("it had worked again")?;
        interrupt::sleep(ASK_EVERY)?;
    }
    let gone = killed.elapsed().as_secs_f64();
    report.step(format!("{name}: has it back, {gone:.1} s after its {} was gone", what.word()));
    // How it comes back is watched as well: that its old etcd member is taken away may be felt.
    let mut clients = Some(clients);
    let mut seen = Vec::new();
    if !arguments.wipe {
        seen = clients.take().map(Clients::finish).transpose()?.unwrap_or_default();
    }
    let started_at = up::now();
    if arguments.wipe {
        lost.wipe()?
    } else {
        give(lost, what)?
    }
    let back = until(arguments.timeout, || is_back(testbed, lost, started_at))?;
    if let Some(clients) = clients {
        seen = clients.finish()?;
    }
    let longest = |kind: Kind| {
        let gaps = seen.iter().filter(|seen| seen.kind == kind).map(|seen| seen.longest_gap(killed_at));
        gaps.fold(0.0, f64::max)
    };
    let gaps = Kind::ALL.map(longest);
    let ended = seen.iter().map(|seen| seen.ends.iter().filter(|end| **end >= killed_at).count()).sum();
    Ok(Loss { machine: name.clone(), etcd_leader, works, back, gaps, ended })
}

/// Where manifests are, and where one is while its Pod is not to run.
const MANIFESTS: &str = "/etc/kubernetes/manifests";
const PUT_BY: &str = "/etc/kubernetes";

/// Takes something away from a machine, without a word to it.
fn take(machine: &Machine, what: What) -> Result<()> {
    match what.pod() {
        Some(pod) => shell(machine, &format!("mv {MANIFESTS}/{pod}.yaml {PUT_BY}/ && pkill -KILL -x {pod}")),
        None if what == What::Cable => network::cut(machine),
        None => machine.kill(),
    }
}

fn give(machine: &Machine, what: What) -> Result<()> {
    match what.pod() {
        Some(pod) => shell(machine, &format!("mv {PUT_BY}/{pod}.yaml {MANIFESTS}/")),
        None if what == What::Cable => network::heal(machine),
        None => machine.start(),
    }
}

fn shell(machine: &Machine, script: &str) -> Result<()> {
    output(&mut machine.exec(&["sh", "-c", script])?).map(drop)
}

/// Repeats a question until its answer is good, and returns after how many seconds that was there.
pub(super) fn until(timeout: Duration, question: impl Fn() -> Result<()>) -> Result<f64> {
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

//! `compare`: the same image formed once by hand and once by muster.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::arguments::FormArguments;
use super::host::{busy, processors};
use super::layout::{Images, Paths, Testbed};
use super::machine::Machine;
use super::report::{Report, round};
use super::timeline::{self, Span, Watch};
use super::up::Formed;
use super::{build, up};
use crate::command::output;
use crate::interrupt;

/// Forms both clusters, one after the other so that neither slows the other, and prints what they took.
pub(crate) fn compare(paths: &Paths, form: &FormArguments, report: &Report) -> Result<()> {
    let images = Images::build(paths, form, report)?;
    let muster = build::muster_binary(form.muster.clone())?;

    report.step("by hand: kubeadm init, then one join after the other");
    let by_hand = FormArguments { by_hand: true, ..form.clone() };
    let hand = measure(&paths.sibling("by-hand")?, &by_hand, &images, None, report).context("by hand")?;
    report.step("by muster");
    let ours = measure(&paths.sibling("by-muster")?, form, &images, Some(&muster), report).context("by muster")?;

    // A control plane counts once its etcd does: Ready alone, its Node may be long before.
    let ratio = ours.formed.whole / hand.formed.whole;
    let init = hand.init();
    report.result(
        &json!({
            "machines": form.machines,
            "control_planes": form.control_planes,
            "by_hand": hand.json(),
            "by_muster": ours.json(),
            "ratio": (ratio * 1000.0).round() / 1000.0,
            "ratio_to_one_init": init.map(|init| (ours.formed.whole / init * 1000.0).round() / 1000.0),
        }),
        format!(
            "{}\n{}\nFrom \"machines are booted\" to \"all Nodes Ready\", {} machines, {} control planes:\n{}\n{}\n  \
             ratio      {ratio:7.2}{}\nFor {:.1} s of muster's time nothing of kubeadm's ran anywhere, nor was its first control plane starting: \
             that is muster's own. Resets: {}.",
            hand.table("by hand"),
            ours.table("by muster"),
            form.machines,
            form.control_planes,
            hand.line("by hand"),
            ours.line("by muster"),
            init.map(|init| format!("; to one `kubeadm init` by hand ({init:.1} s): {:.2}", ours.formed.whole / init))
                .unwrap_or_default(),
            ours.idle(),
            ours.resets
        ),
    );
    Ok(())
}

/// One cluster's way to Ready.
struct Measured {
    formed: Formed,
    /// How often a machine reset its kubeadm work, by muster.
    resets: u64,
    spans: Vec<Span>,
    /// Seconds of processor time of this host, from "the machines are booted" on.
    used: f64,
}

fn measure(
    paths: &Paths,
    form: &FormArguments,
    images: &Images,
    muster: Option<&Path>,
    report: &Report,
) -> Result<Measured> {
    // Whatever an interrupted comparison left would only be in the way.
    if paths.state.exists() {
        up::down(paths, report)?;
    }
    let testbed = Testbed::create(paths, images, form, report)?;
    let measured = form_watched(&testbed, form, muster, report);
    // A cluster that did not form is left for a look.
    if measured.is_ok() || interrupt::requested() {
        up::down(paths, report)?;
    }
    measured
}

fn form_watched(testbed: &Testbed, form: &FormArguments, muster: Option<&Path>, report: &Report) -> Result<Measured> {
    up::boot(testbed, form, muster, report)?;
    let before = busy();
    let watch = Watch::start(testbed);
    if form.by_hand {
        super::by_hand::form(testbed, report)?;
    }
    let formed = up::wait_until_formed(testbed, form.timeout, report)?;
    let used = busy() - before;
    let mut spans = watch.finish()?;
    spans.extend(testbed.machines.iter().filter(|machine| machine.muster).flat_map(waits_for_control_plane));
    spans.sort_by(|one, other| one.from.total_cmp(&other.from));
    let resets = super::matrix::resets(testbed)?;
    Ok(Measured { formed, resets, spans, used })
}

/// The one phase of init that muster runs itself, as the machine tells it: kubeadm hides it from single use. It waits
/// for kubelet, etcd and API server to start, so its time is theirs.
fn waits_for_control_plane(machine: &Machine) -> Vec<Span> {
    let asked = machine.exec(&["timeout", "5", "muster", "status", "--json"]).and_then(|mut ask| output(&mut ask));
    let status: Value = asked.ok().and_then(|said| serde_json::from_str(&said).ok()).unwrap_or_default();
    let Some(uptime_ms) = status["uptime_ms"].as_f64() else { return Vec::new() };
    let started = up::now() - uptime_ms / 1000.0;
    let at = |value: &Value| value.as_f64().map(|ms| started + ms / 1000.0);
    let steps = status["steps"].as_array().into_iter().flatten();
    let waits = steps.filter(|step| step["phase"].as_str().is_some_and(|phase| phase.ends_with("/wait-control-plane")));
    let spans = waits.filter_map(|step| Some((at(&step["start_ms"])?, at(&step["end_ms"])?)));
    let command = "(kubelet, etcd and API server start)".to_owned();
    spans.map(|(from, to)| Span { machine: machine.name.clone(), command: command.clone(), from, to }).collect()
}

impl Measured {
    /// How long the one `kubeadm init` took, where it was run as a whole.
    fn init(&self) -> Option<f64> {
        self.spans.iter().find(|span| span.command == "init").map(|span| span.to - span.from)
    }

    /// Seconds before the last kubeadm command ended in which none ran, nor was waited for the first control plane.
    fn idle(&self) -> f64 {
        // Used tokens are deleted when everything else is done; nothing waits for that.
        let forms = |span: &&Span| !span.command.starts_with("token");
        let spans: Vec<Span> = self.spans.iter().filter(forms).cloned().collect();
        timeline::idle(&spans, self.formed.booted_at, self.formed.booted_at + self.formed.whole)
    }

    fn json(&self) -> Value {
        let spans = self.spans.iter().map(|span| {
            let (from, to) = (round(span.from - self.formed.booted_at), round(span.to - self.formed.booted_at));
            json!({ "machine": span.machine, "kubeadm": span.command, "from": from, "to": to })
        });
        json!({
            "seconds": round(self.formed.ready),
            "whole_seconds": round(self.formed.whole),
            "own_seconds": round(self.idle()),
            "processor_seconds": round(self.used),
            "resets": self.resets,
            "commands": spans.collect::<Vec<_>>(),
        })
    }

    fn line(&self, name: &str) -> String {
        let share = self.used / self.formed.whole;
        format!(
            "  {name:<10} {:7.1} s   (with every etcd member: {:.1} s; {:.0} s of processor time, {share:.1} of {} processors)",
            self.formed.ready,
            self.formed.whole,
            self.used,
            processors()
        )
    }

    fn table(&self, name: &str) -> String {
        let mut text = format!("kubeadm's commands, {name} (seconds since the machines had booted):");
        for span in &self.spans {
            let (from, to) = (span.from - self.formed.booted_at, span.to - self.formed.booted_at);
            text += &format!("\n  {from:7.1} {to:7.1}  {:<10} {}", span.machine, span.command);
        }
        text
    }
}

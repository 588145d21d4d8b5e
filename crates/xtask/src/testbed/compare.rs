//! `compare`: the same image formed once by hand and once by muster.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::arguments::FormArguments;
use super::layout::Paths;
use super::report::{Report, round};
use super::timeline::{self, Span, Watch};
use super::up::Formed;
use super::{build, up};

/// Forms both clusters, one after the other so that neither slows the other, and prints what they took.
pub(crate) fn compare(paths: &Paths, form: &FormArguments, report: &Report) -> Result<()> {
    let image = build::build(paths, report)?;
    let muster = build::muster_binary(form.muster.clone())?;

    report.step("by hand: kubeadm init, then one join after the other");
    let by_hand = FormArguments { by_hand: true, ..form.clone() };
    let hand = measure(&paths.sibling("by-hand")?, &by_hand, image.clone(), None, report).context("by hand")?;
    report.step("by muster");
    let ours = measure(&paths.sibling("by-muster")?, form, image, Some(&muster), report).context("by muster")?;

    let ratio = ours.formed.ready / hand.formed.ready;
    report.result(
        &json!({
            "machines": form.machines,
            "control_planes": form.control_planes,
            "by_hand": hand.json(),
            "by_muster": ours.json(),
            "ratio": (ratio * 1000.0).round() / 1000.0,
        }),
        format!(
            "{}\n{}\nFrom \"machines are booted\" to \"all Nodes Ready\", {} machines, {} control planes:\n{}\n{}\n  \
             ratio      {ratio:7.2}\nNo kubeadm command ran anywhere for {:.1} s of muster's time: that is muster's own.",
            hand.table("by hand"),
            ours.table("by muster"),
            form.machines,
            form.control_planes,
            hand.line("by hand"),
            ours.line("by muster"),
            ours.idle()
        ),
    );
    Ok(())
}

/// One cluster's way to Ready.
struct Measured {
    formed: Formed,
    spans: Vec<Span>,
}

fn measure(
    paths: &Paths,
    form: &FormArguments,
    image: std::path::PathBuf,
    muster: Option<&std::path::Path>,
    report: &Report,
) -> Result<Measured> {
    // Whatever an interrupted comparison left would only be in the way.
    if paths.state.exists() {
        up::down(paths, report)?;
    }
    let testbed = up::boot(paths, form, image, muster, report)?;
    let watch = Watch::start(&testbed);
    if form.by_hand {
        super::by_hand::form(&testbed, report)?;
    }
    let formed = up::wait_until_formed(&testbed, form.timeout, report)?;
    let spans = watch.finish()?;
    up::down(paths, report)?;
    Ok(Measured { formed, spans })
}

impl Measured {
    /// Seconds without any kubeadm command before the last one ended.
    fn idle(&self) -> f64 {
        timeline::idle(&self.spans, self.formed.booted_at, self.formed.booted_at + self.formed.whole)
    }

    fn json(&self) -> Value {
        let spans = self.spans.iter().map(|span| {
            let (from, to) = (round(span.from - self.formed.booted_at), round(span.to - self.formed.booted_at));
            json!({ "machine": span.machine, "kubeadm": span.command, "from": from, "to": to })
        });
        json!({
            "seconds": round(self.formed.ready),
            "whole_seconds": round(self.formed.whole),
            "without_kubeadm_seconds": round(self.idle()),
            "commands": spans.collect::<Vec<_>>(),
        })
    }

    fn line(&self, name: &str) -> String {
        format!("  {name:<10} {:7.1} s   (with every etcd member: {:.1} s)", self.formed.ready, self.formed.whole)
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

//! `compare`: the same image formed once by hand and once by muster.

use anyhow::{Context, Result};
use serde_json::json;

use super::arguments::FormArguments;
use super::layout::Paths;
use super::report::{Report, round};
use super::{build, up};

/// Forms both clusters, one after the other so that neither slows the other, and prints what they took.
pub(crate) fn compare(paths: &Paths, form: &FormArguments, report: &Report) -> Result<()> {
    let image = build::build(paths, report)?;
    let muster = build::muster_binary(form.muster.clone())?;

    let hand_paths = paths.sibling("by-hand")?;
    report.step("by hand: kubeadm init, then one join after the other");
    let by_hand = FormArguments { by_hand: true, ..form.clone() };
    let testbed = up::boot(&hand_paths, &by_hand, image.clone(), None, report)?;
    let by_hand_seconds = up::wait_until_formed(&testbed, form.timeout, report).context("by hand")?;
    up::down(&hand_paths, report)?;

    let muster_paths = paths.sibling("by-muster")?;
    report.step("by muster");
    let testbed = up::boot(&muster_paths, form, image, Some(&muster), report)?;
    let muster_seconds = up::wait_until_formed(&testbed, form.timeout, report).context("by muster")?;
    up::down(&muster_paths, report)?;

    let ratio = muster_seconds / by_hand_seconds;
    report.result(
        &json!({ "by_hand_seconds": round(by_hand_seconds), "muster_seconds": round(muster_seconds), "ratio": ratio }),
        format!("by hand {by_hand_seconds:.1} s, by muster {muster_seconds:.1} s, ratio {ratio:.2}"),
    );
    Ok(())
}

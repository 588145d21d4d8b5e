//! One run as one self-contained HTML page: nothing in it is fetched from anywhere.

use std::fmt::Write;

use serde::Serialize;

use crate::run::Outcome;
use crate::scenario::Scenario;
use crate::trace::{Line, Trace};
use crate::world::{At, World};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// Most frames that are drawn; of more, every so manieth is.
const DRAWN_MAX: usize = 6_000;

#[derive(Serialize)]
struct Drawn<'a> {
    end_us: At,
    healed_us: Option<At>,
    machines: u32,
    bands: Vec<(At, At, String)>,
    lines: &'a [Line],
    /// Time, sender, receiver, kind.
    messages: Vec<(At, u32, u32, &'static str)>,
    every: usize,
    curve: Vec<(At, u32, u32)>,
}

/// The page.
pub fn html(scenario: &Scenario, outcome: &Outcome, world: &World) -> String {
    let empty = Trace::default();
    let trace = world.watch().trace.as_ref().unwrap_or(&empty);
    let every = trace.messages.len().div_ceil(DRAWN_MAX).max(1);
    let messages = trace.messages.iter().step_by(every).filter_map(|message| {
        let from = world.slot_of(message.from)?;
        Some((message.at_us, from, message.to, message.kind))
    });
    let drawn = Drawn {
        end_us: outcome.virtual_us.max(1),
        healed_us: world.healed,
        machines: world.slots(),
        bands: bands(world, outcome.virtual_us),
        lines: &trace.lines,
        messages: messages.collect(),
        every,
        curve: curve(&trace.lines),
    };
    let mut page = String::new();
    let title = escape(&scenario.title);
    let verdict = outcome.verdict.word();
    let what = escape(&outcome.what());
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{verdict}: {title}</title>\
         <style>{STYLE}</style></head><body>\n<header class=\"{verdict}\"><h1>{title}</h1>\
         <p><b>{verdict}</b> {what}</p><p>seed {} · hash {} · {} machines · {:.1} virtual s · {} frames</p></header>\n",
        outcome.seed,
        outcome.hash,
        world.slots(),
        outcome.virtual_us as f64 / 1e6,
        outcome.frames
    );
    page.push_str("<section><h2>Promises</h2><table>");
    for (promise, standing) in &outcome.liveness {
        let _ = write!(page, "<tr><td>{promise}</td><td>{}</td></tr>", escape(&standing.to_string()));
    }
    let safety = outcome.broken.as_ref().filter(|broken| broken.promise.starts_with('S'));
    let said = safety.map_or("held".to_owned(), |broken| format!("{} broken: {}", broken.promise, broken.what));
    let _ = write!(page, "<tr><td>S1–S10</td><td>{}</td></tr></table></section>", escape(&said));
    page.push_str(
        "<section><h2>Machines and faults</h2><p>A lane for every machine: grey off, then paler to darker green from meeting \
         to Ready, red halted. Bands are faults. Wheel zooms, dragging moves, a click shows the log there.</p>\
         <canvas id=\"lanes\"></canvas></section><section><h2>Messages</h2><label><input type=\"checkbox\" id=\"swim\"> \
         with gossip</label> <span id=\"sampled\"></span><canvas id=\"messages\"></canvas></section>\
         <section><h2>Convergence</h2><p>Machines that follow a charter (blue) and are Ready (green).</p>\
         <canvas id=\"curve\"></canvas></section><section><h2>Log</h2><input id=\"filter\" placeholder=\"filter: node-3, leads, \
         kubeadm\"><pre id=\"log\"></pre></section>\n",
    );
    // `<` inside JSON strings could end the script element.
    let data = serde_json::to_string(&drawn).unwrap_or_default().replace('<', "\\u003c");
    let broken_at = outcome.broken.as_ref().map_or(-1.0, |broken| broken.at_us as f64);
    let _ = write!(page, "<script>const DATA={data};const BROKEN_AT={broken_at};\n{SCRIPT}</script></body></html>\n");
    page
}

fn bands(world: &World, end: At) -> Vec<(At, At, String)> {
    let heal = (world.scenario.phases.faults_s * 1e6) as At;
    let band = |fault: &crate::scenario::Fault| {
        let from = (fault.at_s * 1e6) as At;
        let to = ((fault.at_s + fault.for_s) * 1e6) as At;
        (from.min(end), to.min(heal.max(from)).min(end), fault.kind.word())
    };
    world.plan.iter().map(band).collect()
}

/// How many machines follow a charter, and how many are Ready, whenever that changes.
fn curve(lines: &[Line]) -> Vec<(At, u32, u32)> {
    let (mut charter, mut ready) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    let mut curve = vec![(0, 0, 0)];
    for line in lines {
        match (line.kind, line.slot) {
            ("charter", Some(slot)) => drop(charter.insert(slot)),
            ("phase", Some(slot)) if line.text == "Ready" => drop(ready.insert(slot)),
            ("phase" | "stop", Some(slot)) => drop(ready.remove(&slot)),
            _ => continue,
        }
        curve.push((line.at_us, charter.len() as u32, ready.len() as u32));
    }
    curve
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

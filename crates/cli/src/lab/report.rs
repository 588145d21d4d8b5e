//! What a lab tells: a live table on a terminal, plain lines elsewhere, or JSON events.

use std::io::Write as _;
use std::time::Duration;

use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use muster_protocol::{Phase, Status};
use serde_json::{Value, json};

use super::machine::Machine;
use crate::text;

/// Something that happened in the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The lab's machines are being started.
    Started { dir: String, machines: usize, control_planes: u32, seed: u64 },
    /// A machine reached a phase.
    Phase { machine: String, id: String, phase: Phase },
    /// The cluster is founded.
    Charter { charter: String },
    /// Raft's leader changed.
    Leader { machine: String },
    /// A machine's agent ended by itself.
    Died { machine: String, how: String, log: Vec<String> },
    /// The lab killed a machine's agent and starts it again.
    Killed { machine: String },
}

impl Event {
    fn json(&self) -> Value {
        match self {
            Event::Started { dir, machines, control_planes, seed } => {
                json!({"event": "started", "dir": dir, "machines": machines, "control_planes": control_planes, "seed": seed})
            }
            Event::Phase { machine, id, phase } => {
                json!({"event": "phase", "machine": machine, "id": id, "phase": phase})
            }
            Event::Charter { charter } => json!({"event": "charter", "charter": charter}),
            Event::Leader { machine } => json!({"event": "leader", "machine": machine}),
            Event::Died { machine, how, log } => json!({"event": "died", "machine": machine, "how": how, "log": log}),
            Event::Killed { machine } => json!({"event": "killed", "machine": machine}),
        }
    }

    fn text(&self) -> String {
        match self {
            Event::Started { dir, machines, control_planes, .. } => {
                format!("{machines} machines, {control_planes} of them to be control planes, in {dir}")
            }
            Event::Phase { machine, id, phase } => format!("{machine} ({id}): {}", phase.word()),
            Event::Charter { charter } => format!("the cluster is founded: charter {charter}"),
            Event::Leader { machine } => format!("{machine} leads"),
            Event::Died { machine, how, log } => {
                let log: String = log.iter().map(|line| format!("\n    {line}")).collect();
                format!("{machine} ended by itself ({how}); the last of its log:{log}")
            }
            Event::Killed { machine } => format!("{machine} is killed and started again"),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Whether every machine is Ready.
    pub(crate) ready: bool,
    /// From the first agent's start to the last machine's Ready, or to giving up.
    pub(crate) took: Duration,
    /// From the first agent's start to the charter.
    pub(crate) charter_after: Option<Duration>,
    /// How `muster status` and the others are to be told which lab is meant, with a space before it.
    pub(crate) lab_flag: String,
}

/// Where a lab tells what happens.
pub(crate) enum Report {
    Live(Live),
    Lines,
    Json,
}

/// The table on a terminal. Its lines are drawn again in place.
pub(crate) struct Live {
    area: MultiProgress,
    lines: Vec<ProgressBar>,
}

impl Report {
    /// The way that suits standard output.
    pub(crate) fn new(json: bool, machines: usize) -> Self {
        if json {
            return Report::Json;
        }
        if !console::user_attended() {
            return Report::Lines;
        }
        let area = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let style = ProgressStyle::with_template("{wide_msg}").expect("the template is right");
        // A heading, the columns' names, the machines, and a line about what to do.
        let line = |_| area.add(ProgressBar::no_length().with_style(style.clone()));
        let lines = (0..machines + 3).map(line).collect();
        Report::Live(Live { area, lines })
    }

    /// Tells what happened, `after` the first agent's start.
    pub(crate) fn event(&self, after: Duration, event: &Event) {
        match self {
            Report::Json => {
                let mut line = event.json();
                line["seconds"] = json!(round(after));
                print_line(&line.to_string());
            }
            Report::Lines => print_line(&format!("{:>7}  {}", text::seconds(after), event.text())),
            // The table shows the rest; a death must not scroll by.
            Report::Live(live) if matches!(event, Event::Died { .. }) => {
                // A terminal that is gone has nobody who would read this.
                let _ = live.area.println(style(event.text()).red().to_string());
            }
            Report::Live(_) => {}
        }
    }

    /// Draws the table, where there is one.
    pub(crate) fn draw(&self, after: Duration, machines: &[Machine], hint: &str) {
        let Report::Live(live) = self else { return };
        let mut shown = vec![heading(after, machines)];
        shown.extend(rows(machines));
        shown.push(style(hint).dim().to_string());
        for (line, text) in live.lines.iter().zip(shown) {
            line.set_message(text);
        }
    }

    /// Tells what came of it. The answer is the line for people.
    pub(crate) fn outcome(&self, outcome: &Outcome, machines: &[Machine]) -> String {
        let text = outcome_text(outcome, machines);
        match self {
            Report::Json => print_line(&outcome_json(outcome, machines).to_string()),
            Report::Lines => {
                for row in rows(machines) {
                    print_line(&row);
                }
                print_line(&text);
            }
            Report::Live(live) => {
                self.draw(outcome.took, machines, &text);
                for line in &live.lines {
                    line.tick();
                }
            }
        }
        text
    }

    /// Leaves the table as it stands, so that what is printed next comes below it.
    pub(crate) fn finish(&self) {
        if let Report::Live(live) = self {
            for line in &live.lines {
                line.abandon();
            }
        }
    }
}

/// A reader that has seen enough is no reason to stop a lab.
fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn round(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000.0).round() / 1_000.0
}

fn statuses(machines: &[Machine]) -> impl Iterator<Item = &Status> {
    machines.iter().filter_map(|machine| machine.status.as_ref())
}

fn heading(after: Duration, machines: &[Machine]) -> String {
    let charter = statuses(machines).find_map(|status| status.charter.as_deref());
    let charter = charter.map_or("no charter yet".to_owned(), |charter| format!("charter {}", short(charter)));
    let leader = leader(machines).map_or("no leader yet".to_owned(), |name| format!("{name} leads"));
    let ready = statuses(machines).filter(|status| status.phase == Phase::Ready).count();
    let text = format!("{charter}, {leader}, {ready} of {} Ready", machines.len());
    format!("{}  {}", style(text).bold(), text::seconds(after))
}

fn short(charter: &str) -> &str {
    charter.get(..12).unwrap_or(charter)
}

/// The leader's name, as the machine with the highest term knows it.
pub(crate) fn leader(machines: &[Machine]) -> Option<String> {
    let latest = statuses(machines).filter(|status| status.leader.is_some()).max_by_key(|status| status.term)?;
    let leader = statuses(machines).find(|status| Some(&status.machine) == latest.leader.as_ref())?;
    let name = machines.iter().find(|machine| machine.status.as_ref().is_some_and(|s| s.machine == leader.machine));
    name.map(|machine| machine.name.clone())
}

fn rows(machines: &[Machine]) -> Vec<String> {
    let mut rows = vec![["NAME", "MACHINE", "ROLE", "PHASE", "WAITS FOR"].map(str::to_owned).to_vec()];
    rows.extend(machines.iter().map(|machine| row(machine, machines)));
    text::table(&rows)
}

fn row(machine: &Machine, machines: &[Machine]) -> Vec<String> {
    let name = machine.name.clone();
    let Some(status) = &machine.status else {
        let what = match machine.ended {
            Some(how) => style(format!("ended: {how}")).red().to_string(),
            None => "starting".to_owned(),
        };
        return vec![name, "-".to_owned(), "-".to_owned(), what, String::new()];
    };
    let phase = style(status.phase.word());
    let phase = match status.phase {
        Phase::Ready => phase.green(),
        Phase::Halted => phase.red(),
        _ => phase.yellow(),
    };
    let first = status.waiting.first().map(|reason| reason.text.clone());
    let waits = if status.phase == Phase::Ready { None } else { first.or_else(|| status.doing.clone()) };
    let waits = with_names(waits.unwrap_or_default(), machines);
    vec![name, status.short.clone(), text::role(status.role).to_owned(), phase.to_string(), waits]
}

/// A machine's reasons name others by their ids; here each has a name that is easier to find in the table.
fn with_names(text: String, machines: &[Machine]) -> String {
    let named = machines.iter().filter_map(|machine| Some((&machine.status.as_ref()?.short, &machine.name)));
    named.fold(text, |text, (short, name)| text.replace(short.as_str(), name))
}

fn outcome_text(outcome: &Outcome, machines: &[Machine]) -> String {
    let flag = &outcome.lab_flag;
    if outcome.ready {
        let example = machines.last().map_or("", |machine| machine.name.as_str());
        let founded =
            outcome.charter_after.map(|after| format!(" (founded after {})", text::seconds(after))).unwrap_or_default();
        return format!(
            "Ready in {}{founded}. Look inside: muster status{flag} --machine {example} | explain | logs",
            text::seconds(outcome.took)
        );
    }
    let waiting: Vec<&str> =
        machines.iter().filter(|machine| !is_ready(machine)).map(|machine| machine.name.as_str()).collect();
    let first = waiting.first().copied().unwrap_or("lab-1");
    format!(
        "NOT Ready after {}: {}. Why: muster explain{flag} --machine {first} | logs",
        text::seconds(outcome.took),
        waiting.join(", ")
    )
}

/// Whether a machine says that it is Ready.
pub(crate) fn is_ready(machine: &Machine) -> bool {
    machine.status.as_ref().is_some_and(|status| status.phase == Phase::Ready)
}

fn outcome_json(outcome: &Outcome, machines: &[Machine]) -> Value {
    let each = machines.iter().map(|machine| {
        let status = machine.status.as_ref();
        json!({
            "name": machine.name,
            "address": machine.address.to_string(),
            "pid": machine.pid(),
            "machine": status.map(|status| status.short.clone()),
            "role": status.and_then(|status| status.role),
            "phase": status.map(|status| status.phase),
            "waiting": status.map(|status| status.waiting.clone()).unwrap_or_default(),
        })
    });
    json!({
        "ready": outcome.ready,
        "seconds": round(outcome.took),
        "charter_seconds": outcome.charter_after.map(round),
        "charter": statuses(machines).find_map(|status| status.charter.clone()),
        "leader": leader(machines),
        "machines": each.collect::<Vec<_>>(),
    })
}

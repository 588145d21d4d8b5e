//! `muster-sim list`.

use clap::Args;
use serde::Serialize;

use super::which::names;
use super::{Failure, print_json};
use crate::run::Verdict;
use crate::scenario::{Scenario, Sort};
use crate::sometimes::SOMETIMES;

/// List what there is.
#[derive(Args)]
pub(super) struct List {
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    scenarios: Vec<(String, String)>,
    promises: Vec<(&'static str, &'static str)>,
    faults: Vec<(String, &'static [&'static str], bool)>,
    sometimes: &'static [(&'static str, &'static str)],
}

/// The promises, as `docs/protocol.md` numbers them.
const PROMISES: [(&str, &str); 15] = [
    ("S1", "a cluster name and mesh key never get two charters"),
    ("S2", "a vote given while founding is never contradicted later, a restart included"),
    ("S3", "Raft's own: election safety, log matching, leader completeness, state machine safety"),
    ("S4", "at most one attempt's init is ever made the cluster; nobody joins an abandoned one"),
    ("S5", "join secrets are readable by their recipient alone"),
    ("S6", "a machine that was not admitted is in no quorum, holds no ticket and reads no ledger"),
    ("S7", "a machine never belongs to two clusters, and refuses a peer with another charter"),
    ("S8", "at most one etcd member is being added at a time"),
    ("S9", "an identity is never used again after its disk was wiped"),
    ("S10", "every queue, cache and message is bounded"),
    ("L1", "one cluster, every admitted machine joined"),
    ("L2", "a new leader"),
    ("L3", "equal rosters"),
    ("L4", "a dead initialiser is replaced"),
    ("L5", "an idle cluster is quiet"),
];

impl List {
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        let listed = Listed {
            scenarios: scenarios(),
            promises: PROMISES.to_vec(),
            faults: Sort::every()
                .into_iter()
                .map(|sort| (sort.word(), sort.takes(), Sort::all().contains(&sort)))
                .collect(),
            sometimes: SOMETIMES,
        };
        if self.json {
            print_json(&listed)?;
            return Ok(Verdict::Held);
        }
        println!(
            "scenarios in simulations/{}",
            if listed.scenarios.is_empty() { ": there is no such directory here" } else { "" }
        );
        for (name, title) in &listed.scenarios {
            println!("  {name:<28} {title}");
        }
        println!("\npromises");
        for (name, meaning) in listed.promises {
            println!("  {name:<4} {meaning}");
        }
        println!("\nfaults, with the parameters each takes beside at_s, for_s and machines; * drawn by every swarm");
        for (word, takes, drawn) in &listed.faults {
            println!("  {}{word:<20} {}", if *drawn { "*" } else { " " }, takes.join(", "));
        }
        println!("\nsometimes");
        for (name, meaning) in SOMETIMES {
            println!("  {name:<26} {meaning}");
        }
        Ok(Verdict::Held)
    }
}

/// Names and titles of the scenarios that lie in `simulations/`.
fn scenarios() -> Vec<(String, String)> {
    let titled = |name: String| {
        let path = format!("simulations/{name}.toml");
        let title = match std::fs::read_to_string(&path).map(|text| Scenario::parse(&text)) {
            Ok(Ok(scenario)) => scenario.title,
            Ok(Err(error)) => format!("WRONG: {error}"),
            Err(error) => format!("WRONG: {error}"),
        };
        (name, title)
    };
    names().into_iter().map(titled).collect()
}

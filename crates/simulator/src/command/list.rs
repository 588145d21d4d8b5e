//! `muster-sim list`.

use clap::Args;
use serde::Serialize;

use super::which::{names, text_of};
use super::{Failure, print_json};
use crate::promises::PROMISES;
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
    scenarios: Vec<Named>,
    promises: Vec<Meant>,
    faults: Vec<Drawn>,
    sometimes: Vec<Meant>,
}

/// A scenario that commands take by its name.
#[derive(Serialize)]
struct Named {
    name: String,
    /// Whether it is a file in `simulations/` here; else the program has it.
    file: bool,
    title: String,
    /// Nothing if the file is wrong.
    machines: Option<u32>,
}

#[derive(Serialize)]
struct Meant {
    name: &'static str,
    meaning: &'static str,
}

#[derive(Serialize)]
struct Drawn {
    kind: String,
    does: String,
    takes: &'static [&'static str],
    every_swarm: bool,
}

impl List {
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        let meant = |list: &[(&'static str, &'static str)]| {
            list.iter().map(|(name, meaning)| Meant { name, meaning }).collect::<Vec<_>>()
        };
        let swarm = Sort::all();
        let drawn = |sort: Sort| Drawn {
            kind: sort.word(),
            does: sort.does(),
            takes: sort.takes(),
            every_swarm: swarm.contains(&sort),
        };
        let listed = Listed {
            scenarios: names().into_iter().map(named).collect(),
            promises: meant(&PROMISES),
            faults: Sort::every().iter().copied().map(drawn).collect(),
            sometimes: meant(SOMETIMES),
        };
        if self.json {
            print_json(&listed)?
        } else {
            print(&listed)
        }
        Ok(Verdict::Held)
    }
}

fn print(listed: &Listed) {
    let files = listed.scenarios.iter().any(|scenario| scenario.file);
    let here = if files { "; + a file in simulations/ here, not the program's own" } else { "" };
    println!("scenarios, with their machines{here}");
    for Named { name, file, title, machines } in &listed.scenarios {
        let machines = machines.map_or("?".to_owned(), |machines| machines.to_string());
        println!("  {}{name:<36} {machines:>5}  {title}", if *file { "+" } else { " " });
    }
    println!("\npromises");
    for Meant { name, meaning } in &listed.promises {
        println!("  {name:<4} {meaning}");
    }
    println!("\nfaults, with what each takes beside at_s, for_s and machines; * drawn by a swarm that names no sorts");
    for Drawn { kind, does, takes, every_swarm } in &listed.faults {
        println!("  {}{kind:<20} {:<9} {does}", if *every_swarm { "*" } else { " " }, takes.join(", "));
    }
    println!("\nsometimes");
    for Meant { name, meaning } in &listed.sometimes {
        println!("  {name:<26} {meaning}");
    }
}

fn named(name: String) -> Named {
    let (text, file) = text_of(&name);
    let read = text.map_err(|error| error.to_string());
    match read.and_then(|text| Scenario::parse(&text).map_err(|error| error.to_string())) {
        Ok(Scenario { title, machines, .. }) => Named { name, file, title, machines: Some(machines) },
        Err(error) => Named { name, file, title: format!("WRONG: {error}"), machines: None },
    }
}

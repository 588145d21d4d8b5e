//! What people are told of while something is missing or somebody is a stranger, and what nobody is accused of: real agents as
//! processes.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "other tests use the rest of it")]
mod site;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use site::{Agent, Image, MESH_PORT, Site};

fn ready(agents: &[Agent]) {
    for agent in agents {
        agent.until_phase("ready");
    }
}

#[test]
fn every_hint_is_told_of_with_what_came_of_it_and_this_machine_is_no_stranger_to_itself() {
    let site = Site::new();
    let image = site.image(3, 1);
    let agent = site.start(1, &image);
    let own = format!("hint: {}:{MESH_PORT}: that is this machine, ", site.address(1));
    let nobody = format!("hint: {}:{MESH_PORT}: refused: nobody listens there, ", site.address(2));
    let text = agent.until_explained(&[&own, &nobody]);
    assert!(!text.contains("turned away"), "{text}");
    let second = site.start(2, &image);
    let connected = format!("hint: {}:{MESH_PORT}: connected as m2 (m-", site.address(2));
    agent.until_explained(&[&connected]);
    let third = site.start(3, &image);
    ready(&[agent, second, third]);
}

#[test]
fn when_nobody_is_missing_hints_are_in_the_status_alone() {
    let site = Site::new();
    let agent = site.start(1, &site.image(1, 1));
    agent.until_phase("ready");
    let status = agent.until("a hint's outcome", |status| {
        status["hints"].as_array().is_some_and(|hints| hints.iter().all(|hint| hint["outcome"].is_string()))
    });
    assert_eq!(status["hints"].as_array().map(Vec::len), Some(9), "{status:#}");
    assert!(!agent.ask(&["explain"]).contains("hint"), "{}", agent.ask(&["explain"]));
}

/// Machines of one key that refuse each other, start again, are killed in the middle, and are wiped: each cuts connections off, and no
/// key is another one.
#[test]
fn machines_of_one_key_are_not_accused_of_another() {
    let site = Site::new();
    let ours = site.image(3, 1);
    let theirs = Image { cluster: "other", ..site.image(2, 1) };
    let mut agents: Vec<Agent> = (1..=5).map(|n| site.start(n, if n < 4 { &ours } else { &theirs })).collect();
    ready(&agents);
    for round in 0..4 {
        // The last of ours and the last of theirs, by turns; once with a disk that has forgotten everything.
        for number in [5, 3] {
            agents.remove(usize::from(number) - 1).kill();
            if round == 2 && number == 5 {
                std::fs::remove_dir_all(site.root(number)).expect("wiped");
            }
            agents.insert(usize::from(number) - 1, site.start(number, if number < 4 { &ours } else { &theirs }));
        }
        for agent in &agents[..4] {
            agent.until_phase("ready");
        }
    }
    agents[0].until_explained(&["it belongs to cluster \"other\", this is \"site\""]);
    for agent in &agents {
        let text = agent.ask(&["explain"]);
        assert!(!text.contains("mesh key"), "{text}\n{}", agent.log());
    }
}

#[test]
fn a_ready_cluster_names_machines_of_another_image_and_counts_them_to_nobody() {
    let site = Site::new();
    let ours = site.image(2, 1);
    let agents = [site.start(1, &ours), site.start(2, &ours)];
    ready(&agents);
    let odd = [site.start(3, &site.image(7, 1)), site.start(4, &site.image(7, 1))];
    let words = [
        "- it waits for nothing",
        "- not ours: 2 machines are not of this cluster",
        "machines: 2 here, 7 there",
        "(m3 at ",
        "(m4 at ",
    ];
    for agent in &agents {
        agent.until_explained(&words);
        let status = agent.status();
        assert_eq!(status["peers"].as_array().map(Vec::len), Some(1), "{status:#}");
        assert_eq!(status["strangers"].as_array().map(Vec::len), Some(2), "{status:#}");
    }
    odd[0].until_phase("halted");
}

#[test]
fn a_watch_and_a_log_end_when_their_reader_does_though_nothing_happens() {
    let site = Site::new();
    let agent = site.start(1, &site.image(1, 1));
    agent.until_phase("ready");
    for arguments in [["status", "--watch"], ["logs", "--follow"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(arguments).arg("--socket").arg(agent.root.join("run/muster/muster.sock"));
        let mut reading = command.stdout(Stdio::piped()).spawn().expect("muster starts");
        let mut out = BufReader::new(reading.stdout.take().expect("a pipe"));
        out.read_line(&mut String::new()).expect("a line");
        drop(out);
        // The test's own time ends it if it lingers.
        assert!(reading.wait().expect("it ends").success(), "{arguments:?}");
    }
}

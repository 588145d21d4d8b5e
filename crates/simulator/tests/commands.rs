//! What commands print and how they end, as people and programs meet them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn muster_sim(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_muster-sim"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the program runs");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn a_text_to_stop_at_that_never_came_is_an_error_of_its_own() {
    let here = repository();
    let (code, _, said) = muster_sim(&here, &["replay", "five", "--break-on", "no such line"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("no line that was shown contains \"no such line\", to the end"), "{said}");
    // The same text on another machine, or later than the end, is as absent.
    let (code, _, said) = muster_sim(&here, &["replay", "five", "--break-on", "Ready", "--until", "0.5"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("up to 0.5 s"), "{said}");
    let (code, told, _) = muster_sim(&here, &["replay", "five", "--break-on", "no such line", "--json"]);
    let last = told.lines().last().expect("it printed");
    assert_eq!(code, Some(4));
    assert!(last.starts_with("{\"error\":") && last.ends_with("\"exit_code\":4}"), "{last}");
    let (code, told, _) = muster_sim(&here, &["replay", "five", "--break-on", "leads"]);
    assert_eq!(code, Some(0));
    assert!(told.contains("\nstopped at "), "{told}");
}

#[test]
fn a_broken_promise_weighs_more_than_a_text_that_never_came() {
    let arguments = ["replay", "threshold-splits", "--seed", "1", "--break-on", "no such line"];
    let (code, told, said) = muster_sim(&repository(), &arguments);
    assert_eq!(code, Some(1), "{said}");
    assert!(told.contains("safety-broken") && said.contains("no such line"), "{told}{said}");
}

#[test]
fn scenarios_are_run_by_name_wherever_the_program_is() {
    let elsewhere = tempdir("elsewhere");
    let (code, told, said) = muster_sim(&elsewhere, &["run", "five", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    // It is the run that the file gives, and the command that is printed gives it again.
    assert_eq!(hash(&told), hash(&muster_sim(&repository(), &["run", "simulations/five.toml", "--json"]).1));
    let (_, told, _) = muster_sim(&elsewhere, &["run", "regressions/s10-claims-unpaused"]);
    assert!(told.trim_end().ends_with("\nmuster-sim run regressions/s10-claims-unpaused --seed 0"), "{told}");
    let (code, told, said) = muster_sim(&elsewhere, &["sweep", "five", "--seeds", "0..2", "--twice-every", "1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(told.contains("2 run again in another process: the same"), "{told}");
    let (code, _, said) = muster_sim(&elsewhere, &["run", "fife"]);
    assert_eq!(code, Some(4));
    assert!(said.contains("there is no file and no scenario fife; did you mean five"), "{said}");
}

#[test]
fn a_file_wins_over_the_scenario_of_its_name_and_a_directory_does_not() {
    let here = tempdir("file-wins");
    std::fs::create_dir_all(here.join("swarm-5")).expect("made");
    std::fs::create_dir_all(here.join("simulations")).expect("made");
    std::fs::write(here.join("five"), "title = \"mine, at its path\"\nmachines = 1\n").expect("written");
    std::fs::write(here.join("simulations/other-image.toml"), "title = \"mine, by its name\"\nmachines = 1\n")
        .expect("written");
    std::fs::write(here.join("simulations/disks.toml"), "title = \"broken\"\n").expect("written");
    let runs = |name: &str| muster_sim(&here, &["run", name]);
    assert!(runs("five").1.starts_with("mine, at its path (seed 0)"));
    assert!(runs("other-image").1.starts_with("mine, by its name (seed 0)"));
    assert_eq!(runs("swarm-5").0, Some(0));
    // What is wrong in a file is said, and the program's own is not run in its place.
    let (code, _, said) = runs("disks");
    assert!(code == Some(4) && said.contains("simulations/disks.toml: "), "{said}");
    let (_, told, _) = muster_sim(&here, &["list"]);
    let line =
        |name: &str| told.lines().find(|line| line[3..].starts_with(&format!("{name} "))).expect(name).to_owned();
    assert!(line("other-image").starts_with("  +") && line("other-image").ends_with("mine, by its name"));
    assert!(line("five").starts_with("   "), "{}", line("five"));
    assert!(line("disks").contains("WRONG: "));
}

#[test]
fn every_scenario_of_the_repository_is_listed_and_every_fault_says_what_it_does() {
    let (_, told, _) = muster_sim(&tempdir("listed"), &["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let names: Vec<&str> =
        listed["scenarios"].as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    for (folder, prefix) in [("simulations", ""), ("simulations/regressions", "regressions/")] {
        for entry in std::fs::read_dir(repository().join(folder)).expect("there are scenarios").flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if let Some(name) = file.strip_suffix(".toml") {
                assert!(names.contains(&format!("{prefix}{name}").as_str()), "{prefix}{name}");
            }
        }
    }
    let docs = std::fs::read_to_string(repository().join("docs/simulation.md")).expect("readable");
    let faults = listed["faults"].as_array().expect("a list");
    for fault in faults {
        let text = |key: &str| fault[key].as_str().expect(key);
        let takes: Vec<String> = fault["takes"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|key| Some(format!("`{}`", key.as_str()?)))
            .collect();
        let drawn = if fault["every_swarm"] == true { " *" } else { "" };
        assert!(text("does").len() > 10 && text("does").matches(". ").count() == 0, "{fault} is one sentence");
        let row = format!("| `{}`{drawn} | {} | {} |", text("kind"), takes.join(" "), text("does"));
        assert!(docs.contains(&row), "docs/simulation.md lacks this row:\n{row}");
    }
    // No row is left of what no longer is there.
    let rows = docs.split("| fault | takes | what it does |").nth(1).expect("the table").lines().skip(2);
    assert_eq!(rows.take_while(|line| line.starts_with('|')).count(), faults.len());
}

/// An empty directory of the test's own.
fn tempdir(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("made");
    path
}

fn hash(json: &str) -> String {
    let outcome: serde_json::Value = serde_json::from_str(json).expect("JSON");
    outcome["hash"].as_str().expect("a hash").to_owned()
}

#[test]
fn a_sweep_that_saw_too_little_says_so_last() {
    let here = tempdir("too-little");
    let text = "title = \"nobody is left to be cut off from\"\nmachines = 3\n[phases]\nfaults_s = 5.0\nheal_s = 60.0\n\
                [[fault]]\nkind = \"split\"\nat_s = 1.0\nfor_s = 1.0\nmachines = \"all\"\n";
    std::fs::write(here.join("idle.toml"), text).expect("written");
    let (code, told, _) = muster_sim(&here, &["sweep", "idle", "--seeds", "0..2", "--twice-every", "0"]);
    assert_eq!(code, Some(3));
    let last = told.trim_end().lines().last().expect("it printed");
    assert!(last.starts_with("TOO LITTLE WAS SEEN: no fault took effect on 2 of 2 seeds"), "{told}");
    assert!(told.contains("        2       0  split: 2 hit nothing"), "{told}");
    assert!(told.contains("drawn, and never took effect: split"), "{told}");
    let (code, told, _) = muster_sim(&here, &["sweep", "idle", "--seeds", "0..2", "--twice-every", "0", "--json"]);
    let summary: serde_json::Value =
        serde_json::from_str(told.trim_end().lines().last().expect("a line")).expect("JSON");
    assert_eq!(code, Some(3));
    assert_eq!((&summary["never_took"][0], &summary["nothing_happened"]), (&"split".into(), &2.into()));
    assert_eq!(summary["faults"]["split"]["without_effect"], 2);
    assert!(summary["too_little"][0].as_str().is_some_and(|why| why.contains("count for nothing")));
    // One run says the same.
    let (code, told, _) = muster_sim(&here, &["run", "idle"]);
    assert!(code == Some(3) && told.contains("nothing-happened: no fault took effect"), "{told}");
    // A sweep that saw enough ends with the command that gives it again.
    let (code, told, _) = muster_sim(&here, &["sweep", "five", "--seeds", "0..2", "--twice-every", "0"]);
    assert!(code == Some(0) && told.trim_end().ends_with("\nmuster-sim sweep five --seeds 0..2"), "{told}");
}

//! The scenarios in `simulations/`, and what is said of wrong ones.

use std::path::Path;

use muster_simulator::run::{Verdict, run};
use muster_simulator::scenario::{Scenario, Sort, plan};
use muster_simulator::shrink::shrink;
use muster_simulator::{junit, report, sweep, trace};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../simulations")
}

fn scenario(name: &str) -> Scenario {
    let path = folder().join(name).with_extension("toml");
    Scenario::parse(&std::fs::read_to_string(&path).expect("there is such a scenario")).expect("it is right")
}

#[test]
fn every_scenario_is_right_and_survives_being_written() {
    for entry in std::fs::read_dir(folder()).expect("there are scenarios").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).expect("readable");
            let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(Scenario::parse(&scenario.to_toml()).expect("written right"), scenario, "{}", path.display());
        }
    }
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_what_is_accepted() {
    let cases = [
        ("title = \"x\"\nmachines = 5\nmashines = 3\n", "3", "unknown field `mashines`"),
        ("title = \"x\"\nmachines = 0\n", "line 2", "machines must be 1 to 10000"),
        ("title = \"x\"\nmachines = 5\n\n[[fault]]\nkind = \"crsh\"\nat_s = 1.0\n", "5", "`crash`"),
        (
            "title = \"x\"\nmachines = 5\n[[fault]]\nkind = \"crash\"\nat_s = 1.0\nrate = 0.1\n",
            "line 6",
            "takes nothing",
        ),
        ("title = \"x\"\nmachines = 5\n[[fault]]\nkind = \"loss\"\nat_s = 1.0\n", "line 4", "needs `rate`"),
        (
            "title = \"x\"\nmachines = 5\n[[fault]]\nkind = \"loss\"\nat_s = 1.0\nrate = 2.0\n",
            "line 6",
            "must be 0 to 1",
        ),
        (
            "title = \"x\"\nmachines = 5\n[[fault]]\nkind = \"crash\"\nat_s = 1.0\nmachines = [7]\n",
            "line 6",
            "the last is 4",
        ),
        (
            "title = \"x\"\nmachines = 5\n[[fault]]\nkind = \"crash\"\nat_s = 1.0\nmachines = \"boss\"\n",
            "6",
            "\"leader\"",
        ),
        ("title = \"x\"\nmachines = 3\n[image]\ncontrol_planes = 5\n", "line 4", "at most the image's machines"),
        ("title = \"x\"\nmachines = 3\n[expect]\nsometimes = [\"bliss\"]\n", "line 4", "everyone-ready"),
    ];
    for (text, line, said) in cases {
        let error = Scenario::parse(text).expect_err(text).to_string();
        assert!(error.contains(line), "{error} does not name line {line}");
        assert!(error.contains(said), "{error} does not say {said}");
    }
}

#[test]
fn a_seed_is_one_run_and_another_seed_is_another() {
    let scenario = scenario("swarm-5");
    let (first, again, other) = (run(&scenario, 3), run(&scenario, 3), run(&scenario, 4));
    assert_eq!(first.hash, again.hash);
    assert_eq!(first.events, again.events);
    assert_ne!(first.hash, other.hash);
    assert_eq!(plan(&scenario, 3), plan(&scenario, 3));
}

#[test]
fn five_machines_with_nothing_wrong_are_one_cluster() {
    let outcome = run(&scenario("five"), 1);
    assert_eq!(outcome.verdict, Verdict::Held, "{}", outcome.what());
    assert!(outcome.sometimes.contains_key("everyone-ready"));
}

#[test]
fn what_was_broken_once_holds() {
    for entry in std::fs::read_dir(folder().join("regressions")).expect("there are regressions").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("readable");
        let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", entry.path().display()));
        let outcome = run(&scenario, scenario.seed);
        assert!(outcome.broken.is_none(), "{}: {}", entry.path().display(), outcome.what());
    }
}

#[test]
fn the_threshold_policy_splits_and_the_majority_does_not() {
    let broken = run(&scenario("threshold-splits"), 1);
    assert_eq!(broken.broken.as_ref().map(|broken| broken.promise), Some("S1"), "{}", broken.what());
    let held = run(&scenario("majority-holds"), 1);
    assert_eq!(held.verdict, Verdict::Held, "{}", held.what());
}

#[test]
fn shrinking_leaves_the_fault_that_matters() {
    let mut split = scenario("threshold-splits");
    let mut idle = split.faults[0].clone();
    idle.kind = Sort::Pause;
    idle.for_s = 0.1;
    split.faults.push(idle);
    let small = shrink(&split, 1, 60, &mut |_, _| {}).expect("it breaks S1");
    assert_eq!(small.faults_before, 2);
    assert_eq!(small.scenario.faults.len(), 1);
    assert_eq!(small.scenario.faults[0].kind, Sort::Split);
    let again = Scenario::parse(&small.scenario.to_toml()).expect("a regression is a scenario");
    assert_eq!(run(&again, again.seed).hash, small.outcome.hash);
}

#[test]
fn a_sweep_counts_and_says_what_it_did_not_see() {
    let mut five = scenario("five");
    five.expect.sometimes = vec!["clone-found".into()];
    let (summary, outcomes) = sweep::sweep(&five, 0, 3, 2, |_| {});
    assert_eq!(outcomes.iter().map(|outcome| outcome.seed).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(summary.verdict, Verdict::NotEnoughSeen);
    assert_eq!(summary.missing, ["clone-found"]);
    let xml = junit::text("a < b", &outcomes);
    assert!(xml.contains("a &lt; b") && xml.contains("tests=\"3\" failures=\"0\""), "{xml}");
}

#[test]
fn a_report_needs_nothing_from_anywhere() {
    let five = scenario("five");
    let (outcome, world) = muster_simulator::run::run_traced(&five, 1, trace::Trace::new(10_000));
    let page = report::html(&five, &outcome, &world, "muster-sim run five --seed 1");
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("src="));
    assert!(page.contains(&outcome.hash) && page.contains("init-ready"));
}

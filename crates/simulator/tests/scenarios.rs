//! The scenarios in `simulations/`, and what is said of wrong ones.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use muster_simulator::name::Name;
use muster_simulator::run::{Verdict, run};
use muster_simulator::scenario::{Scenario, Sort, plan};
use muster_simulator::shrink::shrink;
use muster_simulator::twice::twice;
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
            "title = \"x\"\nmachines = 5\n[[fault]]\nkind = \"crash\"\nat_s = 1.0\nmachines = []\n",
            "line 6",
            "would hit nobody",
        ),
        (
            "title = \"x\"\nmachines = 5\n[[fault]]\nkind = \"crash\"\nat_s = 1.0\nmachines = \"boss\"\n",
            "6",
            "\"leader\"",
        ),
        ("title = \"x\"\nmachines = 3\n[image]\ncontrol_planes = 5\n", "line 4", "at most the image's machines"),
        ("title = \"x\"\nmachines = 3\n[expect]\nsometimes = [\"bliss\"]\n", "line 4", "everyone-ready"),
        ("title = \"x\"\nmachines = 3\n[expect]\nbreaks = \"S12\"\n", "line 4", "S1 to S11"),
        ("title = \"x\"\nmachines = 3\n[expect]\nunbound = \"S3\"\n", "line 4", "accepted: S1"),
        ("title = \"x\"\nmachines = 3\n[phases]\nheal_s = inf\n", "line 4", "must be 0 to"),
        ("title = \"x\"\nmachines = 3\n[boots]\nspread_s = \"1 h\"\n", "line 4", "expected a number"),
        ("title = \"x\"\nmachines = 3\n[network]\nlatency_ms = [2.0, nan]\n", "line 4", "[least, most]"),
        ("title = \"x\"\nmachines = 3\n[image]\nexpect = 3\n", "line 4", "threshold"),
        ("title = \"x\"\nmachines = 3\n[swarm]\nfaults = [1, 8]\n", "faults_s", "have no time"),
        ("title = \"x\"\nmachines = 3\n[[fault]]\nkind = \"crash\"\nat_s = 5.0\n", "line 5", "every fault ends at"),
        (
            "title = \"x\"\nmachines = 3\n[[fault]]\nkind = \"kubeadm-fail\"\nat_s = 0.0\nstep = \"inti\"\n",
            "line 6",
            "await-ready",
        ),
        (
            "title = \"x\"\nmachines = 3\n[[fault]]\nkind = \"clone\"\nat_s = 0.0\nmachines = [1]\n",
            "line 6",
            "[copy, original]",
        ),
        (
            "title = \"x\"\nmachines = 3\n[[fault]]\nkind = \"crash\"\nat_s = 0.0\nmachines = \"random:9\"\n",
            "line 6",
            "1 to 3",
        ),
        ("title = \"x\"\nmachines = 3\n[discovery]\nrepeat_s = [0, 0]\n", "line 4", "at one moment"),
        ("title = \"x\"\nmachines = 3\n[discovery]\nsegment = false\n", "line 4", "needs `seeds`"),
        ("title = \"x\"\nmachines = 3\n[[late]]\nmachines = [3]\nboots_at_s = 1\n", "line 4", "the last is 2"),
        ("title = \"x\"\nmachines = 3\n[[late]]\nmachines = []\nboots_at_s = 1\n", "line 4", "nobody would be late"),
        ("title = \"x\"\nmachines = 3\n[[late]]\nmachines = [1]\nboots_at_s = 1\n", "line 5", "faults_s = 0"),
        (
            "title = \"x\"\nmachines = 3\n[phases]\nfaults_s = 9\n[[late]]\nmachines = [1, 2, 1]\nboots_at_s = 1\n",
            "line 6",
            "boots once",
        ),
        (
            "title = \"x\"\nmachines = 3\n[[fault]]\nkind = \"bridge\"\nat_s = 0\nmachines = [2]\nhalf = [0, 1]\n",
            "line 7",
            "leave some",
        ),
        (
            "title = \"x\"\nmachines = 3\n[[fault]]\nkind = \"bridge\"\nat_s = 0\nmachines = [2]\nhalf = [2]\n",
            "line 7",
            "leave some",
        ),
        ("title = \"x\"\nmachines = 3\n[[fault]]\nkind = \"split\"\nat_s = 0\nhalf = [0]\n", "line 6", "takes nothing"),
        ("title = \"x\"\nmachines = 3\n[kubeadm]\nstep_max_s = 0\n", "line 4", "more than 0"),
    ];
    for (text, line, said) in cases {
        let error = Scenario::parse(text).expect_err(text).to_string();
        assert!(error.contains(line), "{error} does not name line {line}");
        assert!(error.contains(said), "{error} does not say {said}");
    }
}

#[test]
fn every_fault_that_a_swarm_draws_is_one_that_a_file_takes() {
    let mut drawn = std::collections::BTreeMap::new();
    let mut swarm = scenario("swarm-5");
    swarm.swarm.as_mut().expect("it is one").sorts = Sort::every().to_vec();
    for seed in 0..200 {
        let faults = plan(&swarm, seed);
        faults.iter().for_each(|fault| *drawn.entry(fault.kind).or_insert(0) += 1);
        let fixed = Scenario { swarm: None, faults, ..swarm.clone() };
        assert_eq!(Scenario::parse(&fixed.to_toml()).map_err(|error| error.to_string()), Ok(fixed), "seed {seed}");
    }
    assert_eq!(drawn.len(), Sort::every().len(), "{drawn:?}");
}

#[test]
fn who_boots_late_boots_then_and_not_before_whatever_ends_until_then() {
    let text = "title = \"x\"\nmachines = 4\n[phases]\nfaults_s = 40.0\nheal_s = 60.0\n\
                [[late]]\nmachines = [3]\nboots_at_s = 30.0\n[[fault]]\nkind = \"crash\"\nat_s = 5.0\nfor_s = 1.0\nmachines = \"all\"\n";
    let late = Scenario::parse(text).expect("right");
    let (outcome, world) = muster_simulator::run::run_traced(&late, 1, trace::Trace::new(0));
    assert_eq!(outcome.verdict, Verdict::Held, "{}", outcome.what());
    let lines = &world.watch().trace.as_ref().expect("asked for").lines;
    let boots = |slot| lines.iter().filter(move |line| line.slot == Some(slot) && line.kind == "boot");
    let first = boots(3).next().expect("it boots").at_us;
    assert!((30_000_000..31_000_000).contains(&first), "{first}");
    assert_eq!((boots(3).count(), boots(2).count()), (1, 2));
}

#[test]
fn clocks_of_1970_stop_kubeadm_until_they_are_set() {
    let text = "title = \"x\"\nmachines = 4\n[phases]\nfaults_s = 30.0\nheal_s = 90.0\n\
                [[fault]]\nkind = \"clock-unset\"\nat_s = 0.0\nfor_s = 20.0\nmachines = [1]\n";
    let unset = Scenario::parse(text).expect("right");
    for seed in 0..4 {
        let (outcome, world) = muster_simulator::run::run_traced(&unset, seed, trace::Trace::new(0));
        assert_eq!(outcome.verdict, Verdict::Held, "{}", outcome.what());
        let lines = &world.watch().trace.as_ref().expect("asked for").lines;
        let steps = lines.iter().filter(|line| line.slot == Some(1) && line.kind == "step");
        let (early, later): (Vec<_>, Vec<_>) = steps.partition(|line| line.at_us < 20_000_000);
        assert!(early.iter().any(|line| line.text.contains("clock is not set")), "seed {seed}: {early:?}");
        assert!(early.iter().all(|line| line.text.starts_with("kubeadm: check ")), "seed {seed}: {early:?}");
        assert!(later.iter().any(|line| line.text.contains("join")), "seed {seed}: {later:?}");
    }
}

#[test]
fn what_boots_late_or_between_two_halves_is_as_meant() {
    for name in ["late-rack-1970", "leader-full", "bridged-racks", "last-step-fails-once"] {
        let scenario = scenario(name);
        let (summary, outcomes) = sweep::sweep(&scenario, 0, 1, 1, &AtomicBool::new(false), |_| {});
        assert_eq!(summary.verdict, Verdict::Held, "{name}: {:?} {}", summary.missing, outcomes[0].what());
        assert!(summary.never_took.is_empty(), "{name}: {:?}", summary.never_took);
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
fn manifests_are_applied_and_nothing_is_reset_for_them() {
    for seed in 0..5 {
        let outcome = run(&scenario("manifests"), seed);
        assert_eq!(outcome.verdict, Verdict::Held, "seed {seed}: {}", outcome.what());
        assert!(outcome.sometimes.contains_key("step-failed"), "seed {seed} disturbed nothing");
        assert!(!outcome.sometimes.contains_key("reset-run"), "seed {seed}");
        let outcome = run(&scenario("manifests-lost"), seed);
        assert_eq!(outcome.verdict, Verdict::Held, "seed {seed}: {}", outcome.what());
        assert!(outcome.sometimes.contains_key("manifests-by-another"), "seed {seed}: by the dead one itself");
    }
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
fn what_breaks_the_threshold_policy_leaves_the_majority_whole() {
    let baseline = scenario("threshold-splits");
    let ours = sweep::with_majority(&baseline).expect("it runs the threshold policy");
    let (mut summary, _) = sweep::sweep(&baseline, 0, 8, 1, &AtomicBool::new(false), |_| {});
    summary.beside(sweep::sweep(&ours, 0, 8, 1, &AtomicBool::new(false), |_| {}).0);
    assert_eq!(summary.verdict, Verdict::Held);
    let count = |summary: &sweep::Summary, promise| {
        summary.classes.iter().filter(|class| class.promise == promise).map(|class| class.count).sum::<u64>()
    };
    assert_eq!((count(&summary, Some("S1")), count(summary.with_majority.as_deref().expect("run"), None)), (8, 8));
    // Were the majority to break as well, the sweep would say so.
    let (broken, _) =
        sweep::sweep(&Scenario { expect: ours.expect.clone(), ..baseline }, 0, 1, 1, &AtomicBool::new(false), |_| {});
    summary.beside(broken);
    assert_eq!(summary.verdict, Verdict::SafetyBroken);
    assert!(sweep::with_majority(&ours).is_none());
}

#[test]
fn a_second_cluster_is_not_founded_beside_one_that_was_seen() {
    for (name, seeds) in [("second-cluster", 0..6), ("second-cluster-second-hand", 0..3)] {
        for seed in seeds {
            let outcome = run(&scenario(name), seed);
            assert_eq!(outcome.verdict, Verdict::Held, "{name}, seed {seed}: {}", outcome.what());
            assert!(outcome.sometimes.contains_key("founding-halted"), "{name}, seed {seed}");
        }
    }
}

#[test]
fn what_the_rules_refuse_changes_no_ledger_by_the_checkers_own_rules() {
    for seed in 0..3 {
        let outcome = run(&scenario("stray-proposals"), seed);
        assert_eq!(outcome.verdict, Verdict::Held, "seed {seed}: {}", outcome.what());
        assert!(outcome.faults[&Sort::StrayProposals].took > 0, "seed {seed} handed Raft nothing");
    }
}

#[test]
fn two_that_boot_late_are_not_both_control_planes() {
    for seed in 0..8 {
        let outcome = run(&scenario("six-control-planes"), seed);
        assert_eq!(outcome.verdict, Verdict::Held, "seed {seed}: {}", outcome.what());
    }
}

#[test]
fn a_second_charter_where_votes_did_not_survive_is_judged_by_its_own_name() {
    let scenario = scenario("restored-between-split");
    let outcome = run(&scenario, scenario.seed);
    assert_eq!((outcome.verdict, outcome.verdict.code()), (Verdict::AssumptionBroken, 5), "{}", outcome.what());
    assert!(outcome.what().starts_with("S1 ") && outcome.what().contains("That votes survive"), "{}", outcome.what());
    assert_eq!(outcome.broken, None);
    // `replay` says what `run` says.
    let path = folder().join("restored-between-split.toml");
    let program = env!("CARGO_BIN_EXE_muster-sim");
    let told = |command: &str| std::process::Command::new(program).arg(command).arg(&path).output().expect("runs");
    for command in ["run", "replay"] {
        let told = told(command);
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        assert_eq!(told.status.code(), Some(5), "{command}: {text}");
        assert!(text.contains("assumption-broken: "), "{command}: {text}");
    }
}

#[test]
fn two_charters_of_an_image_that_names_too_few_machines_are_as_meant_where_the_scenario_says_so() {
    let mut scenario = scenario("too-many-machines");
    let meant: Vec<_> = (0..6).map(|seed| run(&scenario, seed)).collect();
    assert!(meant.iter().all(|outcome| outcome.verdict == Verdict::Held), "{:?}", meant[0].what());
    let two = meant.iter().find(|outcome| outcome.unbound.is_some()).expect("the halves found apart");
    scenario.expect.unbound = None;
    assert_eq!(run(&scenario, two.seed).verdict, Verdict::AssumptionBroken);
}

#[test]
fn what_outlasts_a_turn_or_loses_a_log_leaves_one_cluster_of_what_the_image_asks_for() {
    for (name, seeds) in [("etcd-three", 0..4), ("too-few", 0..4), ("log-lost", 0..4), ("flapping-initialiser", 0..3)] {
        for seed in seeds {
            let outcome = run(&scenario(name), seed);
            // Of a few faults that are drawn all may hit nobody.
            let fine = matches!(outcome.verdict, Verdict::Held | Verdict::NothingHappened);
            assert!(fine, "{name}, seed {seed}: {}", outcome.what());
        }
    }
}

#[test]
fn strangers_cost_something_and_no_more_than_is_said() {
    let mut strangers = scenario("strangers");
    let outcome = run(&strangers, 1);
    assert_eq!(outcome.verdict, Verdict::Held, "{}", outcome.what());
    strangers.bounds.stranger_dials_per_s = 0.0;
    let broken = run(&strangers, 1).broken.expect("each dials now and then");
    assert!(broken.promise == "L5" && broken.what.contains("each of 6 strangers costs"), "{}", broken.what);
}

#[test]
fn a_step_that_fails_has_done_a_part_of_its_work() {
    let text = "title = \"x\"\nmachines = 3\n[phases]\nfaults_s = 30.0\nheal_s = 120.0\n\
                [[fault]]\nkind = \"kubeadm-fail\"\nat_s = 0.0\nfor_s = 30.0\nmachines = \"all\"\nstep = \"init\"\n";
    let fails = Scenario::parse(text).expect("right");
    for seed in 0..6 {
        let outcome = run(&fails, seed);
        assert_eq!(outcome.verdict, Verdict::Held, "seed {seed}: {}", outcome.what());
        assert!(outcome.sometimes.contains_key("reset-run"), "seed {seed} left nothing to undo");
    }
}

#[test]
fn shrinking_leaves_the_fault_that_matters() {
    let mut split = scenario("threshold-splits");
    let mut idle = split.faults[0].clone();
    idle.kind = Sort::Pause;
    idle.for_s = 0.1;
    split.faults.push(idle);
    let small = shrink(&split, &1.into(), 60, &mut |_, _| {}).expect("it breaks S1");
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
    let (summary, outcomes) = sweep::sweep(&five, 0, 3, 2, &AtomicBool::new(false), |_| {});
    assert_eq!(outcomes.iter().map(|outcome| outcome.seed).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(summary.verdict, Verdict::NotEnoughSeen);
    assert_eq!(summary.missing, ["clone-found"]);
    assert_eq!(summary.held, 3);
    let xml = junit::text("a < b", &outcomes, &summary.twice);
    assert!(xml.contains("a &lt; b") && xml.contains("tests=\"3\" failures=\"0\""), "{xml}");
}

#[test]
fn a_sweep_holds_only_if_most_of_its_seeds_show_that() {
    let mut short = scenario("five");
    // What is not due yet when the run ends is unknown.
    short.phases.heal_s = 0.1;
    let (summary, outcomes) = sweep::sweep(&short, 0, 3, 1, &AtomicBool::new(false), |_| {});
    assert!(outcomes.iter().all(|outcome| outcome.verdict == Verdict::NotEnoughSeen));
    assert_eq!((summary.held, summary.verdict), (0, Verdict::NotEnoughSeen));
    assert!(sweep::enough(2, 1) && !sweep::enough(1, 1) && !sweep::enough(1, 19) && !sweep::enough(0, 0));
}

#[test]
fn what_is_another_run_in_another_process_fails_the_sweep() {
    let (mut summary, mut outcomes) = sweep::sweep(&scenario("five"), 0, 5, 1, &AtomicBool::new(false), |_| {});
    let path = folder().join("five.toml").display().to_string();
    let program = Path::new(env!("CARGO_BIN_EXE_muster-sim"));
    let same = twice(program, std::slice::from_ref(&path), &outcomes, 2);
    assert_eq!((same.seeds.as_slice(), same.differ.len()), ([0, 2, 4].map(Name::from).as_slice(), 0), "{same:?}");
    summary.compare(same);
    assert_eq!(summary.verdict, Verdict::Held);

    outcomes[2].hash = "0123456789abcdef".into();
    summary.compare(twice(program, &[path], &outcomes, 2));
    assert_eq!(summary.twice.differ.iter().map(|differs| &differs.seed).collect::<Vec<_>>(), [&Name::from(2)]);
    assert_eq!(summary.verdict.code(), 1);
    let xml = junit::text("five", &outcomes, &summary.twice);
    assert!(xml.contains("tests=\"8\" failures=\"1\"") && xml.contains("not deterministic"), "{xml}");

    let gone = twice(program, &["no-such-scenario".into()], &outcomes[..1], 1);
    assert!(gone.differ[0].there.contains("no-such-scenario"), "{gone:?}");
}

#[test]
fn a_report_needs_nothing_from_anywhere() {
    let five = scenario("five");
    let (outcome, world) = muster_simulator::run::run_traced(&five, 1, trace::Trace::new(10_000));
    let page = report::html(&five, &outcome, &world, "muster-sim run five --seed 1");
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("src="));
    assert!(page.contains(&outcome.hash) && page.contains("init-ready"));
}

#[test]
fn a_sweep_that_was_stopped_tells_what_it_saw_and_does_not_hold() {
    let five = scenario("five");
    let stop = AtomicBool::new(false);
    let stopping = |_: &muster_simulator::run::Outcome| stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut summary, outcomes) = sweep::sweep(&five, 0, 1_000_000, 1, &stop, stopping);
    summary.stop();
    assert_eq!((summary.run, summary.held, outcomes.len()), (1, 1, 1));
    assert_eq!(summary.verdict, Verdict::NotEnoughSeen);
}

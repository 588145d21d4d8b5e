//! A sweep looks further where runs came to states that few others came to: the same way every time, and so that whatever it
//! finds can be run again by its name.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use muster_simulator::name::{Name, Step};
use muster_simulator::run::{Outcome, Verdict, run, run_named};
use muster_simulator::scenario::{Scenario, Sort};
use muster_simulator::sweep::{Summary, guided, sweep};
use muster_simulator::twice::twice;
use muster_simulator::vary::{made_of, varies};

/// Three machines under a few faults, over as soon as everything holds.
fn three() -> Scenario {
    let text = "title = \"x\"\nmachines = 3\n[phases]\nfaults_s = 20.0\nheal_s = 100.0\nstop_when_held = true\n\
                [swarm]\nfaults = [1, 4]\nsorts = [\"crash\", \"split\", \"pause\", \"crash-on-write\", \"kubeadm-fail\"]\n";
    Scenario::parse(text).expect("right")
}

fn built_in(name: &str) -> Scenario {
    let text = muster_simulator::built_in::text(name).expect("there is such a scenario");
    Scenario::parse(text).expect("it is right")
}

fn swept(scenario: &Scenario, seeds: u64, jobs: usize) -> (Summary, Vec<Outcome>) {
    guided(scenario, 0, seeds, jobs, &AtomicBool::new(false), |_| {})
}

fn told(outcomes: &[Outcome]) -> Vec<(String, String)> {
    outcomes.iter().map(|outcome| (outcome.name.to_string(), outcome.hash.clone())).collect()
}

#[test]
fn a_seed_comes_to_the_same_states_whatever_ran_before() {
    let scenario = three();
    let first = run(&scenario, 3);
    run(&built_in("five"), 1);
    let again = run(&scenario, 3);
    assert!(first.way.len() > 20, "{}", first.way.len());
    assert_eq!((first.way, first.states), (again.way, again.states));
    assert_ne!(run(&scenario, 4).way, run(&scenario, 3).way);
}

#[test]
fn a_guided_sweep_is_the_same_with_any_number_of_threads() {
    let scenario = three();
    let (one, first) = swept(&scenario, 12, 1);
    let (other, second) = swept(&scenario, 12, 5);
    assert_eq!(told(&first), told(&second));
    assert_eq!((&one.hash, one.states.distinct), (&other.hash, other.states.distinct));
    assert_eq!((one.run, one.varied, first.len()), (18, 6, 18));
    // Every seed that was promised, with the run that it is without a guide, and first.
    let (plain, seeds) = sweep(&scenario, 0, 12, 2, &AtomicBool::new(false), |_| {});
    assert_eq!(told(&seeds), told(&first)[..12]);
    assert_eq!((plain.varied, plain.run), (0, 12));
    assert!(plain.states.distinct < one.states.distinct, "variations came to nothing new");
}

#[test]
fn a_variation_is_run_again_by_its_name_in_another_process() {
    let here = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guided.toml");
    let scenario = three();
    std::fs::write(&here, scenario.to_toml()).expect("written");
    let (_, outcomes) = swept(&scenario, 6, 2);
    let path = here.display().to_string();
    let program = Path::new(env!("CARGO_BIN_EXE_muster-sim"));
    let same = twice(program, std::slice::from_ref(&path), &outcomes[6..], 1);
    assert_eq!((same.seeds.len(), same.differ.as_slice()), (3, [].as_slice()));
    // `replay` says what `run` says, and a name that is none is refused.
    let name = outcomes[6].name.to_string();
    let ends = |arguments: &[&str]| {
        let told = std::process::Command::new(program).args(arguments).output().expect("runs");
        (
            told.status.code(),
            String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr),
        )
    };
    let (code, text) = ends(&["replay", &path, "--seed", &name]);
    assert_eq!(code, Some(outcomes[6].verdict.code().into()), "{text}");
    assert!(text.contains(&format!("hash {}", outcomes[6].hash)), "{text}");
    let (code, text) = ends(&["run", &path, "--seed", "6.1"]);
    assert!(code == Some(4) && text.contains("a variation of one as 17.2@350000"), "{text}");
}

/// Whatever is varied, and however often: fixed faults stay, and drawn ones are such as another seed might have drawn.
#[test]
fn a_variation_is_a_run_that_another_seed_might_have_drawn() {
    for name in ["swarm-5", "disks", "second-cluster", "swarm-wild", "late-init"] {
        let scenario = built_in(name);
        let swarm = scenario.swarm.clone().expect("it draws faults");
        let mut kept = 0;
        for seed in 0..60 {
            let mut run = Name::from(seed);
            for nth in 0..4 {
                let end_us = (scenario.phases.faults_s * 1.5e6) as u64;
                run = run.varied(Step { nth, around_us: end_us * u64::from(nth) / 3 }).expect("few steps");
                let varied = made_of(&scenario, &run);
                assert_eq!(varied, made_of(&scenario, &run), "{name} {run}");
                kept += u64::from(varied == made_of(&scenario, &run.parent().expect("it varies one").0));
                let drawn = varied.plan.len() - scenario.faults.len();
                assert!(
                    (swarm.faults[0] as usize..=swarm.faults[1] as usize).contains(&drawn),
                    "{name} {run}: {drawn}"
                );
                let sorts =
                    |sort: &Sort| swarm.sorts.contains(sort) || scenario.faults.iter().any(|one| one.kind == *sort);
                assert!(varied.plan.iter().all(|fault| sorts(&fault.kind)), "{name} {run}");
                let ends = |at_s: f64, for_s: f64| at_s + for_s <= scenario.phases.faults_s + 1e-3;
                assert!(
                    varied.plan.iter().all(|fault| ends(fault.at_s, fault.for_s)),
                    "{name} {run}: {:?}",
                    varied.plan
                );
                for fixed in &scenario.faults {
                    let same = varied.plan.iter().filter(|fault| (fault.kind, fault.at_s) == (fixed.kind, fixed.at_s));
                    assert!(same.count() > 0, "{name} {run} moved {fixed:?}");
                }
                // It is a scenario that a file takes, as a regression must be.
                let file = Scenario { swarm: None, faults: varied.plan, ..scenario.clone() };
                assert_eq!(
                    Scenario::parse(&file.to_toml()).map_err(|error| error.to_string()),
                    Ok(file),
                    "{name} {run}"
                );
            }
        }
        assert!(kept < 24, "{name}: {kept} of 240 variations varied nothing");
    }
}

#[test]
fn what_draws_nothing_is_not_varied_and_where_nothing_happens_no_state_counts() {
    let (summary, _) = swept(&built_in("five"), 3, 1);
    assert_eq!((summary.run, summary.varied, varies(&built_in("five"))), (3, 0, false));
    assert!(summary.states.distinct > 20);
    let mut idle = three();
    let swarm = idle.swarm.as_mut().expect("it draws");
    (swarm.sorts, swarm.faults) = (vec![Sort::NodeStays], [1, 1]);
    let (summary, outcomes) = swept(&idle, 3, 1);
    assert!(outcomes.iter().all(|outcome| outcome.verdict == Verdict::NothingHappened));
    assert_eq!((summary.states.distinct, summary.varied), (0, 0));
    // Everything that it could have come to is missed then.
    assert!(summary.states.never["phase"].contains(&"Ready"));
}

#[test]
fn what_was_never_come_to_is_told_and_what_could_not_be_is_not() {
    let (summary, _) = swept(&three(), 8, 2);
    let never = |dimension: &str| summary.states.never.get(dimension).cloned().unwrap_or_default();
    assert!(!never("phase").contains(&"Ready") && !never("phase").contains(&"Halted"), "{:?}", summary.states);
    assert!(!never("removed").contains(&"a machine"), "nobody is wiped in it: {:?}", summary.states);
    // A variation that breaks a promise breaks the sweep, and what varies it further can be run by name.
    let name = Name::from(2).varied(Step { nth: 1, around_us: 900_000 }).expect("one step");
    let outcome = run_named(&three(), &name);
    assert_eq!((outcome.name.to_string(), outcome.seed), ("2.1@900000".to_owned(), 2));
}

//! A fault counts as reached when it took effect, and a run in which none did counts for nothing.

use std::sync::atomic::AtomicBool;

use muster_simulator::reach::Reach;
use muster_simulator::run::{Outcome, Verdict, run};
use muster_simulator::scenario::{Fault, Pick, Scenario, Sort};
use muster_simulator::sweep::sweep;

/// Five machines, Ready after some ten seconds, and these faults.
fn five(faults: &str) -> Scenario {
    let text = format!(
        "title = \"x\"\nmachines = 5\n[phases]\nfaults_s = 40.0\nheal_s = 100.0\nstop_when_held = true\n{faults}"
    );
    Scenario::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn fault(line: &str) -> String {
    format!("[[fault]]\n{}\n", line.replace("; ", "\n"))
}

fn reach(outcome: &Outcome, sort: Sort) -> Reach {
    outcome.faults.get(&sort).copied().unwrap_or_default()
}

/// Of each case: the faults, the sort that is looked at, how many there are, and how many of them take effect.
#[test]
fn a_fault_is_reached_when_it_took_effect() {
    let cases: &[(&[&str], Sort, u64, u64)] = &[
        (&["kind = \"crash\"; at_s = 20; for_s = 5; machines = [1]"], Sort::Crash, 1, 1),
        // Down already, and up again before the other one ends; the last keeps the machine down for longer.
        (
            &[
                "kind = \"crash\"; at_s = 20; for_s = 10; machines = [1]",
                "kind = \"crash\"; at_s = 22; for_s = 2; machines = [1]",
            ],
            Sort::Crash,
            2,
            1,
        ),
        (
            &[
                "kind = \"crash\"; at_s = 20; for_s = 5; machines = [1]",
                "kind = \"crash\"; at_s = 22; for_s = 9; machines = [1]",
            ],
            Sort::Crash,
            2,
            2,
        ),
        // A machine that is kept from its first boot.
        (&["kind = \"crash\"; at_s = 0; for_s = 5; machines = [1]"], Sort::Crash, 1, 1),
        (
            &[
                "kind = \"crash\"; at_s = 20; for_s = 10; machines = [1]",
                "kind = \"pause\"; at_s = 22; for_s = 2; machines = [1]",
            ],
            Sort::Pause,
            1,
            0,
        ),
        (&["kind = \"pause\"; at_s = 22; for_s = 2; machines = [1]"], Sort::Pause, 1, 1),
        (&["kind = \"split\"; at_s = 20; for_s = 10; machines = [1]"], Sort::Split, 1, 1),
        // Nobody is left on the other side.
        (&["kind = \"split\"; at_s = 20; for_s = 10; machines = \"all\""], Sort::Split, 1, 0),
        // Cut off already.
        (
            &[
                "kind = \"split\"; at_s = 20; for_s = 10; machines = [1]",
                "kind = \"split\"; at_s = 22; for_s = 5; machines = [1]",
            ],
            Sort::Split,
            2,
            1,
        ),
        (&["kind = \"loss\"; at_s = 20; for_s = 10; rate = 0.0; machines = \"all\""], Sort::Loss, 1, 0),
        (&["kind = \"loss\"; at_s = 20; for_s = 10; rate = 0.5; machines = \"all\""], Sort::Loss, 1, 1),
        (&["kind = \"swallow\"; at_s = 20; for_s = 10; bytes = 100000; machines = \"all\""], Sort::Swallow, 1, 0),
        (&["kind = \"swallow\"; at_s = 20; for_s = 10; bytes = 20; machines = \"all\""], Sort::Swallow, 1, 1),
        // Nothing was on the disk yet.
        (&["kind = \"old-copy\"; at_s = 0; for_s = 1; machines = [1]"], Sort::OldCopy, 1, 0),
        (&["kind = \"wipe\"; at_s = 0; for_s = 1; machines = [1]"], Sort::Wipe, 1, 0),
        (&["kind = \"wipe\"; at_s = 20; for_s = 1; machines = [1]"], Sort::Wipe, 1, 1),
        // A lie is found out when power is lost, and not before.
        (&["kind = \"lying-sync\"; at_s = 0; for_s = 30; machines = [1]"], Sort::LyingSync, 1, 0),
        (
            &[
                "kind = \"lying-sync\"; at_s = 0; for_s = 30; machines = [1]",
                "kind = \"power-loss\"; at_s = 3; for_s = 1; machines = [1]",
            ],
            Sort::LyingSync,
            1,
            1,
        ),
        (
            &["kind = \"kubeadm-fail\"; at_s = 0; for_s = 30; step = \"reset\"; machines = \"all\""],
            Sort::KubeadmFail,
            1,
            0,
        ),
        (
            &["kind = \"kubeadm-fail\"; at_s = 0; for_s = 25; step = \"join\"; machines = \"all\""],
            Sort::KubeadmFail,
            1,
            1,
        ),
        (&["kind = \"node-stays\"; at_s = 0; for_s = 30; machines = \"all\""], Sort::NodeStays, 1, 0),
        (&["kind = \"crash-on-write\"; at_s = 0; for_s = 5; machines = [1]"], Sort::CrashOnWrite, 1, 1),
        (&["kind = \"full\"; at_s = 0; for_s = 5; machines = [1]"], Sort::Full, 1, 1),
        (&["kind = \"clock-drift\"; at_s = 20; for_s = 5; ppm = 0; machines = [1]"], Sort::ClockDrift, 1, 0),
        (&["kind = \"clock-drift\"; at_s = 0; for_s = 5; ppm = 9000; machines = [1]"], Sort::ClockDrift, 1, 1),
        (&["kind = \"slow\"; at_s = 0; for_s = 5; ms = 5; machines = [1]"], Sort::Slow, 1, 1),
        (&["kind = \"sybil\"; at_s = 0; for_s = 5; count = 1; machines = []"], Sort::Sybil, 1, 1),
        (&["kind = \"late-proposals\"; at_s = 0; for_s = 30; ms = 10; machines = \"all\""], Sort::LateProposals, 1, 1),
    ];
    for (faults, sort, drawn, took) in cases {
        let scenario = five(&faults.iter().map(|line| fault(line)).collect::<String>());
        let outcome = run(&scenario, 3);
        let seen = reach(&outcome, *sort);
        assert_eq!((seen.drawn, seen.took), (*drawn, *took), "{faults:?}: {seen:?}");
        // A fault that hit nobody alone is a run in which nothing happened.
        let nothing = outcome.faults.values().all(|reach| reach.took == 0);
        assert_eq!(outcome.verdict == Verdict::NothingHappened, nothing, "{faults:?}: {:?}", outcome.verdict);
    }
}

#[test]
fn why_a_fault_took_no_effect_is_told() {
    let missed = |line: &str, sort| {
        let seen = reach(&run(&five(&fault(line)), 3), sort);
        assert_eq!((seen.drawn, seen.took), (1, 0), "{line}");
        seen.missed()
    };
    assert_eq!(missed("kind = \"crash\"; at_s = 0; for_s = 1; machines = \"leader\"", Sort::Crash), "1 named nobody");
    assert_eq!(missed("kind = \"split\"; at_s = 5; for_s = 1; machines = \"all\"", Sort::Split), "1 hit nothing");
    // Where a promise is broken the run ends, and what was to come does not.
    let text = muster_simulator::built_in::text("threshold-splits").expect("it is there");
    let mut broken = Scenario::parse(text).expect("it is right");
    broken.faults.push(Fault::new(Sort::Crash, broken.phases.faults_s, 1.0, Pick::All));
    let outcome = run(&broken, 1);
    assert_eq!(outcome.verdict, Verdict::SafetyBroken);
    assert_eq!(reach(&outcome, Sort::Crash).missed(), "1 were after the run's end");
    assert_eq!(reach(&outcome, Sort::Split).took, 1);
}

#[test]
fn a_run_in_which_nothing_happened_counts_for_nothing() {
    let idle = five(&fault("kind = \"node-stays\"; at_s = 0; for_s = 30; machines = \"all\""));
    let (summary, outcomes) = sweep(&idle, 0, 3, 1, &AtomicBool::new(false), |_| {});
    assert!(outcomes.iter().all(|outcome| outcome.verdict == Verdict::NothingHappened));
    assert!(outcomes.iter().all(|outcome| outcome.what() == "no fault took effect"));
    assert_eq!((summary.held, summary.nothing_happened, summary.verdict), (0, 3, Verdict::NotEnoughSeen));
    assert_eq!(summary.never_took, [Sort::NodeStays]);
    // What such a run reached it did not reach in spite of anything.
    assert!(!summary.sometimes.contains_key("everyone-ready") && summary.ready_at_s.is_none());
    let why = summary.too_little().join("; ");
    assert!(why.contains("no fault took effect on 3 of 3 seeds"), "{why}");
    assert_eq!(run(&five(""), 0).verdict, Verdict::Held, "without faults there is nothing that could take effect");
}

#[test]
fn seeds_that_count_for_nothing_weigh_neither_way() {
    let some = five("[swarm]\nfaults = [0, 1]\nsorts = [\"restart\"]\n");
    let (summary, outcomes) = sweep(&some, 0, 12, 1, &AtomicBool::new(false), |_| {});
    let held = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Held).count() as u64;
    assert!(held > 0 && summary.nothing_happened > held, "{held} and {}", summary.nothing_happened);
    assert_eq!((summary.held, summary.verdict), (held, Verdict::Held), "{:?}", summary.classes);
    let restart = summary.faults[&Sort::Restart];
    assert_eq!(restart.drawn, restart.took + restart.not_begun + restart.named_nobody + restart.without_effect);
    assert_eq!(restart.took, held);
    assert!(summary.too_little().is_empty() && summary.never_took.is_empty());
}

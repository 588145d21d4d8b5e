//! What must hold of a scenario's values. A value that would quietly do nothing, or never end, is refused like a wrong one.

use muster_wire::level;

use super::parse::ScenarioError;
use super::plan::STEPS;
use super::{Differs, Fault, Pick, Policy, Range, Scenario, Sort};

/// The longest time, in seconds: eleven days.
const TIME_MAX_S: f64 = 1_000_000.0;

/// The shortest time between two rounds of hints, in seconds.
const REPEAT_MIN_S: f64 = 0.01;

/// Most faults that a swarm draws, most identities that one fault makes, and most objects of the manifests.
const COUNT_MAX: u32 = 1_000;

/// Complains unless something holds, about the `nth` section of a name and a key in it.
pub(super) type Say<'a> = &'a dyn Fn(bool, &str, usize, &str, String) -> Result<(), ScenarioError>;

type Checked = Result<(), ScenarioError>;

pub(super) fn check(scenario: &Scenario, say: Say<'_>) -> Checked {
    machines(scenario, say)?;
    times(scenario, say)?;
    let [shortest, longest] = scenario.raft.election_ms;
    say(
        scenario.raft.snapshot_after > 0
            && scenario.raft.heartbeat_ms > 0
            && scenario.raft.heartbeat_ms < shortest
            && shortest < longest
            && longest as f64 <= TIME_MAX_S * 1e3,
        "raft",
        0,
        "election_ms",
        "must have election_ms = [shortest, longest], both above heartbeat_ms, and snapshot_after above 0".into(),
    )?;
    swarm(scenario, say)?;
    expect(scenario, say)?;
    scenario.faults.iter().enumerate().try_for_each(|(nth, what)| fault(scenario, nth, what, say))
}

fn machines(scenario: &Scenario, say: Say<'_>) -> Checked {
    let machines = scenario.machines;
    say((1..=10_000).contains(&machines), "", 0, "machines", "must be 1 to 10000".into())?;
    let image = &scenario.image;
    say((1..=10_000).contains(&scenario.image_machines()), "image", 0, "machines", "must be 1 to 10000".into())?;
    say(
        (1..=9).contains(&image.control_planes) && image.control_planes <= scenario.image_machines(),
        "image",
        0,
        "control_planes",
        format!("must be 1 to 9, and at most the image's machines, which are {}", scenario.image_machines()),
    )?;
    say(image.manifests <= COUNT_MAX, "image", 0, "manifests", format!("must be at most {COUNT_MAX}"))?;
    if image.policy == Policy::Threshold {
        say(image.expect.is_some(), "image", 0, "policy", "= \"threshold\" needs `expect`".into())?;
    }
    if let Some(expect) = image.expect {
        say(expect > 0, "image", 0, "expect", "must be 1 or more".into())?;
        let needs = "is for policy = \"threshold\" only".into();
        say(image.policy == Policy::Threshold, "image", 0, "expect", needs)?;
    }
    let mut left = machines;
    for (nth, other) in scenario.others.iter().enumerate() {
        left = left.saturating_sub(other.count);
        let rule = format!("of all [[other]] must leave a machine of {machines}");
        say(other.count > 0 && left > 0, "other", nth, "count", rule)?;
        let named = other.machines.is_none_or(|machines| (1..=10_000).contains(&machines));
        let rule = "is for differs = \"machines\" only, and must be 1 to 10000".into();
        let meant = other.machines.is_none() || other.differs == Differs::Machines;
        say(named && meant, "other", nth, "machines", rule)?;
        let most = other.machines.unwrap_or(scenario.image_machines()).min(9);
        let planes = other.control_planes.unwrap_or(image.control_planes.min(most));
        let rule = format!("must be 1 to {most}; unless given, they are the image's, {}", image.control_planes);
        let unsaid = other.control_planes.is_some() || image.control_planes <= most;
        say((1..=most).contains(&planes) && unsaid, "other", nth, "control_planes", rule)?;
        let time = (0.0..=TIME_MAX_S).contains(&other.boots_at_s);
        say(time, "other", nth, "boots_at_s", format!("must be 0 to {TIME_MAX_S}"))?;
    }
    let known = level::FOUNDED..=level::KNOWN;
    let rule = format!("must be {} to {}", level::FOUNDED, level::KNOWN);
    say(known.contains(&image.level), "image", 0, "level", rule)?;
    late(scenario, say)?;
    wishes(scenario, say)?;
    for slot in &scenario.discovery.seeds {
        let rule = format!("names machine {slot}, the last is {}", machines - 1);
        say(*slot < machines, "discovery", 0, "seeds", rule)?;
    }
    let due = scenario.bounds.machines.unwrap_or(1);
    say((1..=machines).contains(&due), "bounds", 0, "machines", format!("must be 1 to {machines}"))
}

fn wishes(scenario: &Scenario, say: Say<'_>) -> Checked {
    for (nth, wish) in scenario.wishes.iter().enumerate() {
        let end = scenario.phases.faults_s + scenario.phases.heal_s;
        let time = (0.0..end).contains(&wish.at_s);
        say(time, "wish", nth, "at_s", format!("must be 0 to less than {end}, when the run ends, or nobody is asked"))?;
        let others = scenario.others.len();
        let accepts = wish.accept_other.unwrap_or_default();
        let rule = format!("names [[other]] {accepts}, and there are {others}, counted from 0");
        say(wish.accept_other.is_none() || (accepts as usize) < others, "wish", nth, "accept_other", rule)?;
        let count = [wish.accept_other.is_some(), wish.remove.is_some(), wish.withdraw.is_some(), wish.recover];
        let one = count.iter().filter(|there| **there).count() == 1;
        say(
            one,
            "wish",
            nth,
            "remove",
            "must stand alone: a wish is one of accept_other, remove, withdraw and recover".to_owned(),
        )?;
        let rule = "is for recover only".to_owned();
        say(!wish.from_backup || wish.recover, "wish", nth, "from_backup", rule)?;
        let rule = "is for remove only".to_owned();
        say(!wish.returns || wish.remove.is_some(), "wish", nth, "returns", rule)?;
        let whom = [
            ("machines", Some(&wish.machines)),
            ("remove", wish.remove.as_ref()),
            ("withdraw", wish.withdraw.as_ref()),
        ];
        for (key, pick) in whom.into_iter().filter_map(|(key, pick)| Some((key, pick?))) {
            let rule = "must name machines, or who they are when it is wished: nothing is drawn for a wish".to_owned();
            say(!matches!(pick, Pick::Random(_) | Pick::Half), "wish", nth, key, rule)?;
            if let Pick::These(these) = pick {
                let named = !these.is_empty() && these.iter().all(|machine| *machine < scenario.machines);
                say(named, "wish", nth, key, format!("must name machines up to {}", scenario.machines - 1))?;
            }
        }
    }
    Ok(())
}

fn late(scenario: &Scenario, say: Say<'_>) -> Checked {
    let mut named = std::collections::BTreeSet::new();
    for (nth, late) in scenario.lates.iter().enumerate() {
        say(!late.machines.is_empty(), "late", nth, "machines", "is empty: nobody would be late".into())?;
        for machine in &late.machines {
            let rule = format!("names machine {machine}, the last is {}", scenario.machines - 1);
            say(*machine < scenario.machines, "late", nth, "machines", rule)?;
            let rule = format!("names machine {machine} again: it boots once");
            say(named.insert(*machine), "late", nth, "machines", rule)?;
        }
        let end = scenario.phases.faults_s;
        let time = late.boots_at_s > 0.0 && late.boots_at_s <= end;
        let rule = format!("must be more than 0, and at most [phases] faults_s = {end}: from then on all are judged");
        say(time, "late", nth, "boots_at_s", rule)?;
    }
    Ok(())
}

fn times(scenario: &Scenario, say: Say<'_>) -> Checked {
    for (section, key, [least, most]) in ranges(scenario) {
        let holds = least >= 0.0 && least <= most && most <= TIME_MAX_S;
        say(holds, section, 0, key, format!("must be [least, most], from 0 to {TIME_MAX_S}"))?;
    }
    let (phases, bounds) = (&scenario.phases, &scenario.bounds);
    let singles = [
        ("network", "jitter_ms", scenario.network.jitter_ms),
        ("network", "bandwidth_kbit", scenario.network.bandwidth_kbit / 1e3),
        ("boots", "spread_s", scenario.boots.spread_s),
        ("kubeadm", "step_max_s", scenario.kubeadm.step_max_s),
        ("phases", "faults_s", phases.faults_s),
        ("phases", "heal_s", phases.heal_s),
        ("bounds", "charter_s", bounds.charter_s),
        ("bounds", "joined_s", bounds.joined_s),
        ("bounds", "leader_s", bounds.leader_s),
        ("bounds", "rosters_s", bounds.rosters_s),
        ("bounds", "replaced_s", bounds.replaced_s),
        ("bounds", "idle_messages_per_s", bounds.idle_messages_per_s),
        ("bounds", "stranger_dials_per_s", bounds.stranger_dials_per_s),
        ("bounds", "stranger_frames_per_s", bounds.stranger_frames_per_s),
    ];
    let [least, _] = scenario.discovery.repeat_s;
    let rule = format!("must be {REPEAT_MIN_S} or more: hints would come without an end at one moment");
    say(least >= REPEAT_MIN_S, "discovery", 0, "repeat_s", rule)?;
    let nobody = "= false needs `seeds`, or no machine ever hears of another".into();
    let heard = scenario.discovery.segment || !scenario.discovery.seeds.is_empty() || scenario.machines == 1;
    say(heard, "discovery", 0, "segment", nobody)?;
    let rule = "must be more than 0, or every kubeadm step is ended as it begins".into();
    say(scenario.kubeadm.step_max_s > 0.0, "kubeadm", 0, "step_max_s", rule)?;
    for (section, key, value) in singles {
        say((0.0..=TIME_MAX_S).contains(&value), section, 0, key, format!("must be 0 to {TIME_MAX_S}"))?;
    }
    // A ballot is answered over connections. Who founds alone needs none.
    let least = (scenario.image_machines() / 2).min(scenario.machines).max(1);
    let rule = format!("must be {least} or more, or no machine ever reaches a founding quorum");
    say(scenario.network.connections_max >= least, "network", 0, "connections_max", rule)?;
    say(share(scenario.network.loss), "network", 0, "loss", "must be 0 to 1".into())
}

fn ranges(scenario: &Scenario) -> [(&'static str, &'static str, Range); 11] {
    let kubeadm = &scenario.kubeadm;
    [
        ("network", "latency_ms", scenario.network.latency_ms),
        ("discovery", "delay_ms", scenario.discovery.delay_ms),
        ("discovery", "repeat_s", scenario.discovery.repeat_s),
        ("boots", "restart_s", scenario.boots.restart_s),
        ("disk", "sync_ms", scenario.disk.sync_ms),
        ("kubeadm", "prepare_s", kubeadm.prepare_s),
        ("kubeadm", "init_s", kubeadm.init_s),
        ("kubeadm", "init_finish_s", kubeadm.init_finish_s),
        ("kubeadm", "join_s", kubeadm.join_s),
        ("kubeadm", "etcd_s", kubeadm.etcd_s),
        ("kubeadm", "ready_s", kubeadm.ready_s),
    ]
}

fn share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

fn swarm(scenario: &Scenario, say: Say<'_>) -> Checked {
    let Some(swarm) = &scenario.swarm else { return Ok(()) };
    say(!swarm.sorts.is_empty(), "swarm", 0, "sorts", "must name at least one sort".into())?;
    let [least, most] = swarm.faults;
    let rule = format!("must be [least, most], at most {COUNT_MAX}");
    say(least <= most && most <= COUNT_MAX, "swarm", 0, "faults", rule)?;
    say(share(swarm.loss_max), "swarm", 0, "loss_max", "must be 0 to 1".into())?;
    let time = scenario.phases.faults_s > 0.0;
    say(time, "phases", 0, "faults_s", "must be more than 0, or the swarm's faults have no time".into())
}

fn expect(scenario: &Scenario, say: Say<'_>) -> Checked {
    let known = crate::sometimes::names();
    for name in &scenario.expect.sometimes {
        let rule = format!("has {name:?}; accepted: {}", known.join(", "));
        say(known.contains(&name.as_str()), "expect", 0, "sometimes", rule)?;
    }
    if let Some(breaks) = &scenario.expect.breaks {
        let promise = crate::promises::PROMISES.iter().any(|(name, _)| name == breaks);
        say(promise, "expect", 0, "breaks", format!("is {breaks:?}; accepted: S1 to S11, S14 to S17, L1 to L5"))?;
    }
    if let Some(unbound) = &scenario.expect.unbound {
        let rule = format!("is {unbound:?}; accepted: S1, the promise whose assumptions a scenario may break");
        say(unbound == "S1", "expect", 0, "unbound", rule)?;
    }
    Ok(())
}

fn fault(scenario: &Scenario, nth: usize, fault: &Fault, say: Say<'_>) -> Checked {
    let rule = |holds: bool, key: &str, rule: String| say(holds, "fault", nth, key, rule);
    let time = |value: f64| (0.0..=TIME_MAX_S).contains(&value);
    rule(time(fault.at_s), "at_s", format!("must be 0 to {TIME_MAX_S}"))?;
    rule(time(fault.for_s), "for_s", format!("must be 0 to {TIME_MAX_S}"))?;
    let takes = fault.kind.takes();
    for given in fault.given() {
        let accepted = if takes.is_empty() { "nothing".to_owned() } else { takes.join(", ") };
        let why = format!("is not for kind = \"{}\", which takes {accepted}", fault.kind.word());
        rule(takes.contains(&given), given, why)?;
    }
    for needed in takes.iter().filter(|takes| !["step", "copy", "half"].contains(takes)) {
        rule(fault.given().contains(needed), "kind", format!("= \"{}\" needs `{needed}`", fault.kind.word()))?;
    }
    rule(fault.rate.is_none_or(share), "rate", "must be 0 to 1".into())?;
    rule(fault.ms.is_none_or(|ms| time(ms / 1e3)), "ms", format!("must be 0 to {}", TIME_MAX_S * 1e3))?;
    let period = fault.period_s.is_none_or(|period| time(period) && period >= 0.01);
    rule(period, "period_s", format!("must be 0.01 to {TIME_MAX_S}"))?;
    rule(fault.kbit.is_none_or(|kbit| kbit > 0.0), "kbit", "must be more than 0".into())?;
    let ppm = fault.ppm.is_none_or(|ppm| ppm.abs() <= 500_000.0);
    rule(ppm, "ppm", "must be -500000 to 500000".into())?;
    let count = fault.count.is_none_or(|count| (1..=COUNT_MAX).contains(&count));
    rule(count, "count", format!("must be 1 to {COUNT_MAX}"))?;
    let known = fault.level.is_none_or(|level| (level::FOUNDED..=level::KNOWN).contains(&level));
    rule(known, "level", format!("must be {} to {}", level::FOUNDED, level::KNOWN))?;
    let most = crate::world::COPIES_KEPT as i32;
    let copy = fault.copy.is_none_or(|copy| (-most..most).contains(&copy));
    rule(copy, "copy", format!("must be {} to {}", -most, most - 1))?;
    if let Some(step) = &fault.step {
        rule(STEPS.contains(&step.as_str()), "step", format!("is {step:?}; accepted: {}", STEPS.join(", ")))?;
    }
    targets(scenario.machines, fault, &rule)?;
    half(scenario.machines, fault, &rule)?;
    let end = scenario.phases.faults_s;
    let late = format!("is {}, but every fault ends at [phases] faults_s = {end}", fault.at_s);
    rule(fault.at_s <= end, "at_s", late)
}

/// The halves of a bridge must be two, or nobody is kept from anybody.
fn half(machines: u32, fault: &Fault, rule: &dyn Fn(bool, &str, String) -> Checked) -> Checked {
    let Some(half) = &fault.half else { return Ok(()) };
    for machine in half {
        rule(*machine < machines, "half", format!("names {machine}, the last is {}", machines - 1))?;
    }
    let bridge = match &fault.machines {
        Pick::These(these) => these.first(),
        _ => None,
    };
    let mut sides = [false; 2];
    for machine in (0..machines).filter(|machine| Some(machine) != bridge) {
        sides[usize::from(half.contains(&machine))] = true;
    }
    rule(sides == [true; 2], "half", "must name some machines and leave some, beside the one between them".into())
}

fn targets(machines: u32, fault: &Fault, rule: &dyn Fn(bool, &str, String) -> Checked) -> Checked {
    match &fault.machines {
        Pick::These(these) => {
            let some = !these.is_empty() || fault.kind == Sort::Sybil;
            rule(some, "machines", "is empty: the fault would hit nobody".into())?;
            for machine in these {
                rule(*machine < machines, "machines", format!("names {machine}, the last is {}", machines - 1))?;
            }
        }
        Pick::Random(count) => {
            rule((1..=machines).contains(count), "machines", format!("= \"random:N\" takes 1 to {machines} as N"))?;
        }
        _ => {}
    }
    if fault.kind != Sort::Clone {
        return Ok(());
    }
    let two = match &fault.machines {
        Pick::These(these) => these.len() == 2 && these[0] != these[1],
        pick => *pick == Pick::Random(2),
    };
    rule(two, "machines", "of a clone must be [copy, original], or \"random:2\"".into())
}

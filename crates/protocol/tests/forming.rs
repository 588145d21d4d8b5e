//! Whole formations through the pure core, on an ideal network.

#[allow(dead_code, reason = "other transcripts use the rest of it")]
mod site;

use std::net::IpAddr;
use std::time::Duration;

use muster_protocol::{Input, ManifestOutcome, Phase, Step, StepOutput};
use muster_wire::{Attempt, Durable, Role};
use site::{Site, settings};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn explain(site: &Site) -> String {
    let mut text = site.transcript.join("\n");
    for (seat, one) in &site.seats {
        text += &format!("\n-- {seat}: {:?} next {:?}\n", one.machine.phase(), one.machine.next_wakeup());
        for reason in one.machine.reasons(site.now) {
            text += &format!("   {}\n", reason.text);
        }
    }
    text
}

#[test]
fn five_machines_become_one_cluster() {
    let mut site = Site::new(5, 3);
    (0..5).for_each(|seat| site.boot(seat));
    site.run(seconds(10));
    assert!(site.formed(), "{}", explain(&site));
    let ledger = site.seats[&0].machine.ledger();
    assert_eq!(ledger.control_planes().count(), 3);
    assert_eq!(ledger.last_attempt(), Attempt(1));
    assert!(site.seats.values().all(|seat| seat.machine.ledger().members() == ledger.members()));
}

#[test]
fn one_machine_founds_alone() {
    let mut site = Site::new(1, 1);
    site.boot(0);
    site.run(seconds(10));
    assert!(site.formed(), "{}", explain(&site));
}

#[test]
fn a_quorum_founds_and_a_late_machine_joins() {
    let mut site = Site::new(5, 3);
    (0..4).for_each(|seat| site.boot(seat));
    site.run(seconds(20));
    assert!(site.formed(), "{}", explain(&site));
    site.boot(4);
    site.run(seconds(20));
    assert!(site.formed(), "{}", explain(&site));
}

#[test]
fn a_machine_whose_kubeadm_was_not_looked_at_yet_is_waited_for_and_then_is_what_it_can_be() {
    let mut site = Site::new(4, 3);
    site.hang.insert((0, "check"));
    (0..3).for_each(|seat| site.boot(seat));
    site.run(seconds(5));
    assert!(site.seats[&1].machine.charter().is_none(), "two that could be voters are no quorum of four");
    assert!(explain(&site).contains("has not looked at its kubeadm yet"), "{}", explain(&site));
    site.boot(3);
    site.run(seconds(10));
    let slow = site.id(0);
    let charter = site.seats[&1].machine.charter().expect("three found").clone();
    assert!(!charter.charter().voters.contains(&slow));
    assert!(site.seats[&1].machine.ledger().member(slow).is_none(), "its role would be a guess");
    let run = *site.seats[&0].running.keys().next().expect("its check hangs");
    let worker_only = Some("kubeadm v1.34.4 is older than v1.37.2: a worker at most".to_owned());
    let result = Ok(StepOutput::Checked { version: "v1.34.4".into(), worker_only });
    site.feed(0, Input::Finished { run, result });
    site.run(seconds(20));
    assert!(site.formed(), "{}", explain(&site));
    assert_eq!(site.seats[&1].machine.ledger().member(slow).expect("admitted").admitted.role, Role::Worker);
}

#[test]
fn a_machine_that_lists_no_address_is_no_voter_and_is_named() {
    let mut site = Site::new(3, 1);
    // The lowest identity would be the one voter.
    let lowest =
        (0..3).min_by_key(|seat| muster_wire::Identity::from_seed(&site::seed(*seat)).machine()).expect("three");
    site.listed.insert(lowest, Vec::new());
    (0..3).for_each(|seat| site.boot(seat));
    site.run(seconds(20));
    let other = (0..3).find(|seat| *seat != lowest).expect("three");
    let charter = site.seats[&other].machine.charter().expect("two of three found").charter();
    assert!(!charter.voters.contains(&site.id(lowest)));
    assert!(site.seats[&other].machine.ledger().ready().is_some(), "{}", explain(&site));
}

#[test]
fn a_ready_cluster_names_the_machine_that_cannot_run_kubeadm() {
    let told = |site: &Site| {
        let reasons = site.seats[&0].machine.reasons(site.now);
        reasons.iter().any(|reason| reason.text.contains("node-2 cannot run kubeadm: check: told to fail"))
    };
    let mut site = Site::new(3, 3);
    site.fail.insert((2, "check"));
    (0..3).for_each(|seat| site.boot(seat));
    // It looks again two seconds later.
    site.run(Duration::from_millis(1_900));
    assert!(told(&site), "{}", explain(&site));
    site.run(seconds(20));
    assert!(site.formed() && !told(&site), "{}", explain(&site));
}

#[test]
fn a_newcomer_whose_charter_was_lost_on_the_way_asks_for_it_again() {
    let mut site = Site::new(5, 3);
    (0..4).for_each(|seat| site.boot(seat));
    site.run(seconds(60));
    (1..4).for_each(|seat| drop(site.kill(seat)));
    site.run(seconds(120));
    // With one other machine it sees no quorum, and knows of the charter by the greeting alone.
    site.lose.insert("chartered", 3);
    site.boot(4);
    site.run(seconds(1));
    assert!(site.seats[&4].machine.charter().is_none());
    site.run(seconds(5));
    assert!(site.seats[&4].machine.charter().is_some());
}

#[test]
fn two_of_five_found_nothing_and_say_why() {
    let mut site = Site::new(5, 3);
    (0..2).for_each(|seat| site.boot(seat));
    site.run(seconds(120));
    for seat in site.seats.values() {
        assert_eq!(seat.machine.charter(), None);
        assert_eq!(seat.machine.phase(), Phase::Meeting);
        let text = &seat.machine.reasons(site.now)[0].text;
        assert_eq!(text, "meeting: 2 of 5 machines are here, founding needs 3");
    }
}

#[test]
fn two_images_on_one_network_found_nothing_and_are_both_named() {
    let mut site = Site::new(3, 1);
    (0..2).for_each(|seat| site.boot(seat));
    site.boot_with(2, Durable::default(), settings(4, 1), "odd");
    site.run(seconds(60));
    for seat in site.seats.values() {
        assert_eq!(seat.machine.charter(), None, "{}", explain(&site));
        assert_eq!(seat.machine.phase(), Phase::Halted);
        assert!(seat.machine.reasons(site.now)[0].text.contains("carry others"), "{}", explain(&site));
    }
}

#[test]
fn a_failed_init_is_abandoned_and_another_machine_takes_over() {
    let mut site = Site::new(5, 3);
    for seat in 0..5 {
        site.fail.insert((seat, "init"));
    }
    (0..5).for_each(|seat| site.boot(seat));
    site.run(seconds(200));
    assert!(site.formed(), "{}", explain(&site));
    assert!(site.seats[&0].machine.ledger().last_attempt() > Attempt(1));
}

#[test]
fn a_dead_initialiser_is_replaced_and_resets_when_it_returns() {
    let mut site = Site::new(5, 3);
    for seat in 0..5 {
        site.hang.insert((seat, "init"));
    }
    (0..5).for_each(|seat| site.boot(seat));
    site.run(seconds(5));
    let (attempt, machine) = site.seats[&0].machine.ledger().live_claim().expect("a claim");
    assert_eq!(attempt, Attempt(1));
    let seat = *site.seats.iter().find(|(_, one)| one.machine.id() == machine).expect("is there").0;
    let disk = site.kill(seat);
    site.hang.clear();
    site.run(seconds(60));
    assert!(site.formed(), "{}", explain(&site));
    let settings = site.settings.clone();
    site.boot_with(seat, disk, settings, &format!("node-{seat}"));
    site.run(seconds(60));
    assert!(site.formed(), "{}", explain(&site));
    assert!(site.seats[&seat].running.values().any(|step| step.name() == "reset"));
}

#[test]
fn a_restarted_worker_follows_as_soon_as_it_is_connected() {
    let mut site = Site::new(5, 1);
    (0..5).for_each(|seat| site.boot(seat));
    site.run(seconds(60));
    assert!(site.formed(), "{}", explain(&site));
    let worker =
        |one: &site::Seat| one.machine.ledger().member(one.machine.id()).unwrap().admitted.role == Role::Worker;
    let seat = *site.seats.iter().find(|(_, one)| worker(one)).expect("four are workers").0;
    let revision = site.seats[&seat].machine.ledger().revision();
    let disk = site.kill(seat);
    let settings = site.settings.clone();
    // It asks for news before it is connected to anyone, and that question is lost.
    site.boot_with(seat, disk, settings, &format!("node-{seat}"));
    site.run(seconds(1));
    assert_eq!(site.seats[&seat].machine.ledger().revision(), revision, "{}", explain(&site));
}

#[test]
fn the_token_of_a_machine_that_does_not_get_in_is_registered_anew() {
    let mut site = Site::new(3, 1);
    // It was off for days, or that is what it looks like: kubeadm says each time that it does not know the token.
    site.hang.insert((2, "join"));
    (0..3).for_each(|seat| site.boot(seat));
    let renewals = |site: &Site| {
        let steps = site.seats.values().flat_map(|one| one.running.values());
        steps.filter(|step| matches!(step, Step::IssueTicket { token_registered: false, .. })).count()
    };
    site.run(seconds(200));
    assert_eq!(renewals(&site), 0);
    site.run(seconds(200));
    assert_eq!(renewals(&site), 1, "{}", explain(&site));
}

#[test]
fn host_names_that_are_all_the_same_give_unique_node_names() {
    let mut site = Site::new(3, 1);
    for seat in 0..3 {
        let settings = site.settings.clone();
        site.boot_with(seat, Durable::default(), settings, ["localhost", "LOCALHOST", "localhost.localdomain"][seat]);
    }
    site.run(seconds(10));
    assert!(site.formed(), "{}", explain(&site));
    let members = site.seats[&0].machine.ledger().members();
    let names: std::collections::BTreeSet<_> = members.values().map(|member| &member.admitted.name).collect();
    assert_eq!(names.len(), 3);
    assert!(!names.iter().any(|name| name.contains("localhost")));
    assert_eq!(members.values().filter(|member| member.admitted.role == Role::ControlPlane).count(), 1);
}

#[test]
fn a_cloned_disk_stops_both_copies_and_is_named() {
    let mut site = Site::new(5, 3);
    let settings = site.settings.clone();
    site.boot(0);
    site.boot_as(1, 0, Durable::default(), settings, "copy");
    let clone = site.id(0);
    (2..5).for_each(|seat| site.boot(seat));
    site.run(seconds(30));
    for seat in 0..2 {
        assert_eq!(site.seats[&seat].machine.phase(), Phase::Halted, "{}", explain(&site));
    }
    for seat in 2..5 {
        let one = &site.seats[&seat].machine;
        assert!(
            one.reasons(site.now).iter().any(|reason| reason.about == muster_protocol::Topic::Clone),
            "{}",
            explain(&site)
        );
        // The three others are a quorum of five without either copy.
        let certificate = one.charter().expect("a charter");
        assert!(certificate.voters_of_founding().all(|voter| voter != clone));
        assert!(!certificate.charter().voters.contains(&clone));
        assert_eq!(one.phase(), Phase::Ready);
    }
}

#[test]
fn an_old_copy_of_a_disk_is_noticed_before_it_votes() {
    let mut site = Site::new(3, 3);
    (0..2).for_each(|seat| site.boot(seat));
    site.run(seconds(1));
    site.kill(1);
    let settings = site.settings.clone();
    site.boot_with(1, Durable::default(), settings, "node-1");
    site.run(seconds(5));
    assert_eq!(site.seats[&1].machine.phase(), Phase::Halted, "{}", explain(&site));
    assert_eq!(site.seats[&0].machine.charter(), None);
}

#[test]
fn more_machines_than_the_image_bears_found_nothing() {
    let mut site = Site::new(3, 1);
    (0..4).for_each(|seat| site.boot(seat));
    site.run(Duration::ZERO);
    let founded = site.seats.values().filter(|seat| seat.machine.charter().is_some()).count();
    // Either three of them were quick enough, which is one cluster all the same, or all of them halt.
    assert!(founded == 0 || founded == 4, "{}", explain(&site));
}

#[test]
fn the_state_of_another_cluster_is_refused() {
    use muster_protocol::{Boot, Effects, Machine, Time, Tuning};
    let durable = Durable { cluster: "other".into(), ..Durable::default() };
    let boot = Boot {
        identity: muster_wire::Identity::from_seed(&site::seed(0)),
        sealing_key: [0; 32],
        durable,
        cluster: "site".into(),
        settings: settings(1, 1),
        hostname: "a".into(),
        addresses: Vec::new(),
        api_port: 6443,
        fingerprint: Default::default(),
        seed: [0; 32],
        manifests: 0,
        level: muster_wire::level::KNOWN,
        raft_begun: false,
        tuning: Tuning::default(),
    };
    let refusal = Machine::new(boot, Time(0), &mut Effects::default()).err().expect("refused");
    assert_eq!(refusal.to_string(), r#"the state on this disk belongs to cluster "other", the image says "site""#);
}

#[test]
fn a_wiped_machine_returns_as_a_new_one_with_its_old_name_and_role() {
    let mut site = Site::new(3, 3);
    for seat in 0..3 {
        site.hang.insert((seat, "init"));
    }
    (0..3).for_each(|seat| site.boot(seat));
    site.run(seconds(5));
    let (_, initialiser) = site.seats[&0].machine.ledger().live_claim().expect("a claim");
    let seat = *site.seats.iter().find(|(_, one)| one.machine.id() == initialiser).expect("is there").0;
    site.kill(seat);
    site.hang.clear();
    let settings = site.settings.clone();
    // Seat 7 has a new disk, hence a new identity, in the same hardware.
    site.boot_with(7, Durable::default(), settings, &format!("node-{seat}"));
    site.run(seconds(120));
    assert!(site.formed(), "{}", explain(&site));
    let ledger = site.seats[&7].machine.ledger();
    assert!(ledger.was_removed(initialiser));
    let member = ledger.member(site.id(7)).expect("is admitted");
    assert_eq!(
        (member.admitted.role, member.admitted.name.as_str()),
        (Role::ControlPlane, format!("node-{seat}").as_str())
    );
}

#[test]
fn machines_that_show_one_hardware_are_several_once_they_lived_side_by_side() {
    let mut site = Site::new(3, 1);
    let settings = site.settings.clone();
    (0..3).for_each(|seat| site.boot_with(seat, Durable::default(), settings.clone(), "pc"));
    site.run(seconds(10));
    assert!(site.seats.values().all(|seat| seat.machine.charter().is_none()));
    for seat in 0..3 {
        let text = reasons(&site, seat);
        for named in [0, 1, 2].map(|other| format!("{} (pc, 10.0.0.{}:7390", site.id(other), other + 1)) {
            assert!(text.contains(&named) && text.contains("show the same hardware"), "{text}");
        }
    }
    site.run(seconds(60));
    assert!(site.formed(), "{}", explain(&site));
    assert!(site.seats.keys().all(|seat| !reasons(&site, *seat).contains("hardware")));
    // One that is off for long is no predecessor of the others.
    let worker = |seat: &usize| {
        let member = site.seats[&0].machine.ledger().member(site.id(*seat)).expect("is admitted");
        member.admitted.role == Role::Worker
    };
    let worker = (0..3).find(worker).expect("two of three are workers");
    let id = site.id(worker);
    let durable = site.kill(worker);
    site.run(seconds(120));
    let other = (worker + 1) % 3;
    assert!(site.seats[&other].machine.ledger().member(id).is_some(), "{}", explain(&site));
    site.boot_with(worker, durable, settings, "pc");
    site.run(seconds(30));
    assert!(site.formed(), "{}", explain(&site));
}

#[test]
fn a_wiped_machine_is_not_two_for_what_it_said_before() {
    let mut site = Site::new(3, 1);
    let settings = site.settings.clone();
    site.boot(0);
    site.boot(1);
    site.run(Duration::from_millis(500));
    assert!(site.seats.values().all(|seat| seat.machine.charter().is_none()), "two of three wait for the third");
    site.kill(1);
    site.boot_with(7, Durable::default(), settings, "node-1");
    site.run(seconds(90));
    // The former identity was heard before, and never beside the new one.
    assert!(site.seats.values().all(|seat| seat.machine.charter().is_none()), "{}", explain(&site));
    let text = reasons(&site, 0);
    assert!(text.contains("show the same hardware, and none of them votes"), "{text}");
}

fn address(site: &Site, seat: usize) -> Option<String> {
    let member = site.seats[&0].machine.ledger().member(site.id(seat))?;
    Some(member.admitted.address.clone())
}

#[test]
fn a_machine_is_admitted_where_others_reached_it() {
    let mut site = Site::new(3, 3);
    for seat in 0..3 {
        // A bridge of containers, and a card behind a translator, are the same everywhere and come first.
        let own = format!("10.0.0.{}:7390", seat + 1);
        site.listed.insert(seat, vec!["10.0.2.15:7390".into(), "172.17.0.1:7390".into(), own]);
    }
    (0..3).for_each(|seat| site.boot(seat));
    site.run(seconds(60));
    assert!(site.formed(), "{}", explain(&site));
    for seat in 0..3 {
        assert_eq!(address(&site, seat), Some(format!("10.0.0.{}", seat + 1)));
        assert_eq!(site.endpoints[&seat].to_string(), format!("10.0.0.{}", seat + 1));
        assert!(!reasons(&site, seat).contains("address"), "{}", reasons(&site, seat));
    }
}

#[test]
fn nobody_is_admitted_without_an_address_of_its_own() {
    let mut site = Site::new(3, 1);
    // Reached at 10.0.0.3, which it does not have itself, and at nothing at all.
    site.listed.insert(1, Vec::new());
    site.listed.insert(2, vec!["172.17.0.1:7390".into()]);
    (0..3).for_each(|seat| site.boot(seat));
    site.run(seconds(40));
    assert_eq!((address(&site, 1), address(&site, 2)), (None, None));
    assert!(reasons(&site, 1).contains("(node-1) is not admitted for want of an address: it has none"));
    assert!(
        reasons(&site, 2)
            .contains("(node-2) is not admitted for want of an address: nobody has reached it at any of 172.17.0.1")
    );
    let own = |seat: usize| Input::Addresses(vec!["169.254.0.9:7390".into(), format!("10.0.0.{}:7390", seat + 1)]);
    (1..3).for_each(|seat| site.feed(seat, own(seat)));
    site.run(seconds(40));
    assert!(site.formed(), "{}", explain(&site));
    assert_eq!(address(&site, 1).as_deref(), Some("10.0.0.2"));
}

#[test]
fn two_machines_with_one_address_are_named_and_one_is_admitted() {
    let mut site = Site::new(3, 1);
    site.listed.insert(2, vec!["10.0.0.2:7390".into()]);
    (0..3).for_each(|seat| site.boot(seat));
    let second = site.id(1);
    let third = site.id(2);
    for seat in 0..2 {
        site.feed(seat, Input::Reached { machine: third, address: [10, 0, 0, 2].into() });
    }
    site.run(seconds(40));
    assert!(address(&site, 1).is_none() || address(&site, 2).is_none(), "{}", explain(&site));
    let mut both = [second.to_string(), third.to_string()];
    both.sort();
    let text = format!("{}, {} have one address, 10.0.0.2", both[0], both[1]);
    assert!(reasons(&site, 0).contains(&text), "{}", reasons(&site, 0));
}

#[test]
fn an_address_is_corrected_before_it_is_used_and_the_endpoint_follows_it() {
    let mut site = Site::new(3, 1);
    (0..3).for_each(|seat| site.hang.extend([(seat, "join"), (seat, "prepare")]));
    (0..3).for_each(|seat| site.boot(seat));
    site.run(seconds(20));
    let ledger = site.seats[&0].machine.ledger();
    let worker = (0..3).find(|seat| ledger.member(site.id(*seat)).expect("is admitted").admitted.role == Role::Worker);
    let (worker, new) = (worker.expect("two are workers"), IpAddr::from([10, 0, 0, 77]));
    let id = site.id(worker);
    site.feed(worker, Input::Addresses(vec!["172.17.0.1:7390".into(), format!("{new}:7390")]));
    site.run(seconds(5));
    assert_eq!(site.endpoints[&worker], new, "the nearest to the former one");
    assert_eq!(address(&site, worker), Some(format!("10.0.0.{}", worker + 1)), "nobody has reached it there");
    for seat in (0..3).filter(|seat| *seat != worker) {
        site.feed(seat, Input::Reached { machine: id, address: new });
    }
    site.run(seconds(5));
    assert_eq!(address(&site, worker), Some(new.to_string()));
}

fn reasons(site: &Site, seat: usize) -> String {
    let reasons = site.seats[&seat].machine.reasons(site.now);
    reasons.iter().map(|reason| reason.text.clone()).collect::<Vec<_>>().join("\n")
}

/// The seat of the machine that made the cluster.
fn maker(site: &Site) -> usize {
    let ready = site.seats.values().find_map(|seat| seat.machine.ledger().ready()).expect("a cluster");
    *site.seats.iter().find(|(_, seat)| seat.machine.id() == ready.machine).expect("is there").0
}

fn manifests_of(site: &Site, seat: usize) -> (u32, usize, usize) {
    let status = site.seats[&seat].machine.status(site.now).manifests.expect("applies manifests");
    (status.applied, status.waiting.len(), status.refused.len())
}

#[test]
fn an_image_without_manifests_has_none_applied() {
    let mut site = Site::new(3, 3);
    (0..3).for_each(|seat| site.boot(seat));
    site.run(seconds(30));
    assert!(site.formed() && site.applied.is_empty(), "{:?}", site.applied);
    assert!(site.seats.values().all(|seat| seat.machine.status(site.now).manifests.is_none()));
}

#[test]
fn the_machine_that_makes_the_cluster_applies_the_manifests_and_waits_for_nothing_with_it() {
    let mut site = Site::new(3, 3);
    site.manifests = 3;
    // Object 1 waits for ever, object 2 is a mistake.
    site.outcomes.insert(1, ManifestOutcome::Later("Dog rex (a.yaml, document 2): not served".into()));
    site.outcomes.insert(2, ManifestOutcome::Refused("Cat tom (a.yaml, document 3): status 422".into()));
    for seat in 0..3 {
        // The end of init takes long: a pod network must not wait for it.
        site.hang.insert((seat, "init-finish"));
    }
    (0..3).for_each(|seat| site.boot(seat));
    site.run(seconds(10));
    let maker = maker(&site);
    let (seat, begun, objects) = site.applied[0].clone();
    assert_eq!((seat, objects), (maker, vec![0, 1, 2]));
    assert_eq!(manifests_of(&site, maker), (1, 1, 1));
    let machine = &site.seats[&maker].machine;
    let reasons = machine.reasons(site.now).iter().map(|reason| reason.text.clone()).collect::<Vec<_>>().join("\n");
    for said in ["1 of 3 objects are applied; waiting: Dog rex", "refused and tried again rarely: Cat tom"] {
        assert!(reasons.contains(said), "{reasons}");
    }
    assert_eq!(machine.phase(), Phase::Initialising);
    // What waits is asked for again and again, what is a mistake is left alone for a minute.
    let tries = |site: &Site, object: u32| site.applied.iter().filter(|(.., some)| some.contains(&object)).count();
    assert!(tries(&site, 1) >= 4 && tries(&site, 2) == 1 && tries(&site, 0) == 1, "{:?}", site.applied);
    site.outcomes.clear();
    site.run(seconds(70));
    assert_eq!(manifests_of(&site, maker), (3, 0, 0));
    let last = site.applied.iter().rfind(|(at, ..)| *at == maker).expect("applied").1;
    assert!(last.since(begun) >= seconds(60));
    assert!(site.seats[&maker].notices.iter().any(|text| text == "all 3 objects of the manifests are applied"));
}

#[test]
fn a_failed_apply_fails_nothing_else_and_is_tried_again() {
    let mut site = Site::new(3, 3);
    site.manifests = 2;
    for seat in 0..3 {
        site.fail.insert((seat, "apply-manifests"));
    }
    (0..3).for_each(|seat| site.boot(seat));
    site.run(seconds(20));
    assert!(site.formed(), "{}", explain(&site));
    let maker = maker(&site);
    assert_eq!(manifests_of(&site, maker), (2, 0, 0));
    assert_eq!(site.seats[&maker].machine.ledger().last_attempt(), Attempt(1));
    assert!(!site.seats[&maker].notices.iter().any(|text| text.contains("reset")));
}

#[test]
fn whoever_leads_applies_them_once_in_a_start() {
    let mut site = Site::new(3, 3);
    site.manifests = 2;
    (0..3).for_each(|seat| site.boot(seat));
    site.run(seconds(30));
    assert!(site.formed(), "{}", explain(&site));
    let maker = maker(&site);
    let who = |site: &Site| site.applied.iter().map(|(seat, _, all)| (*seat, all.len())).collect::<Vec<_>>();
    // Whoever may init leads, so it has done it.
    assert_eq!(who(&site), [(maker, 2)]);
    let durable = site.kill(maker);
    site.run(seconds(60));
    let [_, (heir, 2)] = who(&site)[..] else { panic!("{:?}", site.applied) };
    assert_ne!(heir, maker);
    let settings = site.settings.clone();
    site.boot_with(maker, durable, settings, &format!("node-{maker}"));
    site.run(seconds(60));
    assert_eq!(who(&site).len(), 2, "who comes back and does not lead applies nothing: {:?}", site.applied);
    site.kill(heir);
    site.run(seconds(60));
    // A new start of the agent may have other manifests.
    assert_eq!(who(&site)[2..], [(maker, 2)]);
}

#[test]
fn dead_control_planes_of_a_ready_cluster_are_named_and_without_a_majority_nobody_leads() {
    let mut site = Site::new(4, 3);
    (0..4).for_each(|seat| site.boot(seat));
    site.run(seconds(20));
    assert!(site.formed(), "{}", explain(&site));
    let waits = |site: &Site, seat: usize| -> Vec<String> {
        site.seats[&seat].machine.reasons(site.now).into_iter().map(|reason| reason.text).collect()
    };
    let ledger = site.seats[&0].machine.ledger().clone();
    let is_control_plane = |site: &Site, seat: &usize| {
        ledger.member(site.seats[seat].machine.id()).expect("admitted").admitted.role == Role::ControlPlane
    };
    let control_planes: Vec<usize> = (0..4).filter(|seat| is_control_plane(&site, seat)).collect();
    let worker = (0..4).find(|seat| !is_control_plane(&site, seat)).expect("one is a worker");
    assert_eq!(waits(&site, worker), Vec::<String>::new());
    let dead = site.seats[&control_planes[0]].machine.id();
    let name = ledger.member(dead).expect("admitted").admitted.name.clone();
    drop(site.kill(control_planes[0]));
    site.run(seconds(60));
    for seat in [control_planes[1], control_planes[2], worker] {
        let told = waits(&site, seat);
        let named = |text: &String| text.starts_with(&format!("control plane {name} ({dead}, last heard "));
        assert!(told.iter().any(named), "{seat}: {told:?}");
    }
    drop(site.kill(control_planes[1]));
    site.run(seconds(60));
    let told = waits(&site, control_planes[2]);
    assert!(told.iter().any(|text| text.starts_with("no leader: 1 of 3 voters are here; ")), "{told:?}");
    assert_eq!(site.seats[&control_planes[2]].machine.status(site.now).leader, None);
}

//! Whole formations through the pure core, on an ideal network.

mod site;

use std::time::Duration;

use muster_protocol::{Phase, Step};
use muster_wire::{Durable, Role};
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
    assert_eq!(ledger.last_attempt(), 1);
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
    assert!(site.seats[&0].machine.ledger().last_attempt() > 1);
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
    assert_eq!(attempt, 1);
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
        assert!(one.reasons(site.now).iter().any(|reason| reason.about == "clone"), "{}", explain(&site));
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

//! What people are told of: no machine is accused of what is not so, and nothing that is wrong goes unsaid.

#[allow(dead_code, reason = "other transcripts use the rest of it")]
mod site;

use std::net::IpAddr;
use std::time::Duration;

use muster_protocol::{AwayCause, Input, Phase};
use muster_wire::{Digest, Durable, MachineId, Settings};
use site::{Site, settings};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn told(site: &Site, seat: usize) -> Vec<String> {
    site.seats[&seat].machine.reasons(site.now).into_iter().map(|reason| reason.text).collect()
}

/// A Ready cluster of so many machines.
fn cluster(count: u32, control_planes: u32) -> Site {
    let mut site = Site::new(count, control_planes);
    (0..count as usize).for_each(|seat| site.boot(seat));
    site.run(seconds(30));
    assert!(site.formed(), "{}", site.transcript.join("\n"));
    site
}

/// Where a machine is to be from its next start on.
fn move_to(site: &mut Site, seat: usize, last: u8) {
    let address = IpAddr::from([10, 0, 0, last]);
    site.listed.insert(seat, vec![format!("{address}:7390")]);
    site.stands.insert(seat, address);
}

fn restart(site: &mut Site, seats: &[usize]) {
    let disks: Vec<(usize, Durable)> = seats.iter().map(|seat| (*seat, site.kill(*seat))).collect();
    for (seat, disk) in disks {
        let settings = site.settings.clone();
        site.boot_with(seat, disk, settings, &format!("node-{seat}"));
    }
}

fn assert_no_address_is_shared(site: &Site, seats: &[usize]) {
    for seat in seats {
        let told = told(site, *seat);
        assert!(!told.iter().any(|text| text.contains("have one address")), "{seat}: {told:?}");
    }
}

#[test]
fn joined_machines_that_exchanged_their_addresses_have_one_each() {
    // Both at once, one after the other, and three in a ring.
    for moves in
        [vec![vec![(1, 3), (2, 2)]], vec![vec![(1, 9)], vec![(2, 2)], vec![(1, 3)]], vec![vec![(0, 2), (1, 3), (2, 1)]]]
    {
        let mut site = cluster(3, 1);
        for together in moves {
            together.iter().for_each(|(seat, last)| move_to(&mut site, *seat, *last));
            restart(&mut site, &together.iter().map(|(seat, _)| *seat).collect::<Vec<_>>());
            site.run(seconds(20));
            assert_no_address_is_shared(&site, &[0, 1, 2]);
        }
    }
}

#[test]
fn a_lease_that_goes_to_another_machine_without_a_restart_is_one_machines() {
    let mut site = cluster(3, 1);
    for (seat, last) in [(1, 3), (2, 2)] {
        site.feed(seat, Input::Addresses(vec![format!("10.0.0.{last}:7390")]));
        let (machine, address) = (site.id(seat), IpAddr::from([10, 0, 0, last]));
        (0..3).filter(|other| *other != seat).for_each(|other| site.feed(other, Input::Reached { machine, address }));
    }
    site.run(seconds(20));
    assert_no_address_is_shared(&site, &[0, 1, 2]);
}

#[test]
fn joined_machines_that_have_one_address_now_are_both_named() {
    let mut site = cluster(3, 1);
    move_to(&mut site, 2, 2);
    restart(&mut site, &[2]);
    site.run(seconds(20));
    let mut both = [site.id(1).to_string(), site.id(2).to_string()];
    both.sort();
    for seat in 0..3 {
        let told = told(&site, seat);
        assert!(
            told.iter().any(|text| text.contains(&format!("{}, {} have one address, 10.0.0.2", both[0], both[1]))),
            "{told:?}"
        );
    }
}

#[test]
fn a_newcomer_at_the_address_under_which_another_one_joined_is_told_so() {
    let mut site = cluster(3, 3);
    move_to(&mut site, 1, 9);
    restart(&mut site, &[1]);
    site.run(seconds(20));
    move_to(&mut site, 3, 2);
    site.boot(3);
    site.run(seconds(20));
    let text = format!(
        "{} (node-3) is not admitted: its address 10.0.0.2 is the one under which {} joined",
        site.id(3),
        site.id(1)
    );
    // The newcomer reads no ledger yet.
    for seat in 0..3 {
        let told = told(&site, seat);
        assert!(told.iter().any(|one| one.starts_with(&text)), "{told:?}");
    }
    move_to(&mut site, 3, 33);
    restart(&mut site, &[3]);
    site.run(seconds(40));
    assert!(site.formed(), "{:?}\n{:?}\n{}", told(&site, 0), told(&site, 3), site.transcript.join("\n"));
}

/// It was shown at its new address before its new card was.
#[test]
fn a_machine_that_was_not_admitted_is_so_at_the_address_of_its_next_start() {
    let mut site = Site::new(3, 1);
    site.listed.insert(2, vec!["172.17.0.1:7390".into()]);
    (0..3).for_each(|seat| site.boot(seat));
    site.run(seconds(40));
    let third = site.id(2);
    assert!(site.seats[&0].machine.ledger().member(third).is_none());
    site.listed.insert(2, vec!["10.0.0.3:7390".into()]);
    restart(&mut site, &[2]);
    site.run(seconds(40));
    assert!(site.formed(), "{:?}", told(&site, 0));
    // And when it was reached at an address of its own before, which its former card, known to the others, has still.
    let mut site = Site::new(3, 1);
    (0..3).for_each(|seat| site.boot(seat));
    site.run(Duration::from_millis(100));
    assert!(site.seats.values().all(|seat| seat.machine.charter().is_none()));
    move_to(&mut site, 2, 77);
    restart(&mut site, &[2]);
    site.run(seconds(40));
    assert!(site.formed(), "{:?}", told(&site, 0));
}

/// Newcomers beside a Ready cluster of three, and what its first machine says of them.
fn beside(newcomers: &[(usize, Settings)], prepare: impl FnOnce(&mut Site)) -> (Site, Vec<String>) {
    let mut site = cluster(3, 1);
    prepare(&mut site);
    for (seat, settings) in newcomers {
        site.boot_with(*seat, Durable::default(), settings.clone(), &format!("odd-{seat}"));
    }
    site.run(seconds(60));
    let told = told(&site, 0);
    (site, told)
}

#[test]
fn a_ready_machine_names_those_of_another_image_with_the_keys_and_both_values() {
    let mut subnet = settings(3, 1);
    subnet.digest = Digest::of("another pod subnet", &[]);
    for (theirs, expected) in [
        (settings(7, 1), "machines: 3 here, 7 there"),
        (
            Settings { kubernetes_version: "v1.30.0".into(), ..settings(4, 1) },
            "kubernetes.version: v1.31.4 here, v1.30.0 there",
        ),
        (subnet, "another shared key differs"),
    ] {
        let (site, told) = beside(&[(3, theirs.clone()), (4, theirs)], |_| {});
        let named = |text: &String| {
            text.starts_with("2 machines are not of this cluster, first 59 s ago")
                && [expected, "(odd-3 at 10.0.0.4:7390)", "(odd-4 at 10.0.0.5:7390)", "last heard "]
                    .iter()
                    .all(|part| text.contains(part))
        };
        assert!(told.iter().any(named), "{told:?}");
        assert_eq!(told.len(), 1, "one line for all of them: {told:?}");
        let status = site.seats[&0].machine.status(site.now);
        assert_eq!((status.phase, status.peers.len(), status.strangers.len()), (Phase::Ready, 2, 2));
        assert!(status.strangers.iter().all(|one| one.why.contains(expected) && one.name.starts_with("odd-")));
    }
}

#[test]
fn a_ready_machine_names_those_of_another_cluster_and_of_another_charter() {
    let (site, told) = beside(&[(3, settings(3, 1))], |site| _ = site.clusters.insert(3, "other"));
    let whom = format!("{} (odd-3 at 10.0.0.4:7390) was turned away once, first 59 s ago", site.id(3));
    assert!(
        told.iter().any(|text| text.starts_with(&whom) && text.contains("cluster \"other\", this is \"site\"")),
        "{told:?}"
    );
    assert!(site.seats[&0].machine.status(site.now).peers.len() == 2);

    let mut theirs = Site::new(1, 1);
    theirs.boot(4);
    theirs.run(seconds(20));
    let disk = theirs.kill(4);
    let mut site = cluster(3, 1);
    site.boot_with(4, disk, settings(1, 1), "odd");
    site.seats.get_mut(&4).expect("booted").raft = false;
    site.run(seconds(10));
    let told = self::told(&site, 0);
    let about: Vec<_> = told.iter().filter(|text| text.contains(&site.id(4).to_string())).collect();
    assert!(about.len() == 1 && about[0].contains("never belongs to two clusters"), "{told:?}");
}

#[test]
fn strangers_that_are_gone_are_told_of_for_a_while_and_many_are_counted() {
    let mut site = cluster(1, 1);
    let away =
        |number: u8, why: &str| Input::TurnedAway { whom: format!("10.0.9.{number}"), why: why.to_owned().into() };
    (1..=6).for_each(|number| site.feed(0, away(number, "another mesh key")));
    site.feed(0, away(9, "another protocol version"));
    site.run(seconds(60));
    let first = told(&site, 0);
    assert_eq!(
        first,
        [
            "10.0.9.1, 10.0.9.2, 10.0.9.3, 10.0.9.4 and 2 more were turned away 6 times, first 59 s ago and last 59 s ago: \
             another mesh key",
            "10.0.9.9 was turned away once, first 59 s ago and last 59 s ago: another protocol version",
        ]
    );
    site.feed(0, away(9, "another protocol version"));
    site.run(seconds(880));
    let later = told(&site, 0);
    assert!(
        later.len() == 1 && later[0].starts_with("10.0.9.9 was turned away 2 times, first 939 s ago and last 879 s"),
        "{later:?}"
    );
    // More of them than are kept do not keep a new one out for ever.
    (0..200).for_each(|number| site.feed(0, away(number, "noise")));
    site.run(seconds(1_000));
    site.feed(0, away(201, "news"));
    site.run(seconds(1));
    assert!(told(&site, 0)[0].starts_with("10.0.9.201 was turned away once"));
}

#[test]
fn whoever_comes_through_is_accused_of_no_other_key() {
    let mut site = cluster(1, 1);
    for whom in ["10.0.0.9", "10.0.0.9:7390", "[fd00::9]:7390", "10.0.0.8"] {
        site.feed(0, Input::TurnedAway { whom: whom.to_owned(), why: AwayCause::CutOff });
    }
    site.run(seconds(1));
    assert!(
        told(&site, 0)[0].starts_with("10.0.0.8, 10.0.0.9, 10.0.0.9:7390, [fd00::9]:7390 were turned away 4 times")
    );
    for address in ["10.0.0.9", "fd00::9"] {
        let address = address.parse().expect("an address");
        site.feed(0, Input::Reached { machine: MachineId([9; 32]), address });
    }
    site.run(seconds(1));
    assert!(told(&site, 0)[0].starts_with("10.0.0.8 was turned away once"), "{:?}", told(&site, 0));
}

#[test]
fn who_has_heard_nobody_counts_nobody_but_itself_as_here() {
    let mut site = cluster(3, 3);
    for peer in [1, 2] {
        // Nothing comes any more, and no connection ends: a card was pulled, or an address changed.
        let id = site.id(peer);
        site.mute(peer, 0);
        site.feed(0, Input::Leading { term: 2, leader: None });
        assert!(site.seats[&0].machine.roster_alive().contains(&id));
    }
    site.run(seconds(12));
    let told = told(&site, 0);
    let named =
        |text: &String| text.starts_with("no leader: 1 of 3 voters are here; ") && text.contains("last heard 1");
    assert!(told.iter().any(named), "{told:?}");
}

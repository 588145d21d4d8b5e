//! A second cluster of the same name and mesh key: whoever has seen the first one founds nothing, whatever becomes of it
//! (promise S1).

#[allow(dead_code, reason = "other transcripts use the rest of it")]
mod site;

use std::collections::BTreeSet;
use std::time::Duration;

use muster_protocol::Phase;
use muster_wire::{Digest, Durable, Settings};
use site::{Site, settings};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A Ready cluster of the first `count` seats.
fn cluster(count: u32, control_planes: u32) -> Site {
    let mut site = Site::new(count, control_planes);
    (0..count as usize).for_each(|seat| site.boot(seat));
    site.run(seconds(30));
    assert!(site.formed());
    site
}

fn join(site: &mut Site, seats: std::ops::Range<usize>, settings: &Settings) {
    seats.for_each(|seat| site.boot_with(seat, Durable::default(), settings.clone(), &format!("node-{seat}")));
}

fn charters(site: &Site) -> BTreeSet<[u8; 16]> {
    site.seats.values().filter_map(|seat| seat.machine.charter().map(|one| one.charter().id)).collect()
}

fn assert_waits(site: &Site, seats: std::ops::Range<usize>) {
    for seat in seats {
        let one = &site.seats[&seat];
        assert_eq!(
            (one.machine.charter(), one.machine.phase()),
            (None, Phase::Halted),
            "{}",
            site.transcript.join("\n")
        );
        let text = &one.machine.reasons(site.now)[0].text;
        assert!(
            text.contains("a cluster of this name exists") && text.contains("Boot the image of that cluster"),
            "{text}"
        );
    }
}

#[test]
fn newcomers_of_another_image_wait_whatever_the_sizes_are() {
    // The last has as many machines, and another setting: its own digest.
    let mut same_size = settings(3, 1);
    same_size.digest = Digest::of("another pod subnet", &[]);
    for (first, image, count) in
        [(1, settings(3, 1), 2), (1, settings(2, 1), 2), (1, settings(5, 3), 5), (3, same_size, 3)]
    {
        let mut site = cluster(first, 1);
        let first = first as usize;
        join(&mut site, first..first + count, &image);
        // Each refuses the machines of the cluster, which are out of its sight from then on.
        site.run(seconds(300));
        assert_eq!(charters(&site).len(), 1);
        assert_waits(&site, first..first + count);
    }
}

#[test]
fn one_machine_that_needs_nobodys_vote_waits_beside_a_cluster_of_three() {
    let mut site = cluster(3, 1);
    join(&mut site, 3..4, &settings(1, 1));
    site.run(seconds(60));
    assert_eq!(charters(&site).len(), 1);
    assert_waits(&site, 3..4);
}

#[test]
fn what_was_seen_is_on_disk_before_anything_is_refused() {
    let mut site = cluster(1, 1);
    join(&mut site, 1..3, &settings(3, 1));
    site.run(seconds(5));
    let ours: Vec<_> = site.refused.iter().filter(|(seat, ..)| *seat > 0).collect();
    assert!(!ours.is_empty());
    for (seat, _, disk) in ours {
        assert!(disk.seen.is_some(), "machine {seat} refused what it would not know after a restart");
    }
}

#[test]
fn a_restart_and_the_end_of_the_cluster_that_was_seen_change_nothing() {
    let mut site = cluster(1, 1);
    join(&mut site, 1..3, &settings(3, 1));
    site.run(seconds(5));
    site.kill(0);
    for seat in 1..3 {
        let disk = Durable::decode(&site.kill(seat).encode()).expect("what is on disk is read again");
        site.boot_with(seat, disk, settings(3, 1), &format!("node-{seat}"));
    }
    site.run(seconds(300));
    assert_eq!(charters(&site).len(), 0);
    assert_waits(&site, 1..3);
}

#[test]
fn who_has_not_seen_it_hears_of_it_from_who_has() {
    let mut site = cluster(1, 1);
    join(&mut site, 1..2, &settings(5, 1));
    site.run(seconds(5));
    site.kill(0);
    site.run(seconds(30));
    // Four of five, of which three would be a quorum, meet the one that knows.
    join(&mut site, 2..6, &settings(5, 1));
    site.run(seconds(300));
    assert_eq!(charters(&site).len(), 0);
    assert_waits(&site, 1..6);
    assert!(
        site.refused.iter().all(|(_, whom, _)| (1..6).all(|seat| site.id(seat) != *whom)),
        "one of its own is refused"
    );
}

#[test]
fn with_the_image_of_the_cluster_that_was_seen_it_follows_at_once() {
    let mut site = cluster(3, 1);
    join(&mut site, 3..4, &settings(5, 1));
    site.run(seconds(5));
    assert_waits(&site, 3..4);
    let disk = site.kill(3);
    site.boot_with(3, disk, settings(3, 1), "node-3");
    site.run(seconds(30));
    assert!(site.formed(), "{}", site.transcript.join("\n"));
    assert_eq!(site.seats[&3].durable.seen, None);
}

/// Two clusters of one image that never met while they founded: neither admits the other's machines when they meet (promise S7).
#[test]
fn a_machine_that_follows_another_charter_is_not_admitted_though_its_image_is_ours() {
    let mut theirs = Site::new(1, 1);
    theirs.boot(4);
    theirs.run(seconds(20));
    let disk = theirs.kill(4);
    assert!(disk.charter.is_some());
    for cuts in [true, false] {
        let mut site = cluster(1, 1);
        site.boot_with(4, disk.clone(), settings(1, 1), "node-4");
        // Its Raft is another one than the transcript's.
        site.seats.get_mut(&4).expect("booted").raft = false;
        // What is refused is cut off; but whoever still hears of it, through others, must not take it in either.
        site.refusal_cuts = cuts;
        site.run(seconds(30));
        assert!(site.refused.iter().any(|(seat, ..)| *seat == 0), "it is refused, too");
        let here = &site.seats[&0].machine;
        assert!(here.ledger().member(site.id(4)).is_none(), "{}", site.transcript.join("\n"));
    }
}

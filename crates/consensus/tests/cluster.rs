//! Clusters in virtual time.

mod common;
mod site;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use common::Loss;
use muster_consensus::{Config, ProposeError};
use muster_wire::Revision;
use site::{Site, admission, id};

fn everyone(site: &Site) -> Vec<muster_wire::MachineId> {
    site.machines.keys().copied().collect()
}

/// Proposes `number` at whoever leads, again whenever that fails, until it is in.
fn admit(site: &mut Site, number: u64) {
    loop {
        site.until("a leader", |site| site.leader().is_some());
        let leader = site.leader().unwrap();
        let call = site.propose(leader, admission(number));
        site.until("an answer", |site| site.outcomes.contains_key(&call) || site.leader() != Some(leader));
        if site.all_have([leader], number) {
            return;
        }
    }
}

#[test]
fn three_and_five_voters_agree() {
    for (seed, machines) in [(1, 3), (2, 5)] {
        let mut site = Site::founded(seed, machines, machines, Config::default());
        for number in 0..20 {
            admit(&mut site, number);
        }
        let all = everyone(&site);
        site.until("everyone has everything", |site| (0..20).all(|number| site.all_have(all.clone(), number)));
        site.assert_agreement();
    }
}

#[test]
fn one_voter_is_a_cluster() {
    let mut site = Site::founded(3, 1, 1, Config::default());
    admit(&mut site, 0);
    site.kill(id(1), Loss::All);
    site.start(id(1));
    site.until("it leads again and has its ledger", |site| site.leader().is_some() && site.all_have([id(1)], 0));
}

#[test]
fn every_voter_may_call_the_first_election() {
    for seed in 0..20 {
        let mut site = Site::new(seed, 3, 3, Config::default());
        for number in 1..=3 {
            site.call_election(id(number));
        }
        admit(&mut site, 0);
        site.call_election(id(2));
        admit(&mut site, 1);
        site.assert_agreement();
    }
}

/// The others have given it their votes by then, or have its first records, or nothing.
#[test]
fn whoever_calls_the_first_election_may_die_at_any_moment_of_it() {
    for moment in 0..60 {
        let mut site = Site::new(moment, 3, 3, Config::default());
        site.call_election(id(1));
        site.run_for(Duration::from_micros(moment * 250));
        site.kill(id(1), Loss::All);
        // Nobody need call another one: their time-outs do.
        admit(&mut site, 0);
        assert_ne!(site.leader(), Some(id(1)), "after {moment} steps");
        site.start(id(1));
        let all = everyone(&site);
        site.until("it follows", |site| site.all_have(all.clone(), 0));
        site.assert_agreement();
    }
}

#[test]
fn a_dead_leader_is_replaced_and_comes_back_with_its_log() {
    for (seed, loss) in [(4, Loss::None), (5, Loss::All), (6, Loss::Some(0x5555)), (7, Loss::Torn(0x3333))] {
        let mut site = Site::founded(seed, 3, 3, Config::default());
        admit(&mut site, 0);
        let first = site.leader().unwrap();
        site.kill(first, loss);
        admit(&mut site, 1);
        assert_ne!(site.leader(), Some(first));
        site.start(first);
        let all = everyone(&site);
        site.until("it has caught up", |site| (0..2).all(|number| site.all_have(all.clone(), number)));
        site.assert_agreement();
    }
}

#[test]
fn all_power_at_once_loses_nothing_that_was_acknowledged() {
    let mut site = Site::founded(8, 5, 5, Config::default());
    for round in 0..4 {
        admit(&mut site, round);
        for me in everyone(&site) {
            site.kill(me, if round % 2 == 0 { Loss::All } else { Loss::Torn(0x1234_5678 << round) });
        }
        for me in everyone(&site) {
            site.start(me);
        }
        let all = everyone(&site);
        site.until("it is back", |site| site.all_have(all.clone(), round));
    }
    site.assert_agreement();
}

#[test]
fn a_minority_takes_nothing_and_what_it_took_is_taken_back() {
    let mut site = Site::founded(9, 5, 5, Config::default());
    let old = site.leader().unwrap();
    let friend = everyone(&site).into_iter().find(|me| *me != old).unwrap();
    // Each of the two is alone: a minority is no better off in company.
    site.cut = BTreeSet::from([old, friend]);
    let lonely = site.propose(old, admission(100));
    admit(&mut site, 0);
    site.until("the old leader gives up", |site| site.outcomes.contains_key(&lonely));
    assert!(matches!(site.outcomes[&lonely], Err(ProposeError::Unavailable(_))), "{:?}", site.outcomes[&lonely]);
    site.cut.clear();
    let all = everyone(&site);
    site.until("all are together again", |site| site.all_have(all.clone(), 0));
    admit(&mut site, 1);
    site.until("all agree", |site| site.all_have(all.clone(), 1));
    assert!(!site.all_have([old], 100));
    site.assert_agreement();
}

#[test]
fn a_leader_that_hears_no_quorum_leads_no_more_and_leads_again_when_it_does() {
    let mut site = Site::founded(19, 3, 3, Config::default());
    let leader = site.leader().unwrap();
    let thinks = |site: &Site| site.machines[&leader].running.as_ref().unwrap().seen.leader;
    site.run_for(Duration::from_secs(60));
    assert_eq!(thinks(&site), Some(leader), "a quiet cluster has its leader");
    let others: Vec<_> = everyone(&site).into_iter().filter(|me| *me != leader).collect();
    others.iter().for_each(|me| site.kill(*me, Loss::None));
    // Two election timeouts, and the tick in which it is noticed.
    site.run_for(Config::default().election_max * 2 + Config::default().heartbeat * 3);
    assert_eq!(thinks(&site), None);
    others.iter().for_each(|me| site.start(*me));
    site.until("somebody leads again", |site| site.leader().is_some());
    admit(&mut site, 0);
    site.assert_agreement();
}

#[test]
fn a_leader_of_one_leads_however_long_nobody_answers() {
    let mut site = Site::founded(20, 1, 1, Config::default());
    site.run_for(Duration::from_secs(120));
    assert!(site.leader().is_some());
}

#[test]
fn a_follower_that_is_far_behind_gets_a_snapshot() {
    let config = Config { snapshot_after: 20, keep: 5, ..Config::default() };
    let mut site = Site::founded(10, 3, 3, config);
    let late = everyone(&site).into_iter().find(|me| Some(*me) != site.leader()).unwrap();
    site.cut.insert(late);
    for number in 0..80 {
        admit(&mut site, number);
    }
    site.cut.clear();
    site.until("it has everything", |site| site.all_have([late], 79));
    assert_eq!(site.running(late).seen.restored, 2, "at its start, and the snapshot");
    assert!(!site.running(late).seen.entries.contains_key(&Revision(30)), "that was in the snapshot");
    admit(&mut site, 80);
    site.until("it goes on", |site| site.all_have([late], 80));
    // What it got is on its disk.
    site.cut.insert(late);
    site.kill(late, Loss::All);
    site.start(late);
    assert!(site.all_have([late], 79));
    site.assert_agreement();
}

#[test]
fn a_snapshot_of_many_parts_arrives_whole() {
    let config = Config { snapshot_after: 2_000, keep: 5, ..Config::default() };
    let mut site = Site::founded(11, 3, 3, config);
    let late = everyone(&site).into_iter().find(|me| Some(*me) != site.leader()).unwrap();
    site.cut.insert(late);
    let leader = site.leader().unwrap();
    for batch in 0..50 {
        let calls: Vec<u64> = (0..60).map(|one| site.propose(leader, admission(batch * 60 + one))).collect();
        site.until("the batch is in", |site| calls.iter().all(|call| site.outcomes.contains_key(call)));
    }
    site.cut.clear();
    site.until("it has everything", |site| site.all_have([late], 2_999));
    assert!(site.running(late).seen.ledger.encode().len() > 3 * 64 * 1024, "more than one part");
    assert_eq!(site.running(late).seen.restored, 2);
}

#[test]
fn machines_become_voters_and_stop_being_voters() {
    let mut site = Site::founded(12, 5, 1, Config::default());
    admit(&mut site, 0);
    for size in [2, 3, 5] {
        let leader = site.leader().unwrap();
        let voters: BTreeSet<_> = (1..=size).map(id).collect();
        site.changes.clear();
        site.set_voters(leader, voters.clone());
        site.until("the change is done", |site| !site.changes.is_empty());
        assert_eq!(site.changes, [Ok(())]);
        assert_eq!(site.running(leader).consensus.members().0, voters);
    }
    // Five vote now: two may be away.
    site.cut = BTreeSet::from([id(1), id(2)]);
    site.voters = (1..=5).map(id).collect();
    site.until("another leads", |site| site.leader().is_some_and(|leader| leader > id(2)));
    admit(&mut site, 1);
    let leader = site.leader().unwrap();
    site.changes.clear();
    site.set_voters(leader, (3..=5).map(id).collect());
    site.until("the change is done", |site| !site.changes.is_empty());
    assert_eq!(site.changes, [Ok(())]);
    assert_eq!(site.running(leader).consensus.members(), ((3..=5).map(id).collect(), BTreeSet::new()));
    site.assert_agreement();
}

#[test]
fn a_leader_may_take_itself_out_and_changes_nothing_more_then() {
    for seed in 40..60 {
        let mut site = Site::founded(seed, 3, 3, Config::default());
        admit(&mut site, 0);
        let old = site.leader().unwrap();
        let rest: BTreeSet<_> = everyone(&site).into_iter().filter(|me| *me != old).collect();
        site.set_voters(old, rest.clone());
        // Asked again at every moment until it is done, and after.
        while site.changes.len() < 10 {
            site.run_for(Duration::from_millis(1));
            site.set_voters(old, everyone(&site).into_iter().collect());
        }
        site.until("one of the others leads", |site| site.leader().is_some_and(|leader| leader != old));
        admit(&mut site, 1);
        let leader = site.leader().unwrap();
        assert_eq!(site.running(leader).consensus.members(), (rest, BTreeSet::new()));
    }
}

#[test]
fn a_machine_that_does_not_answer_gets_no_vote() {
    let mut site = Site::founded(13, 4, 3, Config::default());
    admit(&mut site, 0);
    site.cut.insert(id(4));
    let leader = site.leader().unwrap();
    site.set_voters(leader, (1..=4).map(id).collect());
    site.until("the change ends", |site| !site.changes.is_empty());
    assert!(matches!(site.changes[..], [Err(ProposeError::Unavailable(_))]), "{:?}", site.changes);
    let (voters, learners) = site.running(leader).consensus.members();
    assert_eq!((voters.len(), learners), (3, BTreeSet::from([id(4)])));
    site.cut.clear();
    site.changes.clear();
    site.set_voters(leader, (1..=4).map(id).collect());
    site.until("the change is done", |site| !site.changes.is_empty());
    assert_eq!(site.changes, [Ok(())]);
}

#[test]
fn strangers_impostors_and_noise_are_counted_and_change_nothing() {
    let mut site = Site::founded(14, 3, 3, Config::default());
    site.run_for(Duration::from_secs(5));
    let (leader, term) = (site.leader().unwrap(), site.running(id(1)).seen.term);
    let victim = everyone(&site).into_iter().find(|me| *me != leader).unwrap();
    let heartbeat = site.calls_made(leader, victim).pop().unwrap();
    let other = everyone(&site).into_iter().find(|me| *me != leader && *me != victim).unwrap();
    // What the leader leaves out means the caller, so the same bytes are another machine's own claim to lead ...
    let named = site.calls_made(victim, leader).pop();
    assert!(named.is_none(), "followers call nobody");
    site.call(id(99), victim, heartbeat.clone());
    site.call(other, victim, Bytes::from_static(b"\xff\xff\xff"));
    // ... and a call that spells the leader out is made in its name.
    site.call(other, victim, in_the_name_of(leader, term));
    site.run_for(Duration::from_secs(5));
    let refusals = site.running(victim).consensus.clone();
    let refusals = refusals.refusals();
    assert_eq!((refusals.strangers(), refusals.malformed(), refusals.impostors()), (1, 1, 1));
    assert_eq!(site.running(victim).seen.leader, Some(leader));
    assert_eq!(site.running(victim).seen.term, term);
}

fn in_the_name_of(leader: muster_wire::MachineId, term: u64) -> Bytes {
    use muster_wire::proto;
    use prost::Message;
    let vote = proto::RaftVote { term, machine: Bytes::copy_from_slice(&leader.0), committed: true };
    let append = proto::RaftAppend { vote: Some(vote), ..Default::default() };
    proto::RaftRequest { call: Some(proto::raft_request::Call::Append(append)) }.encode_to_vec().into()
}

#[test]
fn an_entry_that_the_ledger_refuses_says_why_and_nonsense_is_not_proposed() {
    let mut site = Site::founded(15, 3, 3, Config::default());
    let leader = site.leader().unwrap();
    // The same once more changes nothing; under another name it is refused.
    let Ok(muster_wire::Entry::Admitted(again)) = muster_wire::Entry::decode(admission(0)) else {
        panic!("an admission")
    };
    let renamed =
        muster_wire::Entry::Admitted(muster_wire::entry::Admitted { name: "another".into(), ..again }).encode();
    let calls = [admission(0), renamed, Bytes::from_static(b"\xff")].map(|entry| site.propose(leader, entry));
    let follower = everyone(&site).into_iter().find(|me| *me != leader).unwrap();
    let elsewhere = site.propose(follower, admission(1));
    site.until("all are answered", |site| site.outcomes.len() == 4);
    let outcome = |call: u64| site.outcomes[&call].clone();
    assert_eq!(outcome(calls[0]).unwrap().refused, None);
    assert!(outcome(calls[1]).unwrap().refused.unwrap().contains("admitted already"));
    assert!(matches!(outcome(calls[2]), Err(ProposeError::Malformed(_))));
    assert_eq!(outcome(elsewhere), Err(ProposeError::NotLeading { leader: Some(leader) }));
}

#[test]
fn a_full_disk_stops_raft_and_says_so() {
    let mut site = Site::founded(16, 3, 3, Config::default());
    let follower = everyone(&site).into_iter().find(|me| Some(*me) != site.leader()).unwrap();
    site.machines[&follower].platter.fill_up();
    admit(&mut site, 0);
    site.until("it stops", |site| site.machines[&follower].running.as_ref().unwrap().seen.stopped.is_some());
    let why = site.running(follower).seen.stopped.clone().unwrap().unwrap();
    assert!(why.to_string().contains(&format!("{follower}.redb")), "{why}");
}

#[test]
fn stopping_is_told_once_and_without_a_reason() {
    let mut site = Site::founded(17, 3, 3, Config::default());
    site.shut_down(id(2));
    site.until("it has stopped", |site| site.machines[&id(2)].running.as_ref().unwrap().seen.stopped.is_some());
    assert_eq!(site.running(id(2)).seen.stopped, Some(None));
}

#[test]
fn an_idle_cluster_is_quiet() {
    let mut site = Site::founded(18, 5, 5, Config::default());
    admit(&mut site, 0);
    site.run_for(Duration::from_secs(10));
    let before = (site.bytes_sent, site.messages_sent());
    site.run_for(Duration::from_secs(60));
    let (bytes, messages) = (site.bytes_sent - before.0, site.messages_sent() - before.1);
    // The leader calls four voters every 750 ms and is answered.
    assert_eq!(messages, 60_000 / 750 * 8);
    assert!(bytes / messages <= 20, "{bytes} bytes in {messages} messages");
}

/// Everything at once: lost and doubled messages, slow disks, cuts, power losses, snapshots, changing voters.
fn turmoil(seed: u64) -> Vec<String> {
    let config = Config { snapshot_after: 20, keep: 5, ..Config::default() };
    let mut site = Site::founded(seed, 5, 5, config);
    site.loss = seed % 30;
    site.sync = Duration::from_millis(seed % 7 * 20);
    for number in 0..30 {
        admit(&mut site, number);
        let victim = id(1 + (seed + number) % 5);
        match number % 6 {
            0 => {
                let leader = site.leader().unwrap_or(victim);
                let voters = (1..=5).map(id).filter(|one| *one != victim || number % 4 == 0).collect();
                if site.machines[&leader].running.is_some() {
                    site.set_voters(leader, voters);
                }
            }
            1 => site.cut = BTreeSet::from([victim]),
            3 => site.cut.clear(),
            4 => site.kill(victim, Loss::Some(seed.rotate_left(number as u32))),
            5 => {
                let down: Vec<_> =
                    site.machines.values().filter(|one| one.running.is_none()).map(|one| one.me).collect();
                down.into_iter().for_each(|me| site.start(me));
            }
            _ => {}
        }
    }
    site.cut.clear();
    site.loss = 0;
    let all: BTreeSet<_> = (1..=5).map(id).collect();
    // A machine without a part in Raft is not sent the log.
    loop {
        site.until("a leader", |site| site.leader().is_some());
        site.changes.clear();
        let leader = site.leader().unwrap();
        site.set_voters(leader, all.clone());
        site.until("the change ends", |site| !site.changes.is_empty());
        if site.changes == [Ok(())] {
            break;
        }
    }
    site.until("all have all", |site| site.all_have(all.clone(), 29));
    site.assert_agreement();
    site.trace
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in 20..24 {
        let (first, second) = (turmoil(seed), turmoil(seed));
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        assert_eq!(differs.map(|at| (&first[at], &second[at])), None);
        assert_eq!(first.len(), second.len());
    }
    assert_ne!(turmoil(20), turmoil(21));
}

/// tokio and the standard library draw entropy once a process; nothing of it may show.
#[test]
fn another_process_runs_the_same() {
    let run = || {
        let mut this = std::process::Command::new(std::env::current_exe().unwrap());
        let output = this.args(["--exact", "a_run_for_another_process", "--ignored", "--nocapture"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let hash = text.lines().find(|line| line.contains("trace ")).map(str::to_owned);
        hash.unwrap_or_else(|| panic!("no trace in {text}"))
    };
    assert_eq!(run(), run());
}

#[test]
#[ignore = "its output is for another_process_runs_the_same"]
fn a_run_for_another_process() {
    let trace = turmoil(31).join("\n");
    println!("trace {:016x}", xxhash_rust::xxh3::xxh3_64(trace.as_bytes()));
}

//! Links with the world around them played by the test: connections are numbers, frames are words.

use super::*;

const ME: MachineId = MachineId([1; 32]);
const OTHER: MachineId = MachineId([2; 32]);
const THIRD: MachineId = MachineId([3; 32]);

type Test = Links<u32, &'static str>;

fn links(peers: &[&str]) -> Test {
    Links::new(ME, peers.iter().map(ToString::to_string).collect(), limits::CONNECTIONS_MAX, Time(0))
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn seconds(count: u64) -> Time {
    Time(count * 1_000_000)
}

fn id(number: u32) -> MachineId {
    let mut id = [9; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    MachineId(id)
}

fn wants(links: &mut Test) -> Vec<Want<u32>> {
    std::iter::from_fn(|| links.wanted()).collect()
}

fn dials(links: &mut Test) -> Vec<Dial> {
    let dial = |want| match want {
        Want::Dial(dial) => Some(dial),
        _ => None,
    };
    wants(links).into_iter().filter_map(dial).collect()
}

fn learn(links: &mut Test, now: Time, machine: MachineId, address: &str) {
    links.learn(now, machine, &[address.to_owned()]);
}

#[test]
fn a_hint_is_dialled_and_who_is_there_is_connected_and_not_dialled_again() {
    let mut links = links(&["10.0.0.2:1"]);
    assert_eq!(links.due(), Some(Time(0)));
    links.wake(Time(0));
    let dial = dials(&mut links).pop().expect("it is due");
    assert_eq!((dial.to, &dial.at[..]), (None, &[at("10.0.0.2:1")][..]));
    links.wake(seconds(1));
    assert_eq!(dials(&mut links), [], "it is being dialled");
    links.connected(seconds(1), 7, OTHER, at("10.0.0.2:1"), Some(dial.number));
    assert_eq!(
        wants(&mut links),
        [
            Want::Came(at("10.0.0.2:1"), Came::Connected(OTHER)),
            Want::Reached(OTHER, at("10.0.0.2:1").ip()),
            Want::Connected(OTHER)
        ]
    );
    links.wake(seconds(9));
    assert_eq!(wants(&mut links), [Want::Came(at("10.0.0.2:1"), Came::Connected(OTHER))]);
    learn(&mut links, seconds(9), OTHER, "10.0.0.2:1");
    assert_eq!(wants(&mut links), [], "a connection stands");
}

#[test]
fn a_name_is_looked_up_and_each_of_its_addresses_dialled_once() {
    let mut links = links(&["site.example:1"]);
    links.wake(Time(0));
    assert_eq!(wants(&mut links), [Want::LookUp("site.example:1".to_owned())]);
    for _ in 0..2 {
        links.resolved(Time(1), [at("10.0.0.2:1"), at("10.0.0.3:1")]);
    }
    assert_eq!(dials(&mut links).len(), 2);
}

#[test]
fn its_own_addresses_are_not_dialled() {
    let mut links = links(&["10.0.0.1:1", "10.0.0.9:1"]);
    links.listens(at("10.0.0.1:1"), true);
    links.wake(Time(0));
    let wanted = wants(&mut links);
    assert_eq!(wanted[0], Want::Came(at("10.0.0.1:1"), Came::Own));
    let Want::Dial(Dial { number, .. }) = wanted[1] else { panic!("{wanted:?}") };
    // A copy of this machine's disk, or a translator that leads back here.
    links.connected(Time(1), 7, ME, at("10.0.0.9:1"), Some(number));
    assert_eq!(wants(&mut links), [Want::Came(at("10.0.0.9:1"), Came::Own), Want::Close(7)]);
    links.wake(seconds(1));
    assert_eq!(dials(&mut links), []);
    learn(&mut links, seconds(1), OTHER, "10.0.0.9:1");
    assert_eq!(dials(&mut links), [], "another's bridge has the same address");
    links.listens(at("10.0.0.1:1"), false);
    links.wake(seconds(9));
    assert_eq!(dials(&mut links).len(), 1, "it has that address no more");
}

#[test]
fn frames_wait_for_a_connection_and_follow_the_greeting_or_are_lost_with_the_dial() {
    let mut links = links(&[]);
    assert_eq!(links.send(Time(0), OTHER, "lost", |_| 1), Sent::Dropped, "nobody knows where it is");
    learn(&mut links, Time(0), OTHER, "10.0.0.2:1");
    let dial = dials(&mut links).pop().expect("it is looked for");
    assert_eq!(links.send(Time(0), OTHER, "one", |_| 1), Sent::Waits);
    assert_eq!(links.send(Time(0), OTHER, "two", |_| 1), Sent::Waits);
    assert_eq!(dials(&mut links), [], "it is dialled already");
    assert_eq!(links.dial_failed(dial.number), 2);
    assert_eq!(links.dial_failed(dial.number), 0);
    assert_eq!(links.send(Time(1), OTHER, "three", |_| 1), Sent::Waits);
    let dial = dials(&mut links).pop().expect("anew");
    links.connected(Time(2), 7, OTHER, at("10.0.0.2:1"), Some(dial.number));
    assert_eq!(links.send(Time(2), OTHER, "greeting", |_| 1), Sent::Now("greeting", vec!["three"]));
    assert_eq!(links.send(Time(2), OTHER, "four", |_| 1), Sent::Now("four", vec![]));
}

#[test]
fn who_is_refused_hears_why_is_heard_no_more_and_is_left_alone_for_five_minutes() {
    let mut links = links(&[]);
    learn(&mut links, Time(0), OTHER, "10.0.0.2:1");
    let dial = dials(&mut links).pop().expect("it is looked for");
    links.connected(Time(0), 7, OTHER, at("10.0.0.2:1"), Some(dial.number));
    wants(&mut links);
    links.refuse(seconds(10), OTHER, REFUSED_FOR);
    assert!(!links.hears(seconds(10), OTHER) && links.hears(seconds(10), THIRD));
    assert_eq!(links.due(), Some(seconds(11)));
    links.wake(Time(10_999_999));
    assert_eq!(links.send(Time(10_999_999), OTHER, "why", |_| 1), Sent::Now("why", vec![]));
    assert_eq!(wants(&mut links), []);
    links.wake(seconds(11));
    assert_eq!(wants(&mut links), [Want::Close(7)]);
    links.closed(seconds(11), 7);
    assert_eq!(wants(&mut links), [Want::Disconnected(OTHER)]);
    for moment in [seconds(12), seconds(309)] {
        learn(&mut links, moment, OTHER, "10.0.0.2:1");
        links.discovered(moment, OTHER, at("10.0.0.2:1"));
        assert_eq!(links.send(moment, OTHER, "lost", |_| 1), Sent::Dropped);
        links.connected(moment, 8, OTHER, at("10.0.0.2:9"), None);
        assert_eq!(wants(&mut links), [Want::Close(8)], "it is not told of");
    }
    links.discovered(seconds(310), OTHER, at("10.0.0.2:1"));
    assert_eq!(dials(&mut links).len(), 1);
    links.connected(seconds(310), 9, OTHER, at("10.0.0.2:9"), None);
    assert!(wants(&mut links).contains(&Want::Connected(OTHER)));
}

#[test]
fn who_offends_is_left_alone_at_once_and_for_a_shorter_while() {
    let mut links = links(&[]);
    links.connected(Time(0), 7, OTHER, at("10.0.0.2:9"), None);
    wants(&mut links);
    links.offended(seconds(10), OTHER);
    assert_eq!(wants(&mut links), [Want::Close(7)]);
    assert!(!links.hears(seconds(39), OTHER) && links.hears(seconds(40), OTHER));
}

#[test]
fn two_that_dial_each_other_at_once_keep_both_connections_and_are_told_of_one() {
    let mut links = links(&[]);
    learn(&mut links, Time(0), OTHER, "10.0.0.2:1");
    let dial = dials(&mut links).pop().expect("it is looked for");
    links.connected(Time(0), 7, OTHER, at("10.0.0.2:40000"), None);
    links.connected(Time(5), 8, OTHER, at("10.0.0.2:1"), Some(dial.number));
    let connected = wants(&mut links).into_iter().filter(|want| *want == Want::Connected(OTHER)).count();
    assert_eq!((connected, links.over(OTHER)), (1, Some(7)));
    links.closed(seconds(9), 7);
    assert_eq!((wants(&mut links), links.over(OTHER)), (vec![], Some(8)));
    links.closed(seconds(9), 8);
    assert_eq!(wants(&mut links)[0], Want::Disconnected(OTHER));
}

#[test]
fn more_than_three_connections_to_one_machine_are_not_kept() {
    let mut links = links(&[]);
    for connection in 1..=4 {
        links.connected(Time(0), connection, OTHER, at("10.0.0.2:9"), None);
    }
    assert_eq!(wants(&mut links).pop(), Some(Want::Close(4)));
    assert_eq!(links.connections_of(OTHER).count(), CONNECTIONS_PER_MACHINE_MAX);
}

#[test]
fn a_machine_that_dials_again_has_lost_its_former_connection() {
    let mut links = links(&[]);
    links.connected(Time(0), 7, OTHER, at("10.0.0.2:9"), None);
    wants(&mut links);
    links.connected(seconds(4), 8, OTHER, at("10.0.0.2:10"), None);
    assert_eq!(
        wants(&mut links),
        [
            Want::Close(7),
            Want::Disconnected(OTHER),
            Want::Reached(OTHER, at("10.0.0.2:1").ip()),
            Want::Connected(OTHER)
        ]
    );
    assert_eq!(links.closed(seconds(4), 7), None, "it was let go of before");
    assert_eq!(links.over(OTHER), Some(8));
}

#[test]
fn a_machine_that_is_lost_is_looked_for_at_once_and_one_that_hangs_up_is_not() {
    let mut links = links(&["10.0.0.3:1"]);
    links.wake(Time(0));
    learn(&mut links, Time(0), OTHER, "10.0.0.2:1");
    let number = dials(&mut links).pop().expect("it is looked for").number;
    links.connected(Time(0), 7, OTHER, at("10.0.0.2:1"), Some(number));
    wants(&mut links);
    assert_eq!(links.closed(seconds(60), 7), Some((OTHER, Duration::from_secs(60))));
    let again = dials(&mut links);
    assert_eq!(again[0].to, Some(OTHER));
    assert_eq!(links.due(), Some(Time(0) + Duration::from_millis(300)), "and no hint waits long");
    links.connected(seconds(61), 8, OTHER, at("10.0.0.2:1"), Some(again[0].number));
    links.closed(seconds(62), 8);
    assert_eq!(dials(&mut links), []);
    learn(&mut links, seconds(62), OTHER, "10.0.0.2:1");
    assert_eq!(dials(&mut links), [], "it rests for a second");
    learn(&mut links, seconds(63), OTHER, "10.0.0.2:1");
    assert_eq!(dials(&mut links).len(), 1);
}

#[test]
fn who_is_heard_from_an_address_that_is_not_its_own_is_dialled_back() {
    let mut links = links(&[]);
    links.connected(Time(0), 7, OTHER, at("10.0.0.254:9"), None);
    learn(&mut links, Time(1), OTHER, "10.0.0.2:1");
    let back = dials(&mut links).pop().expect("dialled back");
    assert_eq!((back.to, &back.at[..]), (Some(OTHER), &[at("10.0.0.2:1")][..]));
    learn(&mut links, Time(2), OTHER, "10.0.0.2:1");
    assert_eq!(dials(&mut links), [], "once at a time");
    links.connected(Time(3), 8, OTHER, at("10.0.0.2:1"), Some(back.number));
    assert_eq!(wants(&mut links), [Want::Reached(OTHER, at("10.0.0.2:1").ip())]);
    learn(&mut links, Time(4), OTHER, "10.0.0.2:1");
    assert_eq!(dials(&mut links), []);
}

#[test]
fn an_answer_by_mdns_is_a_hint_and_so_is_an_address_at_which_another_machine_is() {
    let mut links = links(&[]);
    links.discovered(Time(0), ME, at("10.0.0.1:1"));
    assert_eq!(dials(&mut links), []);
    links.discovered(Time(0), OTHER, at("10.0.0.2:1"));
    let dial = dials(&mut links).pop().expect("it is dialled");
    assert_eq!(dial.to, Some(OTHER));
    links.another_at(Time(1), at("10.0.0.2:1"));
    links.dial_failed(dial.number);
    let due = links.due().expect("it is tried again");
    links.wake(due);
    let dial = dials(&mut links).pop().expect("whoever is there");
    assert_eq!(dial.to, None);
    links.connected(due, 7, THIRD, at("10.0.0.2:1"), Some(dial.number));
    assert!(wants(&mut links).contains(&Want::Connected(THIRD)));
}

#[test]
fn a_machine_looks_for_as_many_as_a_small_site_has_dials_counted() {
    let mut links = links(&[]);
    for number in 0..2 * limits::MESH_FULL as u32 {
        links.discovered(Time(0), id(number), at(&format!("10.0.1.{number}:1")));
    }
    let under_way = dials(&mut links);
    assert_eq!((under_way.len(), links.lacking()), (limits::MESH_FULL, 0));
    links.dial_failed(under_way[0].number);
    assert_eq!(links.lacking(), 1);
    // What is to be said to somebody in particular is dialled all the same.
    learn(&mut links, Time(0), OTHER, "10.0.0.2:1");
    assert_eq!(dials(&mut links).len(), 1);
    learn(&mut links, Time(0), THIRD, "10.0.0.3:1");
    assert_eq!(dials(&mut links), []);
    assert_eq!(links.send(Time(0), THIRD, "a question", |_| 1), Sent::Waits);
    assert_eq!(dials(&mut links).len(), 1);
}

#[test]
fn unused_connections_are_closed_longest_idle_first_while_there_are_too_many() {
    let mut links = links(&[]);
    let count = limits::MESH_CROWDED as u32 + 3;
    for number in 0..count {
        links.connected(seconds(u64::from(number)), number, id(number), at(&format!("10.0.1.{number}:1")), None);
    }
    wants(&mut links);
    let now = seconds(300);
    links.send(now, id(0), "a poll", |_| 1);
    links.make_room(now);
    assert_eq!(wants(&mut links), [Want::Close(1), Want::Close(2), Want::Close(3)]);
    links.make_room(now);
    assert_eq!(wants(&mut links), [], "once a second is enough");
    links.make_room(now + Duration::from_secs(1));
    assert_eq!(wants(&mut links).len(), 3, "they are not closed yet");
    assert!(!links.is_full());
}

#[test]
fn where_room_is_scarce_connections_are_closed_sooner_and_a_full_machine_says_so() {
    let mut links: Test = Links::new(ME, Vec::new(), 8, Time(0));
    assert_eq!(links.lacking(), 8);
    for number in 0..9 {
        links.connected(Time(0), number, id(number), at("10.0.0.2:1"), None);
    }
    wants(&mut links);
    assert!(links.is_full());
    links.make_room(seconds(6));
    assert_eq!(wants(&mut links), [Want::Close(0)]);
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut links = links(&[]);
    for number in 0..MACHINES_MAX as u32 + 9 {
        links.learn(Time(0), id(number), &vec!["10.0.0.2:1".to_owned(); 2 * limits::ADDRESSES_MAX]);
    }
    assert_eq!(links.known.len(), MACHINES_MAX);
    assert!(links.known.values().all(|known| known.len() == limits::ADDRESSES_MAX));
    for number in 0..1_000_u32 {
        links.is_myself(SocketAddr::new(IpAddr::from(number.to_be_bytes()), 1));
    }
    assert!(links.own.len() < 1_000);
}

//! A Node is drained, and a member is struck off only where the others stand without it.

use super::*;

const NODE: &str = "/api/v1/nodes/m2";

fn drain() -> Work {
    begin(here(), true, Step::Drain { node: "m2".into() })
}

fn heard(status: u16, body: &str) -> Answer {
    Answer::Heard(Ok((status, body.to_owned().into())))
}

/// A Node with these Pods, one list after the other, the last for ever; a Pod is evicted or held.
fn answers(lists: &'static [&'static str], eviction: (u16, &'static str)) -> impl FnMut(&Ask) -> Answer {
    let mut asked = 0;
    move |ask| match ask {
        Ask::Send(request) if request.method == "GET" && request.path == NODE => heard(200, "{}"),
        Ask::Send(request) if request.path.starts_with("/api/v1/pods?") => {
            asked += 1;
            heard(200, lists[(asked - 1).min(lists.len() - 1)])
        }
        Ask::Send(request) if request.path.ends_with("/eviction") => heard(eviction.0, eviction.1),
        ask => well(ask),
    }
}

const ONE: &str = r#"{"items": [{"metadata": {"namespace": "default", "name": "web-0"}}]}"#;
const ENDING: &str = r#"{"items": [{"metadata": {"namespace": "default", "name": "web-0", "deletionTimestamp": "2026-11-27T00:00:00Z"}}]}"#;
const NONE: &str = r#"{"items": []}"#;
const HELD: &str =
    r#"{"details": {"causes": [{"reason": "DisruptionBudget", "message": "The disruption budget web needs 1"}]}}"#;

#[test]
fn a_node_is_closed_and_its_pods_are_evicted_until_none_is_left() {
    let (result, asks) = drive(drain(), answers(&[ONE, ENDING, NONE], (201, "{}")));
    assert_eq!(result, Ok(StepOutput::Done), "{asks:?}");
    let at = |what: &str| asks.iter().position(|ask| ask.contains(what)).unwrap_or_else(|| panic!("{what}: {asks:?}"));
    assert!(at("PATCH") < at("/api/v1/pods?") && at("/api/v1/pods?") < at("/eviction"), "{asks:?}");
    assert_eq!(asks.iter().filter(|ask| ask.contains("/eviction")).count(), 1, "what ends is waited for: {asks:?}");
}

#[test]
fn what_a_budget_holds_is_named_in_the_end() {
    let (result, asks) = drive(drain(), answers(&[ONE], (429, HELD)));
    assert_eq!(result.expect_err("held").why, "default/web-0: The disruption budget web needs 1");
    assert!(asks.iter().filter(|ask| ask.contains("/eviction")).count() > 100, "it is tried for a while");
}

#[test]
fn a_list_in_parts_is_read_to_its_end() {
    const FIRST: &str =
        r#"{"metadata": {"continue": "next"}, "items": [{"metadata": {"namespace": "a", "name": "one"}}]}"#;
    let (result, asks) = drive(drain(), answers(&[FIRST, ONE, NONE], (201, "{}")));
    assert_eq!(result, Ok(StepOutput::Done));
    assert!(asks.iter().any(|ask| ask.ends_with("continue=next")), "{asks:?}");
    assert_eq!(asks.iter().filter(|ask| ask.contains("/eviction")).count(), 2, "{asks:?}");
}

#[test]
fn a_node_that_is_gone_needs_nothing_and_one_that_is_not_ours_stays_closed() {
    let gone = |ask: &Ask| match ask {
        Ask::Send(_) => heard(404, "{}"),
        ask => well(ask),
    };
    let (result, asks) = drive(drain(), gone);
    assert_eq!(result, Ok(StepOutput::Done));
    assert!(!asks.iter().any(|ask| ask.contains("pods")), "{asks:?}");
    let open = |node: &'static str| {
        let work = begin(here(), true, Step::Open { node: "m2".into() });
        drive(work, move |ask| match ask {
            Ask::Send(request) if request.method == "GET" => heard(200, node),
            ask => well(ask),
        })
    };
    let (result, asks) = open(r#"{"spec": {"unschedulable": true}}"#);
    assert!(result.is_ok() && !asks.iter().any(|ask| ask.starts_with("PATCH")), "{asks:?}");
    let (result, asks) = open(r#"{"metadata": {"annotations": {"muster/closed": "drain"}}}"#);
    assert!(result.is_ok() && asks.iter().any(|ask| ask.starts_with("PATCH")), "{asks:?}");
}

#[test]
fn nobody_is_struck_off_whom_the_majority_needs() {
    let members = |count: u32| {
        let member = |number: u32| {
            format!(r#"{{"ID": "{number}", "name": "m{number}", "peerURLs": ["https://10.0.0.{number}:2380"]}}"#)
        };
        format!(r#"{{"members": [{}]}}"#, (1..=count).map(member).collect::<Vec<_>>().join(", "))
    };
    // Of three members that of m2 is to go; m1 answers, m3 does or does not.
    let strike = |third: bool, agreed: bool| {
        let work =
            begin(here(), true, Step::Strike { member: Some("10.0.0.2".into()), node: "m2".into(), back: false });
        let list = members(3);
        drive(work, move |ask| match ask {
            Ask::Servers => {
                Answer::Servers(["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|at| at.parse().expect("an address")).into())
            }
            Ask::Send(request) if request.server.starts_with("10.0.0.3") && !third => {
                Answer::Heard(Err("silence".into()))
            }
            Ask::Send(request)
                if request.path == crate::etcd::LIST && request.body.expose_str().contains("true") && !agreed =>
            {
                heard(503, "{}")
            }
            Ask::Send(request) if request.path == crate::etcd::LIST => heard(200, &list),
            ask => well(ask),
        })
    };
    assert_eq!(strike(true, true).0, Ok(StepOutput::Done));
    let (result, asks) = strike(false, true);
    let why = result.expect_err("it would have no majority").why;
    assert!(why.contains("2 members, of which 1 answer"), "{why}");
    assert!(!asks.iter().any(|ask| ask.ends_with(REMOVE_PATH) || ask.starts_with("DELETE")), "{asks:?}");
    assert!(strike(true, false).0.is_err(), "an answer that no majority agrees on is none");
}

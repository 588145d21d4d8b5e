//! What a founder that stopped half-way does with what it finds.

use super::*;
use muster_protocol::{Before, EtcdTiming, Founding};
use muster_wire::Attempt;

fn found(before: Before) -> Work {
    let members = ["1", "2", "3"].map(|one| (format!("m{one}"), format!("10.0.0.{one}")));
    let step = Step::Found {
        attempt: Attempt(1),
        name: "m1".into(),
        address: "10.0.0.1".into(),
        sealed_pki: pki(),
        timing: EtcdTiming::Own,
        founding: Founding { token: "site-1".into(), members: members.into() },
        before,
    };
    begin(here(), true, step)
}

/// With those of etcd's manifest, the kubelet's configuration and etcd's data that are there.
fn on(before: Before, there: [bool; 3]) -> (Result<StepOutput, StepFailure>, Vec<String>) {
    let mut ran = false;
    drive(found(before), |ask| match ask {
        Ask::Exists(path) if !ran => Answer::Exists(match path.file_name().and_then(|name| name.to_str()) {
            Some("etcd.yaml") => there[0],
            Some("config.yaml") => there[1],
            _ => true,
        }),
        Ask::List(path) if path.ends_with("member") && !ran => {
            Answer::Listed(Ok(there[2].then(|| path.join("wal")).into_iter().collect()))
        }
        ask => {
            ran |= matches!(ask, Ask::Run(_));
            well(ask)
        }
    })
}

fn at(asks: &[String], what: &str) -> Option<usize> {
    asks.iter().position(|ask| ask == what)
}

#[test]
fn etcd_that_may_have_started_is_gone_on_with_and_never_begun_again() {
    let (result, asks) = on(Before::Nothing, [false; 3]);
    assert_eq!(result, Ok(StepOutput::Done), "{asks:?}");
    assert!(at(&asks, "run init/preflight").is_some() && at(&asks, "run reset").is_none(), "{asks:?}");
    assert!(at(&asks, "run init/etcd/local") < at(&asks, "run init/kubelet-start"), "{asks:?}");
    // Half of a run, and etcd cannot have been started by it.
    for there in [[false, false, false], [true, false, false], [false, true, false]] {
        let (result, asks) = on(Before::Part, there);
        assert_eq!(result, Ok(StepOutput::Done), "{there:?}: {asks:?}");
        assert!(at(&asks, "run reset") < at(&asks, "run init/preflight"), "{there:?}: {asks:?}");
    }
    // Its data is proof enough, whatever became of the files around it.
    for there in [[true, true, true], [false, true, true], [true, false, true], [false, false, true]] {
        let (result, asks) = on(Before::Part, there);
        assert_eq!(result, Ok(StepOutput::Done), "{there:?}: {asks:?}");
        let taken = |ask: &String| ask == "run reset" || ask.starts_with("empty");
        assert!(!asks.iter().any(taken), "{there:?}: {asks:?}");
        assert!(at(&asks, "run init/preflight").is_none() && at(&asks, "run init/kubelet-start").is_some(), "{asks:?}");
    }
    for (before, there) in
        [(Before::Part, [true, true, false]), (Before::All, [true, true, false]), (Before::All, [false; 3])]
    {
        let (result, asks) = on(before, there);
        let failure = result.expect_err("its data is gone");
        assert!(
            failure.hopeless && failure.phase.is_none() && failure.why.contains("holds nothing of it"),
            "{failure}"
        );
        assert!(!asks.iter().any(|ask| ask.starts_with("run") || ask.starts_with("write")), "{asks:?}");
        assert_eq!(asks.iter().any(|ask| ask.starts_with("pause")), there[0], "a kubelet that runs is waited for");
    }
    // A kubelet that was started a moment ago.
    let mut looks = 0;
    let (result, asks) = drive(found(Before::Part), |ask| match ask {
        Ask::List(path) if path.ends_with("member") => {
            looks += 1;
            Answer::Listed(Ok((looks > 5).then(|| path.join("wal")).into_iter().collect()))
        }
        ask => well(ask),
    });
    assert_eq!(result, Ok(StepOutput::Done), "{asks:?}");
}

#[test]
fn a_member_is_given_up_only_while_its_data_is_gone() {
    let leave = || begin(here(), true, Step::LeaveEtcd { address: "10.0.0.2".into() });
    let gone = |ask: &Ask| match ask {
        Ask::List(path) if path.ends_with("member") => Answer::Listed(Ok(Vec::new())),
        Ask::Send(request) if request.path.contains("member/list") => Answer::Heard(Ok((200, LIST.into()))),
        ask => well(ask),
    };
    let (_, asks) = drive(leave(), gone);
    assert!(asks.iter().any(|ask| ask.contains("/v3/cluster/member/remove")), "{asks:?}");
    assert!(
        !asks.iter().any(|ask| ask.starts_with("run") || ask.starts_with("empty")),
        "nothing is reset yet: {asks:?}"
    );
    // It may be put back at any moment, before the first request or between two.
    for rounds in [0, 3] {
        let mut looks = 0;
        let (result, asks) = drive(leave(), |ask| match ask {
            Ask::List(path) if path.ends_with("member") => {
                looks += 1;
                Answer::Listed(Ok((looks > rounds).then(|| path.join("wal")).into_iter().collect()))
            }
            Ask::Send(_) => Answer::Heard(Err("connection refused".to_owned())),
            ask => well(ask),
        });
        assert!(matches!(result, Ok(StepOutput::Noted(_))), "{result:?} {asks:?}");
        assert!(!asks.iter().any(|ask| ask.contains("member/remove")), "{asks:?}");
    }
}

#[test]
fn who_joins_with_nothing_takes_what_is_listed_of_it_out_first() {
    let join = || begin(here(), true, joins_etcd("10.0.0.2"));
    let (_, asks) = drive(join(), |ask| match ask {
        Ask::List(path) if path.ends_with("member") => Answer::Listed(Ok(Vec::new())),
        Ask::Send(request) if request.path.contains("member/list") => Answer::Heard(Ok((200, LIST.into()))),
        ask => well(ask),
    });
    assert!(asks.iter().any(|ask| ask.contains("/v3/cluster/member/remove")), "{asks:?}");
    let (result, asks) = drive(join(), well);
    assert_eq!(result, Ok(StepOutput::Done));
    assert!(!asks.iter().any(|ask| ask.contains("member/remove")), "what it wrote itself is gone on with: {asks:?}");
}

/// etcd takes one learner at a time: who died in its turn and left one behind would keep everybody else out.
#[test]
fn who_joins_takes_out_who_was_added_and_left_behind() {
    let list = r#"{"members": [{"ID": "1", "name": "m1", "peerURLs": ["https://10.0.0.1:2380"]},
        {"ID": "3", "peerURLs": ["https://10.0.0.3:2380"], "isLearner": true},
        {"ID": "4", "name": "m4", "peerURLs": ["https://10.0.0.4:2380"]}]}"#;
    let join = || begin(here(), true, joins_etcd("10.0.0.2"));
    let mut struck = Vec::new();
    let (result, asks) = drive(join(), |ask| match ask {
        Ask::Send(request) if request.path.contains("member/list") => Answer::Heard(Ok((200, list.into()))),
        Ask::Send(request) if request.path.contains("member/remove") => {
            struck.push(String::from_utf8_lossy(request.body.expose()).into_owned());
            Answer::Heard(Ok((200, "{}".into())))
        }
        ask => well(ask),
    });
    assert_eq!((result, struck.join(" ").as_str()), (Ok(StepOutput::Done), r#"{"ID":"3"} {"ID":"4"}"#));
    let removed = asks.iter().position(|ask| ask.contains("member/remove"));
    assert!(removed < asks.iter().position(|ask| ask.starts_with("run")), "{asks:?}");
    // Where that cannot be, kubeadm says itself what it meets.
    let (result, asks) = drive(join(), |ask| match ask {
        Ask::Send(request) if request.path.contains("member/list") => Answer::Heard(Ok((200, list.into()))),
        Ask::Send(_) => Answer::Heard(Ok((503, "etcdserver: unhealthy cluster".into()))),
        ask => well(ask),
    });
    assert_eq!(result, Ok(StepOutput::Done));
    assert!(asks.iter().any(|ask| ask.contains("10.0.0.3") && ask.contains("unhealthy cluster")), "{asks:?}");
}

/// A kubeadm that will not do it is no word of etcd's data: what runs here is not given up for it.
#[test]
fn what_kubeadm_refuses_is_told_with_its_phase() {
    let (result, _) = drive(found(Before::Part), |ask| match ask {
        Ask::Run(command) if command.phase == "init/certs" => {
            Answer::Ran(Ran { exit: Exit::NotStarted("no such file".into()), ..ran(1, "") })
        }
        ask => well(ask),
    });
    assert_eq!(result.expect_err("kubeadm is gone").phase.as_deref(), Some("init/certs"));
}

mod drain;
mod founders;
mod remains;

use std::path::Path;
use std::time::{Duration, SystemTime};

use muster_protocol::{ManifestOutcome, Recipient, Step, StepOutput};
use muster_wire::seal::SealingKey;
use muster_wire::{Attempt, Role};

use super::step::clock_is_set;
use super::*;
use crate::manifests::ManifestFile;
use crate::version::Version;

pub(crate) fn settings(root: &Path) -> Settings {
    Settings { work_dir: root.join("run"), ..Settings::of("site", root) }
}

const CONFIG: &str = r#"{"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "site", "user": "me"}}],
    "clusters": [{"name": "site", "cluster": {"server": "https://old", "certificate-authority-data": "Q0E="}}],
    "users": [{"name": "me", "user": {"token": "t"}}]}"#;

fn me() -> MachineId {
    MachineId([1; 32])
}

fn recipient() -> Recipient {
    Recipient { machine: me(), sealing_key: SealingKey::from_seed(&[7; 32]).public() }
}

/// A step on a machine at `root`, whose manifests are three ConfigMaps.
pub(super) fn begin(root: &Path, checked: bool, step: Step) -> Work {
    let text: Vec<String> =
        ["a", "b", "c"].map(|name| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n")).into();
    let file = ManifestFile { name: "m.yaml".into(), contents: Secret::new(text.join("---\n")) };
    let manifests = Manifests::read(&[file]).expect("reads");
    let settings = settings(root);
    let version = Version::from_kubeadm(br#"{"clientVersion": {"gitVersion": "v1.37.2"}}"#).expect("a version");
    let plan = checked.then(|| Arc::new(Plan::new(&version, settings.clone()).expect("a plan")));
    let key = SealingKey::from_seed(&[7; 32]);
    Work::begin(Arc::new(Place { me: me(), key, settings, manifests }), plan, step, Zeroizing::new([9; 32]))
}

/// A machine's turn at etcd, where m1 has a member.
pub(super) fn joins_etcd(address: &str) -> Step {
    Step::JoinEtcd {
        attempt: Attempt(1),
        address: address.into(),
        with: vec!["10.0.0.1".into()],
        without: vec!["10.0.0.4".into()],
    }
}

/// Answers until the end. A pause takes as long as it says. Returns how it ended, and its asks in short.
pub(super) fn drive(
    mut work: Work,
    mut answer: impl FnMut(&Ask) -> Answer,
) -> (Result<StepOutput, StepFailure>, Vec<String>) {
    let (mut now, mut given, mut asks) = (Duration::ZERO, None, Vec::new());
    loop {
        match work.next(now, given.take()) {
            Next::Ended(result) => return (result, asks),
            Next::Ask(ask) => {
                if let Ask::Pause(pause) = &ask {
                    now += *pause;
                }
                asks.push(short(&ask));
                given = Some(answer(&ask));
            }
        }
        asks.extend(work.told().into_iter().map(|words| format!("says {words}")));
        assert!(asks.len() < 100_000, "it never ends");
    }
}

fn short(ask: &Ask) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match ask {
        Ask::Write { path, mode, .. } => format!("write {} {mode:o}", name(path)),
        Ask::Remove(path) => format!("remove {}", name(path)),
        Ask::Empty(path) => format!("empty {}", name(path)),
        Ask::Exists(path) => format!("exists {}", name(path)),
        Ask::Read(path) => format!("read {}", name(path)),
        Ask::List(path) | Ask::ListBelow(path) => format!("list {}", name(path)),
        Ask::Run(command) => format!("run {}", command.phase),
        Ask::Send(request) => format!("{} {} {}", request.method, request.server, request.path),
        Ask::Pause(pause) => format!("pause {}", pause.as_millis()),
        Ask::Clock => "clock".into(),
        Ask::Servers => "servers".into(),
        Ask::Endpoint(address) => format!("endpoint {address}"),
        Ask::CutOff(at) => format!("cut off {at}"),
        Ask::Sync(_) => "sync".to_owned(),
        Ask::BackUp { label, .. } => format!("backs up {}", label.number),
        Ask::Keep(_) => "keep".into(),
    }
}

/// A machine on which everything goes well, with an etcd identity and etcd's data and nothing else.
pub(super) fn well(ask: &Ask) -> Answer {
    match ask {
        Ask::Exists(_) => Answer::Exists(true),
        Ask::Read(_) => Answer::Read(Ok(Some(Secret::new(CONFIG)))),
        Ask::List(path) if path.ends_with("member") => Answer::Listed(Ok(vec![path.join("wal")])),
        Ask::List(_) | Ask::ListBelow(_) => Answer::Listed(Ok(Vec::new())),
        Ask::Run(_) => Answer::Ran(ran(0, "")),
        Ask::Send(_) => Answer::Heard(Ok((200, Bytes::from_static(b"{}")))),
        Ask::Clock => Answer::Clock(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
        Ask::Servers => Answer::Servers(vec!["10.0.0.1".parse().expect("an address")]),
        _ => Answer::Did(Ok(())),
    }
}

fn ran(code: i32, stderr: &str) -> Ran {
    Ran { exit: Exit::Code(code), stdout: Vec::new(), stderr: stderr.as_bytes().to_vec(), note: None }
}

fn here() -> &'static Path {
    Path::new("/m")
}

fn pki() -> Bytes {
    let work = begin(here(), true, Step::MakePki { attempt: Attempt(1), recipients: vec![recipient()] });
    match drive(work, well).0 {
        Ok(StepOutput::PkiMade { mut sealed, .. }) => sealed.remove(0).ciphertext,
        other => panic!("{other:?}"),
    }
}

#[test]
fn kubeadm_is_asked_for_its_version_and_the_plan_is_kept() {
    let version = r#"{"clientVersion": {"gitVersion": "v1.37.2"}}"#;
    let (result, asks) = drive(begin(here(), false, Step::Check { fresh: false }), |ask| match ask {
        Ask::Run(_) => Answer::Ran(Ran { stdout: version.into(), ..ran(0, "") }),
        Ask::Exists(_) => Answer::Exists(false),
        ask => well(ask),
    });
    assert_eq!(result, Ok(StepOutput::Checked { version: "v1.37.2".into(), worker_only: None }));
    assert_eq!(asks[asks.len() - 3..], ["clock", "run version", "keep"]);
    let (result, asks) = drive(begin(here(), false, Step::Check { fresh: false }), |ask| match ask {
        Ask::Clock => Answer::Clock(SystemTime::UNIX_EPOCH),
        ask => well(ask),
    });
    assert!(result.expect_err("refused").why.contains("clock is not set"), "{asks:?}");
}

#[test]
fn a_clock_that_was_never_set_is_told_from_one_that_is_merely_off() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
    for unset in [before, at(0), at(1_767_225_599)] {
        assert!(clock_is_set(unset).unwrap_err().contains("clock is not set"));
    }
    assert_eq!(clock_is_set(at(1_767_225_600)), Ok(()));
    assert_eq!(clock_is_set(at(4_000_000_000)), Ok(()));
}

#[test]
fn what_is_sealed_opens_with_the_recipients_key_for_its_purpose_alone() {
    let issue = |token_registered| Step::IssueTicket {
        attempt: Attempt(2),
        sealed_pki: pki(),
        recipient: recipient(),
        token_registered,
        worker: None,
    };
    let (result, asks) = drive(begin(here(), true, issue(true)), well);
    let Ok(StepOutput::Ticket { ciphertext }) = result else { panic!("{result:?}") };
    assert_eq!(asks, [""; 0]);
    let key = SealingKey::from_seed(&[7; 32]);
    assert!(key.open("ticket/2", me(), &ciphertext).is_ok());
    assert!(key.open("ticket/1", me(), &ciphertext).is_err() && key.open("pki", me(), &ciphertext).is_err());
    let (_, asks) = drive(begin(here(), true, issue(false)), well);
    assert!(asks[0].starts_with("write token-") && asks[0].ends_with("600"), "{asks:?}");
    assert!(asks[1] == "run token/create" && asks[2].starts_with("remove token-"), "{asks:?}");
    let (result, _) = drive(begin(here(), false, issue(false)), well);
    assert_eq!(result.expect_err("refused").why, "kubeadm has not been checked yet");
}

#[test]
fn a_run_that_may_be_repeated_is() {
    let delete = || begin(here(), true, Step::DeleteToken { sealed_pki: pki(), machine: me() });
    let mut runs = 0;
    let (result, asks) = drive(delete(), |ask| match ask {
        Ask::Run(_) => {
            runs += 1;
            Answer::Ran(if runs == 1 { ran(1, "dial tcp: connection refused") } else { ran(0, "") })
        }
        ask => well(ask),
    });
    assert_eq!(result, Ok(StepOutput::Done));
    assert_eq!((asks[0].as_str(), asks[1].as_str()), ("run token/delete", "pause 1000"));
    assert!(asks[2].starts_with("says token/delete: ") && asks[3] == "run token/delete", "{asks:?}");
    let (result, asks) = drive(delete(), |ask| match ask {
        Ask::Run(_) => Answer::Ran(Ran { note: Some("by a proxy".into()), ..ran(1, "dial tcp: connection refused") }),
        ask => well(ask),
    });
    let failure = result.expect_err("it fails for good");
    assert!(failure.why.contains("by a proxy") && asks.len() < 20, "{failure} {asks:?}");
}

const LIST: &str = r#"{"members": [{"ID": "1", "name": "m1", "peerURLs": ["https://10.0.0.1:2380"]},
    {"ID": "2", "name": "m2", "peerURLs": ["https://10.0.0.2:2380"]}]}"#;

#[test]
fn etcd_is_believed_over_kubeadm_that_did_not_see_the_member_through() {
    let join = |address: &str| begin(here(), true, joins_etcd(address));
    let fails = |ask: &Ask| match ask {
        Ask::Run(_) => Answer::Ran(ran(1, "error execution phase etcd-join: timed out")),
        Ask::Send(_) => Answer::Heard(Ok((200, LIST.into()))),
        ask => well(ask),
    };
    assert_eq!(drive(join("10.0.0.2"), fails).0, Ok(StepOutput::Done));
    let failure = drive(join("10.0.0.3"), fails).0.expect_err("no member");
    assert_eq!(failure.phase.as_deref(), Some("join/etcd-join"));
    let (result, _) = drive(join("10.0.0.2"), |ask| match ask {
        Ask::Exists(_) => Answer::Exists(false),
        ask => fails(ask),
    });
    assert!(result.is_err(), "without an identity it was never a member");
}

#[test]
fn nothing_is_wiped_before_the_membership_is_given_up() {
    let reset = || begin(here(), true, Step::Reset { member: Some("10.0.0.2".into()), node: None });
    let mut tries = 0;
    let (result, asks) = drive(reset(), |ask| match ask {
        Ask::Send(_) => {
            tries += 1;
            Answer::Heard(if tries < 3 { Err("silence".into()) } else { Ok((200, LIST.into())) })
        }
        ask => well(ask),
    });
    assert_eq!(result, Ok(StepOutput::Done));
    let struck = asks.iter().position(|ask| ask.ends_with(REMOVE_PATH)).expect("it is struck off");
    let wiped = asks.iter().position(|ask| ask == "run reset").expect("it is reset");
    assert!(struck < wiped, "{asks:?}");
    let (result, asks) = drive(reset(), |ask| match ask {
        Ask::Send(_) => Answer::Heard(Err("silence".into())),
        ask => well(ask),
    });
    let failure = result.expect_err("nobody answers");
    assert!(failure.why.contains("so nothing is wiped: silence"), "{failure}");
    assert!(!asks.iter().any(|ask| ask.starts_with("run ") || ask.starts_with("empty ")), "{asks:?}");
}

const REMOVE_PATH: &str = crate::etcd::REMOVE;

#[test]
fn a_node_is_taken_back_by_whoever_may() {
    let reset = || begin(here(), true, Step::Reset { member: None, node: Some("m2".into()) });
    let (_, asks) = drive(reset(), well);
    let deleted = asks.iter().position(|ask| ask == "DELETE api.site.muster:7443 /api/v1/nodes/m2");
    assert!(deleted < asks.iter().position(|ask| ask == "run reset"), "{asks:?}");
    let worker = |ask: &Ask| match ask {
        Ask::Read(path) if path.ends_with("admin.conf") => Answer::Read(Ok(None)),
        ask => well(ask),
    };
    let (_, asks) = drive(reset(), worker);
    assert_eq!(asks.last().expect("asks"), "PATCH api.site.muster:7443 /api/v1/nodes/m2/status");
    let (result, asks) = drive(reset(), |ask| match ask {
        Ask::Send(_) => Answer::Heard(Ok((403, Bytes::new()))),
        ask => worker(ask),
    });
    assert_eq!(result, Ok(StepOutput::Done), "a Node that stays only makes others wait");
    assert!(asks.len() > 50, "it is tried for a while");
}

/// m2 is taken out, or that is finished.
fn strike(member: Option<&str>, back: bool) -> Work {
    begin(here(), true, Step::Strike { member: member.map(str::to_owned), node: "m2".into(), back })
}

/// All is well, and etcd has its members.
fn lists(ask: &Ask) -> Answer {
    match ask {
        Ask::Send(request) if request.path == crate::etcd::LIST => Answer::Heard(Ok((200, LIST.into()))),
        ask => well(ask),
    }
}

#[test]
fn who_is_gone_for_good_leaves_etcd_and_then_its_node_goes() {
    let strike = |member| strike(member, false);
    let (result, asks) = drive(strike(Some("10.0.0.2")), lists);
    assert_eq!(result, Ok(StepOutput::Done), "{asks:?}");
    let struck = asks.iter().position(|ask| ask.ends_with(REMOVE_PATH)).expect("it is struck off");
    let deleted = asks.iter().position(|ask| ask == "DELETE api.site.muster:7443 /api/v1/nodes/m2");
    assert!(Some(struck) < deleted, "{asks:?}");
    assert!(!asks.iter().any(|ask| ask.starts_with("run ") || ask.starts_with("empty ")), "nothing here is touched");
    let (result, asks) = drive(strike(Some("10.0.0.2")), |ask| match ask {
        Ask::Send(_) => Answer::Heard(Err("silence".into())),
        ask => well(ask),
    });
    assert!(result.is_err(), "etcd has no quorum");
    assert!(!asks.iter().any(|ask| ask.starts_with("DELETE")), "{asks:?}");
    let (result, asks) = drive(strike(None), lists);
    assert_eq!(result, Ok(StepOutput::Done));
    assert!(!asks.iter().any(|ask| ask.contains(":2379")), "a worker is no member: {asks:?}");
}

#[test]
fn what_was_begun_of_a_machine_that_is_back_is_finished_only_where_etcd_has_none_of_it() {
    let finish = |member| strike(member, true);
    for member in [Some("10.0.0.2"), None] {
        let (result, asks) = drive(finish(member), lists);
        assert!(matches!(result, Ok(StepOutput::Noted(_))), "{result:?}");
        let touched = |ask: &&String| ask.starts_with("DELETE") || ask.ends_with(REMOVE_PATH);
        assert_eq!(asks.iter().find(touched), None, "nothing is taken from it");
    }
    let (result, asks) = drive(finish(None), |ask| match ask {
        Ask::Send(request) if request.method == "GET" => Answer::Heard(Ok((404, Bytes::new()))),
        ask => well(ask),
    });
    assert_eq!(result, Ok(StepOutput::Done), "a worker without its Node is no part of Kubernetes any more: {asks:?}");
    // Nobody has that address.
    let (result, asks) = drive(finish(Some("10.9.9.9")), lists);
    assert_eq!(result, Ok(StepOutput::Done), "{asks:?}");
    assert!(asks.iter().any(|ask| ask == "DELETE api.site.muster:7443 /api/v1/nodes/m2"), "{asks:?}");
    let (result, _) = drive(finish(Some("10.0.0.2")), |ask| match ask {
        Ask::Send(_) => Answer::Heard(Err("silence".into())),
        ask => well(ask),
    });
    assert!(result.is_err(), "whether etcd has it is not known");
}

#[test]
fn a_wait_ends_with_what_is_missing_when_its_limit_is_over() {
    let (result, asks) = drive(begin(here(), true, Step::AwaitReady { name: "m2".into() }), |ask| match ask {
        Ask::Send(_) => Answer::Heard(Ok((404, Bytes::new()))),
        ask => well(ask),
    });
    let failure = result.expect_err("it never comes");
    assert_eq!(failure.phase.as_deref(), Some("await-ready"));
    assert!(failure.why.contains("it is not there yet"), "{failure}");
    assert!(asks.iter().filter(|ask| *ask == "pause 100").count() > 100);
}

#[test]
fn without_any_answer_the_rest_of_the_manifests_is_not_tried() {
    let apply = || begin(here(), true, Step::ApplyManifests { objects: vec![0, 1, 2, 9] });
    let (result, asks) = drive(apply(), |ask| match ask {
        Ask::Send(_) => Answer::Heard(Err("silence".into())),
        ask => well(ask),
    });
    let Ok(StepOutput::Manifests(results)) = result else { panic!("{result:?}") };
    assert_eq!(results.len(), 3, "there is no object 9");
    assert_eq!(asks.iter().filter(|ask| ask.starts_with("GET ")).count(), 2);
    assert!(matches!(&results[2].outcome, ManifestOutcome::Later(why) if why.contains("not tried: silence")));
    let list =
        r#"{"resources": [{"name": "configmaps", "kind": "ConfigMap", "namespaced": true, "verbs": ["patch"]}]}"#;
    let (result, asks) = drive(apply(), |ask| match ask {
        Ask::Send(_) => Answer::Heard(Ok((200, list.into()))),
        ask => well(ask),
    });
    let Ok(StepOutput::Manifests(results)) = result else { panic!("{result:?}") };
    assert!(results.iter().all(|result| result.outcome == ManifestOutcome::Applied));
    assert!(asks[2].contains("/api/v1/namespaces/default/configmaps/a?"), "{asks:?}");
}

#[test]
fn a_kubelets_kubeconfig_that_is_none_stays_as_it_was() {
    let join = || {
        let (sealed_pki, recipient) = (pki(), recipient());
        let step =
            Step::IssueTicket { attempt: Attempt(1), sealed_pki, recipient, token_registered: true, worker: None };
        let Ok(StepOutput::Ticket { ciphertext }) = drive(begin(here(), true, step), well).0 else {
            panic!("no ticket")
        };
        Step::JoinFinish {
            attempt: Attempt(1),
            role: Role::ControlPlane,
            name: "m2".into(),
            address: "10.0.0.2".into(),
            ticket: ciphertext,
        }
    };
    let (result, asks) = drive(begin(here(), true, join()), well);
    assert_eq!(result, Ok(StepOutput::Done), "{asks:?}");
    assert!(asks.iter().any(|ask| ask == "write kubelet.conf 600"), "{asks:?}");
    let (result, asks) = drive(begin(here(), true, join()), |ask| match ask {
        Ask::Read(path) if path.ends_with("kubelet.conf") => Answer::Read(Ok(Some(Secret::new("contexts: []")))),
        ask => well(ask),
    });
    let why = result.expect_err("it names nothing").why;
    assert!(why.ends_with("kubelet.conf: kubeconfig: contexts lacks the context it names"), "{why}");
    assert!(!asks.iter().any(|ask| ask.starts_with("write kubelet.conf")), "{asks:?}");
}

#[test]
fn a_worker_that_is_known_from_the_start_is_done_once_its_kubelet_has_a_certificate_of_its_own() {
    let (sealed_pki, recipient) = (pki(), recipient());
    let worker = Some("m2".to_owned());
    let step = Step::IssueTicket { attempt: Attempt(1), sealed_pki, recipient, token_registered: true, worker };
    let Ok(StepOutput::Ticket { ciphertext }) = drive(begin(here(), true, step), well).0 else { panic!("no ticket") };
    let (role, name, address) = (Role::Worker, "m2".to_owned(), "10.0.0.2".to_owned());
    let join = Step::Join {
        attempt: Attempt(1),
        role,
        name: name.clone(),
        address: address.clone(),
        ticket: ciphertext.clone(),
        sealed_pki: None,
    };
    let (result, asks) = drive(begin(here(), true, join), well);
    assert_eq!(result, Ok(StepOutput::Done), "{asks:?}");
    let at = |wanted: &str| asks.iter().position(|ask| ask.starts_with(wanted)).expect("it is asked");
    assert!(at("write kubelet.conf 600") < at("run join/"), "{asks:?}");
    let finish = || Step::JoinFinish {
        attempt: Attempt(1),
        role,
        name: name.clone(),
        address: address.clone(),
        ticket: ciphertext.clone(),
    };
    let mut looks = 0;
    let (result, asks) = drive(begin(here(), true, finish()), |ask| match ask {
        Ask::Exists(path) if path.ends_with("kubelet-client-current.pem") => {
            looks += 1;
            Answer::Exists(looks > 3)
        }
        ask => well(ask),
    });
    assert_eq!(result, Ok(StepOutput::Done), "{asks:?}");
    assert_eq!(asks[asks.len() - 2..], ["write kubelet.conf 600", "sync"]);
    let (result, _) = drive(begin(here(), true, finish()), |ask| match ask {
        Ask::Sync(_) => Answer::Did(Err("the disk fails".to_owned())),
        Ask::Exists(_) => Answer::Exists(true),
        ask => well(ask),
    });
    let failure = result.expect_err("what is not on the disk is not done");
    assert_eq!((failure.phase.as_deref(), failure.why.as_str()), (Some("sync"), "the disk fails"));
    let (result, asks) = drive(begin(here(), true, finish()), |ask| match ask {
        Ask::Exists(_) => Answer::Exists(false),
        ask => well(ask),
    });
    let failure = result.expect_err("it never comes");
    assert_eq!(failure.phase.as_deref(), Some("join/kubelet-certificate"));
    assert!(!asks.iter().any(|ask| ask.starts_with("write")), "what the kubelet is known by stays: {asks:?}");
}

#[test]
fn an_answer_to_another_question_fails_the_step_and_nothing_more() {
    let (result, _) = drive(begin(here(), true, Step::AwaitReady { name: "m2".into() }), |_| Answer::Exists(true));
    assert!(result.expect_err("a mistake").why.contains("a mistake in muster"));
}

#[test]
fn renewing_starts_anew_what_reads_its_certificate_once_and_touches_the_kubelet_only_if_it_is_over() {
    let renew = |overdue| Step::Renew { name: "m1".into(), address: "10.0.0.1".into(), overdue };
    let manifest = "apiVersion: v1\nmetadata:\n  name: kube-scheduler\n";
    let mut written = Vec::new();
    let mut answer = |ask: &Ask| match ask {
        Ask::Read(path) if path.extension().is_some_and(|end| end == "yaml") => {
            Answer::Read(Ok(Some(Secret::new(manifest))))
        }
        Ask::Write { path, contents, .. } if path.ends_with("manifests/kube-scheduler.yaml") => {
            written.push(contents.expose_str().to_owned());
            Answer::Did(Ok(()))
        }
        ask => well(ask),
    };
    let (result, asks) = drive(begin(here(), true, renew(false)), &mut answer);
    assert_eq!(result, Ok(StepOutput::Done));
    let expected = [
        "clock",
        "endpoint 10.0.0.1",
        "write kubelet.yaml 600",
        "run certs/renew",
        "read kube-controller-manager.yaml",
        "clock",
        "write kube-controller-manager.yaml 600",
        "read kube-scheduler.yaml",
        "clock",
        "write kube-scheduler.yaml 600",
        "read admin.conf",
        "GET 10.0.0.1:6443 /readyz",
        "remove kubelet.yaml",
        "sync",
    ];
    assert_eq!(asks, expected);
    let (result, asks) = drive(begin(here(), true, renew(true)), &mut answer);
    assert_eq!(result, Ok(StepOutput::Done));
    let kubelets = [
        "write kube-scheduler.yaml 600",
        "remove kubelet.conf",
        "run init/kubeconfig/kubelet",
        "exists kubelet.conf",
        "remove kubelet-client-current.pem",
        "run init/kubelet-start",
    ];
    assert_eq!(asks[9..15], kubelets);
    assert!(written.iter().all(|text| text.contains("muster/renewed: \"1800000000\"")), "{written:?}");
    let unset = |ask: &Ask| if matches!(ask, Ask::Clock) { Answer::Clock(SystemTime::UNIX_EPOCH) } else { well(ask) };
    let (result, asks) = drive(begin(here(), true, renew(true)), unset);
    assert!(result.is_err() && asks == ["clock"], "with a clock of 1970 nothing is signed: {asks:?}");
}

#[test]
fn etcd_is_rebuilt_before_anything_is_taken_from_the_lost() {
    let rebuild = || {
        let lost = vec!["m2".into(), "m1".into()];
        let (name, address, token) = ("m1".into(), "10.0.0.1".into(), "site-1-2".into());
        begin(here(), true, Step::RebuildEtcd { epoch: 2, name, address, token, lost, backup: None })
    };
    let mut arguments = Vec::new();
    let (result, asks) = drive(rebuild(), |ask| match ask {
        Ask::Run(command) => {
            arguments.clone_from(&command.args);
            well(ask)
        }
        // They end by themselves.
        Ask::Send(request) if request.path.contains("/leases/") => Answer::Heard(Err("silence".into())),
        ask => well(ask),
    });
    assert_eq!(result, Ok(StepOutput::Done), "{asks:?}");
    assert_eq!(arguments[..2], ["salvage", "--data-dir=/m/var/lib/etcd"].map(str::to_owned), "{arguments:?}");
    assert!(arguments.contains(&"--peer-url=https://10.0.0.1:2380".to_owned()), "{arguments:?}");
    assert!(!arguments.iter().any(|argument| argument.starts_with("--backup")), "{arguments:?}");
    let at = |what: &str| asks.iter().position(|ask| ask.contains(what));
    assert!(at("run etcd/salvage") < at("/readyz") && at("/readyz") < at("/leases/kube-scheduler"), "{asks:?}");
    assert!(at("/leases/kube-scheduler") < at("DELETE api.site.muster:7443 /api/v1/nodes/m2"), "{asks:?}");
    assert_eq!(at("/nodes/m1"), None, "it is its own: {asks:?}");
    let (result, asks) = drive(rebuild(), |ask| match ask {
        Ask::Run(_) => Answer::Ran(ran(1, "error: etcd ended with 1 on the copy of its data")),
        ask => well(ask),
    });
    let failure = result.expect_err("it failed");
    assert!(failure.why.contains("on the copy of its data"), "{failure}");
    assert!(!asks.iter().any(|ask| ask.contains("DELETE")), "{asks:?}");
}

#[test]
fn a_backup_is_taken_once_a_majority_of_etcd_has_answered() {
    let back_up = || begin(here(), true, Step::BackUp { number: 3, epoch: 1, charter: [7; 16] });
    let digest = Digest([5; 32]);
    let mut label = None;
    let mut answer = |ask: &Ask| match ask {
        Ask::Send(request) if request.path == crate::backup::RANGE => {
            Answer::Heard(Ok((200, Bytes::from_static(br#"{"header": {"revision": "4711"}}"#))))
        }
        Ask::BackUp { label: says, .. } => {
            label = Some(says.clone());
            Answer::BackedUp(Ok((200, digest)))
        }
        ask => well(ask),
    };
    let (result, asks) = drive(back_up(), &mut answer);
    let taken_s = 1_800_000_000;
    assert_eq!(result, Ok(StepOutput::BackedUp { taken_s, revision: 4711, bytes: 200, digest }), "{asks:?}");
    let label = label.expect("it was asked for");
    assert_eq!((label.number, label.epoch, label.revision, label.kubernetes.as_str()), (3, 1, 4711, "v1.37.2"));
    let fails = |status, body: &'static [u8]| {
        drive(back_up(), |ask| match ask {
            Ask::Send(_) => Answer::Heard(Ok((status, Bytes::from_static(body)))),
            ask => well(ask),
        })
    };
    for (status, body) in [(503, &b"{}"[..]), (200, b"<html>"), (504, br#"{"message": "context deadline exceeded"}"#)] {
        let (result, asks) = fails(status, body);
        assert!(result.is_err() && !asks.iter().any(|ask| ask.contains("backs up")), "{asks:?}");
    }
    let (result, _) = drive(back_up(), |ask| match ask {
        Ask::Exists(_) => Answer::Exists(false),
        ask => well(ask),
    });
    assert!(result.expect_err("no member ever ran here").why.contains("no identity for etcd"));
}

#[test]
fn a_kubelet_registers_again_by_a_new_start() {
    let (result, asks) = drive(begin(here(), true, Step::Register), well);
    assert_eq!((result, asks), (Ok(StepOutput::Done), Vec::new()), "a rehearsal's is nobody's service");
    let (result, asks) = drive(begin(Path::new("/"), true, Step::Register), well);
    assert_eq!((result, asks), (Ok(StepOutput::Done), vec!["run kubelet/restart".to_owned()]));
}

#[test]
fn etcd_begins_with_a_backup_where_the_ledger_says_so() {
    let step = Step::RebuildEtcd {
        epoch: 2,
        name: "m1".into(),
        address: "10.0.0.1".into(),
        token: "site-1-2".into(),
        lost: Vec::new(),
        backup: Some(Digest([0xab; 32])),
    };
    let mut arguments = Vec::new();
    let (result, asks) = drive(begin(here(), true, step), |ask| match ask {
        Ask::Run(command) => {
            arguments.clone_from(&command.args);
            well(ask)
        }
        ask => well(ask),
    });
    assert_eq!(result, Ok(StepOutput::Done), "{asks:?}");
    let expected = [
        format!("--backup={}", "ab".repeat(32)),
        "--backups=/m/var/lib/muster/backups".into(),
        "--key=/m/etc/kubernetes/pki/etcd/ca.key".into(),
    ];
    assert!(arguments.ends_with(&expected), "{arguments:?}");
}

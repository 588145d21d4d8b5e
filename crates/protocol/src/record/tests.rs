use std::sync::mpsc::channel;

use bytes::Bytes;
use muster_wire::entry::Sealed;
use muster_wire::frame::ProposalOutcome;
use muster_wire::{Able, Attempt, BootCount, CallNumber, Card, Frame, Revision, SignedCard};
use proptest::prelude::*;

use super::kept::step_name;
use super::*;
use crate::input::{RaftMembers, Renewal};
use crate::{Machine, ManifestOutcome, ManifestResult, RunId, Step, StepFailure, StepOutput};

fn settings() -> Settings {
    Settings {
        machines: 3,
        control_planes: 1,
        durable: true,
        kubernetes_version: "v1.31.4".into(),
        digest: Digest::of("test", &[]),
    }
}

fn boot() -> Boot {
    Boot {
        identity: Identity::from_seed(&[1; 32]),
        sealing_key: [2; 32],
        durable: Durable { cluster: "site".into(), boot: BootCount(4), ..Durable::default() },
        cluster: "site".into(),
        settings: settings(),
        hostname: "one".into(),
        addresses: vec!["10.0.0.1:7390".into()],
        api_port: 6443,
        fingerprint: Digest([3; 32]),
        seed: [4; 32],
        manifests: 3,
        level: 2,
        raft_begun: false,
        tuning: Tuning { settle: Duration::from_millis(7), ..Tuning::default() },
    }
}

fn hello(seed: u8) -> Frame {
    let identity = Identity::from_seed(&[seed; 32]);
    let card = Card {
        machine: identity.machine(),
        cluster: "site".into(),
        boot: BootCount(1),
        nonce: [seed; 16],
        serial: 0,
        hostname: "other".into(),
        addresses: vec!["10.0.0.2:7390".into()],
        sealing_key: [5; 32],
        fingerprint: Digest([seed; 32]),
        settings: settings(),
        able: Able::Yes,
        reached: 0,
        charter: None,
        level: 2,
        running: muster_wire::Running::default(),
        epoch: muster_wire::Epoch::default(),
    };
    Frame::Hello {
        card: SignedCard::sign(&identity, card),
        charter: None,
        cards: Vec::new(),
        answer: false,
        seen_at: None,
    }
}

fn inputs() -> Vec<Input> {
    let machine = Identity::from_seed(&[9; 32]).machine();
    let failure = StepFailure { step: "join-etcd", phase: Some("etcd".into()), why: "no".into(), hopeless: true };
    let sealed = Sealed { machine, ciphertext: Bytes::from_static(b"sealed") };
    let outputs = [
        StepOutput::Done,
        StepOutput::Checked { version: "v1.31.4".into(), worker_only: Some("old".into()) },
        StepOutput::PkiMade { ca_hash: Digest([6; 32]), sealed: vec![sealed] },
        StepOutput::Ticket { ciphertext: Bytes::from_static(b"ticket") },
        StepOutput::Initialised { ca_hash: Digest([6; 32]), endpoints: vec!["10.0.0.1:6443".into()] },
        StepOutput::Noted("no DNS".into()),
        StepOutput::Manifests(vec![
            ManifestResult { object: 0, outcome: ManifestOutcome::Applied },
            ManifestResult { object: 1, outcome: ManifestOutcome::Refused("no".into()) },
        ]),
    ];
    let outcomes = [
        ProposalOutcome::Applied(Revision(7)),
        ProposalOutcome::Refused("no".into()),
        ProposalOutcome::NotLeading(Some(machine)),
    ];
    let mut inputs = vec![
        Input::Reached { machine, address: [10, 0, 0, 2].into() },
        Input::Connected(machine),
        Input::Received { from: machine, frame: hello(9) },
        Input::Wake,
        Input::TurnedAway { whom: "10.0.0.9".into(), why: "another mesh key".to_owned().into() },
        Input::Addresses(vec!["10.0.0.1:7390".into()]),
        Input::HostsFile { troubles: vec!["/etc/hosts:3: another line".into()] },
        Input::Applied { revision: Revision(3), entry: Bytes::from_static(b"entry") },
        Input::Restored { ledger: Bytes::new() },
        Input::Wish {
            call: CallNumber(3),
            wish: muster_wire::Wish::AcceptImage(muster_wire::Image {
                digest: Digest([4; 32]),
                kubernetes_version: "v1.32.0".into(),
            }),
            dry_run: true,
        },
        Input::Observed {
            kubelet: Some(Digest([5; 32])),
            certificates_end_s: 6,
            renewal: Renewal::Due,
            ca_ends_s: 8,
            sync_us: 7,
            etcd_gone: true,
        },
        Input::Leading { term: 2, leader: None },
        Input::Members(RaftMembers { all: [MachineId([3; 32])].into(), votes: [].into() }),
        Input::Progress { run: RunId(1), phase: "certs".into(), held: Some("a budget".into()) },
        Input::Finished { run: RunId(1), result: Err(failure) },
        Input::Disconnected(machine),
    ];
    inputs.extend(outputs.map(|output| Input::Finished { run: RunId(2), result: Ok(output) }));
    inputs.extend(outcomes.map(|outcome| Input::Proposed { call: CallNumber(1), outcome }));
    inputs
}

/// A recording of a machine that got all inputs, as the agent writes it.
fn recorded() -> Vec<u8> {
    let (tell, made) = channel();
    let mut boot = boot();
    boot.identity = boot.identity.telling(tell);
    let mut bytes = start(&boot, Time(0));
    let mut effects = Effects::default();
    let mut machine = Machine::new(boot, Time(0), &mut effects).expect("starts");
    bytes.extend(done(&effects, made.try_iter()));
    effects.drain().for_each(drop);
    for (number, one) in inputs().into_iter().enumerate() {
        let now = Time(number as u64 * 100_000);
        bytes.extend(input(now, &one));
        machine.handle(now, one, &mut effects);
        bytes.extend(done(&effects, made.try_iter()));
        effects.drain().for_each(drop);
    }
    bytes
}

#[test]
fn every_input_comes_back_and_the_machine_does_the_same_again_without_its_key() {
    let bytes = recorded();
    let recording = Recording::open(&bytes).expect("opens");
    assert_eq!(recording.machine(), Identity::from_seed(&[1; 32]).machine());
    let again = recording.boot().expect("is whole");
    assert_eq!(
        (&again.durable, &again.tuning, again.seed, again.manifests),
        (&boot().durable, &boot().tuning, boot().seed, 3)
    );
    assert!(again.identity.seed().is_none());
    let mut effects = Effects::default();
    let mut machine = Machine::new(again, Time(0), &mut effects).expect("starts");
    assert_eq!(
        effects.drain().map(|effect| Doing::from(&effect)).collect::<Vec<_>>(),
        recording.began().expect("is told")
    );
    let mut sent = 0;
    for (turn, written) in recording.zip(inputs()) {
        let turn = turn.expect("is whole");
        assert_eq!(format!("{:?}", turn.input), format!("{written:?}"));
        machine.handle(turn.now, turn.input, &mut effects);
        let doings: Vec<Doing> = effects.drain().map(|effect| Doing::from(&effect)).collect();
        assert_eq!(turn.done.expect("is told"), doings);
        sent += doings.iter().filter(|doing| doing.what.starts_with("sends hello")).count();
    }
    assert!(sent > 0, "nothing that is signed was sent");
}

#[test]
fn another_machine_shows_in_what_it_does() {
    let bytes = recorded();
    let recording = Recording::open(&bytes).expect("opens");
    let other = Boot { seed: [5; 32], ..recording.boot().expect("is whole") };
    let mut effects = Effects::default();
    let mut machine = Machine::new(other, Time(0), &mut effects).expect("starts");
    effects.drain().for_each(drop);
    let differs = recording.map(|turn| turn.expect("is whole")).any(|turn| {
        machine.handle(turn.now, turn.input, &mut effects);
        turn.done != Some(effects.drain().map(|effect| Doing::from(&effect)).collect())
    });
    assert!(differs);
}

#[test]
fn no_key_is_in_the_file() {
    assert!(!recorded().windows(32).any(|window| window == [1; 32]));
}

#[test]
fn every_flipped_bit_is_found_where_it_is() {
    let bytes = recorded();
    for place in HEADER_BYTES..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[place] ^= 1;
        let Ok(mut recording) = Recording::open(&bytes) else { continue };
        let damaged = recording.by_ref().any(|turn| turn.is_err());
        // A longer length makes a part one that is not all there.
        assert!(damaged || recording.cut().is_some(), "byte {place}");
    }
}

#[test]
fn a_cut_recording_is_read_as_far_as_it_goes() {
    let bytes = recorded();
    let all = inputs().len();
    let mut most = 0;
    for length in 0..bytes.len() {
        let Ok(recording) = Recording::open(&bytes[..length]) else {
            assert_eq!(most, 0);
            continue;
        };
        let turns: Vec<Turn> = recording.map(|turn| turn.expect("what is whole is right")).collect();
        assert!(turns.iter().rev().skip(1).all(|turn| turn.done.is_some()));
        assert!(turns.len() >= most && turns.len() <= all);
        most = turns.len();
    }
    assert_eq!(most, all);
    assert_eq!(Recording::open(b"something else, but long enough").err(), Some(RecordError::NoRecording));
    let mut other = bytes;
    other[HEADER_BYTES - 1] = 99;
    assert_eq!(Recording::open(&other).err(), Some(RecordError::Version(99)));
}

#[test]
fn names_of_steps_are_kept() {
    let steps = [
        Step::Check { fresh: true },
        Step::Reset { member: None, node: None },
        Step::JoinEtcd { attempt: Attempt(1), address: String::new(), with: Vec::new(), without: Vec::new() },
        Step::InitFinish { attempt: Attempt(1) },
    ];
    for step in steps {
        assert_eq!(step_name(step.name()), step.name());
    }
    assert_eq!(step_name("dance"), "step");
}

proptest! {
    #[test]
    fn random_parts_are_refused_or_read(noise in prop::collection::vec(any::<u8>(), 0..200), place in 0_usize..5_000) {
        let mut bytes = recorded();
        let place = place % bytes.len();
        for (number, byte) in noise.iter().enumerate() {
            if let Some(there) = bytes.get_mut(place + number) {
                *there ^= byte;
            }
        }
        if let Ok(recording) = Recording::open(&bytes) {
            let parts = bytes.len();
            prop_assert!(recording.take(parts + 1).count() <= parts);
        }
    }
}

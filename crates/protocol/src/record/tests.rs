use muster_wire::{Card, SignedCard};
use proptest::prelude::*;

use super::*;
use crate::{Effects, Machine, Step};

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
        durable: Durable { cluster: "site".into(), boot: 4, ..Durable::default() },
        cluster: "site".into(),
        settings: settings(),
        hostname: "one".into(),
        addresses: vec!["10.0.0.1:7390".into()],
        api_port: 6443,
        fingerprint: Digest([3; 32]),
        seed: [4; 32],
        tuning: Tuning { settle: Duration::from_millis(7), ..Tuning::default() },
    }
}

fn hello(seed: u8) -> Frame {
    let identity = Identity::from_seed(&[seed; 32]);
    let card = Card {
        machine: identity.machine(),
        cluster: "site".into(),
        boot: 1,
        nonce: [seed; 16],
        serial: 0,
        hostname: "other".into(),
        addresses: vec!["10.0.0.2:7390".into()],
        sealing_key: [5; 32],
        fingerprint: Digest([seed; 32]),
        settings: settings(),
        unable: String::new(),
    };
    Frame::Hello { card: SignedCard::sign(&identity, card), charter: None, cards: Vec::new(), answer: false }
}

fn inputs() -> Vec<Input> {
    let machine = Identity::from_seed(&[9; 32]).machine();
    let failure = StepFailure { step: "join-etcd", phase: Some("etcd".into()), why: "no".into(), hopeless: true };
    let sealed = Sealed { machine, ciphertext: Bytes::from_static(b"sealed") };
    let outputs = [
        StepOutput::Done,
        StepOutput::Checked { version: "v1.31.4".into() },
        StepOutput::PkiMade { ca_hash: Digest([6; 32]), sealed: vec![sealed] },
        StepOutput::Ticket { ciphertext: Bytes::from_static(b"ticket") },
        StepOutput::Initialised { ca_hash: Digest([6; 32]), endpoints: vec!["10.0.0.1:6443".into()] },
    ];
    let outcomes = [
        ProposalOutcome::Applied(7),
        ProposalOutcome::Refused("no".into()),
        ProposalOutcome::NotLeading(Some(machine)),
    ];
    let mut inputs = vec![
        Input::Connected(machine),
        Input::Received { from: machine, frame: hello(9) },
        Input::Wake,
        Input::TurnedAway { whom: "10.0.0.9".into(), why: "another mesh key".into() },
        Input::Addresses(vec!["10.0.0.1:7390".into()]),
        Input::Applied { revision: 3, entry: Bytes::from_static(b"entry") },
        Input::Restored { ledger: Bytes::new() },
        Input::Leading { term: 2, leader: None },
        Input::Progress { run: RunId(1), phase: "certs".into() },
        Input::Finished { run: RunId(1), result: Err(failure) },
        Input::Disconnected(machine),
    ];
    inputs.extend(outputs.map(|output| Input::Finished { run: RunId(2), result: Ok(output) }));
    inputs.extend(outcomes.map(|outcome| Input::Proposed { call: 1, outcome }));
    inputs
}

fn recorded() -> Vec<u8> {
    let mut bytes = start(&boot());
    for (number, one) in inputs().iter().enumerate() {
        bytes.extend(input(Time(number as u64 * 100_000), one));
    }
    bytes
}

/// What a machine does, given a start and inputs.
fn run(boot: Boot, inputs: impl Iterator<Item = (Time, Input)>) -> Vec<String> {
    let mut effects = Effects::default();
    let mut machine = Machine::new(boot, Time(0), &mut effects).expect("starts");
    let mut done: Vec<String> = effects.drain().map(|effect| format!("{effect:?}")).collect();
    for (now, input) in inputs {
        machine.handle(now, input, &mut effects);
        done.extend(effects.drain().map(|effect| format!("{now} {effect:?}")));
    }
    done
}

#[test]
fn every_input_comes_back_and_the_machine_does_the_same_again() {
    let bytes = recorded();
    let recording = Recording::open(&bytes).expect("opens");
    let identity = Identity::from_seed(&[1; 32]);
    assert_eq!(recording.machine(), identity.machine());
    let again = recording.boot(identity).expect("is its identity");
    assert_eq!((&again.durable, &again.tuning, again.seed), (&boot().durable, &boot().tuning, boot().seed));
    let read: Vec<(Time, Input)> = recording.map(|part| part.expect("reads")).collect();
    let written: Vec<(Time, Input)> =
        inputs().into_iter().enumerate().map(|(number, input)| (Time(number as u64 * 100_000), input)).collect();
    assert_eq!(format!("{read:?}"), format!("{written:?}"));
    let first = run(boot(), written.into_iter());
    assert!(first.len() > 3);
    assert_eq!(run(again, read.into_iter()), first);
}

#[test]
fn another_identity_is_refused_and_no_seed_is_in_the_file() {
    let bytes = recorded();
    let recording = Recording::open(&bytes).expect("opens");
    let refused = recording.boot(Identity::from_seed(&[8; 32]));
    assert!(matches!(refused, Err(RecordError::OtherMachine(..))));
    assert!(!bytes.windows(32).any(|window| window == [1; 32]));
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
        let read = recording.inspect(|part| assert!(part.is_ok(), "what is whole is right")).count();
        assert!(read >= most && read < all);
        most = read;
    }
    assert_eq!(most, all - 1);
    assert_eq!(Recording::open(b"something else, but long enough").err(), Some(RecordError::NoRecording));
    let mut other = bytes;
    other[HEADER_BYTES - 1] = 9;
    assert_eq!(Recording::open(&other).err(), Some(RecordError::Version(9)));
}

#[test]
fn names_of_steps_are_kept() {
    let steps = [Step::Check, Step::Reset, Step::JoinEtcd { attempt: 1 }, Step::InitFinish { attempt: 1 }];
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

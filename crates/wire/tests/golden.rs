//! The bytes of every frame, entry and state, kept: a change here is a change of the protocol or of what is on disk.
//!
//! `MUSTER_BLESS=1 cargo test -p muster-wire` writes the files anew; the diff then says what changed.

use std::path::PathBuf;

use bytes::Bytes;
use muster_wire::charter::charter_hash;
use muster_wire::entry::{Admitted, Sealed};
use muster_wire::frame::{ProposalOutcome, RefusalCause};
use muster_wire::{
    Attempt, Backup, Ballot, BootCount, CallNumber, Card, Certificate, Charter, Digest, Durable, Entry, Epoch, Frame,
    Identity, Image, KubeadmMarker, LedgerNews, MachineId, Promise, Removal, Revision, Role, Running, Settings,
    SignedCard, SignedWish, Turn, TurnChange, TurnKind, TurnNumber, Vote, Wish,
};

fn identity(number: u8) -> Identity {
    Identity::from_seed(&[number; 32])
}

fn card(number: u8) -> SignedCard {
    let identity = identity(number);
    let settings = Settings {
        machines: 3,
        control_planes: 1,
        durable: true,
        kubernetes_version: "v1.31.4".into(),
        digest: Digest([7; 32]),
    };
    let card = Card {
        machine: identity.machine(),
        cluster: "site".into(),
        boot: BootCount(2),
        nonce: [3; 16],
        serial: 1,
        hostname: format!("node-{number}"),
        addresses: vec!["10.0.0.1:7390".into(), "[fd00::1]:7390".into()],
        sealing_key: [4; 32],
        fingerprint: Digest([5; 32]),
        settings,
        able: "kubeadm is missing".to_owned().into(),
        reached: 1,
        charter: Some(Digest([8; 32])),
        level: 2,
        running: Running {
            kubernetes: "v1.31.4".into(),
            kubelet: Some(Digest([9; 32])),
            certificates_end_s: 1_800_000_000,
            sync_us: 850,
        },
        epoch: Epoch { number: 1, by: identity.machine() },
    };
    SignedCard::sign(&identity, card)
}

fn ballot() -> Ballot {
    Ballot { round: 9, machine: identity(1).machine() }
}

fn charter() -> Bytes {
    let mut voters: Vec<MachineId> = (1..4).map(|number| identity(number).machine()).collect();
    voters.sort_unstable();
    Charter {
        cluster: "site".into(),
        id: [6; 16],
        voters,
        kubernetes_version: "v1.31.4".into(),
        settings: Digest([7; 32]),
        machines: 3,
        quorum: 2,
        control_planes: 0,
    }
    .encode()
}

fn vote(number: u8) -> Vote {
    Vote::sign(&identity(number), "site", ballot(), charter_hash(&charter()))
}

fn certificate() -> Certificate {
    Certificate::new(charter(), ballot(), &[vote(1), vote(2)]).expect("a quorum")
}

fn frames() -> Vec<(&'static str, Frame)> {
    let machine = identity(1).machine();
    vec![
        (
            "hello",
            Frame::Hello {
                card: card(1),
                charter: Some(charter_hash(&charter())),
                cards: vec![card(2)],
                answer: true,
                seen_at: Some([10, 0, 0, 7].into()),
            },
        ),
        ("swim", Frame::Swim(Bytes::from_static(b"datagram"))),
        ("cards", Frame::Cards(vec![card(1), card(2)])),
        ("cards-known", Frame::CardsKnown { salt: 7, marks: vec![1, 0x0102_0304, u32::MAX] }),
        ("prepare", Frame::Prepare(ballot())),
        (
            "promise",
            Frame::Promise(Promise { ballot: ballot(), accepted: Some((ballot(), charter())), cards: vec![card(3)] }),
        ),
        (
            "refusal",
            Frame::Refusal {
                ballot: ballot(),
                promised: ballot(),
                cause: RefusalCause::Uncounted,
                why: "other settings".into(),
            },
        ),
        ("accept", Frame::Accept { ballot: ballot(), charter: charter() }),
        ("accepted", Frame::Accepted { cluster: "site".into(), vote: vote(1) }),
        ("chartered", Frame::Chartered { certificate: Box::new(certificate()), accepted: true }),
        (
            "ledger-poll",
            Frame::LedgerPoll { call: CallNumber(1), since: Revision(2), epoch: Epoch::default(), survey: false },
        ),
        (
            "ledger-poll-later",
            Frame::LedgerPoll {
                call: CallNumber(1),
                since: Revision(2),
                epoch: Epoch { number: 3, by: identity(1).machine() },
                survey: true,
            },
        ),
        (
            "ledger-news",
            Frame::LedgerNews(LedgerNews {
                call: CallNumber(1),
                revision: Revision(4),
                entries: vec![(Revision(3), Entry::Joined { machine }.encode())],
                state: Some(Bytes::from_static(b"state")),
                not_admitted: true,
                leader: Some(machine),
                removal: None,
            }),
        ),
        (
            "ledger-news-removed",
            Frame::LedgerNews(LedgerNews {
                call: CallNumber(1),
                revision: Revision(0),
                entries: Vec::new(),
                state: None,
                not_admitted: true,
                leader: None,
                removal: Some(Removal::StaysOut),
            }),
        ),
        ("proposal", Frame::Proposal { call: CallNumber(5), entry: Entry::Joined { machine }.encode() }),
        (
            "proposal-applied",
            Frame::ProposalAnswer { call: CallNumber(5), outcome: ProposalOutcome::Applied(Revision(8)) },
        ),
        (
            "proposal-refused",
            Frame::ProposalAnswer { call: CallNumber(5), outcome: ProposalOutcome::Refused("no".into()) },
        ),
        (
            "not-leading",
            Frame::ProposalAnswer { call: CallNumber(5), outcome: ProposalOutcome::NotLeading(Some(machine)) },
        ),
        ("raft-call", Frame::RaftCall { call: CallNumber(6), body: Bytes::from_static(b"call") }),
        ("raft-answer", Frame::RaftAnswer { call: CallNumber(6), body: Bytes::from_static(b"answer") }),
        ("report-call", Frame::ReportCall { call: CallNumber(7), part: 2 }),
        (
            "report-part",
            Frame::ReportPart { call: CallNumber(7), part: 2, parts: 3, body: Bytes::from_static(b"part") },
        ),
        ("backup-call", Frame::BackupCall { digest: Digest([5; 32]), from: 262_144 }),
        (
            "backup-part",
            Frame::BackupPart { digest: Digest([5; 32]), from: 262_144, body: Bytes::from_static(b"part") },
        ),
    ]
}

fn wished(wish: Wish) -> Entry {
    Entry::Wished(SignedWish::sign(&identity(1), [6; 16], 3, wish))
}

fn entries() -> Vec<(&'static str, Entry)> {
    let machine = identity(1).machine();
    let image = Image { digest: Digest([7; 32]), kubernetes_version: "v1.32.0".into() };
    let ciphertext = Bytes::from_static(b"sealed");
    let admitted =
        Admitted { machine, role: Role::Worker, name: "a".into(), sealing_key: [4; 32], address: "10.0.0.1".into() };
    vec![
        ("admitted", Entry::Admitted(admitted)),
        ("removed", Entry::Removed { machine }),
        ("init-claimed", Entry::InitClaimed { attempt: Attempt(1), machine, founders: Vec::new() }),
        ("init-claimed-together", Entry::InitClaimed { attempt: Attempt(2), machine, founders: vec![machine] }),
        ("left", Entry::Left { machine }),
        ("promoted", Entry::Promoted { machine }),
        ("removal-held", Entry::RemovalHeld { machine, why: "default/web-0: a budget".into() }),
        ("founds", Entry::Founds { attempt: Attempt(2), machine }),
        (
            "pki-sealed",
            Entry::PkiSealed {
                attempt: Attempt(1),
                ca_hash: Digest([8; 32]),
                sealed: vec![Sealed { machine, ciphertext: ciphertext.clone() }],
            },
        ),
        (
            "init-ready",
            Entry::InitReady {
                attempt: Attempt(1),
                ca_hash: Digest([8; 32]),
                endpoints: vec!["10.0.0.1:6443".into()],
                tokens: vec![machine],
            },
        ),
        ("init-abandoned", Entry::InitAbandoned { attempt: Attempt(1), why: "died".into() }),
        ("ticket", Entry::Ticket { machine, attempt: Attempt(1), ciphertext }),
        (
            "turn",
            Entry::Turn(Turn {
                kind: TurnKind::Etcd,
                number: TurnNumber(2),
                holder: machine,
                change: TurnChange::GaveUp,
            }),
        ),
        ("joined", Entry::Joined { machine }),
        (
            "backed-up",
            Entry::BackedUp(Backup {
                number: 3,
                machine,
                epoch: 1,
                taken_s: 1_790_000_000,
                revision: 4711,
                bytes: 204_728,
                digest: Digest([5; 32]),
                copies: 3,
                keep: 8,
            }),
        ),
        ("backup-kept", Entry::BackupKept { number: 3, machine }),
        ("backup-gone", Entry::BackupGone { number: 3, machine }),
        ("level-raised", Entry::LevelRaised { level: 2 }),
        ("accept-image", wished(Wish::AcceptImage(image))),
        ("remove-machine", wished(Wish::RemoveMachine { machine, returns: false })),
        ("recreate-machine", wished(Wish::RemoveMachine { machine, returns: true })),
        ("withdraw-removal", wished(Wish::WithdrawRemoval { machine })),
    ]
}

fn durable() -> Durable {
    Durable {
        cluster: "site".into(),
        boot: BootCount(3),
        promised: Some(ballot()),
        accepted: Some((ballot(), charter())),
        charter: Some(certificate()),
        seen: None,
        started: Some(KubeadmMarker { attempt: Attempt(1), init: true }),
        completed: Some(KubeadmMarker { attempt: Attempt(1), init: true }),
        etcd_turn: TurnNumber(4),
        etcd_joined: TurnNumber(5),
        founding: Attempt(2),
        founded: Attempt(2),
        rebuilt: 6,
    }
}

/// Compares with the kept bytes, in hexadecimal digits, 64 bytes a line.
fn golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"));
    let text: String = bytes.chunks(64).map(|line| hex::encode(line) + "\n").collect();
    if std::env::var_os("MUSTER_BLESS").is_some() {
        std::fs::write(&path, text).expect("golden file is written");
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    assert_eq!(text, kept, "the bytes of {name} changed");
}

#[test]
fn frames_keep_their_bytes_and_come_back() {
    for (name, frame) in frames() {
        let bytes = frame.encode();
        golden(&format!("frame-{name}"), &bytes);
        assert_eq!(Frame::decode(bytes.into()).expect("decodes"), frame);
    }
}

#[test]
fn entries_keep_their_bytes_and_come_back() {
    for (name, entry) in entries() {
        let bytes = entry.encode();
        golden(&format!("entry-{name}"), &bytes);
        assert_eq!(Entry::decode(bytes.clone()).expect("decodes"), entry);
    }
}

#[test]
fn a_backup_of_no_length_or_without_copies_is_none() {
    let of = |change: fn(&mut Backup)| {
        let Some((_, Entry::BackedUp(mut backup))) = entries().into_iter().find(|(name, _)| *name == "backed-up")
        else {
            panic!("a backup")
        };
        change(&mut backup);
        Entry::decode(Entry::BackedUp(backup).encode())
    };
    assert!(of(|_| ()).is_ok());
    assert!(of(|backup| backup.bytes = 0).is_err() && of(|backup| backup.bytes = u64::MAX).is_err());
    assert!(of(|backup| backup.copies = 0).is_err() && of(|backup| backup.copies = 17).is_err());
    assert!(of(|backup| backup.keep = 0).is_err() && of(|backup| backup.keep = 33).is_err());
}

#[test]
fn the_durable_state_keeps_its_bytes_and_comes_back() {
    let bytes = durable().encode();
    golden("durable", &bytes);
    assert_eq!(Durable::decode(&bytes).expect("decodes"), durable());
}

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed_or_harmless() {
    for (name, frame) in frames() {
        let bytes = frame.encode();
        for length in 0..bytes.len() {
            let _ = Frame::decode(Bytes::copy_from_slice(&bytes[..length]));
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // A frame that still decodes may say something else only where nothing is signed.
            if let (Ok(Frame::Accepted { vote, .. }), "accepted") = (Frame::decode(bytes.into()), name) {
                assert_eq!(vote.machine, identity(1).machine());
            }
        }
    }
}

#[test]
fn fields_of_a_later_version_survive_in_what_is_signed() {
    use muster_wire::proto;
    use prost::Message;
    let signed = proto::Signed::decode(card(1).encode()).expect("decodes");
    // Field 99, length 3: something a later version would write.
    let body = [signed.body.as_ref(), &[0x9a, 0x06, 3, b'n', b'e', b'w']].concat();
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    let signature = ed25519_dalek::Signer::sign(&key, &[b"muster/card/v1\0", body.as_slice()].concat()).to_bytes();
    let later = proto::Signed { body: body.into(), signature: Bytes::copy_from_slice(&signature), ..signed };
    let bytes = later.encode_to_vec();
    let passed_on = SignedCard::decode(&bytes).expect("a later card is read");
    assert_eq!(passed_on.card(), card(1).card());
    assert_eq!(passed_on.encode(), bytes, "and passed on as it came");
}

#[test]
fn another_version_is_named() {
    use muster_wire::{WireError, proto};
    use prost::Message;
    let frame =
        proto::Frame { version: 7, ..proto::Frame::decode(frames()[4].1.encode().as_slice()).expect("decodes") };
    assert_eq!(Frame::decode(frame.encode_to_vec().into()), Err(WireError::Version { theirs: 7 }));
}

#[test]
fn forged_and_thin_proofs_are_refused() {
    let two = [vote(1), vote(1)];
    assert!(Certificate::new(charter(), ballot(), &two).is_err(), "one machine twice is no quorum");
    let other = Ballot { round: 8, ..ballot() };
    assert!(Certificate::new(charter(), other, &[vote(1), vote(2)]).is_err(), "votes of another ballot do not count");
    let mut bytes = certificate().encode();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(Certificate::decode(&bytes).is_err());
    let minority = Charter { quorum: 1, ..Charter::decode(&charter()).expect("decodes") }.encode();
    assert!(Charter::decode(&minority).is_err(), "a quorum below a majority could found twice");
    let of = |seats| Charter { control_planes: seats, ..Charter::decode(&charter()).expect("decodes") }.encode();
    assert!(Charter::decode(&of(2)).is_err(), "three voters and two seats");
    assert!(Charter::decode(&of(10)).is_err(), "more seats than voters there may be");
    assert_eq!(Charter::decode(&of(3)).expect("decodes").control_planes, 3);
    let mut stolen = muster_wire::proto::Signed::default();
    prost::Message::merge(&mut stolen, card(1).encode()).expect("decodes");
    stolen.machine = Bytes::copy_from_slice(&identity(2).machine().0);
    assert!(SignedCard::decode(&prost::Message::encode_to_vec(&stolen)).is_err());
}

#[test]
fn a_charter_that_was_seen_is_kept() {
    let durable = Durable { charter: None, seen: Some(certificate()), ..durable() };
    assert_eq!(Durable::decode(&durable.encode()), Ok(durable));
}

#[test]
fn oversized_frames_are_refused_unread() {
    let bytes = Bytes::from(vec![0; muster_wire::limits::FRAME_BYTES_MAX + 1]);
    assert!(matches!(Frame::decode(bytes), Err(muster_wire::WireError::TooLarge { .. })));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>) {
        let _ = Frame::decode(Bytes::copy_from_slice(&bytes));
        let _ = Entry::decode(&bytes[..]);
        let _ = Durable::decode(&bytes);
        let _ = SignedCard::decode(&bytes);
        let _ = Certificate::decode(&bytes);
        let _ = Charter::decode(&bytes);
    }
}

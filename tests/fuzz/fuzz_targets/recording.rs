//! A recording from anybody's disk: no panic, and it ends. The input is the body of a part behind a sound start, with its
//! length and checksum right, since what they refuse is never decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_protocol::record::{Recording, start};
use muster_protocol::{Boot, Time, Tuning};
use muster_wire::{Digest, Durable, Identity, Settings};

fn begun() -> Vec<u8> {
    let settings = Settings {
        machines: 3,
        control_planes: 1,
        durable: true,
        kubernetes_version: "v1.31.4".into(),
        digest: Digest::default(),
    };
    let boot = Boot {
        identity: Identity::from_seed(&[1; 32]),
        sealing_key: [1; 32],
        durable: Durable::default(),
        cluster: "site".into(),
        settings,
        hostname: "a".into(),
        addresses: vec!["127.0.0.1:7390".into()],
        api_port: 6443,
        fingerprint: Digest::default(),
        seed: [1; 32],
        manifests: 0,
        level: muster_wire::level::KNOWN,
        raft_begun: false,
        tuning: Tuning::default(),
    };
    start(&boot, Time(0))
}

fuzz_target!(|bytes: &[u8]| {
    let mut recording = begun();
    recording.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    recording.extend_from_slice(&Digest::of("part of a recording", &[bytes]).0[..4]);
    recording.extend_from_slice(bytes);
    if let Ok(recording) = Recording::open(&recording) {
        assert!(recording.count() <= 2, "there is one part, and what follows an error is not read");
    }
});

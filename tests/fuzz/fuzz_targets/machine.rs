//! A machine that is sent anything: no panic, and it always comes to rest. The input is a list of messages, each with its
//! length in two bytes before it; SWIM datagrams and frames in turn, from a peer that is connected.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_protocol::{Boot, Effects, Input, Machine, Time, Tuning};
use muster_wire::{Digest, Durable, Frame, Identity, Settings};

fn machine() -> Machine {
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
    Machine::new(boot, Time(0), &mut Effects::default()).expect("a fresh disk starts")
}

fuzz_target!(|bytes: &[u8]| {
    let peer = Identity::from_seed(&[2; 32]).machine();
    let mut machine = machine();
    let mut now = Time(1);
    machine.handle(now, Input::Connected(peer), &mut Effects::default());
    let mut rest = bytes;
    for turn in 0..64 {
        let Some((length, after)) = rest.split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (message, after) = after.split_at(length);
        rest = after;
        let frame = match turn % 2 {
            0 => Ok(Frame::Swim(message.to_vec().into())),
            _ => Frame::decode(message.to_vec().into()),
        };
        now = Time(now.0 + 100_000);
        if let Ok(frame) = frame {
            machine.handle(now, Input::Received { from: peer, frame }, &mut Effects::default());
        }
        if let Some((due, _)) = machine.next_wakeup() {
            now = now.max(due);
            machine.handle(now, Input::Wake, &mut Effects::default());
            assert!(machine.next_wakeup().is_none_or(|(due, _)| due > now), "it wants to be woken in the past");
        }
    }
});

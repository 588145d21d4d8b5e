//! What kubeadm, an API server, etcd and the files beside them may say: no panic. The first byte chooses who speaks.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use muster_kubeadm::{
    Action, Exit, Kubeconfig, PkiBundle, Plan, Settings, StepInput, Ticket, Until, Version, Wait, etcd, outcome,
};

fn settings() -> Settings {
    Settings::of("site", std::path::Path::new("/"))
}

fn judged(exit: &Exit, said: &[u8]) {
    let version = Version::from_kubeadm(br#"{"clientVersion": {"gitVersion": "v1.31.4"}}"#).expect("a version");
    let plan = Plan::new(&version, settings()).expect("a plan");
    for action in [StepInput::JoinEtcd, StepInput::InitFinish].iter().flat_map(|step| plan.step(step)) {
        if let Action::Run(command) = action
            && let Err(failure) = outcome(&command, exit, said, said)
        {
            assert!(failure.excerpt.chars().count() <= 603, "it is bounded");
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((who, said)) = bytes.split_first() else { return };
    match who % 8 {
        0 => drop(Version::from_kubeadm(said)),
        1 => judged(&Exit::Code(1), said),
        2 => judged(&Exit::TimedOut, said),
        3 => drop(Kubeconfig::parse(&String::from_utf8_lossy(said))),
        4 => {
            let us = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
            let strays = etcd::strays(200, said, us, &[us], &[]);
            let _ = (etcd::membership(200, said, us), etcd::votes(200, said, us), strays);
        }
        5 => {
            let wait = Wait {
                phase: "await-ready".into(),
                server: "api.site.muster:7443".into(),
                path: "/api/v1/nodes/m1".into(),
                kubeconfig: "/etc/kubernetes/kubelet.conf".into(),
                until: Until::NodeReady,
                limit: Duration::from_secs(1),
            };
            drop(wait.met(200, said));
        }
        6 => drop(Ticket::decode(said)),
        _ => drop(PkiBundle::decode(said)),
    }
});

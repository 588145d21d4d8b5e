//! Machines with a network of their own each, on one bridge: a site without IPv4.
//!
//! Root is needed, and `ip` of iproute2 with network namespaces; where they are not to be had that is said loudly, and nothing is
//! tested. `MUSTER_NAMESPACES_REQUIRED=1` makes that a failure.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "other tests use the rest of it")]
mod site;

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use site::{Agent, Site};

fn ip(arguments: &str) -> std::io::Result<Output> {
    Command::new("ip").args(arguments.split_whitespace()).stdin(Stdio::null()).output()
}

/// Network namespaces on a bridge; removed when dropped.
struct Bridge {
    site: Site,
    prefix: String,
    made: Vec<String>,
}

impl Bridge {
    /// The bridge, in a namespace of its own; none where there is none to be had.
    fn new(name: &str) -> Option<Self> {
        let prefix = format!("muster-{name}-{}", std::process::id());
        let mut bridge = Self { site: Site::new(), prefix, made: Vec::new() };
        let made = bridge.namespace(0).and_then(|hub| {
            must(&format!("-n {hub} link add hub type bridge mcast_snooping 0"))?;
            must(&format!("-n {hub} link set hub up"))
        });
        match made {
            Ok(()) => Some(bridge),
            Err(why) if std::env::var("MUSTER_NAMESPACES_REQUIRED").is_ok_and(|required| required == "1") => {
                panic!("no network namespaces: {why}")
            }
            Err(why) => {
                eprintln!("NOT TESTED: no network namespaces are to be had here: {why}");
                None
            }
        }
    }

    fn namespace(&mut self, number: u8) -> Result<String, String> {
        let name = format!("{}-{number}", self.prefix);
        must(&format!("netns add {name}"))?;
        self.made.push(name.clone());
        must(&format!("-n {name} link set lo up"))?;
        Ok(name)
    }

    /// A machine's network: one card on the bridge, with this address.
    fn plug(&mut self, number: u8, address: &str) {
        let plug = |bridge: &mut Self| {
            let (hub, own) = (format!("{}-0", bridge.prefix), bridge.namespace(number)?);
            must(&format!("-n {hub} link add port{number} type veth peer name eth0 netns {own}"))?;
            must(&format!("-n {hub} link set port{number} master hub up"))?;
            must(&format!("-n {own} addr add {address} dev eth0"))?;
            must(&format!("-n {own} link set eth0 up"))
        };
        plug(self).unwrap_or_else(|why| panic!("machine {number}: {why}"));
    }

    /// Starts machine `number` with a file like this, besides what makes it a rehearsal.
    fn start(&self, number: u8, image: &str) -> Agent {
        let root = self.site.root(number);
        fs::create_dir_all(&root).expect("made");
        let config: PathBuf = root.join("muster.toml");
        let kubeadm = self.site.image(1, 1).kubeadm;
        let text =
            format!("{image}[kubernetes]\nversion = \"v1.31.4\"\nkubeadm = {kubeadm:?}\n[state]\ndurable = true\n");
        let mut file = fs::File::options();
        let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(&config).expect("opened");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("written");
        let log = fs::File::options().create(true).append(true).open(root.join("agent.log")).expect("opened");
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &format!("{}-{number}", self.prefix), env!("CARGO_BIN_EXE_muster")])
            .args(["run", "--stop-with-parent", "--config"])
            .arg(&config)
            .args(["--name", &format!("m{number}"), "--root"])
            .arg(&root)
            .env("MUSTER_REHEARSAL_DIR", root.join("etc/kubernetes"))
            .env("MUSTER_REHEARSAL_KUBELET_DIR", root.join("var/lib/kubelet"))
            .env("MUSTER_REHEARSAL_HOSTS", root.join("etc/hosts"))
            .env("MUSTER_REHEARSAL_PACE", "0")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Agent::started(root, command.spawn().expect("ip starts"))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        for name in self.made.iter().rev() {
            let _ = ip(&format!("netns delete {name}"));
        }
    }
}

fn must(arguments: &str) -> Result<(), String> {
    let said = ip(arguments).map_err(|why| format!("ip: {why}"))?;
    match said.status.success() {
        true => Ok(()),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&said.stderr).trim())),
    }
}

fn image(machines: u32) -> String {
    format!("cluster = \"site\"\nmachines = {machines}\nmesh_key = \"{}\"\n", "5a".repeat(32))
}

/// Nothing but what `muster config example` has: they find each other by mDNS, and listen where they listen by default.
#[test]
fn three_machines_without_ipv4_found_a_cluster() {
    let Some(mut bridge) = Bridge::new("six") else { return };
    (1..=3).for_each(|number| bridge.plug(number, &format!("fd00:7390::{number}/64 nodad")));
    let agents: Vec<Agent> = (1..=3).map(|number| bridge.start(number, &image(3))).collect();
    for agent in &agents {
        agent.until_phase("ready");
    }
    let status = agents[0].status();
    let addresses: Vec<&str> =
        status["peers"].as_array().into_iter().flatten().filter_map(|peer| peer["addresses"][0].as_str()).collect();
    assert_eq!(addresses.len(), 2, "{status:#}");
    assert!(addresses.iter().all(|address| address.starts_with("[fd00:7390::")), "{addresses:?}");
}

//! The machines' network: a bridge a testbed, a network namespace a machine.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};

use super::layout::Testbed;
use super::machine::Machine;
use super::report::cannot_provision;
use crate::command::run;

/// The name of a testbed's bridge.
pub(crate) fn bridge_name(index: u8) -> String {
    format!("mtb{index}")
}

pub(crate) fn bridge_exists(index: u8) -> bool {
    link_exists(&bridge_name(index))
}

/// Whether a /24 holds an address of the host's own, or is a network it already knows the way to. Wider networks do not
/// count: the testbed's own way is the more exact one.
pub(crate) fn in_use(routes: &str, subnet: Ipv4Addr) -> bool {
    let destination = |route: &str| {
        let word = route.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
        let (address, length) = word.split_once('/').unwrap_or((word, "32"));
        Some((address.parse::<Ipv4Addr>().ok()?, length.parse::<u8>().ok()?))
    };
    let mut destinations = routes.lines().filter(|route| !route.starts_with("default")).filter_map(destination);
    destinations.any(|(address, length)| length >= 24 && address.octets()[..3] == subnet.octets()[..3])
}

fn link_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Makes the bridge, with the host on it. No spanning tree: a port would be deaf for its first 15 s.
pub(crate) fn make_bridge(testbed: &Testbed) -> Result<()> {
    let (bridge, address) = (testbed.bridge(), format!("{}/24", testbed.host_address));
    ip(&["link", "add", &bridge, "type", "bridge", "stp_state", "0", "mcast_snooping", "0"])
        .map_err(|error| cannot_provision(format!("no bridge can be made here: {error:#}")))?;
    ip(&["address", "add", &address, "dev", &bridge])?;
    ip(&["link", "set", &bridge, "up"])
}

/// Puts the host into another network on the bridge, and out of the one that it was in.
pub(crate) fn move_bridge(testbed: &Testbed) -> Result<()> {
    let bridge = testbed.bridge();
    ip(&["-4", "address", "flush", "dev", &bridge])?;
    ip(&["address", "add", &format!("{}/24", testbed.host_address), "dev", &bridge])
}

/// Gives a machine a new network namespace with one interface, as a new boot has nothing of the old one's.
pub(crate) fn attach(machine: &Machine) -> Result<()> {
    detach(machine)?;
    let (namespace, link, mac) = (machine.link.as_str(), machine.link.as_str(), mac(&machine.name));
    ip(&["netns", "add", namespace])?;
    ip(&["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace, "address", &mac])?;
    ip(&["link", "set", link, "master", &machine.bridge, "up"])?;
    let inside = |arguments: &[&str]| ip(&[&["-netns", namespace], arguments].concat());
    inside(&["address", "add", &format!("{}/24", machine.address), "dev", "eth0"])?;
    inside(&["link", "set", "lo", "up"])?;
    inside(&["link", "set", "eth0", "up"])?;
    inside(&["route", "add", "default", "via", &machine.gateway.to_string()])?;
    impair(machine)
}

/// Makes the machine's network as bad as it was asked to be.
fn impair(machine: &Machine) -> Result<()> {
    if machine.loss_percent > 0 {
        lose(machine, 0)
            .map_err(|error| cannot_provision(format!("--loss: this kernel cannot drop packets: {error:#}")))?;
    }
    let inside = ["-netns", &machine.link, "qdisc", "add", "dev", "eth0"];
    if let Some(rate_kbit) = machine.rate_kbit {
        // What the machine sends at its own end, what it receives at the bridge's. A burst is a few full packets.
        let rate = format!("{rate_kbit}kbit");
        let bucket = ["root", "handle", "1:", "tbf", "rate", &rate, "burst", "16kb", "latency", "200ms"];
        let outside = ["qdisc", "add", "dev", &machine.link];
        run("tc", inside.iter().chain(&bucket))
            .and_then(|_| run("tc", outside.iter().chain(&bucket)))
            .map_err(|error| cannot_provision(format!("--rate: this kernel has no token bucket: {error:#}")))?;
    }
    if let Some(delay_ms) = machine.delay_ms {
        let delay = format!("{delay_ms}ms");
        let place: &[&str] = if machine.rate_kbit.is_some() { &["parent", "1:"] } else { &["root"] };
        run("tc", inside.iter().chain(place).chain(&["netem", "delay", &delay]))
            .map_err(|error| cannot_provision(format!("--delay: this kernel has no netem: {error:#}")))?;
    }
    Ok(())
}

/// Lets so many more of each hundred packets that a machine receives be lost than it was made with.
pub(crate) fn lose(machine: &Machine, more_percent: u8) -> Result<()> {
    // A table of its own, before the connection tracking and the rules of kube-proxy. Made anew each time.
    let rules = format!(
        "table netdev testbed {{ }}; delete table netdev testbed; table netdev testbed {{ chain loss {{ \
         type filter hook ingress device eth0 priority 0; numgen random mod 100 < {} drop; }}; }}",
        machine.loss_percent.saturating_add(more_percent).min(100)
    );
    run("ip", ["netns", "exec", &machine.link, "nft", &rules]).map(drop)
}

/// Removes a machine's interface and namespace, if they are there.
pub(crate) fn detach(machine: &Machine) -> Result<()> {
    if link_exists(&machine.link) {
        ip(&["link", "delete", &machine.link])?;
    }
    if Path::new("/run/netns").join(&machine.link).exists() {
        ip(&["netns", "delete", &machine.link])?;
    }
    Ok(())
}

/// Removes whatever of a testbed's network is still there.
pub(crate) fn remove(testbed: &Testbed) -> Result<()> {
    for machine in &testbed.machines {
        detach(machine)?;
    }
    if bridge_exists(testbed.index) {
        ip(&["link", "delete", &testbed.bridge()])?;
    }
    Ok(())
}

/// Unplugs a machine: nothing arrives, nothing leaves, and the machine sees no error.
pub(crate) fn cut(machine: &Machine) -> Result<()> {
    ip(&["link", "set", &machine.link, "nomaster"]).context("is the machine running?")
}

/// Plugs a machine in again.
pub(crate) fn heal(machine: &Machine) -> Result<()> {
    if link_exists(&machine.link) { ip(&["link", "set", &machine.link, "master", &machine.bridge]) } else { Ok(()) }
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments).map(drop)
}

/// A machine's hardware address: made from its name, so that a machine whose disk was wiped still has the same one.
fn mac(name: &str) -> String {
    // FNV-1a: any spread does, and this one needs no library.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let bytes = hash.to_be_bytes();
    // 02: locally administered, not multicast.
    let rest: Vec<String> = bytes[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("02:{}", rest.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_the_host_is_in_is_in_use() {
        let routes = "default via 172.16.3.1 dev eth0\n10.199.0.0/24 dev mtb0 proto kernel scope link src 10.199.0.1\n\
                      10.0.0.0/8 dev eth1\nlocal 10.77.3.9 dev eth0 table local proto kernel scope host\n";
        assert!(in_use(routes, Ipv4Addr::new(10, 199, 0, 0)));
        assert!(in_use(routes, Ipv4Addr::new(10, 77, 3, 0)));
        assert!(!in_use(routes, Ipv4Addr::new(10, 199, 1, 0)), "a wider network leaves room");
        assert!(!in_use(routes, Ipv4Addr::new(172, 16, 3, 0)), "a gateway is no destination");
    }

    #[test]
    fn hardware_addresses_follow_from_names() {
        let all: std::collections::BTreeSet<String> = (1..=200).map(|number| mac(&format!("m{number}"))).collect();
        assert_eq!(all.len(), 200);
        assert_eq!(mac("m1"), mac("m1"));
        assert!(all.iter().all(|mac| mac.starts_with("02:") && mac.len() == 17));
    }
}

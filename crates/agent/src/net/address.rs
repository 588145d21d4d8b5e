//! `ip:port` and `host:port`, as people write them, and libp2p's multiaddresses.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Most addresses behind one name that are tried.
pub(super) const RESOLVED_MAX: usize = 64;

/// The multiaddress of a TCP address.
pub fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// The TCP address at the front of a multiaddress.
pub fn socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// All addresses behind a name, by the system's resolver.
///
/// # Errors
/// Why there are none, for people.
pub(super) async fn resolve(name: &str) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host(name).await;
    let found: Vec<SocketAddr> =
        found.map_err(|why| super::outcomes::lookup_failed(&why))?.take(RESOLVED_MAX).collect();
    if found.is_empty() { Err("has no address".to_owned()) } else { Ok(found) }
}

/// What others should dial, most useful first: the address that this machine speaks from by default, then IPv4 before
/// IPv6. Loopback only where the image asks for it, as in a lab; link-local never, since it needs a zone.
pub(super) fn advertised(listen: SocketAddr, listening: impl Iterator<Item = SocketAddr>, max: usize) -> Vec<String> {
    let own = spoken_from();
    let mut addresses: Vec<SocketAddr> = listening
        .filter(|address| !address.ip().is_loopback() || listen.ip().is_loopback())
        .filter(|address| !is_link_local(address.ip()))
        .collect();
    addresses.sort_by_key(|address| (Some(address.ip()) != own, address.is_ipv6(), *address));
    addresses.iter().take(max).map(SocketAddr::to_string).collect()
}

/// The source address that the system would use towards the rest of the world. Nothing is sent: connecting a datagram
/// socket only looks up a route. The destinations are documentation addresses (RFC 5737, RFC 3849).
fn spoken_from() -> Option<IpAddr> {
    let route = |from: &str, to: &str| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    route("0.0.0.0:0", "192.0.2.1:9").or_else(|| route("[::]:0", "[2001:db8::1]:9"))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_both_ways() {
        for text in ["10.0.0.1:7390", "[2001:db8::2]:1"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(socket(&multiaddr(address)), Some(address));
        }
        assert_eq!(socket(&"/dns4/a/tcp/1".parse().expect("a multiaddress")), None);
    }

    #[test]
    fn loopback_is_advertised_only_where_it_is_asked_for() {
        let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let listening = ["127.0.0.1:1", "[fe80::1]:1", "[2001:db8::2]:1", "203.0.113.9:1", "169.254.3.4:1"];
        let listening = || listening.iter().map(|text| parse(text));
        assert_eq!(advertised(parse("0.0.0.0:1"), listening(), 9), ["203.0.113.9:1", "[2001:db8::2]:1"]);
        assert_eq!(advertised(parse("0.0.0.0:1"), listening(), 1), ["203.0.113.9:1"]);
        assert!(advertised(parse("0.0.0.0:1"), [parse("127.0.0.1:1")].into_iter(), 9).is_empty());
        assert_eq!(advertised(parse("127.0.0.2:1"), [parse("127.0.0.2:1")].into_iter(), 9), ["127.0.0.2:1"]);
    }
}

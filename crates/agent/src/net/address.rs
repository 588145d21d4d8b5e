//! `ip:port` and `host:port`, as people write them, and libp2p's multiaddresses.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

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

/// What to dial for a hint: an address at once, a name by the system's resolver.
pub(super) fn dialable(hint: &str) -> Option<Multiaddr> {
    if let Ok(address) = hint.parse() {
        return Some(multiaddr(address));
    }
    hint.to_socket_addrs().ok()?.next().map(multiaddr)
}

//! libp2p put together: TCP, the image's fence, Noise, Yamux; streams, mDNS, limits.

use std::num::NonZeroU8;
use std::time::Duration;

use libp2p::core::ConnectedPoint;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, Swarm, Transport, connection_limits, mdns, memory_connection_limits, noise, pnet, tcp, yamux};
use muster_protocol::links::{CONNECTIONS_PER_MACHINE_MAX, Stage};
use muster_wire::limits;
use socket2::{SockRef, TcpKeepalive};

use super::progress::Progress;

/// Most connections whose handshakes are under way from outside: a mass boot fits, a flood does not.
const PENDING_MAX: u32 = 64;

/// Memory of the process above which no connection is taken.
const MEMORY_BYTES_MAX: usize = 256 << 20;

/// Most Yamux streams on a connection. Each side needs one to write to; more while broken ones are replaced.
const STREAMS_MAX: usize = 16;

/// Longest time for connecting and all handshakes.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection without a stream is one too many; it stays this long.
const IDLE: Duration = Duration::from_secs(60);

/// How long sent bytes may stay without acknowledgement, and silence without a probe: a machine that lost its power says
/// no goodbye, and its next start must not find us talking to its last one.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(60);

/// How often mDNS asks while a cluster forms, and once it is quiet. libp2p stops at its first answer and is silent for
/// this long.
const ASK_FORMING: Duration = Duration::from_secs(5);
const ASK_QUIET: Duration = Duration::from_secs(300);

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    pub(super) streams: libp2p_stream::Behaviour,
    pub(super) mdns4: Toggle<mdns::tokio::Behaviour>,
    /// libp2p's asks in one family only.
    pub(super) mdns6: Toggle<mdns::tokio::Behaviour>,
}

/// Asks and answers by mDNS, often or seldom, over IPv4 or IPv6.
///
/// # Errors
/// When the sockets cannot be made.
pub(super) fn discovery(me: PeerId, quiet: bool, enable_ipv6: bool) -> Result<mdns::tokio::Behaviour, String> {
    let query_interval = if quiet { ASK_QUIET } else { ASK_FORMING };
    let config = mdns::Config { query_interval, enable_ipv6, ..mdns::Config::default() };
    mdns::tokio::Behaviour::new(config, me).map_err(|why| format!("mDNS cannot be used: {why}"))
}

/// The swarm of one machine.
///
/// # Errors
/// When mDNS or a transport cannot be had.
pub(super) fn build(
    keypair: Keypair,
    fence: pnet::PreSharedKey,
    mdns: bool,
    progress: Progress,
) -> Result<Swarm<Behaviour>, String> {
    let me = keypair.public().to_peer_id();
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_established(Some(limits::CONNECTIONS_MAX as u32))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_MACHINE_MAX as u32))
        .with_max_pending_incoming(Some(PENDING_MAX));
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        memory: memory_connection_limits::Behaviour::with_max_bytes(MEMORY_BYTES_MAX),
        streams: libp2p_stream::Behaviour::new(),
        mdns4: mdns.then(|| discovery(me, false, false)).transpose()?.into(),
        mdns6: mdns.then(|| discovery(me, false, true)).and_then(without_ipv6).into(),
    };
    let swarm = libp2p::SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_other_transport(|keypair| {
            let noise = noise::Config::new(keypair)?;
            let known = progress.clone();
            let mut yamux = yamux::Config::default();
            yamux.set_max_num_streams(STREAMS_MAX);
            let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
                .and_then(move |stream, at| {
                    watch(&stream.0);
                    progress.note(&at, Stage::Taken);
                    async move {
                        let fenced = pnet::PnetConfig::new(fence).handshake(stream).await?;
                        progress.note(&at, Stage::Fenced);
                        Ok::<_, pnet::PnetError>(fenced)
                    }
                })
                .upgrade(Version::V1Lazy)
                .authenticate(noise)
                .multiplex_ext(move |peer: &PeerId, at: &ConnectedPoint| {
                    known.note(at, if *peer == me { Stage::Myself } else { Stage::Known });
                    yamux
                })
                .timeout(HANDSHAKE)
                .boxed();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(transport)
        })
        .map_err(|why| format!("no transport: {why}"))?
        .with_behaviour(|_| behaviour)
        .map_err(|why| format!("no behaviour: {why}"))?
        .with_swarm_config(|config| {
            config.with_idle_connection_timeout(IDLE).with_dial_concurrency_factor(NonZeroU8::new(2).expect("not zero"))
        })
        .build();
    Ok(swarm)
}

/// A machine may have IPv6 switched off.
fn without_ipv6(made: Result<mdns::tokio::Behaviour, String>) -> Option<mdns::tokio::Behaviour> {
    made.inspect_err(|why| tracing::info!(why, "nobody is looked for over IPv6")).ok()
}

fn watch(stream: &tokio::net::TcpStream) {
    let socket = SockRef::from(stream);
    let keep_alive = TcpKeepalive::new().with_time(SILENCE).with_interval(UNACKNOWLEDGED / 3).with_retries(3);
    // Without them a dead connection is noticed later, by SWIM.
    let _ = socket.set_tcp_keepalive(&keep_alive);
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}

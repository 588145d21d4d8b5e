//! Real meshes on loopback, and peers that do not do what a mesh does.

use bytes::Bytes;
use futures::AsyncReadExt as _;
use muster_wire::CallNumber;

use super::*;

const KEY: [u8; 32] = [9; 32];

struct Node {
    id: MachineId,
    at: SocketAddr,
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Event>,
    counters: Arc<Counters>,
    outcomes: Outcomes,
    room: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    async fn start(seed: u8, mesh_key: [u8; 32], peers: &[SocketAddr]) -> Self {
        Self::start_at("127.0.0.1:0", seed, mesh_key, peers).await
    }

    async fn start_at(listen: &str, seed: u8, mesh_key: [u8; 32], peers: &[SocketAddr]) -> Self {
        let identity = Identity::from_seed(&[seed; 32]);
        let (commands, wanted) = mpsc::channel(4_096);
        let (told, mut events) = mpsc::channel(1_024);
        let counters = Arc::new(Counters::default());
        let settings = Settings {
            listen: listen.parse().expect("an address"),
            mesh_key,
            mdns: false,
            subnets: Vec::new(),
            foreign: Vec::new(),
            peers: peers.iter().map(SocketAddr::to_string).collect(),
        };
        let mesh = Mesh::new(&identity, settings, wanted, told, counters.clone()).expect("listens");
        let (room, outcomes) = (mesh.room.clone(), mesh.outcomes());
        let task = tokio::spawn(mesh.run());
        let Some(Event::Addresses(addresses)) = events.recv().await else { panic!("it listens somewhere") };
        let at = addresses[0].parse().expect("an address");
        Self { id: identity.machine(), at, commands, events, counters, outcomes, room, task }
    }

    /// The next event, but for where somebody was reached.
    async fn event(&mut self) -> Event {
        loop {
            match self.events.recv().await.expect("the mesh runs") {
                Event::Reached(..) => {}
                event => return event,
            }
        }
    }

    /// Waits until a machine was reached somewhere.
    async fn reached(&mut self) -> (MachineId, IpAddr) {
        loop {
            if let Event::Reached(machine, at) = self.events.recv().await.expect("the mesh runs") {
                return (machine, at);
            }
        }
    }

    async fn connected(&mut self, to: &Node) {
        assert!(matches!(self.event().await, Event::Connected(machine) if machine == to.id));
    }

    async fn say(&self, to: MachineId, call: CallNumber) {
        self.commands.send(Command::Send(to, frame(call, 10))).await.expect("the mesh runs");
    }

    /// The next frame's call number; anything else is none.
    async fn hears(&mut self, from: MachineId) -> u64 {
        match self.event().await {
            Event::Received(machine, Frame::RaftCall { call, .. }, _) if machine == from => call.0,
            other => panic!("{other:?}"),
        }
    }

    fn dropped(&self, why: Dropped) -> u64 {
        self.counters.all().get(&format!("dropped: {why}")).copied().unwrap_or_default()
    }
}

fn frame(call: CallNumber, bytes: usize) -> Vec<u8> {
    Frame::RaftCall { call, body: Bytes::from(vec![0; bytes]) }.encode()
}

/// A peer with the mesh key and a key of its own that writes what it likes.
async fn stranger(seed: u8, to: &Node) -> (MachineId, libp2p::Stream, JoinHandle<()>) {
    let identity = Identity::from_seed(&[seed; 32]);
    let mut swarm =
        swarm::build(key::keypair(&identity), key::fence(&KEY), false, Progress::default()).expect("a swarm");
    let mut streams = swarm.behaviour().streams.new_control();
    swarm.dial(multiaddr(to.at)).expect("dials");
    let peer = key::peer(to.id).expect("a key");
    loop {
        if let libp2p::swarm::SwarmEvent::ConnectionEstablished { .. } = swarm.select_next_some().await {
            break;
        }
    }
    // It takes the mesh's own stream, or the mesh would give the connection up after some tries.
    let mut incoming = streams.accept(PROTOCOL).expect("nobody accepts yet");
    let driver = tokio::spawn(async move {
        let mut taken = Vec::new();
        loop {
            tokio::select! {
                _ = swarm.select_next_some() => {}
                Some((_, mut stream)) = incoming.next() => {
                    if link::accept(&mut stream).await.is_ok() {
                        taken.push(stream);
                    }
                }
            }
        }
    });
    let mut stream = streams.open_stream(peer, PROTOCOL).await.expect("opens");
    stream.read_exact(&mut [0]).await.expect("is accepted");
    (identity.machine(), stream, driver)
}

fn with_length(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

#[tokio::test]
async fn machines_that_dial_each_other_are_connected_once_and_hear_each_other() {
    let mut first = Node::start(1, KEY, &[]).await;
    let mut second = Node::start(2, KEY, &[first.at]).await;
    // It learns the other addresses as a core does from cards, so both sides dial.
    let learn = Command::Learn(second.id, vec![second.at.to_string()]);
    first.commands.send(learn).await.expect("the mesh runs");
    first.connected(&second).await;
    second.connected(&first).await;
    let mut third = Node::start(3, KEY, &[first.at, second.at]).await;
    first.connected(&third).await;
    second.connected(&third).await;
    for _ in 0..2 {
        assert!(
            matches!(third.event().await, Event::Connected(machine) if machine == first.id || machine == second.id)
        );
    }
    for call in 0..100 {
        first.say(third.id, CallNumber(call)).await;
        third.say(second.id, CallNumber(call)).await;
    }
    for call in 0..100 {
        assert_eq!(third.hears(first.id).await, call);
        assert_eq!(second.hears(third.id).await, call);
    }
    assert_eq!(first.dropped(Dropped::QueueFull), 0);
}

#[tokio::test]
async fn a_machine_that_starts_again_is_gone_and_back() {
    let mut first = Node::start(1, KEY, &[]).await;
    let mut second = Node::start(2, KEY, &[first.at]).await;
    first.connected(&second).await;
    second.connected(&first).await;
    let id = second.id;
    drop(second);
    assert!(matches!(first.event().await, Event::Disconnected(machine) if machine == id));
    let mut second = Node::start(2, KEY, &[first.at]).await;
    first.connected(&second).await;
    second.connected(&first).await;
    first.say(id, CallNumber(7)).await;
    assert_eq!(second.hears(first.id).await, 7);
}

#[tokio::test]
async fn another_mesh_key_is_turned_away_and_named() {
    let mut first = Node::start(1, KEY, &[]).await;
    let mut other = Node::start(2, [8; 32], &[first.at]).await;
    for node in [&mut first, &mut other] {
        match node.event().await {
            Event::TurnedAway(whom, why) => {
                assert!(whom.starts_with("127.0.0.1") && why.to_string().contains("mesh key"), "{whom}: {why}");
            }
            event => panic!("{event:?}"),
        }
        assert!(node.dropped(Dropped::HandshakeFailed) >= 1);
    }
}

#[tokio::test]
async fn what_is_no_frame_is_dropped_counted_and_told_once_and_then_the_peer_is_left_alone() {
    let mut node = Node::start(1, KEY, &[]).await;
    let (id, mut stream, _driver) = stranger(2, &node).await;
    assert!(matches!(node.event().await, Event::Connected(machine) if machine == id));
    stream.write_all(&with_length(&frame(CallNumber(1), 10))).await.expect("writes");
    assert_eq!(node.hears(id).await, 1);
    for byte in 0..20 {
        // It may have been cut off before the last of them.
        let _ = stream.write_all(&with_length(&[255, byte, 255])).await;
        let _ = stream.flush().await;
    }
    assert!(matches!(node.event().await, Event::TurnedAway(whom, _) if whom == id.to_string()));
    assert!(matches!(node.event().await, Event::Disconnected(machine) if machine == id));
    assert_eq!(node.dropped(Dropped::MalformedFrame), 16);
}

#[tokio::test]
async fn a_frame_of_another_protocol_version_is_dropped_counted_and_named() {
    let mut node = Node::start(1, KEY, &[]).await;
    let (id, mut stream, _driver) = stranger(2, &node).await;
    assert!(matches!(node.event().await, Event::Connected(machine) if machine == id));
    let mut other = frame(CallNumber(1), 10);
    // Field 1, the version, is the first and a small number.
    assert_eq!(other[..2], [8, 1]);
    other[1] = 7;
    stream.write_all(&with_length(&other)).await.expect("writes");
    stream.write_all(&with_length(&frame(CallNumber(2), 10))).await.expect("writes");
    stream.flush().await.expect("writes");
    match node.event().await {
        Event::TurnedAway(whom, why) => {
            assert!(whom == id.to_string() && why.to_string().contains("protocol version 7"), "{why}")
        }
        event => panic!("{event:?}"),
    }
    assert_eq!(node.hears(id).await, 2, "what follows is judged by itself");
    assert_eq!(node.dropped(Dropped::OtherVersion), 1);
}

#[tokio::test]
async fn a_frame_over_the_bound_ends_the_connection() {
    let mut node = Node::start(1, KEY, &[]).await;
    let (id, mut stream, _driver) = stranger(2, &node).await;
    assert!(matches!(node.event().await, Event::Connected(machine) if machine == id));
    stream.write_all(&[255; 4]).await.expect("writes");
    stream.flush().await.expect("writes");
    match node.event().await {
        Event::TurnedAway(whom, why) => {
            assert!(whom == id.to_string() && why.to_string().contains("over the bound"), "{why}")
        }
        event => panic!("{event:?}"),
    }
    assert!(matches!(node.event().await, Event::Disconnected(machine) if machine == id));
}

#[tokio::test]
async fn a_cut_frame_costs_its_stream_alone() {
    let mut node = Node::start(1, KEY, &[]).await;
    let (id, mut stream, _driver) = stranger(2, &node).await;
    assert!(matches!(node.event().await, Event::Connected(machine) if machine == id));
    let whole = with_length(&frame(CallNumber(1), 100));
    stream.write_all(&whole[..whole.len() / 2]).await.expect("writes");
    stream.close().await.expect("closes");
    let (again, mut stream, _driver) = stranger(3, &node).await;
    assert!(matches!(node.event().await, Event::Connected(machine) if machine == again));
    stream.write_all(&with_length(&frame(CallNumber(2), 100))).await.expect("writes");
    stream.flush().await.expect("writes");
    assert_eq!(node.hears(again).await, 2);
    assert!(node.events.try_recv().is_err());
}

#[tokio::test]
async fn a_flood_waits_for_room_and_nothing_of_it_is_lost() {
    const FRAMES: u64 = 400;
    const BYTES: usize = 100_000;
    let mut node = Node::start(1, KEY, &[]).await;
    let (id, mut stream, _driver) = stranger(2, &node).await;
    assert!(matches!(node.event().await, Event::Connected(machine) if machine == id));
    let flood = tokio::spawn(async move {
        for call in 0..FRAMES {
            stream.write_all(&with_length(&frame(CallNumber(call), BYTES))).await.expect("writes");
        }
        stream.flush().await.expect("flushes");
        // Kept open: a connection that ends takes with it what has not been read yet.
        stream
    });
    let mut held = Vec::new();
    while held.len() < WAITING_BYTES_MAX / (BYTES + 100) {
        match node.event().await {
            Event::Received(_, _, room) => held.push(room),
            event => panic!("{event:?}"),
        }
    }
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert!(node.events.try_recv().is_err(), "more was let in than there is room for");
    assert!(node.room.available_permits() < BYTES && !flood.is_finished());
    let before = held.len() as u64;
    held.clear();
    for call in before..FRAMES {
        assert_eq!(node.hears(id).await, call);
    }
    drop(flood.await.expect("all is written"));
}

#[tokio::test]
async fn who_is_refused_does_not_dial_as_fast_as_the_other_hangs_up() {
    let mut first = Node::start(21, KEY, &[]).await;
    let mut second = Node::start(22, KEY, &[first.at]).await;
    let learn = Command::Learn(first.id, vec![first.at.to_string()]);
    second.commands.send(learn).await.expect("the mesh runs");
    first.connected(&second).await;
    second.connected(&first).await;
    first.commands.send(Command::Refuse(second.id, Duration::from_secs(300))).await.expect("the mesh runs");
    let mut connected = 0;
    let count = async {
        loop {
            connected += u32::from(matches!(second.event().await, Event::Connected(_)));
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(6), count).await;
    // After one second, two, and four; a slow computer sees fewer. It was hundreds.
    assert!(connected <= 3, "{connected} connections");
}

#[tokio::test]
async fn who_is_heard_from_an_address_that_is_not_its_own_is_dialled_back() {
    let mut first = Node::start_at("127.0.0.1:0", 1, KEY, &[]).await;
    // What it sends comes from 127.0.0.1, as from behind a translator.
    let mut second = Node::start_at("127.0.0.2:0", 2, KEY, &[first.at]).await;
    assert_eq!(second.reached().await, (first.id, first.at.ip()));
    assert_eq!(first.reached().await, (second.id, IpAddr::from([127, 0, 0, 1])));
    first.commands.send(Command::Learn(second.id, vec![second.at.to_string()])).await.expect("the mesh runs");
    assert_eq!(first.reached().await, (second.id, second.at.ip()));
}

#[tokio::test]
async fn a_connection_that_ends_in_the_middle_is_no_word_about_another_key_until_it_happens_again_and_again() {
    let mut node = Node::start(1, KEY, &[]).await;
    for seen in 1..=3 {
        drop(tokio::net::TcpStream::connect(node.at).await.expect("connects"));
        while node.dropped(Dropped::HandshakeCutOff) < seen {
            tokio::task::yield_now().await;
        }
    }
    assert!(node.events.try_recv().is_err(), "a restart looks like this");
    assert_eq!(node.dropped(Dropped::HandshakeFailed), 0);
    drop(tokio::net::TcpStream::connect(node.at).await.expect("connects"));
    assert!(
        matches!(node.event().await, Event::TurnedAway(whom, why) if whom == "127.0.0.1" && why.to_string().contains("mesh key"))
    );
}

/// Why a machine cannot listen there.
fn refused(listen: SocketAddr) -> String {
    let (_commands, wanted) = mpsc::channel(1);
    let (told, _events) = mpsc::channel(1);
    let (peers, subnets, foreign) = (Vec::new(), Vec::new(), Vec::new());
    let settings = Settings { listen, mesh_key: KEY, mdns: false, peers, subnets, foreign };
    Mesh::new(&Identity::from_seed(&[1; 32]), settings, wanted, told, Arc::default()).err().expect("it cannot")
}

#[tokio::test]
async fn an_address_that_cannot_be_listened_on_is_named_with_the_cause() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    for (listen, cause) in
        [(taken.local_addr().expect("an address"), "in use"), ("192.0.2.1:7390".parse().expect("an address"), "assign")]
    {
        let why = refused(listen);
        assert!(why.starts_with(&format!("cannot listen on {listen}: ")) && why.to_string().contains(cause), "{why}");
    }
}

#[tokio::test]
async fn a_port_that_is_another_programs_in_one_family_is_said() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let why = refused(SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port));
    assert!(why.starts_with(&format!("cannot listen on 0.0.0.0:{port}: ")) && why.contains("in use"), "{why}");
}

/// Takes every connection, and sends what it likes, one byte at a time; nothing, if it likes nothing. Tells of each connection that the
/// other side gave up.
async fn dumb(byte: Option<u8>) -> (SocketAddr, mpsc::Receiver<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let at = listener.local_addr().expect("an address");
    let (given_up, told) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let given_up = given_up.clone();
            tokio::spawn(async move {
                linger(stream, byte).await;
                let _ = given_up.send(()).await;
            });
        }
    });
    (at, told)
}

/// Reads and sends until the other side ends it.
async fn linger(stream: tokio::net::TcpStream, byte: Option<u8>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut reading, mut writing) = stream.into_split();
    let drip = async {
        while let Some(byte) = byte
            && writing.write_all(&[byte]).await.is_ok()
        {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await
    };
    let read = async { while reading.read(&mut [0; 1_024]).await.is_ok_and(|count| count > 0) {} };
    tokio::select! { () = drip => {}, () = read => {} }
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up_and_others_are_heard_meanwhile() {
    let (silent, mut silence_ended) = dumb(None).await;
    let (slow, mut drip_ended) = dumb(Some(7)).await;
    let mut node = Node::start(1, KEY, &[silent, slow]).await;
    // And two that dial, of which one says nothing and one a byte a second.
    let dialling = [None, Some(7)].map(|byte| {
        let at = node.at;
        tokio::spawn(async move { linger(tokio::net::TcpStream::connect(at).await.expect("connects"), byte).await })
    });
    let mut other = Node::start(2, KEY, &[node.at]).await;
    node.connected(&other).await;
    other.connected(&node).await;
    other.say(node.id, CallNumber(7)).await;
    assert_eq!(node.hears(other.id).await, 7);
    assert!(silence_ended.try_recv().is_err() && drip_ended.try_recv().is_err(), "they are at it still");
    silence_ended.recv().await.expect("given up");
    drip_ended.recv().await.expect("given up");
    for dialling in dialling {
        dialling.await.expect("given up");
    }
    let said = |at: SocketAddr| node.outcomes.list().into_iter().find(|hint| hint.hint == at.to_string());
    for at in [silent, slow] {
        // The word of it comes with the end of the dial.
        while said(at).is_none_or(|hint| hint.outcome.is_none()) {
            tokio::task::yield_now().await;
        }
        assert_eq!(said(at).and_then(|hint| hint.outcome).as_deref(), Some("takes the connection and says nothing"));
    }
    other.say(node.id, CallNumber(8)).await;
    loop {
        match node.event().await {
            Event::Received(_, Frame::RaftCall { call: CallNumber(8), .. }, _) => break,
            Event::TurnedAway(..) => {}
            event => panic!("{event:?}"),
        }
    }
}

#[tokio::test]
async fn hints_say_what_came_of_them() {
    let first = Node::start(1, KEY, &[]).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds").local_addr().expect("an address");
    let other = Node::start(3, [8; 32], &[]).await;
    // One list is on all machines, so the machine's own address is in it.
    let own = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds").local_addr().expect("an address");
    let node = Node::start_at(&own.to_string(), 2, KEY, &[first.at, gone, other.at, own]).await;
    let outcome = |at: SocketAddr| {
        let hint = node.outcomes.list().into_iter().find(|hint| hint.hint == at.to_string()).expect("a hint");
        (hint.outcome.unwrap_or_default(), hint.machine)
    };
    for (at, expected) in [
        (first.at, "connected as"),
        (gone, "refused: nobody listens there"),
        (other.at, "another mesh key, or not muster"),
        (own, "that is this machine"),
    ] {
        let came = async {
            while !outcome(at).0.contains(expected) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(60), came).await;
        assert!(came.is_ok(), "{at} should say {expected:?}: {:?}", node.outcomes.list());
    }
    assert_eq!(outcome(first.at).1, Some(first.id.to_hex()));
}

/// Two machines dial each other at once and again and again, as after each of them was killed: none is said to have another key.
#[tokio::test]
async fn machines_of_one_key_that_come_and_go_are_not_said_to_have_another() {
    let mut node = Node::start(1, KEY, &[]).await;
    for _ in 0..12 {
        let second = Node::start(2, KEY, &[node.at]).await;
        let third = Node::start(3, KEY, &[node.at, second.at]).await;
        for machine in [&second, &third] {
            let learn = Command::Learn(machine.id, vec![machine.at.to_string()]);
            node.commands.send(learn).await.expect("the mesh runs");
        }
        // One is killed at once, the other when it is heard.
        drop(second);
        loop {
            match node.event().await {
                Event::Connected(machine) if machine == third.id => break,
                Event::TurnedAway(whom, why) => panic!("{whom}: {why}"),
                _ => {}
            }
        }
    }
    assert_eq!(node.dropped(Dropped::HandshakeFailed), 0);
}

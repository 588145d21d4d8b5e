//! Connections: what the network makes of a machine's links, which are the agent's own, and frames on them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use muster_protocol::links::{BadFrames, Dial, Links, Sent, Stage, Want};
use muster_protocol::{Input, Time};
use muster_wire::{Frame, MachineId, WireError};
use rand::RngExt;
use rand::seq::SliceRandom;

use super::chance::{MS, S};
use super::event::{Event, LinkId, Slot};
use super::host::{Host, Power};
use super::network::Lost;
use super::{PORT, World, signed};
use crate::scenario::Differs;
use crate::watch::Seen;

/// A connection, authenticated at both ends.
#[derive(Debug)]
pub(crate) struct Link {
    generation: u32,
    slots: [Slot; 2],
    ids: [MachineId; 2],
    /// What came at each end that was no frame.
    bad: [BadFrames; 2],
    /// Whether someone will look if it still works.
    doubted: bool,
}

/// An end that hears nothing notices after this time.
const KEEPALIVE_S: [f64; 2] = [8.0, 15.0];

impl Link {
    fn end(&self, slot: Slot) -> usize {
        usize::from(self.slots[1] == slot)
    }
}

impl World {
    /// Where a machine listens.
    pub(super) fn socket(slot: Slot) -> SocketAddr {
        SocketAddr::new(Self::ip(slot), PORT)
    }

    /// The links of a process that starts. Where nobody hears everybody, its image names peers.
    pub(super) fn links_of_new(&mut self, slot: Slot) {
        let discovery = &self.scenario.discovery;
        let peers = if discovery.segment { &[][..] } else { &discovery.seeds[..] };
        let peers = peers.iter().map(|peer| Self::socket(*peer).to_string()).collect();
        let host = &mut self.hosts[slot as usize];
        host.links = Links::new(host.me, peers, self.net.connections_max(), host.clock.show(self.now));
        host.links.listens(Self::socket(slot), true);
        host.links_at = None;
    }

    /// Tells a machine's links something, and does what they want.
    fn tell_links(&mut self, slot: Slot, tell: impl FnOnce(&mut Links<LinkId, Frame>, Time)) {
        let host = &mut self.hosts[slot as usize];
        tell(&mut host.links, host.clock.show(self.now));
        self.follow_links(slot);
    }

    /// Does what a machine's links want.
    pub(super) fn follow_links(&mut self, slot: Slot) {
        while let Some(want) = self.hosts[slot as usize].links.wanted() {
            match want {
                Want::Dial(dial) => self.dial(slot, dial),
                Want::Close(link) => self.close(link),
                Want::Reached(machine, address) => self.feed(slot, Input::Reached { machine, address }),
                Want::Connected(machine) => self.feed(slot, Input::Connected(machine)),
                Want::Disconnected(machine) => {
                    self.raft_unreachable(slot, machine);
                    self.feed(slot, Input::Disconnected(machine));
                }
                // There are no names here, and nobody who asks what came of a hint.
                Want::LookUp(_) | Want::Came(..) => {}
            }
        }
        self.set_links_alarm(slot);
    }

    fn set_links_alarm(&mut self, slot: Slot) {
        let host = &mut self.hosts[slot as usize];
        let Some(due) = host.links.due() else { return };
        let at = host.clock.when(due).max(self.now);
        // An alarm that rings too early only looks again.
        if host.links_at.is_none_or(|alarm| at < alarm || alarm < self.now) {
            host.links_at = Some(at);
            let life = host.life;
            self.events.push(at, Event::Links { slot, life });
        }
    }

    /// It is time for a machine's links.
    pub(super) fn wake_links(&mut self, slot: Slot, life: u32) {
        let host = &mut self.hosts[slot as usize];
        if host.life == life && host.links_at == Some(self.now) {
            host.links_at = None;
            if host.up() {
                self.tell_links(slot, |links, now| links.wake(now));
            }
        }
    }

    /// The clock was set, or goes on: the links' alarm is for another moment now.
    pub(super) fn reset_links_alarm(&mut self, slot: Slot) {
        if self.hosts[slot as usize].up() {
            self.hosts[slot as usize].links_at = None;
            self.set_links_alarm(slot);
        }
    }

    /// Hints come in by multicast: those this machine could hear of now, and does not reach yet.
    pub(super) fn discover(&mut self, slot: Slot, life: u32) {
        if self.hosts[slot as usize].life != life || !self.scenario.discovery.segment {
            return;
        }
        let room = self.hosts[slot as usize].links.lacking();
        if room > 0 && !self.hosts[slot as usize].paused {
            let mut heard: Vec<Slot> = (0..self.hosts.len() as Slot).collect();
            heard.retain(|other| *other != slot && self.hosts[*other as usize].power == Power::On);
            heard.retain(|other| !self.linked(slot, *other));
            if heard.len() > room {
                heard.shuffle(self.chance.rng());
                heard.truncate(room);
            }
            for other in heard {
                // It is lost and cut off like anything else.
                let loss = self.net.loss(other, slot);
                if self.net.cuts(other, slot) {
                    continue;
                }
                if self.chance.happens(loss) {
                    self.net.loses(other, slot);
                } else {
                    let whom = self.hosts[other as usize].me;
                    self.tell_links(slot, |links, now| links.discovered(now, whom, Self::socket(other)));
                }
            }
        }
        let again = self.chance.draw(self.scenario.discovery.repeat_s, S);
        self.events.push(self.now + again, Event::Discover { slot, life });
    }

    fn linked(&self, slot: Slot, other: Slot) -> bool {
        let host = &self.hosts[slot as usize];
        let id = self.hosts[other as usize].me;
        host.links.connections_of(id).any(|link| self.other_end(link, slot) == Some(other))
    }

    fn other_end(&self, link: LinkId, slot: Slot) -> Option<Slot> {
        self.link(link).map(|link| link.slots[1 - link.end(slot)])
    }

    fn link(&self, id: LinkId) -> Option<&Link> {
        self.links[id.place as usize].as_ref().filter(|link| link.generation == id.generation)
    }

    /// A machine's addresses are known.
    pub(super) fn learn(&mut self, slot: Slot, machine: MachineId, addresses: &[String]) {
        self.tell_links(slot, |links, now| links.learn(now, machine, addresses));
    }

    fn dial(&mut self, from: Slot, dial: Dial) {
        let Some(to) = dial.at.iter().find_map(|address| self.slot_at(&address.to_string())) else {
            return self.tell_links(from, |links, _| _ = links.dial_failed(dial.number));
        };
        // TCP's handshake, then Noise's: three times there and back, and what was lost is sent again after a second.
        let mut takes = self.net.latency(&self.chance, from, to) * 6 + self.chance.draw([0.2, 1.5], MS);
        let loss = self.net.loss(from, to).max(self.net.loss(to, from));
        while takes < 10_000_000 && self.chance.happens(loss) {
            self.net.loses(from, to);
            takes += 1_000_000;
        }
        let life = self.hosts[from as usize].life;
        self.events.push(self.now + takes, Event::Dialled { from, to, life, number: dial.number, whom: dial.to });
    }

    pub(super) fn dialled(&mut self, [from, to]: [Slot; 2], life: u32, number: u64, whom: Option<MachineId>) {
        if self.hosts[from as usize].life != life {
            return;
        }
        let reached = self.hosts[from as usize].up()
            && self.hosts[to as usize].up()
            && !self.net.cuts(from, to)
            && !self.net.cuts(to, from);
        if !reached || !self.shake_hands(from, to) {
            return self.tell_links(from, |links, _| _ = links.dial_failed(number));
        }
        let ids = [from, to].map(|slot| self.hosts[slot as usize].me);
        let other = ids[0] != ids[1] && whom.is_some_and(|whom| whom != ids[1]);
        if ids[0] == ids[1] || other || !self.has_room(from, to, ids) {
            return self.tell_links(from, |links, now| {
                if ids[0] == ids[1] {
                    links.is_myself(Self::socket(to));
                } else if other {
                    links.another_at(now, Self::socket(to));
                }
                links.dial_failed(number);
            });
        }
        let link = self.join_ends([from, to], ids);
        for (end, at, dial) in [(0, Self::socket(to), Some(number)), (1, Self::socket(from), None)] {
            let host = &mut self.hosts[[from, to][end] as usize];
            host.links.connected(host.clock.show(self.now), link, ids[1 - end], at, dial);
        }
        self.follow_links(from);
        self.follow_links(to);
    }

    /// Whether the two have one mesh key. If not, each has heard noise.
    fn shake_hands(&mut self, from: Slot, to: Slot) -> bool {
        self.cost(from, to, |strange| strange.dials += 1);
        let keys = [self.differs(from), self.differs(to)].map(|differs| differs == Some(Differs::MeshKey));
        for (slot, other, whom) in [(from, to, Self::socket(to).to_string()), (to, from, Self::address(from))] {
            let host = &mut self.hosts[slot as usize];
            if keys[0] == keys[1] {
                host.handshakes.came_through(Self::ip(other));
                continue;
            }
            let why = host.handshakes.failed(Some(Self::ip(other)), Stage::Fenced, false).told();
            if let Some(why) = why.filter(|_| host.handshakes.is_news(host.clock.show(self.now), &whom)) {
                self.feed(slot, Input::TurnedAway { whom, why });
            }
        }
        keys[0] == keys[1]
    }

    /// Whether both have room for one more connection. Of two machines of one identity, the streams of the later one displace those
    /// of the former.
    fn has_room(&mut self, from: Slot, to: Slot, ids: [MachineId; 2]) -> bool {
        for (slot, peer, other) in [(from, ids[1], to), (to, ids[0], from)] {
            let links: Vec<LinkId> = self.hosts[slot as usize].links.connections_of(peer).collect();
            let twins = links.into_iter().filter(|id| self.other_end(*id, slot) != Some(other));
            twins.collect::<Vec<_>>().into_iter().for_each(|id| self.close(id));
        }
        // Whoever has none refuses, and makes some for whoever comes next.
        let full = [from, to].map(|slot| self.hosts[slot as usize].links.is_full());
        for slot in [from, to].into_iter().zip(full).filter_map(|(slot, full)| full.then_some(slot)) {
            self.tell_links(slot, |links, now| links.make_room(now));
        }
        full == [false, false]
    }

    fn join_ends(&mut self, slots: [Slot; 2], ids: [MachineId; 2]) -> LinkId {
        self.link_generation += 1;
        let generation = self.link_generation;
        let link = Link { generation, slots, ids, bad: Default::default(), doubted: false };
        let place = match self.free_links.pop() {
            Some(place) => {
                self.links[place as usize] = Some(link);
                place
            }
            None => {
                self.links.push(Some(link));
                self.links.len() as u32 - 1
            }
        };
        self.cost(slots[0], slots[1], |strange| strange.connections += 1);
        LinkId { place, generation }
    }

    /// Both ends lose the link now.
    pub(super) fn close(&mut self, id: LinkId) {
        if self.link(id).is_none() {
            return;
        }
        let Some(link) = self.links[id.place as usize].take() else { return };
        self.free_links.push(id.place);
        for slot in link.slots {
            self.tell_links(slot, |links, now| _ = links.closed(now, id));
        }
    }

    /// The process of `slot` is gone: its own links with it, and the peers learn of it when the network tells them.
    pub(super) fn links_of_dead(&mut self, slot: Slot) {
        let dark = self.dark[slot as usize];
        let links: Vec<LinkId> = self.hosts[slot as usize].links.connections().collect();
        self.hosts[slot as usize].links = Host::no_links();
        for id in links {
            let Some(link) = self.link(id) else { continue };
            let other = link.slots[1 - link.end(slot)];
            let told = !dark && !self.net.cuts(slot, other);
            let after =
                if told { self.net.latency(&self.chance, slot, other) } else { self.chance.draw(KEEPALIVE_S, S) };
            self.events.push(self.now + after, Event::Silent { link: id });
        }
    }

    /// A partition or a pause began: whoever is affected notices by silence.
    pub(super) fn doubt_links(&mut self) {
        for place in 0..self.links.len() {
            let Some(link) = &self.links[place] else { continue };
            let [a, b] = link.slots;
            let quiet = self.net.blocked(a, b)
                || self.net.blocked(b, a)
                || !self.hosts[a as usize].up()
                || !self.hosts[b as usize].up();
            if !quiet || link.doubted {
                continue;
            }
            let id = LinkId { place: place as u32, generation: link.generation };
            let after = self.chance.draw(KEEPALIVE_S, S);
            self.events.push(self.now + after, Event::Silent { link: id });
            if let Some(link) = &mut self.links[place] {
                link.doubted = true;
            }
        }
    }

    pub(super) fn silent(&mut self, id: LinkId) {
        let Some(link) = self.link(id) else { return };
        let [a, b] = link.slots;
        let holds = |slot: Slot| {
            let host = &self.hosts[slot as usize];
            host.up() && host.links.stands(id)
        };
        if holds(a) && holds(b) && !self.net.cuts(a, b) && !self.net.cuts(b, a) {
            if let Some(link) = &mut self.links[id.place as usize] {
                link.doubted = false;
            }
            return;
        }
        self.close(id);
    }

    /// The core does not want this machine.
    pub(super) fn refuse(&mut self, slot: Slot, machine: MachineId, rest: Duration, why: &str) {
        self.see(Seen::Refused { slot, whom: machine, why });
        self.tell_links(slot, |links, now| links.refuse(now, machine, rest));
    }

    /// Sends a frame, dialling if no link stands.
    pub(super) fn send(&mut self, slot: Slot, to: MachineId, frame: Frame) {
        let founding =
            matches!(frame, Frame::Prepare(_) | Frame::Promise(_) | Frame::Accept { .. } | Frame::Accepted { .. });
        let raft = matches!(frame, Frame::RaftCall { .. } | Frame::RaftAnswer { .. });
        if (founding || raft) && !self.elsewhere(slot) {
            let machine = self.hosts[slot as usize].me;
            self.watch.see(self.now, &Seen::Said { slot, machine, frame: &frame });
        }
        self.send_over(slot, to, frame);
    }

    fn send_over(&mut self, slot: Slot, to: MachineId, frame: Frame) {
        let host = &mut self.hosts[slot as usize];
        let now = host.clock.show(self.now);
        let Sent::Now(frame, waited) = host.links.send(now, to, frame, |frame| frame.encode().len()) else {
            // It may want to dial.
            return self.follow_links(slot);
        };
        let Some(link) = host.links.over(to) else { return };
        for frame in std::iter::once(frame).chain(waited) {
            self.transmit(slot, link, to, frame);
        }
    }

    fn transmit(&mut self, slot: Slot, id: LinkId, to: MachineId, frame: Frame) {
        let Some(link) = self.link(id) else { return };
        let other = link.slots[1 - link.end(slot)];
        let bytes = frame.encode();
        let host = &mut self.hosts[slot as usize];
        host.sent += 1;
        host.sent_bytes += bytes.len() as u64;
        host.sent_swim += u64::from(matches!(frame, Frame::Swim(_)));
        let machine = host.me;
        self.cost(slot, other, |strange| strange.frames += 1);
        if !self.judged_apart(slot) {
            self.watch.see(self.now, &Seen::Sent { slot, machine, to, to_slot: other, frame: &frame, bytes: &bytes });
        }
        let fate = self.net.fate(&mut self.chance, self.now, slot, other, bytes.len());
        self.watch.on_its_way(self.now, slot, other, frame.kind(), &fate.arrivals);
        if let Some(why) = fate.lost {
            return self.watch.lost(why);
        }
        let copies = fate.arrivals.len();
        let mut frame = Some(Box::new(frame));
        for (nth, (at, changed)) in fate.arrivals.into_iter().enumerate() {
            let event = if changed {
                let (corrupt, original) = (self.corrupt(&bytes), || Frame::decode(bytes.clone().into()).ok());
                if let Ok(decoded) = Frame::decode(corrupt.clone())
                    && let Some(what) = original().and_then(|original| signed::forged(&original, &decoded))
                {
                    self.see(Seen::Forged { slot: other, what });
                }
                Event::DeliverBytes { to: other, link: id, bytes: Box::new(corrupt) }
            } else {
                let one = if nth + 1 == copies { frame.take() } else { frame.clone() };
                // What was sent is what the bytes decode to: the codec's tests hold that, and a sample here.
                match one {
                    Some(frame) => Event::Deliver { to: other, link: id, frame },
                    None => continue,
                }
            };
            self.events.push(at, event);
        }
    }

    fn corrupt(&mut self, bytes: &[u8]) -> Bytes {
        let mut bytes = bytes.to_vec();
        let rng = self.chance.rng();
        match rng.random_range(0..4) {
            0 => bytes.truncate(rng.random_range(0..=bytes.len())),
            _ => {
                for _ in 0..rng.random_range(1..4) {
                    let place = rng.random_range(0..bytes.len());
                    bytes[place] ^= 1 << rng.random_range(0..8);
                }
            }
        }
        bytes.into()
    }

    pub(super) fn deliver(&mut self, to: Slot, id: LinkId, frame: Frame) {
        let Some(link) = self.link(id) else { return self.watch.lost(Lost::LinkGone) };
        let (from, host) = (link.ids[1 - link.end(to)], &self.hosts[to as usize]);
        if !host.links.stands(id) {
            return self.watch.lost(Lost::LinkGone);
        }
        if !host.links.hears(host.clock.show(self.now), from) {
            return self.watch.lost(Lost::Refused);
        }
        self.watch.delivered(self.now, to);
        self.answer_two_ways(to, from, &frame);
        match frame {
            Frame::RaftCall { call, body } => self.raft_called(to, from, call, body),
            Frame::RaftAnswer { call, body } => self.raft_answered(to, from, call, body),
            frame => self.feed(to, Input::Received { from, frame }),
        }
    }

    pub(super) fn deliver_bytes(&mut self, to: Slot, id: LinkId, bytes: Bytes) {
        match Frame::decode(bytes) {
            // Noise would have caught the change. What carries its own signatures is let through all the same: if a change
            // got past those, someone could forge.
            Ok(frame @ (Frame::Accepted { .. } | Frame::Chartered { .. } | Frame::Cards(_))) => {
                self.deliver(to, id, frame)
            }
            Ok(_) => self.watch.lost(Lost::Corrupt),
            Err(error) => {
                self.watch.lost(Lost::Corrupt);
                self.bad_frame(to, id, &error);
            }
        }
    }

    /// Something came that is no frame: people are told, and whoever sends too much of it is left alone for a while.
    fn bad_frame(&mut self, to: Slot, id: LinkId, why: &WireError) {
        let Some(link) = self.links[id.place as usize].as_mut().filter(|link| link.generation == id.generation) else {
            return;
        };
        let end = link.end(to);
        let (machine, whom) = (link.ids[1 - end], link.ids[1 - end].to_string());
        link.bad[end].came(why);
        let offends = link.bad[end].are_too_many();
        let host = &mut self.hosts[to as usize];
        if host.handshakes.is_news(host.clock.show(self.now), &whom) {
            self.feed(to, Input::TurnedAway { whom, why: why.to_string().into() });
        }
        if offends {
            self.tell_links(to, |links, now| links.offended(now, machine));
        }
    }
}

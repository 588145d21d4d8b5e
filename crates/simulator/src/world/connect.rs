//! Connections: who hears of whom, dials, links and their end, and frames on them.

use bytes::Bytes;
use muster_protocol::Input;
use muster_wire::{Frame, MachineId, limits};
use rand::RngExt;
use rand::seq::SliceRandom;

use super::chance::{MS, S};
use super::event::{At, Event, LinkId, Slot};
use super::host::Power;
use super::{World, signed};
use crate::scenario::Differs;
use crate::watch::Seen;

/// A connection, authenticated at both ends.
#[derive(Debug)]
pub(crate) struct Link {
    generation: u32,
    slots: [Slot; 2],
    ids: [MachineId; 2],
    since: At,
    used: At,
    /// Whether someone will look if it still works.
    doubted: bool,
}

/// An end that hears nothing notices after this time.
const KEEPALIVE_S: [f64; 2] = [8.0, 15.0];
/// Dials beyond this many at once wait for the next hints.
const DIALS_MAX: usize = 64;
/// After a refusal the machine is not dialled for this long.
const REFUSED_FOR: At = 60_000_000;
/// In a large site a link that nobody used for this long is closed: a ledger poll, which may be held for half of it, is use.
const IDLE: At = 60_000_000;
/// The same where room is scarce.
const IDLE_FILLED: At = 5_000_000;
/// As the agent has it: links to one machine that come within this time are those of two that dialled each other at once.
const AT_ONCE: At = 3_000_000;
/// Shortest time between two looks at which links are unused.
const TIDY_PAUSE: At = 1_000_000;

impl Link {
    fn end(&self, slot: Slot) -> usize {
        usize::from(self.slots[1] == slot)
    }

    /// Under what the machine at this end keeps it.
    fn key(&self, slot: Slot) -> (MachineId, u32) {
        (self.ids[1 - self.end(slot)], self.generation)
    }
}

impl World {
    /// Hints come in: those this machine could hear of now, and does not reach yet.
    pub(super) fn discover(&mut self, slot: Slot, life: u32) {
        if self.hosts[slot as usize].life != life {
            return;
        }
        let discovery = &self.scenario.discovery;
        let room = self.links_lacking(slot);
        if room > 0 && !self.hosts[slot as usize].paused {
            let mut heard: Vec<Slot> =
                if discovery.segment { (0..self.hosts.len() as Slot).collect() } else { discovery.seeds.clone() };
            heard.retain(|other| *other != slot && self.hosts[*other as usize].power == Power::On);
            heard.retain(|other| !self.linked(slot, *other));
            if heard.len() > room.min(DIALS_MAX) {
                heard.shuffle(self.chance.rng());
                heard.truncate(room.min(DIALS_MAX));
            }
            for other in heard {
                // A hint is multicast; it is lost and cut off like anything else.
                let loss = self.net.loss(other, slot);
                if self.net.cuts(other, slot) {
                    continue;
                }
                if self.chance.happens(loss) {
                    self.net.loses(other, slot);
                } else {
                    self.dial(slot, other);
                }
            }
        }
        let again = self.chance.draw(self.scenario.discovery.repeat_s, S);
        self.events.push(self.now + again, Event::Discover { slot, life });
    }

    /// How many more connections a machine looks for, those under way counted.
    fn links_lacking(&self, slot: Slot) -> usize {
        let host = &self.hosts[slot as usize];
        limits::MESH_FULL.min(self.net.connections_max()).saturating_sub(host.links.len() + host.dialling.len())
    }

    /// Closes links that nobody used, longest idle first, while there are more than a large site needs: as the agent does, when
    /// one more comes or finds no room.
    fn close_idle(&mut self, slot: Slot) {
        let host = &mut self.hosts[slot as usize];
        let (count, max) = (host.links.len(), self.net.connections_max());
        let filled = max.min(limits::MESH_FILLED);
        if count <= limits::MESH_CROWDED.min(filled) || self.now < host.tidied + TIDY_PAUSE {
            return;
        }
        host.tidied = self.now;
        let (keep, unused_for) = if count > filled { (filled, IDLE_FILLED) } else { (limits::MESH_CROWDED, IDLE) };
        let unused =
            |id: &LinkId| self.link(*id).map(|link| (link.used, *id)).filter(|(used, _)| used + unused_for < self.now);
        let mut unused: Vec<(At, LinkId)> = self.hosts[slot as usize].links.values().filter_map(unused).collect();
        unused.sort_unstable_by_key(|(used, id)| (*used, id.place));
        for (_, link) in unused.into_iter().take(count.saturating_sub(keep)) {
            self.close(link);
        }
    }

    fn linked(&self, slot: Slot, other: Slot) -> bool {
        let id = self.hosts[other as usize].me;
        self.hosts[slot as usize].links_to(id).any(|link| self.other_end(link, slot) == Some(other))
    }

    fn other_end(&self, link: LinkId, slot: Slot) -> Option<Slot> {
        self.link(link).map(|link| link.slots[1 - link.end(slot)])
    }

    fn link(&self, id: LinkId) -> Option<&Link> {
        self.links[id.place as usize].as_ref().filter(|link| link.generation == id.generation)
    }

    /// A machine's addresses are known.
    pub(super) fn learn(&mut self, slot: Slot, machine: MachineId, addresses: &[String]) {
        if self.hosts[slot as usize].link_to(machine).is_some() {
            return;
        }
        if self.links_lacking(slot) > 0
            && let Some(other) = addresses.iter().find_map(|address| self.slot_at(address))
        {
            self.dial(slot, other);
        }
    }

    fn dial(&mut self, from: Slot, to: Slot) {
        let host = &mut self.hosts[from as usize];
        if from == to || !host.dialling.insert(to) {
            return;
        }
        let life = host.life;
        // TCP's handshake, then Noise's: three times there and back, and what was lost is sent again after a second.
        let mut takes = self.net.latency(&self.chance, from, to) * 6 + self.chance.draw([0.2, 1.5], MS);
        let loss = self.net.loss(from, to).max(self.net.loss(to, from));
        while takes < 10_000_000 && self.chance.happens(loss) {
            self.net.loses(from, to);
            takes += 1_000_000;
        }
        self.events.push(self.now + takes, Event::Dialled { from, to, life });
    }

    pub(super) fn dialled(&mut self, from: Slot, to: Slot, life: u32) {
        if self.hosts[from as usize].life != life {
            return;
        }
        self.hosts[from as usize].dialling.remove(&to);
        let waiting = self.hosts[from as usize].waiting.remove(&to).unwrap_or_default();
        let reached = self.hosts[from as usize].up()
            && self.hosts[to as usize].up()
            && !self.net.cuts(from, to)
            && !self.net.cuts(to, from);
        if !reached {
            return;
        }
        self.cost(from, to, |strange| strange.dials += 1);
        let keys = [self.differs(from), self.differs(to)].map(|differs| differs == Some(Differs::MeshKey));
        if keys[0] != keys[1] {
            for (slot, other) in [(from, to), (to, from)] {
                let whom = Self::address(other);
                self.feed(slot, Input::TurnedAway { whom, why: "another mesh key".into() });
            }
            return;
        }
        let ids = [self.hosts[from as usize].me, self.hosts[to as usize].me];
        let now = self.now;
        let refused = |slot: Slot, peer| self.hosts[slot as usize].refused.get(&peer).is_some_and(|until| *until > now);
        if ids[0] == ids[1] || refused(from, ids[1]) || refused(to, ids[0]) {
            return;
        }
        if !self.linked(from, to) {
            self.drop_former(from, ids[1], to, At::MAX);
            self.drop_former(to, ids[0], from, AT_ONCE);
            self.close_idle(from);
            self.close_idle(to);
            let room = |slot: Slot| self.hosts[slot as usize].links.len() < self.net.connections_max();
            if !room(from) || !room(to) {
                return;
            }
            self.join_ends([from, to], ids);
        }
        for (whom, frame) in waiting {
            if whom == ids[1] {
                self.send_over(from, whom, frame);
            }
        }
    }

    /// Closes links that a new one ends: a machine that dials and has no link any more lost its power and is back; and of two
    /// machines of one identity, the streams of the later one displace those of the former.
    fn drop_former(&mut self, slot: Slot, peer: MachineId, other: Slot, at_once: At) {
        let links: Vec<LinkId> = self.hosts[slot as usize].links_to(peer).collect();
        for id in links {
            let twin = self.other_end(id, slot) != Some(other);
            if twin || self.link(id).is_some_and(|link| self.now.saturating_sub(link.since) > at_once) {
                self.close(id);
            }
        }
    }

    fn join_ends(&mut self, slots: [Slot; 2], ids: [MachineId; 2]) {
        self.link_generation += 1;
        let generation = self.link_generation;
        let link = Link { generation, slots, ids, since: self.now, used: self.now, doubted: false };
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
        let id = LinkId { place, generation };
        self.cost(slots[0], slots[1], |strange| strange.connections += 1);
        for end in 0..2 {
            let (slot, peer) = (slots[end], ids[1 - end]);
            let first = self.hosts[slot as usize].link_to(peer).is_none();
            self.hosts[slot as usize].links.insert((peer, generation), id);
            if first {
                let address = Self::ip(slots[1 - end]);
                self.feed(slot, Input::Reached { machine: peer, address });
                self.feed(slot, Input::Connected(peer));
            }
        }
    }

    /// Both ends lose the link now.
    pub(super) fn close(&mut self, id: LinkId) {
        if self.link(id).is_none() {
            return;
        }
        let Some(link) = self.links[id.place as usize].take() else { return };
        self.free_links.push(id.place);
        for end in 0..2 {
            let (slot, peer) = (link.slots[end], link.ids[1 - end]);
            let host = &mut self.hosts[slot as usize];
            host.links.remove(&(peer, id.generation));
            if host.link_to(peer).is_none() {
                self.feed(slot, Input::Disconnected(peer));
                self.raft_unreachable(slot, peer);
            }
        }
    }

    /// The process of `slot` is gone: its own links with it, and the peers learn of it when the network tells them.
    pub(super) fn links_of_dead(&mut self, slot: Slot) {
        let dark = self.dark[slot as usize];
        for id in std::mem::take(&mut self.hosts[slot as usize].links).into_values() {
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
            host.up() && host.links.contains_key(&link.key(slot))
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
    pub(super) fn refuse(&mut self, slot: Slot, machine: MachineId, why: &str) {
        self.see(Seen::Refused { slot, whom: machine, why });
        let until = self.now + REFUSED_FOR;
        self.hosts[slot as usize].refused.insert(machine, until);
        while let Some(link) = self.hosts[slot as usize].link_to(machine) {
            self.close(link);
        }
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
        if let Some(link) = self.hosts[slot as usize].link_to(to) {
            return self.transmit(slot, link, to, frame);
        }
        let Some(other) = self.directory.get(&to).copied() else { return };
        if self.hosts[slot as usize].refused.get(&to).is_some_and(|until| *until > self.now) {
            return;
        }
        let queue = self.hosts[slot as usize].waiting.entry(other).or_default();
        if queue.len() < limits::DIAL_QUEUE_MAX {
            queue.push((to, frame));
        }
        self.dial(slot, other);
    }

    fn transmit(&mut self, slot: Slot, id: LinkId, to: MachineId, frame: Frame) {
        let Some(link) = self.links[id.place as usize].as_mut().filter(|link| link.generation == id.generation) else {
            return;
        };
        link.used = self.now;
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
        let Some(link) = self.link(id) else { return self.watch.lost("link gone") };
        let from = link.ids[1 - link.end(to)];
        if !self.hosts[to as usize].links.contains_key(&link.key(to)) {
            return self.watch.lost("link gone");
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
            Ok(_) => self.watch.lost("corrupt"),
            Err(error) => {
                let Some(link) = self.link(id) else { return };
                let whom = link.ids[1 - link.end(to)].to_string();
                self.watch.lost("corrupt");
                self.feed(to, Input::TurnedAway { whom, why: error.to_string() });
            }
        }
    }
}

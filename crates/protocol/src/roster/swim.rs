//! SWIM membership (Das, Gupta, Motivala, "SWIM", DSN 2002), by foca, with signed cards as what it disseminates.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use foca::{Codec, Foca, Header, Identity, Notification, PeriodicParams, Timer};
use muster_wire::{BootCount, MachineId, SignedCard, limits};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::cards::Cards;
use crate::Time;

/// SWIM's name of a machine: a later boot, and a later life within a boot, win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    #[serde(with = "whole")]
    pub(crate) machine: MachineId,
    pub(crate) boot: BootCount,
    life: u32,
}

impl Life {
    pub(crate) fn new(machine: MachineId, boot: BootCount) -> Self {
        Self { machine, boot, life: 0 }
    }
}

impl Identity for Life {
    type Addr = MachineId;

    fn renew(&self) -> Option<Self> {
        Some(Self { life: self.life.wrapping_add(1), ..self.clone() })
    }

    fn addr(&self) -> MachineId {
        self.machine
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.boot, self.life) > (adversary.boot, adversary.life)
    }
}

/// An identity as one piece of bytes: serde would take its 32 bytes one by one, several times for every datagram.
mod whole {
    use muster_wire::MachineId;
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(machine: &MachineId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&machine.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MachineId, D::Error> {
        deserializer.deserialize_bytes(Identity)
    }

    struct Identity;

    impl Visitor<'_> for Identity {
        type Value = MachineId;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the 32 bytes of an identity")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<MachineId, E> {
            MachineId::from_slice(bytes, "datagram.machine").map_err(E::custom)
        }
    }
}

/// SWIM datagrams live for one hop between machines of one protocol version, which is what bincode is fit for.
#[derive(Debug, Clone, Copy)]
struct Datagrams;

/// Largest header or member in bytes: three identities of 32 bytes, some numbers, and room.
const ITEM_BYTES_MAX: usize = 256;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<ITEM_BYTES_MAX>()
}

#[derive(Debug, thiserror::Error)]
enum DatagramError {
    #[error("no room")]
    NoRoom,
    #[error("encode: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    #[error("decode: {0}")]
    Decode(#[from] bincode::error::DecodeError),
}

fn put(value: &impl Serialize, mut buffer: impl BufMut) -> Result<(), DatagramError> {
    let mut bytes = [0; ITEM_BYTES_MAX];
    let length = bincode::serde::encode_into_slice(value, &mut bytes, config())?;
    if buffer.remaining_mut() < length {
        return Err(DatagramError::NoRoom);
    }
    buffer.put_slice(&bytes[..length]);
    Ok(())
}

fn take<T: for<'de> Deserialize<'de>>(mut buffer: impl Buf) -> Result<T, DatagramError> {
    // foca hands over contiguous buffers.
    let (value, length) = bincode::serde::decode_from_slice(buffer.chunk(), config())?;
    buffer.advance(length);
    Ok(value)
}

impl Codec<Life> for Datagrams {
    type Error = DatagramError;

    fn encode_header(&mut self, header: &Header<Life>, buffer: impl BufMut) -> Result<(), DatagramError> {
        put(header, buffer)
    }

    fn decode_header(&mut self, buffer: impl Buf) -> Result<Header<Life>, DatagramError> {
        take(buffer)
    }

    fn encode_member(&mut self, member: &foca::Member<Life>, buffer: impl BufMut) -> Result<(), DatagramError> {
        put(member, buffer)
    }

    fn decode_member(&mut self, buffer: impl Buf) -> Result<foca::Member<Life>, DatagramError> {
        take(buffer)
    }
}

/// What SWIM wants done, gathered during one call of foca.
#[derive(Default)]
struct Gathered {
    send: Vec<(MachineId, Bytes)>,
    schedule: Vec<(Duration, Timer<Life>)>,
    /// Machines that came up or went down, in order.
    turned: Vec<(MachineId, bool)>,
}

impl foca::Runtime<Life> for Gathered {
    fn notify(&mut self, notification: Notification<'_, Life>) {
        // A machine that takes a new life without having been down is told as a change of name only: it stays up.
        match notification {
            Notification::MemberUp(life) => self.turned.push((life.machine, true)),
            Notification::MemberDown(life) => self.turned.push((life.machine, false)),
            _ => {}
        }
    }

    fn send_to(&mut self, to: Life, data: &[u8]) {
        self.send.push((to.machine, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Life>, after: Duration) {
        self.schedule.push((after, event));
    }
}

/// foca and its timers.
pub(crate) struct Swim {
    foca: Foca<Life, Datagrams, ChaCha8Rng, Cards>,
    me: Life,
    size: u32,
    period: Duration,
    timers: BTreeMap<(Time, u64), Timer<Life>>,
    timers_set: u64,
    cards: Cards,
    outbox: VecDeque<(MachineId, Bytes)>,
    up: BTreeSet<MachineId>,
    /// Machines that came up or went down since someone asked.
    turned: BTreeSet<MachineId>,
    dropped: u64,
    /// When those that are held for dead are asked, while nobody is held for alive.
    alone: Option<Time>,
}

/// So many periods pass between two questions to those that are held for dead.
const TO_DEAD: u32 = 12;

/// So many of them at most are asked at once where nobody is held for alive.
const ALONE_MAX: usize = 8;

impl Swim {
    pub(crate) fn new(me: Life, size: u32, known_max: usize, period: Duration, rng: &mut ChaCha8Rng) -> Self {
        let cards = Cards::new(known_max, size as usize > limits::MESH_FULL);
        let rng = ChaCha8Rng::from_rng(rng);
        let config = swim_config(size, period);
        Self {
            foca: Foca::with_custom_broadcast(me.clone(), config, rng, Datagrams, cards.clone()),
            me,
            size,
            period,
            timers: BTreeMap::new(),
            timers_set: 0,
            cards,
            outbox: VecDeque::new(),
            up: BTreeSet::new(),
            turned: BTreeSet::new(),
            dropped: 0,
            alone: None,
        }
    }

    /// Goes on with another period.
    pub(crate) fn change_period(&mut self, now: Time, period: Duration, rng: &mut ChaCha8Rng) {
        if period != self.period {
            self.period = period;
            self.begin_anew(now, |_| true, rng);
        }
    }

    /// Goes on without some of its members: they are neither probed nor told of any more.
    pub(crate) fn leave_out(&mut self, now: Time, out: &BTreeSet<MachineId>, rng: &mut ChaCha8Rng) {
        if self.foca.iter_membership_state().any(|member| out.contains(&member.id().machine)) {
            let gone: Vec<MachineId> = self.up.intersection(out).copied().collect();
            self.up.retain(|machine| !out.contains(machine));
            self.turned.extend(gone);
            self.begin_anew(now, |machine| !out.contains(&machine), rng);
        }
    }

    /// foca can change neither its period nor forget a member in place, so it begins anew with the members and cards it has.
    fn begin_anew(&mut self, now: Time, stays: impl Fn(MachineId) -> bool, rng: &mut ChaCha8Rng) {
        let members = self.foca.iter_membership_state().filter(|member| stays(member.id().machine));
        let members: Vec<_> = members.cloned().collect();
        // The same life goes on: datagrams are addressed to a life, so a new one would be deaf to all who know the old one,
        // and when everyone changes at once, deaf to everyone. foca refutes a suspicion of a higher incarnation than its own.
        let me = self.foca.identity().clone();
        let (config, rng) = (swim_config(self.size, self.period), ChaCha8Rng::from_rng(rng));
        self.timers.clear();
        self.foca = Foca::with_custom_broadcast(me, config, rng, Datagrams, self.cards.clone());
        self.run(now, |foca, out| foca.apply_many(members.into_iter(), false, out));
        self.cards.repeat(self.me.machine);
    }

    fn run(
        &mut self,
        now: Time,
        call: impl FnOnce(&mut Foca<Life, Datagrams, ChaCha8Rng, Cards>, &mut Gathered) -> Result<(), foca::Error>,
    ) {
        while let Some(card) = self.cards.next(self.foca.custom_broadcast_backlog()) {
            if self.foca.add_broadcast(&card.encode()).is_err() {
                self.dropped += 1;
            }
        }
        let mut gathered = Gathered::default();
        if call(&mut self.foca, &mut gathered).is_err() {
            self.dropped += 1;
        }
        self.outbox.extend(gathered.send);
        for (machine, up) in gathered.turned {
            let changed = if up { self.up.insert(machine) } else { self.up.remove(&machine) };
            if changed {
                self.turned.insert(machine);
            }
        }
        for (after, timer) in gathered.schedule {
            self.timers_set += 1;
            self.timers.insert((now + after, self.timers_set), timer);
        }
    }

    /// A datagram came. It must speak for the machine that sent it.
    pub(crate) fn datagram(&mut self, now: Time, from: MachineId, bytes: &[u8]) {
        match take::<Header<Life>>(bytes) {
            Ok(header) if header.src.machine == from => {
                // Whoever writes to an earlier life of ours missed the news of the present one, and would hold us for dead
                // when that life does not answer.
                let missed = !crate::planted::planted("life-untold")
                    && header.dst.machine == self.me.machine
                    && header.dst != *self.foca.identity();
                self.run(now, |foca, out| foca.handle_data(bytes, out));
                if missed && !matches!(header.message, foca::Message::Announce) {
                    self.run(now, |foca, out| foca.announce(header.src, out));
                }
            }
            _ => self.dropped += 1,
        }
    }

    /// Somebody told of a machine. Whether it lives, probes will show; nobody else is told.
    pub(crate) fn heard_of(&mut self, now: Time, machine: MachineId, boot: BootCount) {
        let member = foca::Member::alive(Life::new(machine, boot));
        self.run(now, |foca, out| foca.apply_many(std::iter::once(member), false, out));
    }

    /// A machine showed itself alive with this boot.
    pub(crate) fn alive(&mut self, now: Time, machine: MachineId, boot: BootCount) {
        let known = self
            .foca
            .iter_membership_state()
            .find(|member| member.id().machine == machine && member.id().boot == boot)
            .map(|member| (member.id().clone(), member.state()));
        match known {
            None => {
                let member = foca::Member::alive(Life::new(machine, boot));
                self.run(now, |foca, out| foca.apply_many(std::iter::once(member), true, out));
            }
            // It cannot know that it is held for dead here. Told so, it takes a new life at once; otherwise only the next
            // announcement to the dead would mend this, a minute later.
            Some((life, foca::State::Down)) => self.run(now, |foca, out| foca.announce(life, out)),
            Some(_) => {}
        }
    }

    /// Keeps a card that came as the answer to a question.
    pub(crate) fn hold_card(&mut self, card: &SignedCard) {
        self.cards.hold(card);
    }

    /// Lets a card travel.
    pub(crate) fn add_card(&mut self, card: &SignedCard) {
        self.cards.add(card);
    }

    /// Runs what is due.
    pub(crate) fn wake(&mut self, now: Time) {
        while let Some((key, _)) = self.timers.first_key_value().filter(|((due, _), _)| *due <= now) {
            let key = *key;
            if let Some(timer) = self.timers.remove(&key) {
                self.run(now, |foca, out| foca.handle_timer(timer, out));
            }
        }
        self.look_around(now);
    }

    /// foca probes and asks nobody while it holds nobody for alive. Two machines that hold each other for dead at one time would stay so.
    fn look_around(&mut self, now: Time) {
        let is_down = |member: &&foca::Member<Life>| member.state() == foca::State::Down;
        let mut down = self.foca.iter_membership_state().filter(is_down).peekable();
        if self.foca.num_members() > 0 || down.peek().is_none() || crate::planted::planted("alone-asks-nobody") {
            self.alone = None;
            return;
        }
        let due = *self.alone.get_or_insert(now + self.period * TO_DEAD);
        if due > now {
            return;
        }
        let asked: Vec<Life> = down.map(|member| member.id().clone()).take(ALONE_MAX).collect();
        self.alone = Some(now + self.period * TO_DEAD);
        for life in asked {
            self.run(now, |foca, out| foca.announce(life, out));
        }
    }

    pub(crate) fn next_wakeup(&self) -> Option<Time> {
        self.timers.first_key_value().map(|((due, _), _)| *due).into_iter().chain(self.alone).min()
    }

    pub(crate) fn take_cards(&mut self) -> Vec<SignedCard> {
        self.cards.take_received()
    }

    pub(crate) fn take_datagrams(&mut self) -> impl Iterator<Item = (MachineId, Bytes)> + '_ {
        self.outbox.drain(..)
    }

    /// Machines that came up or went down since the last call.
    pub(crate) fn take_turned(&mut self) -> BTreeSet<MachineId> {
        std::mem::take(&mut self.turned)
    }

    /// Whether SWIM holds another machine for alive.
    pub(crate) fn is_up(&self, machine: MachineId) -> bool {
        machine != self.me.machine && self.up.contains(&machine)
    }

    /// Whether a machine is suspected, or held for dead.
    pub(crate) fn doubts(&self, machine: MachineId) -> bool {
        let known = self.foca.iter_membership_state().find(|member| member.id().machine == machine);
        known.is_some_and(|member| member.state() != foca::State::Alive)
    }

    /// Datagrams and cards dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Intervals relative to SWIM's period. Suspicion lasts `4 * max(1, log10 n)` periods (Lifeguard, Dadgar et al., 2018).
fn swim_config(size: u32, period: Duration) -> foca::Config {
    let log = f64::from(size.max(10)).log10();
    // A machine that was cut off, and whose new life not everyone heard of, is asked by those who still hold it for dead. In a
    // large site they are not connected with it, nor greeted by it.
    let to_dead = if size as usize > limits::MESH_FULL { 8 } else { 1 };
    foca::Config {
        probe_period: period,
        probe_rtt: period / 3,
        num_indirect_probes: NonZeroUsize::new(3).expect("not zero"),
        max_transmissions: NonZeroU8::new((4.0 * log).min(200.0) as u8).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: period.mul_f64(4.0 * log),
        remove_down_after: Some(Duration::from_secs(600)),
        max_packet_size: NonZeroUsize::new(limits::SWIM_BYTES_MAX).expect("not zero"),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams { frequency: period * 30, num_members: NonZeroUsize::MIN }),
        periodic_announce_to_down_members: Some(PeriodicParams {
            frequency: period * TO_DEAD,
            num_members: NonZeroUsize::new(to_dead).expect("not zero"),
        }),
        // Sends only while there is something to tell.
        periodic_gossip: Some(PeriodicParams {
            frequency: period / 5,
            num_members: NonZeroUsize::new(3).expect("not zero"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_is_suspected_when_the_period_changes_is_held_for_dead_in_the_end() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (me, silent) = (MachineId([1; 32]), MachineId([2; 32]));
        let mut swim = Swim::new(Life::new(me, BootCount(1)), 2, 10, SECOND, &mut rng);
        let mut now = Time(0);
        swim.alive(now, silent, BootCount(1));
        // Nobody answers its probes.
        while !swim.doubts(silent) {
            now = now + SECOND / 10;
            swim.wake(now);
            assert!(now < Time(60_000_000), "it is never suspected");
        }
        assert!(swim.is_up(silent));
        swim.change_period(now, SECOND * 5, &mut rng);
        for _ in 0..1_200 {
            now = now + SECOND / 10;
            swim.wake(now);
        }
        assert!(!swim.is_up(silent), "two minutes later it is still held for alive");
    }
}

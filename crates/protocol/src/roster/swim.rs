//! SWIM membership (Das, Gupta, Motivala, "SWIM", DSN 2002), by foca, with signed cards as what it disseminates.

use std::collections::{BTreeMap, VecDeque};
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use foca::{BroadcastHandler, Codec, Foca, Header, Identity, Invalidates, Notification, PeriodicParams, Timer};
use muster_wire::{MachineId, SignedCard, limits};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::Time;

/// SWIM's name of a machine: a later boot, and a later life within a boot, win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) machine: MachineId,
    pub(crate) boot: u64,
    life: u32,
}

impl Life {
    pub(crate) fn new(machine: MachineId, boot: u64) -> Self {
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
    let bytes = bincode::serde::encode_to_vec(value, config())?;
    if buffer.remaining_mut() < bytes.len() {
        return Err(DatagramError::NoRoom);
    }
    buffer.put_slice(&bytes);
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

/// Which card a broadcast carries; a newer one of the same machine replaces it.
struct CardKey(MachineId, u64, u32);

impl Invalidates for CardKey {
    fn invalidates(&self, other: &Self) -> bool {
        self.0 == other.0 && (self.1, self.2) >= (other.1, other.2)
    }
}

/// Takes cards out of datagrams. foca owns it, so what it received waits in a shared tray for the roster.
struct Cards {
    newest: BTreeMap<MachineId, (u64, u32)>,
    received: Arc<Mutex<Vec<SignedCard>>>,
    known_max: usize,
}

impl BroadcastHandler<Life> for Cards {
    type Key = CardKey;
    type Error = muster_wire::WireError;

    fn receive_item(&mut self, data: &[u8], _sender: Option<&Life>) -> Result<Option<CardKey>, Self::Error> {
        let signed = SignedCard::decode(data)?;
        let card = signed.card();
        let version = (card.boot, card.serial);
        let known = self.newest.get(&card.machine);
        if known.is_none() && self.newest.len() >= self.known_max {
            return Ok(None);
        }
        let key = CardKey(card.machine, card.boot, card.serial);
        let fresh = known.is_none_or(|known| version > *known);
        // A card of the same version may still prove a clone by its nonce, so the roster sees it; it is not passed on.
        if fresh || known == Some(&version) {
            self.newest.insert(card.machine, version);
            self.received.lock().expect("no holder panics").push(signed);
        }
        Ok(fresh.then_some(key))
    }
}

/// What SWIM wants done, gathered during one call of foca.
#[derive(Default)]
struct Gathered {
    send: Vec<(MachineId, Bytes)>,
    schedule: Vec<(Duration, Timer<Life>)>,
    changed: bool,
}

impl foca::Runtime<Life> for Gathered {
    fn notify(&mut self, notification: Notification<'_, Life>) {
        if matches!(notification, Notification::MemberUp(_) | Notification::MemberDown(_) | Notification::Rename(..)) {
            self.changed = true;
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
    known_max: usize,
    period: Duration,
    timers: BTreeMap<(Time, u64), Timer<Life>>,
    timers_set: u64,
    received: Arc<Mutex<Vec<SignedCard>>>,
    outbox: VecDeque<(MachineId, Bytes)>,
    changed: bool,
    dropped: u64,
}

impl Swim {
    pub(crate) fn new(me: Life, size: u32, known_max: usize, period: Duration, rng: &mut ChaCha8Rng) -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let handler = Cards { newest: BTreeMap::new(), received: received.clone(), known_max };
        let rng = ChaCha8Rng::from_rng(rng);
        Self {
            foca: Foca::with_custom_broadcast(me.clone(), swim_config(size, period), rng, Datagrams, handler),
            me,
            size,
            known_max,
            period,
            timers: BTreeMap::new(),
            timers_set: 0,
            received,
            outbox: VecDeque::new(),
            changed: false,
            dropped: 0,
        }
    }

    /// Goes on with another period. foca cannot change it in place, so it begins anew with the members it has.
    pub(crate) fn change_period(&mut self, now: Time, period: Duration, cards: &[SignedCard], rng: &mut ChaCha8Rng) {
        if period == self.period {
            return;
        }
        let members: Vec<_> = self.foca.iter_membership_state().cloned().collect();
        // The same life goes on: datagrams are addressed to a life, so a new one would be deaf to all who know the old one,
        // and when everyone changes at once, deaf to everyone. foca refutes a suspicion of a higher incarnation than its own.
        let me = self.foca.identity().clone();
        *self = Self::new(me, self.size, self.known_max, period, rng);
        self.run(now, |foca, out| foca.apply_many(members.into_iter(), false, out));
        for card in cards {
            self.add_card(card);
        }
    }

    fn run(
        &mut self,
        now: Time,
        call: impl FnOnce(&mut Foca<Life, Datagrams, ChaCha8Rng, Cards>, &mut Gathered) -> Result<(), foca::Error>,
    ) {
        let mut gathered = Gathered::default();
        if call(&mut self.foca, &mut gathered).is_err() {
            self.dropped += 1;
        }
        self.outbox.extend(gathered.send);
        self.changed |= gathered.changed;
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
                let missed = header.dst.machine == self.me.machine && header.dst != *self.foca.identity();
                self.run(now, |foca, out| foca.handle_data(bytes, out));
                if missed && !matches!(header.message, foca::Message::Announce) {
                    self.run(now, |foca, out| foca.announce(header.src, out));
                }
            }
            _ => self.dropped += 1,
        }
    }

    /// A machine showed itself alive with this boot.
    pub(crate) fn alive(&mut self, now: Time, machine: MachineId, boot: u64) {
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

    /// Lets a card travel.
    pub(crate) fn add_card(&mut self, card: &SignedCard) {
        if self.foca.add_broadcast(&card.encode()).is_err() {
            self.dropped += 1;
        }
        // Our own addition needs no second look.
        self.received.lock().expect("no holder panics").retain(|received| received != card);
    }

    /// Runs what is due.
    pub(crate) fn wake(&mut self, now: Time) {
        while let Some((key, _)) = self.timers.first_key_value().filter(|((due, _), _)| *due <= now) {
            let key = *key;
            if let Some(timer) = self.timers.remove(&key) {
                self.run(now, |foca, out| foca.handle_timer(timer, out));
            }
        }
    }

    pub(crate) fn next_wakeup(&self) -> Option<Time> {
        self.timers.first_key_value().map(|((due, _), _)| *due)
    }

    pub(crate) fn take_cards(&mut self) -> Vec<SignedCard> {
        std::mem::take(&mut *self.received.lock().expect("no holder panics"))
    }

    pub(crate) fn take_datagrams(&mut self) -> impl Iterator<Item = (MachineId, Bytes)> + '_ {
        self.outbox.drain(..)
    }

    /// Whether the set of live members changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The members SWIM holds for alive, this machine not among them.
    pub(crate) fn members(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.foca.iter_members().map(|member| member.id().machine).filter(|machine| *machine != self.me.machine)
    }

    /// Datagrams and cards dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Intervals relative to SWIM's period. Suspicion lasts `4 * max(1, log10 n)` periods (Lifeguard, Dadgar et al., 2018).
fn swim_config(size: u32, period: Duration) -> foca::Config {
    let log = f64::from(size.max(10)).log10();
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
            frequency: period * 12,
            num_members: NonZeroUsize::MIN,
        }),
        // Sends only while there is something to tell.
        periodic_gossip: Some(PeriodicParams {
            frequency: period / 5,
            num_members: NonZeroUsize::new(3).expect("not zero"),
        }),
    }
}

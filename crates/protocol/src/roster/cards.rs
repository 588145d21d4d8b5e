//! Cards as SWIM carries them: what came with datagrams, and what is still to be passed on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foca::{BroadcastHandler, Invalidates};
use muster_wire::{BootCount, MachineId, SignedCard, WireError};

use super::swim::Life;

/// Most cards that foca holds at a time. It goes through all it holds for every datagram, of which each takes three; the
/// others wait for their turn here.
const TRAVELLING_MAX: usize = 24;

/// Which card a broadcast carries; a newer one of the same machine replaces it.
pub(super) struct CardKey(MachineId, BootCount, u32);

impl CardKey {
    fn of(signed: &SignedCard) -> Self {
        let card = signed.card();
        Self(card.machine, card.boot, card.serial)
    }
}

impl Invalidates for CardKey {
    fn invalidates(&self, other: &Self) -> bool {
        self.0 == other.0 && (self.1, self.2) >= (other.1, other.2)
    }
}

/// The newest card of each machine, and what is to be done about them. foca owns its handler, so the two share this.
#[derive(Default)]
pub(super) struct Tray {
    newest: BTreeMap<MachineId, SignedCard>,
    /// Came with datagrams; for the roster.
    received: Vec<SignedCard>,
    /// Machines whose newest cards are still to travel, in order.
    waiting: VecDeque<MachineId>,
    queued: BTreeSet<MachineId>,
    /// Whether machines of which SWIM tells are asked for: then only changes of cards travel with it. Else every card would
    /// come to every machine a dozen times over, which in a large site is most of what is sent.
    asked_for: bool,
    /// The card that is being handed to foca.
    leaving: Option<CardKey>,
}

impl Tray {
    /// Whether these bytes are a card that is held already: gossip brings every card many times over, and nearly always
    /// the very bytes that were checked before.
    fn holds(&self, data: &[u8]) -> bool {
        let held = SignedCard::peek_machine(data).and_then(|machine| self.newest.get(&machine));
        held.is_some_and(|held| held.is_encoded_as(data))
    }

    /// Keeps a card if it is the newest of its machine, and lets it travel. Returns whether it is.
    fn keep(&mut self, signed: &SignedCard, known_max: usize, travels: bool) -> bool {
        let machine = signed.card().machine;
        let known = self.newest.get(&machine);
        let room = known.is_some() || self.newest.len() < known_max;
        let (known, fresh) = (known.is_some(), room && known.is_none_or(|known| signed.newer_than(known)));
        if fresh {
            self.newest.insert(machine, signed.clone());
            if travels && known || !self.asked_for {
                self.queue(machine);
            }
        }
        fresh
    }

    fn queue(&mut self, machine: MachineId) {
        if self.queued.insert(machine) {
            self.waiting.push_back(machine);
        }
    }
}

/// What the roster and foca's handler share of the cards.
#[derive(Clone)]
pub(super) struct Cards {
    tray: Arc<Mutex<Tray>>,
    known_max: usize,
}

impl Cards {
    pub(super) fn new(known_max: usize, asked_for: bool) -> Self {
        Self { tray: Arc::new(Mutex::new(Tray { asked_for, ..Tray::default() })), known_max }
    }

    fn tray(&self) -> MutexGuard<'_, Tray> {
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a card travel that came by another way.
    pub(super) fn add(&self, card: &SignedCard) {
        self.tray().keep(card, self.known_max, true);
    }

    /// Keeps a card that came as the answer to a question. Where cards are asked for, others ask for it, too: it does not travel.
    pub(super) fn hold(&self, card: &SignedCard) {
        self.tray().keep(card, self.known_max, false);
    }

    /// Lets a card travel once more, unless it is asked for.
    pub(super) fn repeat(&self, machine: MachineId) {
        let mut tray = self.tray();
        if !tray.asked_for {
            tray.queue(machine);
        }
    }

    /// The next card for foca, which holds `travelling` of them. It must be handed over at once.
    pub(super) fn next(&self, travelling: usize) -> Option<SignedCard> {
        if travelling >= TRAVELLING_MAX {
            return None;
        }
        let mut tray = self.tray();
        let machine = tray.waiting.pop_front()?;
        tray.queued.remove(&machine);
        let card = tray.newest.get(&machine)?.clone();
        tray.leaving = Some(CardKey::of(&card));
        Some(card)
    }

    /// What came since the last call.
    pub(super) fn take_received(&self) -> Vec<SignedCard> {
        std::mem::take(&mut self.tray().received)
    }
}

impl BroadcastHandler<Life> for Cards {
    type Key = CardKey;
    type Error = WireError;

    fn receive_item(&mut self, data: &[u8], sender: Option<&Life>) -> Result<Option<CardKey>, Self::Error> {
        let mut tray = self.tray();
        if sender.is_none() {
            return Ok(tray.leaving.take());
        }
        if tray.holds(data) {
            return Ok(None);
        }
        let signed = SignedCard::decode(data)?;
        let fresh = tray.keep(&signed, self.known_max, true);
        // A card of the same version may still prove a clone by its nonce, so the roster sees it; it is not passed on.
        let machine = &signed.card().machine;
        if fresh || tray.newest.get(machine).is_some_and(|known| !known.newer_than(&signed)) {
            tray.received.push(signed);
        }
        // What is new waits for its turn.
        Ok(None)
    }
}

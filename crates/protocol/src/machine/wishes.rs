//! What a person asks of this machine: checked, signed, proposed until its fate is known, and answered with it.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_wire::{CallNumber, Entry, Revision, SignedWish, Wish};
use serde::{Deserialize, Serialize};

use super::Machine;
use crate::follow::Wants;
use crate::ledger::Refusal;
use crate::time::wake_by;
use crate::{Effect, Effects, Ledger, Time};

/// How long a wish is proposed before whoever asked is told that its fate is not known: longer than an election takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Most wishes under way at one machine (promise S10). They come from people.
const WISHES_MAX: usize = 16;

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "fate")]
pub enum Fate {
    /// It is in the ledger.
    Done {
        /// Since this revision.
        revision: Revision,
    },
    /// It was only asked what it would change, and it would be taken.
    Would {
        /// What it would change, for people.
        change: String,
    },
    /// It is not taken, and changed nothing.
    Refused {
        /// Why, for people.
        why: String,
    },
    /// Nobody answered in time. It may still be taken.
    Unknown {
        /// For whom it waits, for people.
        why: String,
    },
}

/// A wish that was signed here and whose fate is not known.
#[derive(Debug)]
struct Pending {
    call: CallNumber,
    signed: SignedWish,
    until: Time,
    /// What a leader said last. It may have been of a second copy, when the first one was taken: only the ledger knows.
    declined: Option<String>,
}

impl Pending {
    fn unknown(&self) -> String {
        let said = self.declined.as_ref().map_or(String::new(), |why| format!("; the leader said last: {why}"));
        let seconds = PATIENCE.as_secs();
        format!("its fate was not heard within {seconds} s, and it may still be taken; see `muster explain`{said}")
    }
}

/// The wishes under way at this machine.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Counts the wishes of this start.
    count: u32,
    pending: BTreeMap<u32, Pending>,
}

impl Wishes {
    /// What is to be proposed. Those whose time is over are answered, and withdrawn.
    pub(super) fn want(
        &mut self,
        now: Time,
        ledger: &Ledger,
        wants: &mut Wants,
        due: &mut Option<(Time, &'static str)>,
        effects: &mut Effects,
    ) {
        self.pending.retain(|_, pending| {
            let over = pending.until <= now;
            if over {
                let fate = match ledger.stands(&pending.signed) {
                    true => Fate::Done { revision: ledger.revision() },
                    false => Fate::Unknown { why: pending.unknown() },
                };
                effects.push(Effect::Answer { call: pending.call, fate });
            }
            !over
        });
        for pending in self.pending.values() {
            let entry = Entry::Wished(pending.signed.clone());
            wants.want(entry);
            wake_by(due, pending.until, "the end of a wish's time");
        }
    }

    /// A leader did not take an entry. Whether an earlier copy of it was taken is for the ledger to say.
    pub(super) fn declined(&mut self, entry: &Entry, why: &str) {
        let Entry::Wished(signed) = entry else { return };
        for pending in self.pending.values_mut().filter(|pending| pending.signed == *signed) {
            pending.declined = Some(why.to_owned());
        }
    }

    /// The fate of an entry is known. If it is a wish of this machine, whoever asked is told.
    pub(super) fn fate(&mut self, entry: &Entry, fate: Fate, effects: &mut Effects) {
        let Entry::Wished(signed) = entry else { return };
        self.pending.retain(|_, pending| {
            let ours = pending.signed == *signed;
            if ours {
                effects.push(Effect::Answer { call: pending.call, fate: fate.clone() });
            }
            !ours
        });
    }
}

impl Fate {
    /// What the rules say of an entry.
    pub(super) fn of(revision: Revision, told: &Result<(), Refusal>) -> Self {
        match told {
            Ok(()) => Fate::Done { revision },
            Err(why) => Fate::Refused { why: why.to_string() },
        }
    }
}

impl Machine {
    /// A person asks. What the ledger as this machine knows it refuses is answered at once.
    pub(super) fn wish(&mut self, now: Time, call: CallNumber, wish: Wish, dry_run: bool, effects: &mut Effects) {
        if let Some(fate) = self.rejoin(&wish, dry_run) {
            let renews = matches!(fate, Fate::Done { .. });
            effects.push(Effect::Answer { call, fate });
            if renews {
                effects.push(Effect::Renew);
            }
            return;
        }
        match self.sign_wish(wish) {
            Err(why) => effects.push(Effect::Answer { call, fate: Fate::Refused { why } }),
            Ok(signed) if dry_run => {
                let change = signed.wish.to_string();
                effects.push(Effect::Answer { call, fate: Fate::Would { change } });
            }
            Ok(signed) => {
                let pending = Pending { call, signed, until: now + PATIENCE, declined: None };
                self.wishes.pending.insert(self.wishes.count, pending);
            }
        }
    }

    fn sign_wish(&mut self, wish: Wish) -> Result<SignedWish, String> {
        if self.stands_still() {
            return Err("this machine takes no part in the ledger: see `muster explain`".to_owned());
        }
        if self.follow.removal(self.id()).is_some() {
            return Err("this machine was removed from the cluster: ask another one".to_owned());
        }
        let Some(certificate) = &self.durable.charter else { return Err("no cluster is founded yet".to_owned()) };
        if self.wishes.pending.len() >= WISHES_MAX {
            return Err(format!("{WISHES_MAX} wishes are under way at this machine: wait for their fates"));
        }
        self.wishes.count += 1;
        let number = self.durable.boot.0 << 32 | u64::from(self.wishes.count);
        let signed = SignedWish::sign(&self.identity, certificate.charter().id, number, wish);
        // Through the codec: its bounds hold for what people write as for what comes from the wire.
        let entry = Entry::decode(Entry::Wished(signed.clone()).encode()).map_err(|why| why.to_string())?;
        let ledger = self.follow.ledger();
        let told = ledger.clone().apply(ledger.revision().next(), &entry);
        told.map_err(|why| why.to_string())?;
        match self.unwise(&signed.wish) {
            Some(why) => Err(why),
            None => Ok(signed),
        }
    }
}

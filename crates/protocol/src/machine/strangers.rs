//! Who is not of this cluster, for people: machines of another image or charter, and whoever was turned away before more was
//! known of it. Both are told of while they are about, and for a while after.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use muster_wire::{Card, MachineId, host_of};

use super::Machine;
use super::explain::differing;
use crate::status::Stranger;
use crate::words::reasons::Topic;
use crate::{AwayCause, Time};

/// Most senders that were turned away whose names are kept.
const KEPT_MAX: usize = 16;

/// How long after its last sign a stranger is told of. Two that refuse each other dial again after five minutes at most.
const TOLD_FOR: Duration = Duration::from_secs(900);

/// How many of a kind are named; more are counted.
const NAMED: usize = 4;

#[derive(Debug)]
struct Turned {
    count: u64,
    first: Time,
    last: Time,
}

/// Whoever was turned away, and why.
#[derive(Debug, Default)]
pub(super) struct TurnedAway {
    kept: BTreeMap<(String, AwayCause), Turned>,
    /// What machines of other clusters call themselves; their cards are not kept. As many as of those turned away.
    called: BTreeMap<MachineId, String>,
}

impl TurnedAway {
    /// Counts it. Returns whether it is the first time. Of too many, the one goes that came last the longest ago, once it is not
    /// told of any more.
    pub(super) fn add(&mut self, now: Time, whom: String, why: AwayCause) -> bool {
        let key = (whom, why);
        if !self.kept.contains_key(&key) && self.kept.len() >= KEPT_MAX {
            let stalest = self.kept.iter().min_by_key(|(_, turned)| turned.last);
            match stalest.filter(|(_, turned)| now.since(turned.last) > TOLD_FOR).map(|(key, _)| key.clone()) {
                Some(stalest) => drop(self.kept.remove(&stalest)),
                None => return false,
            }
        }
        let turned = self.kept.entry(key).or_insert(Turned { count: 0, first: now, last: now });
        turned.count += 1;
        turned.last = now;
        turned.count == 1
    }

    /// Keeps how a machine calls itself.
    pub(super) fn call(&mut self, machine: MachineId, card: &Card) {
        if self.called.len() < KEPT_MAX {
            let at = card.addresses.first().map_or(String::new(), |address| format!(" at {address}"));
            self.called.insert(machine, format!("{machine} ({}{at})", card.hostname));
        }
    }

    /// A handshake with somebody at that address succeeded: what was cut off there before, or made no sense because its sender was killed in
    /// the midst of it, says nothing of a key. Another machine behind that address is told of again as soon as it tries again.
    pub(super) fn came_through(&mut self, address: IpAddr) {
        self.kept.retain(|(whom, why), _| !why.is_of_handshake() || host(whom) != Some(address));
    }

    fn names(&self, machine: MachineId) -> bool {
        let short = machine.to_string();
        self.kept.keys().any(|(whom, _)| whom.starts_with(&short))
    }

    /// All of them, with how often.
    pub(super) fn counts(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.kept.iter().map(|((whom, why), turned)| (format!("{whom}: {why}"), turned.count))
    }

    /// A sentence for each reason: how many, who, how often and since when.
    fn sentences(&self, now: Time) -> Vec<String> {
        let mut reasons: BTreeMap<&AwayCause, Vec<(&str, &Turned)>> = BTreeMap::new();
        for ((whom, why), turned) in self.kept.iter().filter(|(_, turned)| now.since(turned.last) <= TOLD_FOR) {
            reasons.entry(why).or_default().push((whom, turned));
        }
        let sentence = |(why, all): (&AwayCause, Vec<(&str, &Turned)>)| {
            let count: u64 = all.iter().map(|(_, turned)| turned.count).sum();
            let first = all.iter().map(|(_, turned)| turned.first).min().unwrap_or(now);
            let last = all.iter().map(|(_, turned)| turned.last).max().unwrap_or(now);
            let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
            let verb = if all.len() == 1 { "was" } else { "were" };
            let who = named(all.iter().map(|(whom, _)| (*whom).to_owned()).collect());
            let (first, last) = (now.since(first).as_secs(), now.since(last).as_secs());
            format!("{who} {verb} turned away {times}, first {first} s ago and last {last} s ago: {why}")
        };
        reasons.into_iter().map(sentence).collect()
    }
}

fn host(whom: &str) -> Option<IpAddr> {
    whom.parse().ok().or_else(|| host_of(whom))
}

/// The first few, and how many more.
fn named(all: Vec<String>) -> String {
    let more = all.len().saturating_sub(NAMED);
    let shown = all.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

impl Machine {
    /// A machine as people know it.
    pub(super) fn named(&self, machine: MachineId) -> String {
        match (self.turned_away.called.get(&machine), self.roster.card(machine)) {
            (Some(called), _) => called.clone(),
            (None, Some(card)) => {
                let at = card.addresses.first().map_or(String::new(), |address| format!(" at {address}"));
                format!("{machine} ({}{at})", card.hostname)
            }
            (None, None) => machine.to_string(),
        }
    }

    /// Why a machine is not of the cluster that this one follows; none if it is, or may become a part of it.
    pub(super) fn strangeness(&self, card: &Card) -> Option<String> {
        let ours = self.durable.charter.as_ref()?.charter().settings;
        if !self.roster.is_strange(card.machine) {
            return None;
        }
        if card.charter.is_some() {
            return Some("they follow another charter: a machine never belongs to two clusters".to_owned());
        }
        let keys = match self.settings.digest == ours {
            true => differing(&self.settings, &card.settings),
            false => format!("{} there, {ours} in the charter", card.settings.digest),
        };
        Some(format!("their image has other settings, and was not accepted (`muster image accept`): {keys}"))
    }

    /// The machines met that are not of this cluster.
    pub(super) fn strangers_now(&self, now: Time) -> Vec<Stranger> {
        let strangers = self.roster.known().iter().filter_map(|(machine, known)| {
            let card = known.card.card();
            Some(Stranger {
                machine: machine.to_hex(),
                short: machine.to_string(),
                name: card.hostname.clone(),
                addresses: card.addresses.clone(),
                heard_ms_ago: known.heard.map(|heard| now.since(heard).as_millis() as u64),
                why: self.strangeness(card)?,
            })
        });
        strangers.collect()
    }

    /// A sentence for each kind of stranger that is about, or was lately.
    pub(super) fn explain_strangers(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let mut kinds: BTreeMap<String, Vec<MachineId>> = BTreeMap::new();
        for (machine, known) in self.roster.known() {
            let lately = known.heard.is_some_and(|heard| now.since(heard) <= TOLD_FOR);
            // Whom this machine itself refused is told of below.
            if (lately || self.roster.is_connected(*machine))
                && !self.turned_away.names(*machine)
                && let Some(why) = self.strangeness(known.card.card())
            {
                kinds.entry(why).or_default().push(*machine);
            }
        }
        for (why, machines) in kinds {
            let first = machines.iter().filter_map(|machine| self.roster.known()[machine].first_heard());
            let since =
                first.min().map_or(String::new(), |first| format!(", first {} s ago", now.since(first).as_secs()));
            let who =
                machines.iter().map(|machine| format!("{}, {}", self.named(*machine), self.heard_ago(*machine, now)));
            let count = if machines.len() == 1 {
                "1 machine is".to_owned()
            } else {
                format!("{} machines are", machines.len())
            };
            let text = format!("{count} not of this cluster{since}; {why}: {}", named(who.collect()));
            add(Topic::Stranger, text, &machines);
        }
        self.turned_away.sentences(now).into_iter().for_each(|text| add(Topic::TurnedAway, text, &[]));
    }
}

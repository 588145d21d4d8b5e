//! What came of the hints, for people: every one of the image's, and mDNS, with its last outcome.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_protocol::AwayCause;
use muster_protocol::links::Stage;
use muster_protocol::status::Hint;
use muster_wire::MachineId;
use tokio::time::Instant;

use super::address::RESOLVED_MAX;
use super::away::is_cut_off;

/// Most machines that are counted as having answered by mDNS.
const ANSWERED_MAX: usize = 4_096;

/// How many addresses of a name are told of.
const SHOWN: usize = 6;

/// This machine's own address among the hints is as it should be: one image has one list.
pub(super) const OWN: &str = "that is this machine";

/// What came of a look at one address.
#[derive(Clone)]
struct Outcome {
    text: String,
    machine: Option<MachineId>,
    at: Instant,
}

/// What came of looking a name up.
struct Lookup {
    failed: Option<String>,
    at: Instant,
}

#[derive(Default)]
struct Book {
    /// The addresses of each hint: its own, or those behind its name.
    hints: BTreeMap<String, BTreeSet<SocketAddr>>,
    lookups: BTreeMap<String, Lookup>,
    /// What came of each address that a hint means.
    outcomes: BTreeMap<SocketAddr, Outcome>,
    /// Who answered by mDNS, and when somebody did last; none where it is switched off.
    mdns: Option<(BTreeSet<MachineId>, Option<Instant>)>,
}

/// The outcomes. Clones share them: the mesh notes, the shell tells.
#[derive(Clone, Default)]
pub struct Outcomes(Arc<Mutex<Book>>);

impl Outcomes {
    pub(super) fn new(hints: &[String], mdns: bool) -> Self {
        let hints = hints.iter().map(|hint| (hint.clone(), hint.parse().into_iter().collect())).collect();
        let book = Book { hints, mdns: mdns.then(Default::default), ..Book::default() };
        Self(Arc::new(Mutex::new(book)))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name was looked up.
    pub(super) fn looked_up(&self, hint: &str, found: &Result<Vec<SocketAddr>, String>) {
        let mut book = self.book();
        let Some(known) = book.hints.get_mut(hint) else { return };
        if let Ok(addresses) = found {
            *known = addresses.iter().copied().take(RESOLVED_MAX).collect();
        }
        let lookup = Lookup { failed: found.as_ref().err().cloned(), at: Instant::now() };
        book.lookups.insert(hint.to_owned(), lookup);
        let Book { hints, outcomes, .. } = &mut *book;
        outcomes.retain(|address, _| hints.values().any(|addresses| addresses.contains(address)));
    }

    /// Something came of an address; what no hint means is not kept.
    pub(super) fn came(&self, address: SocketAddr, text: impl Into<String>, machine: Option<MachineId>) {
        let mut book = self.book();
        if book.hints.values().any(|addresses| addresses.contains(&address)) {
            book.outcomes.insert(address, Outcome { text: text.into(), machine, at: Instant::now() });
        }
    }

    /// A machine answered by mDNS.
    pub(super) fn discovered(&self, machine: MachineId) {
        if let Some((answered, last)) = &mut self.book().mdns {
            if answered.len() < ANSWERED_MAX {
                answered.insert(machine);
            }
            *last = Some(Instant::now());
        }
    }

    /// All hints and what came of them.
    pub fn list(&self) -> Vec<Hint> {
        let (book, now) = (self.book(), Instant::now());
        let ago = |at: Instant| now.duration_since(at).as_millis() as u64;
        let hints = book.hints.iter().map(|(hint, addresses)| {
            let lookup = book.lookups.get(hint);
            let outcomes: Vec<(&SocketAddr, &Outcome)> =
                addresses.iter().filter_map(|address| Some((address, book.outcomes.get(address)?))).collect();
            let last = outcomes.iter().map(|(_, outcome)| outcome.at).chain(lookup.map(|lookup| lookup.at)).max();
            let (outcome, machine) = match (lookup, outcomes.first()) {
                (Some(Lookup { failed: Some(why), .. }), _) => (Some(why.clone()), None),
                (Some(_), _) => (Some(resolved(addresses.len(), &outcomes)), None),
                (None, Some((_, outcome))) => (Some(outcome.text.clone()), outcome.machine),
                (None, None) => (None, None),
            };
            Hint { hint: hint.clone(), outcome, machine: machine.map(MachineId::to_hex), ms_ago: last.map(ago) }
        });
        let mdns = book.mdns.iter().map(|(answered, last)| {
            let outcome = match answered.len() {
                0 => "nobody has answered".to_owned(),
                1 => "1 machine has answered".to_owned(),
                count => format!("{count} machines have answered"),
            };
            Hint { hint: "mDNS".to_owned(), outcome: Some(outcome), machine: None, ms_ago: last.map(ago) }
        });
        hints.chain(mdns).collect()
    }
}

/// What a name means, and what came of its addresses.
fn resolved(count: usize, outcomes: &[(&SocketAddr, &Outcome)]) -> String {
    let addresses = if count == 1 { "1 address".to_owned() } else { format!("{count} addresses") };
    let one = |(address, outcome): &(&SocketAddr, &Outcome)| match outcome.machine {
        Some(machine) => format!("{address} {} {machine}", outcome.text),
        None => format!("{address} {}", outcome.text),
    };
    let told: Vec<String> = outcomes.iter().take(SHOWN).map(one).collect();
    match told.is_empty() {
        true => format!("resolved to {addresses}"),
        false => format!("resolved to {addresses}: {}", told.join("; ")),
    }
}

/// What a failed dial says to people: how far it came, and how it ended. Some of libp2p's errors do not tell what they are made
/// of but in their words for programmers.
pub(super) fn dial_failed(stage: Option<Stage>, error: &impl Debug) -> &'static str {
    let words = format!("{error:?}");
    let says = |part: &str| words.contains(part);
    match stage {
        Some(Stage::Myself) => OWN,
        Some(Stage::Known) => "has this mesh key, and lets go: it refuses this machine, or was stopped",
        Some(Stage::Fenced) if is_cut_off(error) => super::events::CUT_SHORT,
        Some(Stage::Fenced) => AwayCause::NONSENSE,
        Some(Stage::Taken) if says("Timeout") || says("TimedOut") => "takes the connection and says nothing",
        Some(Stage::Taken) => "takes the connection and closes it: not muster, or one without room",
        None if says("ConnectionRefused") => "refused: nobody listens there",
        None if says("TimedOut") || says("Timeout") => "timed out",
        None if says("HostUnreachable") => "no route: the host is not there",
        None if says("NetworkUnreachable") => "no route to its network",
        None => "cannot be dialled",
    }
}

/// What a failed lookup says to people. The resolver has nothing but words.
pub(super) fn lookup_failed(error: &std::io::Error) -> String {
    let words = error.to_string();
    match words {
        words if words.contains("Name or service not known") || words.contains("No address associated") => {
            "no such name".to_owned()
        }
        words if words.contains("Temporary failure") => "no name server answers".to_owned(),
        words => format!("not found: {}", words.chars().take(100).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hint_has_its_last_outcome() {
        let hints = ["10.0.0.1:7390".to_owned(), "[fd00::2]:7390".to_owned(), "site.example:7390".to_owned()];
        let outcomes = Outcomes::new(&hints, true);
        let told = |outcomes: &Outcomes| {
            let list = outcomes.list();
            list.into_iter().map(|hint| (hint.hint, hint.outcome.unwrap_or_default())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(told(&outcomes)["10.0.0.1:7390"], "");
        assert_eq!(told(&outcomes)["mDNS"], "nobody has answered");
        let at = |text: &str| text.parse().expect("an address");
        outcomes.came(at("10.0.0.1:7390"), "timed out", None);
        outcomes.came(at("10.0.0.1:7390"), OWN, None);
        outcomes.came(at("10.0.0.99:7390"), "refused", None);
        assert_eq!(told(&outcomes)["10.0.0.1:7390"], OWN);
        assert_eq!(outcomes.book().outcomes.len(), 1, "what no hint means is not kept");
        outcomes.looked_up("site.example:7390", &Err("no such name".to_owned()));
        assert_eq!(told(&outcomes)["site.example:7390"], "no such name");
        outcomes.looked_up("site.example:7390", &Ok(vec![at("10.0.0.7:7390"), at("10.0.0.8:7390")]));
        outcomes.came(at("10.0.0.8:7390"), "connected as", Some(MachineId([1; 32])));
        assert_eq!(
            told(&outcomes)["site.example:7390"],
            format!("resolved to 2 addresses: 10.0.0.8:7390 connected as {}", MachineId([1; 32]))
        );
        // Another answer of the name server forgets what came of the former one.
        outcomes.looked_up("site.example:7390", &Ok(vec![at("10.0.0.9:7390")]));
        assert_eq!(told(&outcomes)["site.example:7390"], "resolved to 1 address");
        assert_eq!(outcomes.book().outcomes.len(), 1);
        (0..ANSWERED_MAX + 9).for_each(|number| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            outcomes.discovered(MachineId(id));
        });
        assert_eq!(told(&outcomes)["mDNS"], format!("{ANSWERED_MAX} machines have answered"));
    }
}

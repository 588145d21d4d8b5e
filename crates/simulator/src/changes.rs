//! What changed in a machine between two moments, as people read it.

use std::collections::BTreeMap;

use muster_protocol::Status;
use muster_wire::Attempt;

/// What is different in `after`, a phrase each.
pub fn changes(before: &Status, after: &Status) -> Vec<String> {
    let mut said = Vec::new();
    let mut one = |what: &str, before: String, after: String| {
        if before != after {
            said.push(format!("{what}: {before} -> {after}"));
        }
    };
    let short = |id: &Option<String>| id.as_ref().map_or("none".to_owned(), |id| id.chars().take(8).collect());
    one("phase", before.phase.word().into(), after.phase.word().into());
    one("charter", short(&before.charter), short(&after.charter));
    let role = |status: &Status| status.role.map_or("none".to_owned(), |role| role.to_string());
    one("role", role(before), role(after));
    one("term", before.term.to_string(), after.term.to_string());
    one("leader", short(&before.leader), short(&after.leader));
    one("revision", before.revision.to_string(), after.revision.to_string());
    one("attempt", number(before.attempt), number(after.attempt));
    one("doing", word(&before.doing), word(&after.doing));
    one("waits for", reasons(before), reasons(after));
    let peers = |status: &Status| -> BTreeMap<String, (bool, bool, bool)> {
        let each = status.peers.iter();
        each.map(|peer| (format!("{} {}", peer.short, peer.name), (peer.alive, peer.connected, peer.joined))).collect()
    };
    let (old, new) = (peers(before), peers(after));
    for (peer, now) in &new {
        match old.get(peer) {
            None => said.push(format!("{peer} is known")),
            Some(then) if then != now => said.extend(peer_changes(peer, *then, *now)),
            Some(_) => {}
        }
    }
    said.extend(old.keys().filter(|peer| !new.contains_key(*peer)).map(|peer| format!("{peer} is forgotten")));
    said
}

fn peer_changes(peer: &str, then: (bool, bool, bool), now: (bool, bool, bool)) -> Vec<String> {
    let states = [
        (then.0, now.0, "is held for alive", "is held for dead"),
        (then.1, now.1, "is connected", "is not connected"),
        (then.2, now.2, "has joined", "has not joined"),
    ];
    let changed = states.into_iter().filter(|(then, now, ..)| then != now);
    changed.map(|(_, now, yes, no)| format!("{peer} {}", if now { yes } else { no })).collect()
}

fn number(number: Option<Attempt>) -> String {
    number.map_or("none".to_owned(), |number| number.to_string())
}

/// Without how long it has taken, which changes with every look.
fn word(word: &Option<String>) -> String {
    let word = word.as_deref().unwrap_or("nothing");
    word.split_once(" (").map_or(word, |(word, _)| word).to_owned()
}

/// Without times, which change with every look.
fn reasons(status: &Status) -> String {
    let about: Vec<String> = status.waiting.iter().map(|reason| reason.about.to_string()).collect();
    if about.is_empty() { "nothing".to_owned() } else { about.join(", ") }
}

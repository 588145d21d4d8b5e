//! What a machine did, as a recording keeps it: enough to tell whether another run does the same, and nothing secret.

use muster_wire::Digest;
use serde::{Deserialize, Serialize};

use crate::Effect;

/// Longest text of one effect, in characters.
const TEXT_MAX: usize = 240;

/// One effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doing {
    /// What it is, for people.
    pub what: String,
    /// Digest of all of it.
    pub digest: [u8; 8],
}

impl From<&Effect> for Doing {
    fn from(effect: &Effect) -> Self {
        let mut what = text(effect);
        if let Some((end, _)) = what.char_indices().nth(TEXT_MAX) {
            what.truncate(end);
        }
        let whole = match effect {
            Effect::Persist(durable) => durable.encode(),
            Effect::Send { to, frame } => [&to.0[..], &frame.encode()].concat(),
            Effect::Propose { call, entry } => [&call.0.to_be_bytes()[..], &entry.encode()].concat(),
            other => format!("{other:?}").into_bytes(),
        };
        let [a, b, c, d, e, f, g, h, ..] = Digest::of(&what, &[&whole]).0;
        Self { what, digest: [a, b, c, d, e, f, g, h] }
    }
}

impl std::fmt::Display for Doing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

fn text(effect: &Effect) -> String {
    match effect {
        Effect::Persist(_) => "writes its state".to_owned(),
        Effect::Send { to, frame } => format!("sends {} to {to}", frame.kind()),
        Effect::Learn { machine, .. } => format!("learns where {machine} is"),
        Effect::Refuse { machine, why, .. } => format!("refuses {machine}: {why}"),
        Effect::StartRaft { charter } => format!("starts Raft with {} voters", charter.voters.len()),
        Effect::RebuildRaft { known, .. } => {
            format!("rebuilds Raft's store, where a ledger of {} bytes is known", known.len())
        }
        Effect::CallElection => "calls an election".to_owned(),
        Effect::StopRaft => "stops Raft".to_owned(),
        Effect::Renew => "starts again as another machine".to_owned(),
        Effect::SetVoters(voters) => format!("wants {} voters", voters.len()),
        Effect::Propose { entry, .. } => format!("proposes {}", entry.kind()),
        Effect::Run { step, .. } => format!("begins {}", step.name()),
        Effect::Abort { run } => format!("aborts run {}", run.0),
        Effect::Endpoint(address) => format!("lets the endpoint mean {address}"),
        Effect::ApiServers(servers) => format!("knows {} API servers", servers.len()),
        Effect::Former(former) => {
            format!("keeps {} former addresses", former.routes.len() + usize::from(former.own.is_some()))
        }
        Effect::KeepBackups { wanted, .. } => format!("keeps {} backups", wanted.len()),
        Effect::Answer { fate, .. } => format!("answers a wish: {fate:?}"),
        Effect::Notice(notice) => format!("says {}: {}", notice.kind.word(), notice.text),
    }
}

//! What forbids founding.

use muster_wire::{Digest, Durable, MachineId};

use super::Context;

/// Why no charter can be founded until a person does something, or a machine goes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Impediment {
    /// Machines on this mesh carry other settings.
    OtherSettings(Vec<MachineId>),
    /// More machines than the quorum's arithmetic bears.
    TooMany { seen: usize, most: usize },
    /// This machine's identity runs elsewhere too.
    Cloned,
    /// A cluster of this name exists: its charter's id, and the settings it was founded with. A refusal is not an absence: that
    /// this machine refuses its machines, or does not see them any more, says nothing of them.
    Founded { charter: String, settings: Digest },
}

impl std::fmt::Display for Impediment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Impediment::OtherSettings(machines) => {
                write!(f, "other image settings on {}", crate::status::list(machines))
            }
            Impediment::TooMany { seen, most } => {
                write!(f, "{seen} machines seen, the image's count bears at most {most}")
            }
            Impediment::Founded { charter, settings } => {
                write!(f, "a cluster of this name exists, with charter {charter} and other image settings ({settings})")
            }
            Impediment::Cloned => f.write_str("this machine's identity runs on another machine too"),
        }
    }
}

/// Whether this machine has ever seen the charter of a cluster of its own name that is not its image's (promise S1). It lasts
/// as long as the identity does.
pub(super) fn seen(durable: &Durable) -> Option<Impediment> {
    let charter = durable.seen.as_ref()?.charter();
    Some(Impediment::Founded { charter: charter.id_hex(), settings: charter.settings })
}

/// Counted over all that were ever seen, alive or not: a machine that is away may hold a vote.
pub(super) fn too_many(context: &Context<'_>) -> Option<Impediment> {
    let most = 2 * context.settings.quorum() as usize - 1;
    let seen = context.roster.hardware_count();
    (seen > most).then_some(Impediment::TooMany { seen, most })
}

//! What forbids founding.

use muster_wire::MachineId;

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
            Impediment::Cloned => f.write_str("this machine's identity runs on another machine too"),
        }
    }
}

/// Counted over all that were ever seen, alive or not: a machine that is away may hold a vote.
pub(super) fn too_many(context: &Context<'_>) -> Option<Impediment> {
    let most = 2 * context.settings.quorum() as usize - 1;
    let seen = context.roster.hardware_count();
    (seen > most).then_some(Impediment::TooMany { seen, most })
}

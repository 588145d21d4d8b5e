//! Why somebody was turned away before a frame could come of it, or because of what it sent.

use serde::{Deserialize, Serialize};

/// The reasons. People see them as sentences; the machine asks which of them a handshake that comes through takes back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AwayCause {
    /// Its connections end before it is known who is there, again and again.
    CutOff,
    /// It sent what makes no sense: another mesh key makes noise of every byte, so nothing more is known.
    Nonsense,
    /// Anything that was said or sent once the handshake was over, in words for people.
    Said(String),
}

impl AwayCause {
    /// What is said of a handshake that makes no sense, whoever dialled.
    pub const NONSENSE: &str = "the handshake failed: another mesh key, or not muster";

    /// Whether it is about a handshake. Whoever comes through from the same address takes it back: the other side was restarted, refused, or
    /// killed.
    pub(crate) fn is_of_handshake(&self) -> bool {
        matches!(self, Self::CutOff | Self::Nonsense)
    }
}

impl std::fmt::Display for AwayCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CutOff => {
                "its connections end in the middle of the handshake, all of them: perhaps another mesh key, or not muster"
            }
            Self::Nonsense => Self::NONSENSE,
            Self::Said(why) => why,
        })
    }
}

impl From<String> for AwayCause {
    fn from(why: String) -> Self {
        Self::Said(why)
    }
}

//! Epochs: how often a cluster was rebuilt from what survived of it.

use serde::{Deserialize, Serialize};

use crate::convert::machine_bytes;
use crate::{MachineId, WireError, proto};

/// How often the cluster was rebuilt, and by whom last. Whoever was no part of that knows of an earlier one only. Two machines that both
/// rebuilt it are told apart by their identities: the higher one counts, everywhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch {
    /// Counts the recoveries; 0 before the first.
    pub number: u32,
    /// From whose data.
    #[serde(with = "crate::id::hexadecimal")]
    pub by: MachineId,
}

impl Epoch {
    /// To the generated type; absent before the first recovery.
    pub fn to_proto(&self) -> Option<proto::Epoch> {
        (self.number > 0).then(|| proto::Epoch { number: self.number, by: machine_bytes(&self.by) })
    }

    /// Checks the form.
    ///
    /// # Errors
    /// Whoever rebuilt it is no identity.
    pub fn from_proto(epoch: Option<proto::Epoch>) -> Result<Self, WireError> {
        match epoch.filter(|epoch| epoch.number > 0) {
            Some(epoch) => Ok(Self { number: epoch.number, by: MachineId::from_slice(&epoch.by, "epoch.by")? }),
            None => Ok(Self::default()),
        }
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number {
            0 => f.write_str("epoch 0"),
            number => write!(f, "epoch {number}, rebuilt by {}", self.by),
        }
    }
}

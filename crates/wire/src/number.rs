//! Numbers that mean something: each counts one thing, and none passes for another.

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($of:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $of);

        impl $name {
            /// Before the first.
            pub const NONE: Self = Self(0);

            /// The one after it; the last one stays the last.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::fmt::Debug for $name {
            /// As the number itself.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Counts the attempts at `kubeadm init`, from 1.
    Attempt(u32)
}

number! {
    /// Counts the turns of one kind, from 1: an end names the turn that it ends, a beginning is higher than every earlier one.
    TurnNumber(u32)
}

number! {
    /// A position in the Raft log, and so of the ledger after the entry there.
    Revision(u64)
}

number! {
    /// Counts the boots of one identity, from 1, on its disk.
    BootCount(u64)
}

number! {
    /// What a machine asks, and what the answer repeats. Whoever asks counts.
    CallNumber(u64)
}

//! muster's protocol as one pure state machine: roster, founding, ledger, ladder.
//!
//! Nothing here reads a clock, draws entropy, opens a socket or a file, or waits. Time and a seed are arguments; what
//! the machine wants done comes out as [`Effect`]s, and what came of it goes in as [`Input`]s. The agent and the simulator
//! run this very code.
//!
//! ```text
//! Machine::new(boot, now, &mut effects)
//! loop {
//!     carry out effects, in order; Effect::Persist is synced to disk before the next one is looked at
//!     machine.handle(now, input, &mut effects)      on every input
//!     machine.handle(now, Input::Wake, &mut effects) when next_wakeup() is due
//! }
//! ```

pub mod copies;
pub mod effect;
mod follow;
mod founding;
pub mod input;
mod ladder;
mod lead;
pub mod ledger;
pub mod links;
pub mod machine;
pub mod record;
mod roster;
pub mod status;
pub mod time;
mod tuning;
pub mod words;

pub use effect::{Before, Effect, Effects, Founding, Recipient, RunId, Step, StepFailure, StepOutput, WantedBackup};
pub use input::{Input, RaftMembers, Renewal};
pub use ladder::EtcdTiming;
pub use lead::manifests::{ManifestOutcome, ManifestResult};
pub use ledger::{Ledger, NextEpoch};
pub use machine::{Boot, Fate, FormerAddresses, ImageStatus, Machine, RunsImage, StartRefusal};
pub(crate) use muster_wire::planted;
pub use status::{Phase, Status};
pub use time::Time;
pub use tuning::{BackupPlan, Tuning};
pub use words::away::AwayCause;
pub use words::drops::Dropped;
pub use words::notices::{Notice, NoticeKind, Severity};
pub use words::reasons::{Reason, Topic};

//! S17: who wished is told the truth: what is answered as done is in the ledger.

use muster_protocol::Fate;

use super::Verdict;
use crate::sometimes::Sometimes;
use crate::truth::Truth;
use crate::watch::Seen;

pub(super) fn see(seen: &Seen<'_>, truth: &Truth, sometimes: &mut Sometimes) -> Verdict {
    let Seen::Answered { slot, wish, fate } = seen else { return Ok(()) };
    match fate {
        Fate::Done { .. } if !truth.book.took(wish) => {
            Err(format!("machine {slot} says that it is done, and it is not: {wish}"))
        }
        Fate::Done { .. } => {
            sometimes.reached("wish-done");
            Ok(())
        }
        Fate::Refused { .. } => {
            sometimes.reached("wish-refused");
            Ok(())
        }
        Fate::Would { .. } | Fate::Unknown { .. } => Ok(()),
    }
}

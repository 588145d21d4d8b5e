//! What a seat wants of Raft that takes time.

use std::collections::BTreeSet;

use bytes::Bytes;
use muster_wire::frame::ProposalOutcome;
use muster_wire::{CallNumber, MachineId};

use crate::device::{Consensus, ProposeError};
use crate::inbound::CallRefused;
use crate::runtime::Runtime;
use crate::types::Applied;

/// One thing wanted of Raft.
#[derive(Debug)]
pub(super) enum Ask {
    Election,
    Voters(BTreeSet<MachineId>),
    Propose { call: CallNumber, entry: Bytes },
    Called { from: MachineId, call: CallNumber, body: Bytes },
}

/// The same, with the Raft that is to do it.
#[derive(Debug)]
pub struct Work<R: Runtime> {
    consensus: Consensus<R>,
    ask: Ask,
}

/// What came of it.
#[derive(Debug)]
pub enum Done {
    /// An election was called.
    Election(Result<(), ProposeError>),
    /// The voters are the wanted ones, or not yet.
    Voters(Result<(), ProposeError>),
    /// A proposal's outcome.
    Proposed {
        /// Its number.
        call: CallNumber,
        /// What became of it.
        outcome: ProposalOutcome,
    },
    /// What another machine's call is answered with.
    Called {
        /// Who called.
        from: MachineId,
        /// The number that its answer repeats.
        call: CallNumber,
        /// The answer.
        answer: Result<Bytes, CallRefused>,
    },
}

impl<R: Runtime> Work<R> {
    pub(super) fn new(consensus: Consensus<R>, ask: Ask) -> Self {
        Self { consensus, ask }
    }

    /// Does it, in a task of Raft's runtime.
    pub async fn run(self) -> Done {
        let Self { consensus, ask } = self;
        match ask {
            Ask::Election => Done::Election(consensus.call_election().await),
            Ask::Voters(voters) => Done::Voters(consensus.set_voters(voters).await),
            Ask::Propose { call, entry } => Done::Proposed { call, outcome: outcome(consensus.propose(entry).await) },
            Ask::Called { from, call, body } => {
                Done::Called { from, call, answer: consensus.handle_call(from, body).await }
            }
        }
    }
}

/// What a proposal's end means to whoever proposed. One that no quorum took in time may still be committed: the core finds it in
/// the ledger, or proposes again.
fn outcome(proposed: Result<Applied, ProposeError>) -> ProposalOutcome {
    match proposed {
        Ok(Applied { revision, refused: None }) => ProposalOutcome::Applied(revision),
        Ok(Applied { refused: Some(why), .. }) => ProposalOutcome::Refused(why),
        Err(ProposeError::NotLeading { leader }) => ProposalOutcome::NotLeading(leader),
        Err(ProposeError::Unavailable(_)) => ProposalOutcome::NotLeading(None),
        Err(ProposeError::Malformed(why)) => ProposalOutcome::Refused(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use muster_wire::Revision;

    use super::*;

    #[test]
    fn every_end_of_a_proposal_means_something_to_who_proposed() {
        let leader = Some(MachineId([2; 32]));
        let applied =
            |refused: Option<&str>| Ok(Applied { revision: Revision(7), refused: refused.map(str::to_owned) });
        assert_eq!(outcome(applied(None)), ProposalOutcome::Applied(Revision(7)));
        assert_eq!(outcome(applied(Some("a rule"))), ProposalOutcome::Refused("a rule".to_owned()));
        assert_eq!(outcome(Err(ProposeError::NotLeading { leader })), ProposalOutcome::NotLeading(leader));
        assert_eq!(outcome(Err(ProposeError::Unavailable("no quorum"))), ProposalOutcome::NotLeading(None));
        let malformed = muster_wire::WireError::Field { field: "entry", rule: "must be one" };
        assert!(matches!(outcome(Err(malformed.into())), ProposalOutcome::Refused(why) if why.contains("entry")));
    }
}

//! Raft as a device: proposals and calls in, events out.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use muster_protocol::RaftMembers;
use muster_protocol::ledger::Ledger;
use muster_wire::planted::planted;
use muster_wire::{Entry, MachineId, WireError};
use openraft::error::{ClientWriteError, Fatal, RaftError};
use openraft::storage::RaftLogStorage as _;
use openraft::{ChangeMembers, EmptyNode, Raft, RaftMetrics};
use tokio::sync::{Semaphore, mpsc};

use crate::calls::Call;
use crate::config::Config;
use crate::event::{Broke, Event};
use crate::inbound::{CallRefused, Inbound, Refusals};
use crate::network::Network;
use crate::runtime::Runtime;
use crate::store::Store;
use crate::types::{Applied, LogId, Types};

/// Most proposals under way at a time (promise S10). The core proposes one change after another; followers relay a few.
const PROPOSALS_MAX: usize = 64;

/// Why consensus did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The times make no sense together.
    #[error("raft times: {0}")]
    Config(String),
    /// What is on disk cannot be used.
    #[error(transparent)]
    Disk(#[from] crate::DiskError),
    /// openraft does not start on it.
    #[error("raft: {0}")]
    Raft(Broke),
}

/// Why a proposal was not applied, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This machine does not lead. The entry was not taken, or was taken back when the leadership ended.
    #[error("this machine does not lead{}", leader.map(|leader| format!(", {leader} does")).unwrap_or_default())]
    NotLeading {
        /// Who may.
        leader: Option<MachineId>,
    },
    /// No quorum answered in time. The entry may still be committed later: whoever proposes again must be prepared for
    /// both, as the ledger's rules are.
    #[error("{0}")]
    Unavailable(&'static str),
    /// The bytes are not an entry; proposing them again does not help.
    #[error(transparent)]
    Malformed(#[from] WireError),
}

/// One machine's Raft. Clones share it. `R` is the runtime, in whose tasks every async function here must run.
pub struct Consensus<R: Runtime> {
    inner: Arc<Inner<R>>,
}

impl<R: Runtime> Clone for Consensus<R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<R: Runtime> std::fmt::Debug for Consensus<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("me", &self.inner.me).finish_non_exhaustive()
    }
}

struct Inner<R: Runtime> {
    me: MachineId,
    config: Config,
    raft: Raft<Types<R>>,
    /// The last record that this machine held when its Raft was opened.
    held: Option<LogId>,
    inbound: Inbound<R>,
    trusted: Mutex<BTreeSet<MachineId>>,
    refusals: Refusals,
    proposals: Semaphore,
    changing: tokio::sync::Mutex<()>,
}

impl<R: Runtime> Consensus<R> {
    /// Starts Raft on `store`. `founded` is the ledger that the charter begins, [`Ledger::founded`].
    ///
    /// `trusted` are the machines whose calls are answered besides Raft's members: before the first membership is known
    /// there are none. They are the charter's voters, and the ledger's control planes for a machine that becomes a voter
    /// later; see [`Consensus::trust`].
    ///
    /// `calls` gets what is to be said to other machines; [`crate::Calls`] finds the answers' places. `events` gets what
    /// happens, [`Event::Restored`] first. Both are bounded: calls that do not fit fail at once, and Raft applies nothing
    /// more while `events` is full, so the receiver must not wait for a proposal before it reads on.
    ///
    /// # Errors
    /// [`OpenError`]; nothing runs then.
    pub async fn open(
        config: Config,
        store: Store<R>,
        founded: Ledger,
        trusted: BTreeSet<MachineId>,
        calls: mpsc::Sender<Call>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, OpenError> {
        let me = store.machine();
        let silence = config.election_max * 2;
        let raft = config.raft(store.cluster())?;
        let network = Network { me, calls, runtime: PhantomData };
        let machine = store.state_machine(founded, config.level, events.clone()).await?;
        let state = store.log().get_log_state().await;
        let held = state.map_err(|why| OpenError::Raft(Broke::Failed(why.to_string())))?.last_log_id;
        let raft = Raft::new(me, Arc::new(raft), network, store.log(), machine).await;
        let raft = raft.map_err(|why| OpenError::Raft(broke(why, &store)))?;
        drop(R::spawn(report(Told { me, silence, held }, raft.clone(), store.clone(), events)));
        let inner = Inner {
            me,
            inbound: Inbound::new(raft.clone(), store, config.level),
            config,
            raft,
            held,
            trusted: Mutex::new(trusted),
            refusals: Refusals::default(),
            proposals: Semaphore::new(PROPOSALS_MAX),
            changing: tokio::sync::Mutex::new(()),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Has this machine call the first election, unless it leads or is no voter, or holds records of a leader: then there was one, and Raft's
    /// own timeouts see to the next. Each call starts a term, so let the first of the charter's voters do it at once and the others only if
    /// no leader shows.
    ///
    /// # Errors
    /// [`ProposeError::Unavailable`] if Raft has stopped.
    pub async fn call_election(&self) -> Result<(), ProposeError> {
        // Record 0 is the one with which every voter of the charter begins.
        let now = self.inner.raft.metrics().borrow().last_log_index;
        if now.max(self.inner.held.map(|held| held.index)) > Some(0) {
            return Ok(());
        }
        self.inner.raft.trigger().elect().await.map_err(|_| STOPPED)
    }

    /// Proposes an encoded entry and waits until it is committed and applied here.
    ///
    /// # Errors
    /// [`ProposeError`].
    pub async fn propose(&self, entry: Bytes) -> Result<Applied, ProposeError> {
        Entry::decode(entry.clone())?;
        let _permit =
            self.inner.proposals.try_acquire().map_err(|_| ProposeError::Unavailable("too many proposals wait"))?;
        self.leading()?;
        let written = R::timeout(self.inner.config.propose_deadline, self.inner.raft.client_write(entry)).await;
        match written.map_err(|_| ProposeError::Unavailable("no quorum took the entry in time"))? {
            Ok(written) => Ok(written.data),
            Err(why) => Err(write_error(why)),
        }
    }

    /// Makes `voters` the voters: machines that are new get the log first and a vote once they have it, machines that are
    /// left out lose theirs. Returns when it is so. Doing it again does nothing, so it may be repeated until it holds.
    ///
    /// An identity whose Raft state was lost must not be among them again (promise S9): it would vote a second time where
    /// it had voted, and count as holding records that it had lost.
    ///
    /// # Errors
    /// [`ProposeError`]. The change may be half done, which is safe, and the next call goes on from there.
    pub async fn set_voters(&self, voters: BTreeSet<MachineId>) -> Result<(), ProposeError> {
        self.leading()?;
        if voters.is_empty() || voters.len() > muster_wire::limits::VOTERS_MAX {
            return Err(ProposeError::Unavailable("there must be a voter, and at most nine"));
        }
        R::timeout(self.inner.config.voters_deadline, self.change_voters(voters))
            .await
            .map_err(|_| ProposeError::Unavailable("the change of voters took too long"))?
    }

    async fn change_voters(&self, voters: BTreeSet<MachineId>) -> Result<(), ProposeError> {
        let _alone = self.inner.changing.try_lock().map_err(|_| CHANGING)?;
        let membership = self.inner.raft.metrics().borrow().membership_config.membership().clone();
        // A leader that has taken itself out leads on until that is committed, and openraft panics if it is then asked for
        // another change.
        if membership.get_node(&self.inner.me).is_none() {
            return Err(ProposeError::NotLeading { leader: None });
        }
        let same =
            membership.get_joint_config().len() == 1 && membership.voter_ids().collect::<BTreeSet<_>>() == voters;
        if same {
            return self.leave_out(&voters).await;
        }
        for learner in voters.iter().filter(|voter| membership.get_node(voter).is_none()) {
            self.inner.raft.add_learner(*learner, EmptyNode::new(), false).await.map_err(write_error)?;
        }
        // One that does not answer must not get a vote: it would take the quorum's place of one that does. Who has one keeps it.
        let votes: BTreeSet<MachineId> = membership.voter_ids().collect();
        self.caught_up(&voters.difference(&votes).copied().collect()).await?;
        self.inner.raft.change_membership(voters.clone(), false).await.map_err(write_error)?;
        self.leave_out(&voters).await
    }

    /// Machines that do not vote may take no part any more, not even as learners: openraft keeps those that never got a vote,
    /// and a machine that was removed before it caught up would go on being told the ledger (promise S6).
    async fn leave_out(&self, voters: &BTreeSet<MachineId>) -> Result<(), ProposeError> {
        let membership = self.inner.raft.metrics().borrow().membership_config.membership().clone();
        let others: BTreeSet<MachineId> =
            membership.nodes().map(|(machine, _)| *machine).filter(|machine| !voters.contains(machine)).collect();
        if others.is_empty() || planted("learner-stays") {
            return Ok(());
        }
        self.inner.raft.change_membership(ChangeMembers::RemoveNodes(others), false).await.map_err(write_error)?;
        Ok(())
    }

    /// Waits until each of `voters` has what was in the log at the beginning of the wait.
    async fn caught_up(&self, voters: &BTreeSet<MachineId>) -> Result<(), ProposeError> {
        let mut metrics = self.inner.raft.metrics();
        let target = metrics.borrow().last_log_index;
        let reached = |metrics: &RaftMetrics<MachineId, EmptyNode>| match &metrics.replication {
            None => true,
            Some(matched) => voters
                .iter()
                .filter(|voter| **voter != self.inner.me)
                .all(|voter| matched.get(voter).is_some_and(|matched| matched.map(|id| id.index) >= target)),
        };
        metrics.wait_for(reached).await.map_err(|_| STOPPED)?;
        self.leading()
    }

    /// Answers a call of `from`, whose identity the connection has proved.
    ///
    /// # Errors
    /// [`CallRefused`], counted in [`Consensus::refusals`]; there is nothing to send back then.
    pub async fn handle_call(&self, from: MachineId, body: Bytes) -> Result<Bytes, CallRefused> {
        let trusted = self.inner.trusted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = self.inner.inbound.answer(from, body, &trusted).await;
        answer.inspect_err(|why| self.inner.refusals.count(why))
    }

    /// Replaces the machines whose calls are answered besides Raft's members. A machine that was removed from the ledger
    /// does not belong there.
    pub fn trust(&self, machines: BTreeSet<MachineId>) {
        *self.inner.trusted.lock().unwrap_or_else(PoisonError::into_inner) = machines;
    }

    /// How many calls were refused.
    pub fn refusals(&self) -> &Refusals {
        &self.inner.refusals
    }

    /// The voters and the other machines that get the log, as the newest membership in this machine's log has them.
    pub fn members(&self) -> (BTreeSet<MachineId>, BTreeSet<MachineId>) {
        let metrics = self.inner.raft.metrics();
        let membership = metrics.borrow().membership_config.clone();
        let voters: BTreeSet<MachineId> = membership.voter_ids().collect();
        let learners = membership.nodes().map(|(machine, _)| *machine).filter(|one| !voters.contains(one)).collect();
        (voters, learners)
    }

    /// Stops Raft and waits until it has stopped. Whoever leads after this machine is found by election: openraft 0.9 has
    /// no transfer of leadership.
    pub async fn shutdown(&self) {
        // It fails only if Raft's task is gone already.
        let _ = self.inner.raft.shutdown().await;
    }

    fn leading(&self) -> Result<(), ProposeError> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.running_state.is_err() {
            return Err(STOPPED);
        }
        match metrics.current_leader {
            Some(leader) if leader == self.inner.me => Ok(()),
            leader => Err(ProposeError::NotLeading { leader }),
        }
    }
}

const CHANGING: ProposeError = ProposeError::Unavailable("another change of voters is under way");

const STOPPED: ProposeError = ProposeError::Unavailable("Raft has stopped");

fn write_error(why: RaftError<MachineId, ClientWriteError<MachineId, EmptyNode>>) -> ProposeError {
    match why {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ProposeError::NotLeading { leader: forward.leader_id }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(_)) => CHANGING,
        RaftError::Fatal(_) => STOPPED,
    }
}

/// Who leads, as far as this machine knows. Raft itself goes on leading alone for ever: it learns of a successor from the others
/// only. One that no quorum has answered for `silence`, two election timeouts, leads nobody. And whoever was just elected leads once it has applied
/// a record of its own term, and while it has a vote: until then its ledger may lack what was committed before, and what it would propose by it may come late and do harm.
fn leading(told: &Told, metrics: &RaftMetrics<MachineId, EmptyNode>) -> (u64, Option<MachineId>) {
    let Told { me, silence, held } = *told;
    let mut voters = metrics.membership_config.membership().voter_ids();
    let votes = voters.any(|voter| voter == me);
    let alone = votes && metrics.membership_config.membership().voter_ids().count() == 1;
    // openraft lets one that led when it stopped lead when it starts, before it has heard anybody.
    let unheard = metrics.millis_since_quorum_ack.is_none_or(|millis| u128::from(millis) > silence.as_millis());
    // What it held at its start may be of this very term, if it led when it stopped.
    let of_this_term = metrics.last_applied.is_some_and(|last| last.leader_id.term == metrics.current_term);
    let caught_up = of_this_term && metrics.last_applied >= held;
    let leader = metrics.current_leader.filter(|leader| *leader != me || votes && caught_up && (alone || !unheard));
    (metrics.current_term, leader)
}

/// Who takes part in Raft. What is not applied may never be: then whoever took part before does, too.
fn members(metrics: &RaftMetrics<MachineId, EmptyNode>, before: &RaftMembers) -> RaftMembers {
    let applied = *metrics.membership_config.log_id() <= metrics.last_applied;
    let membership = metrics.membership_config.membership();
    let now = membership.nodes().map(|(machine, _)| *machine);
    let in_all = |voter: &MachineId| membership.get_joint_config().iter().all(|voters| voters.contains(voter));
    RaftMembers {
        all: now.chain(before.all.iter().copied().filter(|_| !applied)).collect(),
        votes: membership.voter_ids().filter(in_all).collect(),
    }
}

/// How it broke, and whether that is its disk's doing.
fn broke<R: Runtime>(why: Fatal<MachineId>, store: &Store<R>) -> Broke {
    match why {
        Fatal::Panicked => Broke::Panicked,
        why if store.is_damaged() => Broke::Damaged(why.to_string()),
        why => Broke::Failed(why.to_string()),
    }
}

/// What it takes to say who leads.
struct Told {
    me: MachineId,
    /// How long no quorum may have answered whoever leads.
    silence: Duration,
    /// The last record that this machine held when its Raft was opened.
    held: Option<LogId>,
}

/// Tells who leads and who takes part whenever that changes, and the end.
async fn report<R: Runtime>(told_by: Told, raft: Raft<Types<R>>, store: Store<R>, events: mpsc::Sender<Event>) {
    let mut metrics = raft.metrics();
    drop(raft);
    let (mut told, mut told_members) = (None, RaftMembers::default());
    loop {
        let (state, now, members) = {
            let metrics = metrics.borrow_and_update();
            (metrics.running_state.clone(), leading(&told_by, &metrics), members(&metrics, &told_members))
        };
        if let Err(fatal) = state {
            let why = match fatal {
                Fatal::Stopped => None,
                // The machine was told of what it cannot read.
                _ if store.is_beyond() => None,
                why => Some(broke(why, &store)),
            };
            if let Some(why) = &why {
                tracing::error!(%why, "Raft has stopped on this machine");
            }
            let _ = events.send(Event::Stopped { why }).await;
            return;
        }
        if told.replace(now) != Some(now) && events.send(Event::Leading { term: now.0, leader: now.1 }).await.is_err() {
            return;
        }
        if told_members != members {
            told_members.clone_from(&members);
            if events.send(Event::Members(members)).await.is_err() {
                return;
            }
        }
        if metrics.changed().await.is_err() {
            let _ = events.send(Event::Stopped { why: Some(Broke::Panicked) }).await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, Membership, StoredMembership};

    use super::*;

    const ME: MachineId = MachineId([1; 32]);
    const SILENCE: Duration = Duration::from_secs(3);

    fn record(term: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, ME), index)
    }

    /// Whether it leads in term 5, of so many voters, having held and applied this, where a quorum answered so long ago.
    fn leads(voters: u8, held: Option<LogId>, applied: LogId, answered_ms: Option<u64>) -> bool {
        leads_of(1..=voters, held, applied, answered_ms)
    }

    fn leads_of(
        voters: impl IntoIterator<Item = u8>,
        held: Option<LogId>,
        applied: LogId,
        answered_ms: Option<u64>,
    ) -> bool {
        let voters: BTreeSet<MachineId> = voters.into_iter().map(|number| MachineId([number; 32])).collect();
        let mut metrics = RaftMetrics::new_initial(ME);
        (metrics.current_term, metrics.current_leader) = (5, Some(ME));
        (metrics.last_applied, metrics.millis_since_quorum_ack) = (Some(applied), answered_ms);
        metrics.membership_config = Arc::new(StoredMembership::new(None, Membership::new(vec![voters], None)));
        leading(&Told { me: ME, silence: SILENCE, held }, &metrics) == (5, Some(ME))
    }

    #[test]
    fn one_leads_once_it_knows_what_was_committed_before() {
        assert!(leads(3, Some(record(4, 10)), record(5, 11), Some(1)));
        assert!(!leads(3, Some(record(4, 10)), record(4, 10), Some(1)), "nothing of its own term");
        assert!(!leads(3, Some(record(5, 12)), record(5, 11), Some(1)), "it led when it stopped, and held more");
    }

    #[test]
    fn one_leads_while_a_majority_answers() {
        assert!(!leads(3, None, record(5, 11), None), "nobody has answered since it started");
        assert!(!leads(3, None, record(5, 11), Some(3_001)), "nobody for two election timeouts");
        assert!(leads(1, None, record(5, 11), None), "there is nobody to answer");
        assert!(!leads_of([2], None, record(5, 11), Some(1)), "it gave its vote back");
    }
}

//! openraft's network: every call becomes bytes on a channel, and an answer's bytes or nothing come back.

use std::future::Future;
use std::iter;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use muster_wire::MachineId;
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{EmptyNode, Snapshot};
use tokio::sync::{mpsc, oneshot};

use crate::calls::Call;
use crate::rpc::{Part, Request, Response};
use crate::runtime::Runtime;
use crate::types::{Types, Vote};

/// Bytes of a snapshot in one call: short enough for links that have trouble with large frames.
const PART_BYTES: usize = 64 * 1024;

/// How long one part of a snapshot may take, its share of the disk's time included.
const PART_DEADLINE: Duration = Duration::from_secs(5);

/// How often in a row one part is tried.
const PART_TRIES: u32 = 5;

/// How long a machine that did not answer is left alone.
const PAUSE: Duration = Duration::from_millis(500);

/// No answer, or none that makes sense. openraft then waits a moment and tries again, whatever the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("too many calls are waiting to be sent")]
    Busy,
    #[error("{0} cannot be reached")]
    Lost(MachineId),
    #[error("{0} did not answer in time")]
    Late(MachineId),
    #[error("{0} answered nonsense: {1}")]
    Nonsense(MachineId, String),
}

/// Makes a [`Peer`] for each voter and learner.
#[derive(Debug)]
pub(crate) struct Network<R> {
    pub(crate) me: MachineId,
    pub(crate) calls: mpsc::Sender<Call>,
    pub(crate) runtime: PhantomData<fn() -> R>,
}

/// Calls one machine.
#[derive(Debug)]
pub(crate) struct Peer<R> {
    me: MachineId,
    to: MachineId,
    calls: mpsc::Sender<Call>,
    runtime: PhantomData<fn() -> R>,
}

impl<R: Runtime> RaftNetworkFactory<Types<R>> for Network<R> {
    type Network = Peer<R>;

    async fn new_client(&mut self, to: MachineId, _: &EmptyNode) -> Peer<R> {
        Peer { me: self.me, to, calls: self.calls.clone(), runtime: PhantomData }
    }
}

impl<R: Runtime> Peer<R> {
    async fn call(&self, request: &Request<R>, deadline: Duration) -> Result<Response, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        let call = Call { to: self.to, body: request.encode(self.me), answer };
        self.calls.try_send(call).map_err(|_| NoAnswer::Busy)?;
        let body = R::timeout(deadline, answered).await;
        let body = body.map_err(|_| NoAnswer::Late(self.to))?.map_err(|_| NoAnswer::Lost(self.to))?;
        Response::decode(body, self.me).map_err(|why| self.nonsense(&why.to_string()))
    }

    fn nonsense(&self, why: &str) -> NoAnswer {
        NoAnswer::Nonsense(self.to, why.to_owned())
    }

    /// Sends the snapshot part after part, from where the receiver says it is. Returns the receiver's vote.
    async fn send(&self, vote: Vote, snapshot: &Snapshot<Types<R>>) -> Result<Vote, NoAnswer> {
        let data: &Bytes = &snapshot.snapshot;
        let mut offset = 0;
        let mut failures = 0;
        loop {
            let end = data.len().min(offset + PART_BYTES);
            let part =
                Part { vote, meta: snapshot.meta.clone(), size: data.len(), offset, data: data.slice(offset..end) };
            let failure = match self.call(&Request::Part(part), PART_DEADLINE).await {
                Ok(Response::Part { vote: theirs, .. }) if theirs > vote => return Ok(theirs),
                Ok(Response::Part { vote: theirs, next }) if next == data.len() && end == data.len() => {
                    return Ok(theirs);
                }
                Ok(Response::Part { next, .. }) if next == end => {
                    offset = end;
                    failures = 0;
                    continue;
                }
                // The receiver started again, or was sent something else in between.
                Ok(Response::Part { next, .. }) if next < data.len() => {
                    offset = next;
                    self.nonsense("it has another part of the snapshot than was sent")
                }
                Ok(_) => return Err(self.nonsense("the answer is not one to a part of a snapshot")),
                Err(failure) => failure,
            };
            failures += 1;
            if failures == PART_TRIES {
                return Err(failure);
            }
            R::sleep(PAUSE).await;
        }
    }
}

type CallError = RPCError<MachineId, EmptyNode, RaftError<MachineId>>;

fn unreachable(why: &NoAnswer) -> CallError {
    RPCError::Unreachable(Unreachable::new(why))
}

impl<R: Runtime> RaftNetwork<Types<R>> for Peer<R> {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<MachineId>, CallError> {
        let vote = rpc.vote;
        match self.call(&Request::Append(rpc), option.hard_ttl()).await {
            Ok(Response::Append(AppendEntriesResponse::HigherVote(higher))) if higher <= vote => {
                Err(unreachable(&self.nonsense("its vote is not higher")))
            }
            Ok(Response::Append(appended)) => Ok(appended),
            Ok(_) => Err(unreachable(&self.nonsense("the answer is not one to new records"))),
            Err(why) => Err(unreachable(&why)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<MachineId>,
        option: RPCOption,
    ) -> Result<VoteResponse<MachineId>, CallError> {
        match self.call(&Request::Ask(rpc), option.hard_ttl()).await {
            Ok(Response::Ask(granted)) => Ok(granted),
            Ok(_) => Err(unreachable(&self.nonsense("the answer is not one to a candidate"))),
            Err(why) => Err(unreachable(&why)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types<R>>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<MachineId>, StreamingError<Types<R>, Fatal<MachineId>>> {
        let sent = std::pin::pin!(self.send(vote, &snapshot));
        let cancel = std::pin::pin!(cancel);
        match futures::future::select(cancel, sent).await {
            futures::future::Either::Left((closed, _)) => Err(StreamingError::Closed(closed)),
            futures::future::Either::Right((Ok(vote), _)) => Ok(SnapshotResponse::new(vote)),
            futures::future::Either::Right((Err(why), _)) => Err(StreamingError::Unreachable(Unreachable::new(&why))),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(iter::repeat(PAUSE))
    }
}

//! Calls of other voters to this machine.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use muster_protocol::ledger::Ledger;
use muster_wire::{MachineId, Revision, WireError};
use openraft::{Raft, Snapshot};

use crate::rpc::{Part, Request, Response};
use crate::runtime::Runtime;
use crate::store::Store;
use crate::types::{SnapshotMeta, Types};

/// Why a call got no answer. Its caller learns by its deadline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallRefused {
    /// The caller is neither a member of Raft nor a machine that may become one (promise S6).
    #[error("{0} takes no part in Raft here")]
    Stranger(MachineId),
    /// The call is made in another machine's name.
    #[error("{caller} called in the name of {named}")]
    Impostor {
        /// Who called, as its connection proves.
        caller: MachineId,
        /// In whose name.
        named: MachineId,
    },
    /// The bytes are no call.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// Raft has stopped on this machine.
    #[error("Raft has stopped")]
    Stopped,
}

/// How many calls were refused, for `muster status` and metrics.
#[derive(Debug, Default)]
pub struct Refusals {
    strangers: AtomicU64,
    impostors: AtomicU64,
    malformed: AtomicU64,
}

impl Refusals {
    pub(crate) fn count(&self, why: &CallRefused) {
        let counter = match why {
            CallRefused::Stranger(_) => &self.strangers,
            CallRefused::Impostor { .. } => &self.impostors,
            CallRefused::Malformed(_) => &self.malformed,
            CallRefused::Stopped => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls of machines that take no part.
    pub fn strangers(&self) -> u64 {
        self.strangers.load(Ordering::Relaxed)
    }

    /// Calls in another machine's name.
    pub fn impostors(&self) -> u64 {
        self.impostors.load(Ordering::Relaxed)
    }

    /// Calls whose bytes were wrong.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }
}

/// A snapshot of which parts are here.
#[derive(Debug)]
struct Receiving {
    from: MachineId,
    meta: SnapshotMeta,
    data: BytesMut,
}

/// Takes calls.
pub(crate) struct Inbound<R: Runtime> {
    raft: Raft<Types<R>>,
    store: Store<R>,
    receiving: tokio::sync::Mutex<Option<Receiving>>,
    /// The highest level of the ledger that this machine knows.
    known: u32,
}

impl<R: Runtime> Inbound<R> {
    pub(crate) fn new(raft: Raft<Types<R>>, store: Store<R>, known: u32) -> Self {
        Self { raft, store, receiving: tokio::sync::Mutex::new(None), known }
    }

    /// Answers a call of `from`, which may be a member or one of `trusted`.
    pub(crate) async fn answer(
        &self,
        from: MachineId,
        body: Bytes,
        trusted: &BTreeSet<MachineId>,
    ) -> Result<Bytes, CallRefused> {
        // A machine that was not admitted does not get as far as the decoder.
        let member = self.raft.metrics().borrow().membership_config.nodes().any(|(machine, _)| *machine == from);
        if !member && !trusted.contains(&from) {
            return Err(CallRefused::Stranger(from));
        }
        let request = Request::<R>::decode(body, from)?;
        let named = request.vote().leader_id.node_id;
        if named != from {
            return Err(CallRefused::Impostor { caller: from, named });
        }
        let response = match request {
            Request::Append(append) => {
                Response::Append(self.raft.append_entries(append).await.map_err(|_| CallRefused::Stopped)?)
            }
            Request::Ask(ask) => Response::Ask(self.raft.vote(ask).await.map_err(|_| CallRefused::Stopped)?),
            Request::Part(part) => self.take(from, part).await?,
        };
        Ok(response.encode(from))
    }

    async fn take(&self, from: MachineId, part: Part) -> Result<Response, CallRefused> {
        let vote = self.raft.with_raft_state(|state| *state.vote_ref()).await.map_err(|_| CallRefused::Stopped)?;
        if vote > part.vote {
            return Ok(Response::Part { vote, next: 0 });
        }
        let mut receiving = self.receiving.lock().await;
        let kept = receiving.take().filter(|kept| kept.from == from && kept.meta == part.meta);
        let mut kept = kept.unwrap_or_else(|| Receiving { from, meta: part.meta.clone(), data: BytesMut::new() });
        if part.offset == kept.data.len() {
            kept.data.extend_from_slice(&part.data);
        }
        let next = kept.data.len();
        if next < part.size {
            *receiving = Some(kept);
            return Ok(Response::Part { vote: part.vote, next });
        }
        // Read before it is installed: openraft stops over a snapshot that turns out to be unreadable.
        let data = kept.data.freeze();
        match Ledger::decode(&data, self.known) {
            Ok(ledger) if Some(ledger.revision()) == kept.meta.last_log_id.map(|last| Revision(last.index)) => {}
            Ok(_) => {
                return Err(
                    WireError::Field { field: "part.snapshot.last", rule: "is not the ledger's revision" }.into()
                );
            }
            // Raft stops over it here, as it must, and the machine is told why.
            Err(WireError::Level { .. }) => {}
            Err(why) => return Err(why.into()),
        }
        let (raft, store, vote) = (self.raft.clone(), self.store.clone(), part.vote);
        // A task of its own: the end must be told even if nobody waits for this call any more.
        let installing = R::spawn(async move {
            store.snapshot_coming(kept.meta.last_log_id);
            let snapshot = Snapshot { meta: kept.meta, snapshot: Box::new(data) };
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            store.snapshot_done();
            installed
        });
        let installed = installing.await.map_err(|_| CallRefused::Stopped)?;
        Ok(Response::of_install(&installed.map_err(|_| CallRefused::Stopped)?, part.size))
    }
}

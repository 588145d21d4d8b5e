//! The climb of the machine from whose data the cluster is rebuilt: etcd is begun anew from that, as a cluster of its own.

use super::{Context, Job, Ladder};
use crate::Step;
use crate::ledger::Member;
use crate::planted::planted;

impl Context<'_> {
    /// The epoch that was begun with this machine's data, if etcd has not come to it yet.
    pub(super) fn rebuilds(&self) -> Option<u32> {
        let epoch = self.ledger.epoch();
        let due = epoch.by == self.me && epoch.number > self.durable.rebuilt;
        // Where others have come to its etcd, that was rebuilt: the disk is an old copy.
        let alone = || !self.ledger.control_planes().any(|plane| plane != self.me && self.ledger.has_etcd(plane));
        (due && alone()).then_some(epoch.number)
    }

    /// The epoch that another machine began with a backup, if this machine's kubelet has not registered with that: its Node may be younger, and a kubelet
    /// says who it is when it starts, and then never again.
    pub(super) fn registers(&self) -> Option<u32> {
        let epoch = self.ledger.epoch();
        let restored = self.ledger.restored_from().is_some() && epoch.by != self.me;
        // etcd serves again when that machine has joined its own cluster.
        let serves = self.ledger.member(epoch.by).is_none_or(|by| by.joined);
        (restored && serves && !planted("unregistered") && epoch.number > self.durable.rebuilt).then_some(epoch.number)
    }
}

impl Ladder {
    /// Until it is done nothing else is: etcd has no quorum. It is tried for as long as it takes; what was there stays, and nothing is reset.
    pub(super) fn next_rebuilt(&mut self, context: &mut Context<'_>, epoch: u32, member: &Member) -> (Job, Step) {
        self.node_ready = false;
        let attempt = context.ledger.cluster_attempt().unwrap_or_default();
        let charter = hex::encode(context.ledger.charter());
        let token =
            if planted("one-etcd-token") { format!("{charter}-0") } else { format!("{charter}-{attempt}-{epoch}") };
        let step = Step::RebuildEtcd {
            epoch,
            name: member.admitted.name.clone(),
            address: member.admitted.address.clone(),
            token,
            lost: context
                .ledger
                .lost()
                .iter()
                .filter(|name| context.ledger.holder_of(name).is_none())
                .cloned()
                .collect(),
            backup: context.ledger.restored_from(),
        };
        (Job::RebuildEtcd { epoch }, step)
    }

    /// etcd is that of the epoch, or the kubelet has registered with it: it is written before anything is told of it.
    pub(super) fn rebuilt(&mut self, context: &mut Context<'_>, epoch: u32) {
        context.durable.rebuilt = epoch;
        context.effects.persist(context.durable).done();
    }
}

//! States that a sweep should reach at times. One that was never reached is unknown, not passed.

use std::collections::BTreeMap;

/// Every state, with what it means.
pub const SOMETIMES: &[(&str, &str)] = &[
    ("competing-proposals", "two machines proposed a charter at once"),
    ("refused-ballot", "a ballot was refused for a higher promise"),
    ("adopted-charter", "a proposer took over a charter that an earlier ballot had voted for"),
    ("vote-before-crash", "a machine stopped between its vote and the charter, and came back"),
    ("crash-at-write", "a machine stopped at a write"),
    ("votes-forgotten", "two charters were founded, since disks forgot the votes that would have kept the second away"),
    ("founding-halted", "founding halted for a reason that a person must mend"),
    ("charter-followed-late", "a machine that was away while the others founded followed their charter"),
    ("leader-changed", "the ledger got another leader"),
    ("split-vote", "a Raft term ended without a leader"),
    ("snapshot-installed", "a voter got the ledger as a Raft snapshot"),
    ("ledger-as-a-whole", "a follower got the ledger as a whole"),
    ("proposal-refused", "a ledger rule refused a proposal"),
    ("initialiser-replaced", "an attempt was abandoned and another one claimed"),
    ("init-finished-late", "kubeadm init came to its end after its attempt was abandoned"),
    ("late-finisher-reset", "such a machine reset itself"),
    ("step-failed", "a kubeadm step failed"),
    ("step-repeated", "a kubeadm step was run again"),
    ("joined-anew", "a machine that had joined lost what it had joined with, and joined anew"),
    ("etcd-founded-together", "several control planes began etcd together"),
    ("founder-late", "a founder came to etcd after the cluster was made"),
    ("founder-went-on", "a founder that stopped or failed went on with what was on its disk"),
    ("manifests-by-another", "another machine than the one that made the cluster applied manifests"),
    ("etcd-turn-given-up", "a turn at etcd ended without a member"),
    ("level-raised", "the ledger rose to another level"),
    ("stopped-beyond", "a machine stopped at what is of a higher level than it knows"),
    ("wish-done", "somebody was told that a wish is in the ledger"),
    ("wish-refused", "somebody was told why a wish is refused"),
    ("later-image-admitted", "a machine with a later image than the founding one was admitted"),
    ("disrupt-turn", "a turn to disrupt began or ended"),
    ("worker-promoted", "a worker was to be a control plane"),
    ("machine-dismissed", "a machine was wished away for good, and removed"),
    ("removal-held", "it was told what holds a removal up"),
    ("recovered", "a machine rebuilt the cluster from what it had"),
    ("recovered-without-the-last", "a cluster was rebuilt without an entry that only the lost ones had"),
    ("backed-up", "a backup of etcd was taken"),
    ("backup-copied", "a machine fetched a copy of a backup"),
    ("lost-comes-back", "a control plane that was given up by that came back with its disk"),
    ("reset-run", "a machine undid what kubeadm had done"),
    ("certificates-renewed", "a machine was given new certificates"),
    ("suspicion-refuted", "a machine held for dead was held for alive again"),
    ("kubelet-unheard", "a kubelet started although its machine said nothing"),
    ("clone-found", "a cloned disk was found"),
    ("peer-refused", "a machine refused another one"),
    ("frame-dropped", "a frame was lost"),
    ("frame-corrupt", "a frame did not decode"),
    ("start-refused", "a machine refused to start on its disk"),
    ("everyone-ready", "every machine was Ready"),
    ("partition-while-founding", "a partition was in force before there was a charter"),
    ("power-lost", "machines lost power"),
    ("wiped-member-removed", "the etcd member of a control plane whose disk was wiped was taken out of etcd"),
    ("came-back-after-ready", "a machine restarted after it was Ready"),
    ("joined-with-faults", "a machine joined while faults were under way"),
];

/// The names.
pub fn names() -> Vec<&'static str> {
    SOMETIMES.iter().map(|(name, _)| *name).collect()
}

/// How often each was reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sometimes(BTreeMap<&'static str, u64>);

impl Sometimes {
    /// It happened.
    pub fn reached(&mut self, name: &'static str) {
        debug_assert!(SOMETIMES.iter().any(|(known, _)| *known == name), "{name} is not listed");
        *self.0.entry(name).or_default() += 1;
    }

    /// How often.
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Those reached, with how often.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(name, count)| (*name, *count))
    }
}

//! The promises, as `docs/protocol.md` numbers them.

/// Number and meaning.
pub const PROMISES: [(&str, &str); 28] = [
    ("S1", "a cluster name and mesh key never get two charters"),
    ("S2", "a vote given while founding is never contradicted later, a restart included"),
    ("S3", "Raft's own: election safety, log matching, leader completeness, state machine safety"),
    ("S4", "at most one attempt's init is ever made the cluster; nobody joins an abandoned one"),
    ("S5", "join secrets are readable by their recipient alone"),
    ("S6", "a machine that was not admitted is in no quorum, holds no ticket and reads no ledger"),
    ("S7", "a machine never belongs to two clusters, and refuses a peer with another charter"),
    ("S8", "one machine at a time has a turn of each kind; at most one etcd member is being added"),
    ("S9", "an identity is never used again after its disk was wiped"),
    ("S10", "every queue, cache and message is bounded"),
    ("S11", "there are never more control planes than the image asks for, whoever proposes them"),
    ("S13", "etcd starts on an empty directory only where the ledger told this machine to found or to join"),
    ("S14", "what works is not taken down because something else failed"),
    ("S15", "a machine that nothing befell is never told to be a clone, a copy, wiped or a stranger"),
    ("S16", "no machine applies what is of a higher level than it knows, and the ledger rises to what all voters know"),
    ("S17", "what a person is told to be done is in the ledger"),
    (
        "S18",
        "nothing that works leaves the cluster but because the ledger says so, emptied first, and etcd keeps a majority",
    ),
    ("S19", "certificates that still serve are renewed in the machine's own turn to disrupt"),
    ("S20", "no etcd of a cluster that was given up starts again where somebody could say so"),
    (
        "S21",
        "a backup is where the ledger says it is, and nothing is taken down on purpose before one was taken, or tried in vain",
    ),
    ("L1", "one cluster, every admitted machine joined"),
    ("L2", "a new leader"),
    ("L3", "equal rosters"),
    ("L4", "a dead initialiser is replaced"),
    ("L5", "an idle cluster is quiet"),
    ("L6", "who is wished away leaves, and a dead control plane's seat is taken"),
    ("L7", "certificates are renewed before they end, and afterwards as well"),
    ("L8", "a backup comes to as many machines as the image says"),
];

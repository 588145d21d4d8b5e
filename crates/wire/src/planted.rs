//! Mistakes planted on purpose, one at a time, to show that the simulator finds them. They exist only with the feature
//! `planted-bugs`, which a build without debug assertions refuses; everywhere else [`planted`] is `false` at compile time.

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("planted bugs are for tests: a release build must not contain them");

/// Every mistake: its name, the promise that it breaks, and what it does.
#[cfg(feature = "planted-bugs")]
pub const PLANTED: &[(&str, &str, &str)] = &[
    ("promise-before-disk", "S2", "a promise is sent before it is on disk"),
    ("vote-before-disk", "S2", "a vote is sent before it is on disk"),
    ("vote-not-kept", "S2", "a vote is not written at all"),
    ("promise-broken", "S2", "a lower ballot is followed after a higher one was promised"),
    ("vote-untold", "S2", "an accepted value is forgotten in a promise"),
    ("promises-forgotten", "S2", "promises and votes are forgotten at a restart"),
    ("ballot-reused", "S2", "a restarted proposer uses its old ballot for another charter"),
    ("boot-uncounted", "S2", "a restart is not counted on disk"),
    ("quorum-off-by-one", "S1", "the first phase asks one machine too few"),
    ("ballot-outlives-halt", "S1", "a ballot goes on although founding halts at its proposer"),
    ("value-ignored", "S1", "a proposer proposes its own charter whatever was accepted before"),
    ("lowest-value", "S1", "a proposer takes over the value of the lowest ballot"),
    ("certificate-of-fewer", "S1", "one vote too few makes a certificate"),
    ("signature-unchecked", "S2", "signatures on cards and votes are not checked"),
    ("seen-forgotten", "S1", "a machine that refuses the charter of another image founds when it is out of sight"),
    ("seen-lost-on-disk", "S1", "a restarted machine has forgotten the charter of another image"),
    ("founder-founds-again", "S13", "a founder that stopped half-way is reset, and begins etcd once more"),
    ("founder-unrecorded", "S13", "a founder starts etcd before the ledger has it"),
    ("one-etcd-token", "S13", "etcd of every attempt is begun with the same token"),
    ("kubelet-unguarded", "S13", "a kubelet starts etcd on an empty directory although it has run there"),
    ("left-untold", "L1", "a machine that lost what it had joined with asks for no new ticket"),
    ("etcd-list-shrinks", "S13", "who founds late is told of those alone that are founders still"),
    ("etcd-list-uploaded", "S13", "with whom etcd began goes into what later members are given"),
    ("seats-uncounted", "S11", "the ledger takes more control planes than the image asks for"),
    ("ready-of-abandoned", "S4", "InitReady of an abandoned attempt is accepted"),
    ("claim-while-live", "S4", "init is claimed while another attempt is live"),
    ("claim-repeated", "S4", "a claim's number is not compared with the last one"),
    ("tickets-outlive-attempt", "S4", "an abandoned attempt leaves its tickets valid"),
    ("start-unmarked", "S4", "kubeadm starts before the disk says so"),
    ("init-resumed", "S4", "an init that was cut short is begun again without a reset"),
    ("api-too-early", "S4", "the initialiser's API server is offered before its init is committed"),
    ("abandoned-not-reset", "L1", "a machine whose attempt was abandoned does not reset itself"),
    ("wrong-recipient", "S5", "a ticket is sealed to the leader's key in place of its machine's"),
    ("secret-in-clear", "S5", "what is sealed carries the secret in the clear as well"),
    ("voter-as-worker", "S6", "a voter of the charter is admitted as a worker"),
    ("removed-still-votes", "S6", "a removed machine stays a voter of Raft"),
    ("ledger-for-strangers", "S6", "whoever asks is told the ledger"),
    ("foreign-charter-borne", "S7", "a peer with another charter is not refused"),
    ("two-etcd-turns", "S8", "a turn at etcd begins while another one is under way"),
    ("etcd-turn-unwaited", "S8", "any machine may add its etcd member without a turn of its own"),
    ("etcd-turn-cut", "S8", "the turn of a machine that looks dead is given on at once"),
    ("stray-stays", "L1", "who joins etcd leaves a member there that was added and left behind"),
    (
        "later-voters-wait",
        "L2",
        "a voter that is none by the charter waits after a restart until another one tells it that it votes",
    ),
    ("later-epoch-ignored", "L1", "who was given up when the cluster was rebuilt goes on as if nothing had been"),
    ("survey-unheard", "S3", "a control plane rebuilds the cluster without what others know of the ledger"),
    ("old-turn-used", "S8", "a restarted machine uses the turn that its earlier start asked for"),
    ("token-unregistered", "L1", "a machine whose ticket overtook InitReady is never given its token"),
    ("learner-stays", "S6", "a machine that was removed before it voted goes on being told Raft's log"),
    ("etcd-turn-repeated", "S8", "a turn's number is not compared with the last one"),
    ("snapshot-loses-turns", "S8", "the whole ledger leaves out how many etcd turns there were"),
    ("snapshot-loses-removed", "S9", "the whole ledger leaves out who was removed"),
    ("entry-skipped", "S3", "a follower leaves out an entry in its news"),
    ("raft-vote-unsynced", "S3", "Raft's vote is not synced"),
    ("raft-log-unsynced", "S3", "Raft's records are not synced"),
    ("raft-purges-too-much", "S3", "the log loses a record that the snapshot does not hold"),
    ("raft-begun-alone", "S3", "every voter begins Raft with itself alone"),
    ("calls-begin-anew", "S3", "a restarted machine takes the answer to a question of its earlier start"),
    ("entry-untold", "S3", "a voter does not learn of some entries that its Raft applied"),
    ("roster-of-all", "L3", "whoever was ever known is held for alive"),
    ("greeting-unanswered", "L3", "a greeting that comes again is not answered"),
    ("founders-alone-asked", "L1", "a newcomer asks for the ledger nobody but the founders, who were all replaced"),
    ("vote-taken-early", "L2", "who is to leave loses its vote as soon as that is wished"),
    ("ended-turn-used", "L8", "a turn to disrupt is used after its end was asked for"),
    ("strike-forgotten", "L8", "who comes back while it is taken out stays a member that etcd does not have"),
    ("cards-uncompared", "L1", "whoever gossip missed hears of no change of a card"),
    ("life-untold", "L3", "who writes to an earlier life of a machine is not told of the present one"),
    (
        "greetings-gossiped",
        "L5",
        "cards that come with greetings are passed on, to a large site that has long had them",
    ),
    ("clone-gossips", "S10", "two machines of one identity outbid each other's lives"),
    ("claims-unpaused", "S10", "init is claimed again at once, however often it failed"),
    ("retry-at-once", "S10", "a failed step is tried again at once, without end"),
    ("etcd-outside-turn", "S8", "a join adds the etcd member before its turn"),
    ("member-left-in-etcd", "S8", "a wiped control plane is removed while etcd still has its member"),
    ("etcd-strikes-another", "S8", "a machine that leaves etcd has another member struck off"),
    ("reset-keeps-member", "L1", "a machine is wiped before etcd has struck its member off"),
    ("turn-for-worker", "S8", "a worker is given a turn at etcd"),
    ("claim-after-ready", "S4", "init is claimed again after the cluster was made"),
    ("second-ca", "S4", "another CA than the first is sealed"),
    ("abandoned-unbounded", "S10", "every abandoned attempt is kept with its reason"),
    ("snapshot-loses-claim", "S4", "the whole ledger leaves out who may run init"),
    ("snapshot-loses-tickets", "S3", "the whole ledger leaves out the tickets"),
    ("snapshot-not-taken", "S3", "a voter keeps its old ledger when it is sent a snapshot"),
    ("snapshot-untold", "S3", "a machine does not learn of the snapshot that its Raft took"),
    ("floor-forgotten", "S3", "a voter tells entries as if it had those before its snapshot"),
    ("other-image-followed", "S7", "a machine follows a charter of another image"),
    ("other-cluster-greeted", "S7", "a machine of another cluster is not refused"),
    ("join-document-left", "S5", "a document with the token stays when the join is done"),
    ("token-in-environment", "S5", "a token is handed to kubeadm in its environment"),
    ("promise-lost-on-disk", "S2", "what is written to disk leaves out the promise"),
    ("turn-forgotten", "S8", "a machine whose disk is an old copy gives up a turn at etcd that it knows nothing of"),
    ("given-up-as-done", "S8", "a turn at etcd that was given up is told as done"),
    ("finish-before-ready", "S4", "an initialiser goes on before its init is committed"),
    ("turn-given-up-early", "S8", "a turn at etcd is given up before its member is struck off"),
    ("clone-keeps-raft", "S9", "a machine that knows that it runs twice goes on voting in Raft"),
    ("token-without-end", "S5", "tokens are made that never end"),
    ("clone-unnoticed", "S9", "a machine that meets itself does not remember it"),
    ("restless", "L5", "an idle cluster gossips as if it were forming"),
    ("initialiser-awaited", "L4", "a dead initialiser is never replaced"),
    ("poll-overtaken", "L1", "a poll that comes late takes the place of a later one"),
    ("last-step-resets", "S14", "a last wait that fails has a machine reset whose etcd member votes"),
    ("joined-begins-anew", "S14", "a machine that restarts after it joined etcd is reset"),
    ("later-promise-unwritten", "S2", "a promise of a later round than the first is not written"),
    ("restart-taken-for-clone", "S15", "a machine that started again is held for a clone"),
    ("hardware-half-compared", "S15", "a part of the hardware's mark is taken for all of it"),
    ("admitted-told-stranger", "S15", "a machine whose poll was held for long is told that it is not admitted"),
    ("addresses-half-compared", "S15", "addresses of one network are taken for one address"),
    ("ours-refused", "S15", "whoever passes on the charter of another image is refused as if it were of that image"),
    ("log-begun-anew", "S9", "a voter whose log is gone begins another one"),
    ("snapshot-in-two", "S3", "a snapshot's description is written before the snapshot"),
    ("failed-join-unmarked", "S4", "a join that failed leaves no mark, as if it had left nothing else"),
    ("failed-reset-done", "S4", "a reset that failed half-way is taken for done"),
    (
        "turn-patience-halved",
        "S8",
        "the turn of a silent machine is ended when its own time is over, not twice as late",
    ),
    ("silences-added-up", "S15", "a second silence is counted from the beginning of the first"),
    ("strangers-gossip", "L5", "machines of another image have a part in the gossip of those who refuse them"),
    ("other-image-endured", "L5", "machines of another image stay connected, and gossip"),
    ("seat-left-empty", "L1", "one control plane fewer is admitted than the image asks for"),
    ("even-voters", "L1", "Raft's voters become an even number"),
    ("plane-joins-as-worker", "S11", "a control plane joins as a worker"),
    ("worker-runs-raft", "S6", "a worker runs Raft"),
    ("leader-speaks-for-others", "S6", "the leader says of others that they have joined"),
    ("level-raised-at-once", "S16", "the level rises past a control plane that is admitted in the same moment"),
    ("level-raised-early", "S16", "the ledger rises though one of its voters does not know the level"),
    ("unknown-entry-skipped", "S16", "an entry of a higher level than the machine knows is skipped"),
    ("removal-undrained", "S18", "a machine that lives is taken out without being drained"),
    ("removal-costs-quorum", "S18", "a machine is removed though the control planes that stay are no majority"),
    ("stale-turn-used", "S19", "a turn to disrupt that an earlier start asked for is used again"),
    ("everybody-tells", "S10", "each control plane that ever failed to remove a machine tells why for ever"),
    ("alone-asks-nobody", "L3", "two machines that hold each other for dead ask each other no more"),
    ("successors-refused", "L6", "a voter that was away answers no Raft but of those that voted before"),
    ("removed-asks-nobody", "L6", "a voter that was removed while it was away never hears of it"),
    ("promotion-unreset", "L6", "a worker that was promoted stays what it was"),
    ("repair-impatient", "S18", "a control plane that was just lost is given up at once"),
    ("dismissed-returns", "S18", "a machine that was wished away for good comes back"),
    ("overdue-unrenewed", "L7", "certificates that are good no more are left as they are"),
    ("renewed-outside-turn", "S19", "certificates that still serve are renewed in nobody's turn"),
    (
        "old-kubelet-started",
        "S20",
        "a kubelet starts etcd before anybody was met who may know that the cluster was rebuilt",
    ),
    ("disrupts-without-backup", "S21", "something is taken down on purpose before a backup was taken"),
    ("backup-kept-unread", "S21", "a machine says that it keeps a backup which is not on its disk"),
    ("backup-of-the-removed", "S21", "a backup is counted as kept by a machine that was removed"),
    ("unregistered", "L8", "a machine whose Node is not in the backup that etcd was restored from leaves it so"),
    ("polls-stop", "L1", "a follower whose poll was lost never asks again"),
];

#[cfg(feature = "planted-bugs")]
thread_local! {
    static ON: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Makes this mistake, and no other, on this thread from now on.
#[cfg(feature = "planted-bugs")]
pub fn plant(name: Option<&'static str>) {
    ON.set(name);
}

/// Whether this mistake is to be made.
#[cfg(feature = "planted-bugs")]
pub fn planted(name: &'static str) -> bool {
    debug_assert!(PLANTED.iter().any(|(known, ..)| *known == name), "{name} is not listed");
    ON.get() == Some(name)
}

/// Whether this mistake is to be made: none is in this build.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn planted(_: &'static str) -> bool {
    false
}

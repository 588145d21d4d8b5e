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
    ("quorum-off-by-one", "S1", "the first phase asks one machine too few"),
    ("value-ignored", "S1", "a proposer proposes its own charter whatever was accepted before"),
    ("lowest-value", "S1", "a proposer takes over the value of the lowest ballot"),
    ("ready-of-abandoned", "S4", "InitReady of an abandoned attempt is accepted"),
    ("claim-while-live", "S4", "init is claimed while another attempt is live"),
    ("abandoned-not-reset", "L1", "a machine whose attempt was abandoned does not reset itself"),
    ("wrong-recipient", "S5", "a ticket is sealed to the leader's key in place of its machine's"),
    ("ledger-for-strangers", "S6", "whoever asks is told the ledger"),
    ("foreign-charter-borne", "S7", "a peer with another charter is not refused"),
    ("two-etcd-turns", "S8", "a turn at etcd begins while another one is under way"),
    ("etcd-turn-unwaited", "S8", "any machine may add its etcd member without a turn of its own"),
    ("removed-returns", "S9", "a removed identity is admitted again"),
    ("entry-skipped", "S3", "a follower leaves out an entry in its news"),
    ("roster-of-all", "L3", "whoever was ever known is held for alive"),
    ("greeting-unanswered", "L3", "a greeting that comes again is not answered"),
    ("restless", "L5", "an idle cluster gossips as if it were forming"),
    ("initialiser-awaited", "L4", "a dead initialiser is never replaced"),
    ("poll-held-for-ever", "S10", "a held poll is mixed up with a later one, and time stops"),
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

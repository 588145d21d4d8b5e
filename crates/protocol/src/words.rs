//! What people are told, as types: programs go by these, and never by a sentence.

pub mod away;
pub mod drops;
pub mod notices;
pub mod reasons;
pub(crate) mod waits;
